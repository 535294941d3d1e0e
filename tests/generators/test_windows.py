"""Windows cover a clip, stay full, and blend without a trace."""

import numpy as np
import pytest

from generators.windows import Blend, ContinuationWindows, OverlapWindows, frame_slice

SIZES = [(16, 4), (16, 0), (16, 15), (5, 2), (1, 0), (81, 20)]
RULES = [OverlapWindows(length, overlap) for length, overlap in SIZES]
LENGTHS = {rule: range(rule.length, 301) for rule in RULES}


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_every_frame_of_every_length_is_covered_by_full_windows(rule):
    for frames in LENGTHS[rule]:
        starts = rule.starts(frames)
        seen = {frame for start in starts for frame in range(start, start + rule.length)}
        assert seen == set(range(frames))  # nothing left out, nothing past the end
        assert starts == sorted(set(starts))


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_neighbouring_windows_share_the_overlap_and_the_last_is_moved_back(rule):
    for frames in LENGTHS[rule]:
        starts = rule.starts(frames)
        steps = np.diff(starts)
        assert starts[0] == 0 and starts[-1] == frames - rule.length
        assert (steps[:-1] == rule.length - rule.overlap).all()
        assert all(0 < step <= rule.length - rule.overlap for step in steps[-1:])


def test_starts_of_known_lengths():
    rule = OverlapWindows(16, 4)
    assert rule.starts(16) == [0]
    assert rule.starts(17) == [0, 1]
    assert rule.starts(28) == [0, 12]
    assert rule.starts(40) == [0, 12, 24]
    assert rule.starts(41) == [0, 12, 24, 25]


@pytest.mark.parametrize("axis", [0, 2])
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_equal_predictions_blend_to_themselves(rule, axis):
    for frames in (rule.length, rule.length + 1, 2 * rule.length + 3, 200):
        shape = [2, 3, 4]
        shape[axis] = frames
        truth = np.random.default_rng(frames).standard_normal(shape).astype(np.float32)
        blend = Blend(rule, truth, axis)
        for place in rule.window_indices(frames):
            blend.add(place, truth.take(place, axis))
        assert blend.result().dtype == np.float32
        np.testing.assert_allclose(blend.result(), truth, rtol=0, atol=2e-6)  # float32 rounding of the mean


def test_one_window_is_given_back_without_rounding():
    rule, truth = OverlapWindows(16, 0), np.random.default_rng(0).standard_normal((16, 3)).astype(np.float32)
    blend = Blend(rule, truth, 0)
    blend.add(np.arange(16), truth)
    np.testing.assert_array_equal(blend.result(), truth)


def test_an_overlap_fades_from_one_window_to_the_next():
    rule = OverlapWindows(4, 2)
    blend = Blend(rule, np.zeros((6, 1), np.float32), 0)
    blend.add(np.arange(4), np.zeros((4, 1), np.float32))
    blend.add(np.arange(2, 6), np.ones((4, 1), np.float32))
    np.testing.assert_allclose(blend.result()[:, 0], [0, 0, 1 / 3, 2 / 3, 1, 1], rtol=1e-6)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_weights_are_positive_symmetric_and_flat_between_the_overlaps(rule):
    weights = rule.weights(rule.length)
    assert weights.dtype == np.float32 and weights.shape == (rule.length,)
    assert weights.min() > 0
    np.testing.assert_array_equal(weights, weights[::-1])
    assert (weights[rule.overlap:rule.length - rule.overlap] == 1).all()


def test_cut_takes_frames_along_one_axis_only():
    array = np.arange(24).reshape(2, 4, 3)
    np.testing.assert_array_equal(array[frame_slice(3, 1, 1, 2)], array[:, 1:3])


def test_a_clip_shorter_than_a_window_must_be_padded_first():
    rule = OverlapWindows(16, 4)
    with pytest.raises(ValueError, match="15 frames do not fill a window of 16; pad them first"):
        rule.starts(15)
    assert [rule.padded(frames) for frames in (1, 15, 16, 17, 300)] == [16, 16, 16, 17, 300]


def test_a_clip_without_frames_is_refused():
    with pytest.raises(ValueError, match="at least one frame, got 0"):
        OverlapWindows(16, 4).count(0)


@pytest.mark.parametrize(("length", "overlap"), [(4, 4), (4, 5), (4, -1), (0, 0)])
def test_an_overlap_that_leaves_no_stride_is_refused(length, overlap):
    with pytest.raises(ValueError, match=f"0 <= overlap < length, got overlap {overlap} of {length}"):
        OverlapWindows(length, overlap)


@pytest.mark.parametrize("frames", [1, 2, 5, 6, 81, 82, 84, 85, 161, 300])
def test_frames_that_share_a_latent_count_as_one_and_the_first_has_its_own(frames):
    rule = OverlapWindows(21, 4, group=4)
    own = 1 + -(-(frames - 1) // 4)
    assert rule.latent_frames(frames) == own and rule.frames == 81
    assert rule.condition_indices(frames).tolist() == [min(i, own - 1) for i in range(max(own, 21))]
    assert rule.count(frames) == len(rule.window_indices(frames)) == len(rule.starts(max(own, 21)))


@pytest.mark.parametrize("keep", [1, 5])
@pytest.mark.parametrize("frames", [1, 5, 6, 76, 77, 78, 153, 154, 1000])
def test_windows_that_follow_on_one_another_cover_a_clip_and_no_window_is_in_vain(frames, keep):
    rule = ContinuationWindows(21, keep, group=4, extra=1)
    count, fresh = rule.count(frames), 77 - keep
    assert rule.frames == 77 and count * fresh + keep >= frames
    assert count == 1 or (count - 1) * fresh + keep < frames
    assert rule.latent_frames(frames) == 21 * count and (rule.weights(21) == 1).all()
    places = rule.window_indices(frames)
    assert len(places) == count and np.concatenate(places).tolist() == rule.condition_indices(frames).tolist()


@pytest.mark.parametrize(("length", "keep"), [(3, 0), (3, 9), (3, -1)])
def test_a_window_that_takes_over_nothing_or_all_is_refused(length, keep):
    with pytest.raises(ValueError, match=f"0 < keep < frames, got keep {keep} of 9"):
        ContinuationWindows(length, keep, group=4)


def test_a_clip_without_frames_has_no_windows_to_follow_on_one_another():
    with pytest.raises(ValueError, match="at least one frame, got 0"):
        ContinuationWindows(21, 1).count(0)
