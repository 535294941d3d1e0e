"""Inner products of a run stand for its tensors: they give the weights and errors of every jump."""

import numpy as np
import pytest

from generators.schedule import FlowGrid
from optimize.trajectory import Gram, fit, inner_products, jump_errors, shallow_errors, weigh_kept

SHAPE = (1, 4, 6, 12, 8)


def run_of(steps, seed, shape=SHAPE, guidance=1.5):
    """Latents, conditional and delta of an Euler run in float32, whose predictions change little a step."""
    grid, rng = FlowGrid(steps, shift=3.0), np.random.default_rng(seed)
    x, clean, *bends = rng.standard_normal((6, *shape)).astype(np.float32)
    latents, conditional, delta = [x], [], []
    for step in range(steps):
        t = grid.times[step]
        c = x - clean + 0.1 * np.sin(3 * t) * bends[0] + 0.02 * np.cos(9 * t) * bends[1]
        d = (0.2 + t) * bends[2] + 0.01 * np.sin(5 * t) * bends[3]
        x = grid.advance(x, c + (guidance - 1) * d, step)
        latents.append(x)
        conditional.append(c)
        delta.append(d)
    return latents, conditional, delta


def direct(target, basis):
    """Weights and mean square error by least squares on the tensors themselves, in float64."""
    columns = np.stack([np.ravel(each) for each in basis], 1).astype(np.float64)
    wanted = np.ravel(target).astype(np.float64)
    weights = np.linalg.lstsq(columns, wanted, rcond=None)[0]
    return weights, np.mean((wanted - columns @ weights) ** 2)


def test_inner_products_are_means_over_elements_whatever_the_length_of_chunks():
    tensors = np.random.default_rng(0).standard_normal((3, 7, 50, 101)).astype(np.float32)
    wanted = np.einsum("aijk,bijk->ab", *[tensors.astype(np.float64)] * 2) / (7 * 50 * 101)
    np.testing.assert_allclose(inner_products(tensors), wanted, rtol=1e-12)


def test_inner_products_of_float32_are_summed_in_float64():
    half = 1 + np.float32(2**-12)  # its square needs more bits than float32 has
    assert inner_products([np.full(50_000, half)])[0, 0] == pytest.approx(float(half) ** 2, rel=1e-13)


def test_fits_equal_least_squares_on_the_tensors_of_a_real_size():
    run = run_of(6, 0, (1, 16, 40, 24, 16))  # as large as the presenter's 40 frames
    x, c, d = run
    gram = Gram.of(*run)
    for i, k, m, j in [(1, 0, 1, 3), (4, 3, 4, 6), (4, 1, 0, 5), (5, 4, 3, 6), (2, 1, 0, 6)]:
        weights, error = gram.fit(gram.latents(j), gram.basis(i, k, m))
        wanted, least = direct(x[j], (x[i], c[i], d[m], c[k]))
        assert error == pytest.approx(least, rel=1e-4, abs=1e-13)
        np.testing.assert_allclose(weights, wanted, rtol=1e-3, atol=1e-5)


def test_nearly_equal_predictions_still_give_the_least_error():
    rng = np.random.default_rng(1)
    x, c, d, bend, off = rng.standard_normal((5, 40_000)).astype(np.float32)
    near = c + np.float32(1e-3) * bend  # a millionth of its power differs
    target = x - 0.3 * c + 2 * (near - c) + 0.01 * off
    basis = (x, c, d, near)
    _, error = fit(inner_products([target, *basis]), 0, [1, 2, 3, 4])
    assert error == pytest.approx(direct(target, basis)[1], rel=1e-6)


def test_weights_do_not_hang_on_the_units_of_a_tensor():
    tensors = list(np.random.default_rng(2).standard_normal((4, 5000)))
    weights, error = fit(inner_products(tensors), 0, [1, 2, 3])
    tensors[2] *= 1e-3  # as predictions beside latents of a thousand sigmas
    scaled, same = fit(inner_products(tensors), 0, [1, 2, 3])
    np.testing.assert_allclose(scaled, weights * [1, 1e3, 1], rtol=1e-7)
    assert same == pytest.approx(error, rel=1e-9)


