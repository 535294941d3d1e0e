"""Interleaved runs: whose turn it is, what is told of it, and the ratio of two of them."""

from bench.interleave import interleave, median_ratio


def test_rotation_begins_each_round_with_the_next_and_comes_round():
    runs, begun = {name: name.upper for name in "abc"}, []
    found = list(interleave(runs, 4, lambda name, number: begun.append((name, number))))
    assert "".join(name for name, _, _ in found) == "abcbcacababc"
    assert begun == [(name, number) for name, number, _ in found]
    assert all(made == name.upper() for name, _, made in found) and found[-1][1] == 4
    assert list(interleave({}, 3)) == []


def test_the_ratio_is_the_median_of_rounds_not_of_their_sums():
    assert median_ratio([1, 10, 3], [1, 2, 1]) == 3