def test_eulers_own_next_step_is_found_exactly():
    gram = Gram.of(*run_of(8, 3))
    times = FlowGrid(8, shift=3.0).times
    for step in range(1, 8):
        weights, error = gram.fit(gram.latents(step + 1), gram.basis(step, step - 1, step))
        away = times[step + 1] - times[step]
        np.testing.assert_allclose(weights, [1, away, 0.5 * away, 0], atol=1e-4)
        assert 0 <= error < 1e-12


def test_errors_are_never_negative():
    x = np.float32(1e3) * np.random.default_rng(4).standard_normal((2, 999)).astype(np.float32)
    for target in (x[0], 3 * x[0], x[0] + x[1], 0 * x[0]):
        assert fit(inner_products([target, *x]), 0, [1, 2])[1] >= 0
    full, conditional = jump_errors(Gram.of(*run_of(7, 5)))
    assert full.min() >= 0 and conditional.min() >= 0


def test_tensors_that_repeat_each_other_or_are_zero_can_be_a_basis():
    x = np.random.default_rng(6).standard_normal(500)
    products = inner_products([2 * x, x, x, 0 * x])
    weights, error = fit(products, 0, [1, 2, 3])
    assert weights[:2].sum() == pytest.approx(2) and weights[2] == 0 and error == pytest.approx(0, abs=1e-9)


def test_a_table_holds_the_error_of_every_jump_that_can_be_and_inf_elsewhere():
    steps = 5
    x, c, d = run = run_of(steps, 7)
    full, conditional = jump_errors(Gram.of(*run))
    assert full.shape == (steps, steps, steps + 1) and conditional.shape == (steps, steps, steps, steps + 1)
    for i, k, m, j in np.ndindex(conditional.shape):
        can_be = m <= k < i < j
        assert np.isfinite(conditional[i, k, m, j]) == can_be
        if can_be:
            wanted = direct(x[j], (x[i], c[i], d[m], c[k]))[1]
            assert conditional[i, k, m, j] == pytest.approx(wanted, rel=1e-3, abs=1e-12)
    for i, k, j in np.ndindex(full.shape):
        can_be = (k < i or i == k == 0) and i < j
        assert np.isfinite(full[i, k, j]) == can_be
        if can_be:
            basis = (x[i], c[i], d[i], c[k]) if i else (x[0], c[0], d[0])
            assert full[i, k, j] == pytest.approx(direct(x[j], basis)[1], rel=1e-3, abs=1e-12)


def test_what_a_kept_delta_adds_is_weighed_and_never_below_nothing():
    full, conditional = jump_errors(Gram.of(*run_of(5, 15)))
    conditional[3, 2, 1, 5] = full[3, 2, 5] + 0.5
    conditional[3, 2, 0, 5] = full[3, 2, 5] / 2  # less than with its own delta
    weighed = weigh_kept(full, conditional, 8)
    assert weighed[3, 2, 1, 5] == pytest.approx(full[3, 2, 5] + 9 * 0.5)
    assert weighed[3, 2, 0, 5] == conditional[3, 2, 0, 5]
    np.testing.assert_array_equal(np.isinf(weighed), np.isinf(conditional))
    np.testing.assert_array_equal(weigh_kept(full, conditional, 0), conditional)


def test_a_clip_of_another_length_counts_as_much():
    short, long = run_of(4, 8), run_of(4, 9, (1, 4, 30, 12, 8))
    both = Gram.of(*short) + Gram.of(*long)
    basis = both.basis(2, 1, 0)
    weights, error = both.fit(both.latents(4), basis)
    errors = []
    for x, c, d in (short, long):
        made = sum(w * part for w, part in zip(weights, (x[2], c[2], d[0], c[1]), strict=True))
        errors.append(np.mean((made - x[4]) ** 2))
    assert both.videos == 2 and error == pytest.approx(np.mean(errors), rel=1e-4)
    twice = Gram.of(*short) + Gram.of(*short)
    np.testing.assert_allclose(jump_errors(twice)[0], jump_errors(Gram.of(*short))[0], rtol=1e-9)


def test_more_to_sum_up_never_makes_a_jump_worse():
    gram = Gram.of(*run_of(6, 10))
    rows = gram.basis(3, 1, 3)
    errors = [gram.fit(gram.latents(6), rows[:count])[1] for count in (1, 2, 3, 4)]
    assert errors == sorted(errors, reverse=True) and errors[0] > errors[-1]


def test_a_gram_comes_back_from_its_file(tmp_path):
    gram = Gram.of(*run_of(3, 11)) + Gram.of(*run_of(3, 12))
    gram.save(tmp_path / "gram")  # the name is kept as it is given
    back = Gram.load(tmp_path / "gram")
    np.testing.assert_array_equal(back.products, gram.products)
    assert back.videos == 2 and back.steps == 3


def test_a_file_that_is_another_or_damaged_is_refused(tmp_path):
    path = tmp_path / "gram.npz"
    Gram.of(*run_of(3, 13)).save(path)
    whole = path.read_bytes()
    for wrong in (b"", b"text", whole[:-40], whole[:300] + b"\0\0\0\0" + whole[304:]):
        path.write_bytes(wrong)
        with pytest.raises(ValueError, match=r"gram\.npz: holds no inner products .* capture them again"):
            Gram.load(path)
    for content in ({"products": np.eye(4)}, {"products": np.eye(5), "videos": 1},
                    {"products": np.array([None] * 4), "videos": 1}, {"products": np.eye(4), "videos": 0}):
        np.savez(path, **content)
        with pytest.raises(ValueError, match="holds no inner products"):
            Gram.load(path)
    with path.open("wb") as file:
        np.save(file, np.eye(4))
    with pytest.raises(ValueError, match="holds no inner products"):
        Gram.load(path)
    with pytest.raises(FileNotFoundError):
        Gram.load(tmp_path / "none.npz")


def test_wrong_counts_shapes_and_numbers_are_named():
    x, c, d = run_of(3, 14)
    with pytest.raises(ValueError, match=r"N \+ 1 latents.*got \(3, 3, 3\)"):
        Gram.of(x[:-1], c, d)
    with pytest.raises(ValueError, match="one shape"):
        Gram.of(x, c, [*d[:-1], d[-1][..., 1:]])
    with pytest.raises(ValueError, match="one shape and not empty"):
        inner_products([np.zeros((0, 3))])
    for bad in (np.nan, np.inf):
        with pytest.raises(ValueError, match="a tensor has .* not finite.* see what the run did"):
            Gram.of([*x[:-1], np.full_like(x[-1], bad)], c, d)
    with pytest.raises(ValueError, match="3 and 2 steps, with 0 and 0 shallow ones; capture them alike"):
        Gram.of(x, c, d) + Gram.of(x[:-1], c[:-1], d[:-1])


def test_shallow_steps_that_predict_what_full_ones_do_have_their_errors_and_others_larger_ones(tmp_path):
    latents, conditional, delta = run_of(5, 21)
    noise = np.random.default_rng(3).standard_normal((2, *SHAPE)).astype(np.float32)
    pairs = [(1, 0), (3, 1), (3, 2)]
    exact = Gram.of(latents, conditional, delta, {(i, m): (conditional[i], delta[i]) for i, m in pairs})
    full, _ = jump_errors(exact)
    found = shallow_errors(exact)
    np.testing.assert_array_equal(full, jump_errors(Gram.of(latents, conditional, delta))[0])
    np.testing.assert_allclose(found[1, 0, 0, 2:], full[1, 0, 2:], rtol=1e-6)
    for k in (1, 2):
        np.testing.assert_allclose(found[3, k, 1, 4:], full[3, k, 4:], rtol=1e-6)
    assert np.isfinite(found).sum() == 4 + 2 * 2 + 2  # (1, 0) to 2..5; (3, 1) by k = 1, 2; (3, 2) by k = 2
    off = {(i, m): (conditional[i] + noise[0], delta[i] + noise[1]) for i, m in pairs}
    inexact = shallow_errors(Gram.of(latents, conditional, delta, off))
    assert (inexact[np.isfinite(found)] > 2 * found[np.isfinite(found)]).all()
    both = exact + exact
    both.save(tmp_path / "gram")
    assert Gram.load(tmp_path / "gram").shallow == tuple(pairs) and both.steps == 5
    with pytest.raises(ValueError, match="with 3 and 0 shallow ones; capture them alike"):
        exact + Gram.of(latents, conditional, delta)
