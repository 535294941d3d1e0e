"""Goals: what passes, what is said of what does not, and the tolerance bound's published factors."""

import math

import numpy as np
import pytest

from bench.checks import LIMITS, largest_share
from bench.quality_goal import PLACE_CONFIDENCE, PLACE_COVERAGE, Goal, Judged, tolerance_factor


def videos(*similarities, psnr=40.0):
    return [Judged(f"v{i}", value, psnr) for i, value in enumerate(similarities)]


@pytest.mark.parametrize(("count", "coverage", "confidence", "k"), [
    (5, 0.9, 0.9, 2.742), (5, 0.95, 0.9, 3.400), (5, 0.9, 0.95, 3.407), (10, 0.9, 0.9, 2.065),
    (3, 0.9, 0.9, 4.258), (2, 0.9, 0.9, 10.253), (50, 0.9, 0.95, 1.646)])
def test_tolerance_factors_are_the_published_ones(count, coverage, confidence, k):
    """Lieberman (1958), Natrella's Handbook 91, table A-7."""
    assert tolerance_factor(count, coverage, confidence) == pytest.approx(k, abs=0.004)


def test_what_fails_is_said_of_each_video():
    goal = Goal(0.97, 35)
    found = [Judged("a", 0.96, 36), Judged("b", 0.99, 34.96), Judged("c", None, 40),
             Judged("d", 0.99, math.nan, ("temporal_error 3, needs <= 2",))]
    assert goal.why_not(found) == [
        "a: similarity 0.9600, needs 0.97", "b: PSNR 35.0 dB, needs 35", "c: similarity was not evaluated",
        "d: PSNR nan dB, needs 35", "d: temporal_error 3, needs <= 2"]
    assert goal.why_not([Judged("a", 0.97, 35)]) == []


def test_videos_that_pass_but_scatter_are_not_accepted():
    goal = Goal(0.97)
    assert goal.accepts(videos(0.990, 0.991, 0.992, 0.990, 0.991))
    scattered = videos(0.999, 0.972, 0.995, 0.9999, 0.98)
    assert goal.why_not(scattered) == [] and not goal.accepts(scattered)
    assert goal.margin(scattered) < 0


def test_the_bound_is_the_mean_and_k_deviations_of_the_angle():
    angles = [0.05, 0.1, 0.075, 0.09, 0.06]
    found = videos(*map(math.cos, angles))
    mean, deviation = 0.075, math.sqrt(sum((v - 0.075) ** 2 for v in angles) / 4)
    expected = (math.acos(0.97) - mean) / deviation - tolerance_factor(5)
    assert Goal(0.97).margin(found) == pytest.approx(expected, rel=1e-6)


def test_a_video_that_is_better_than_the_others_does_no_harm():
    assert Goal(0.97).accepts(videos(0.9931, 0.9988, 0.9978, 0.9968, 0.9996))


def test_psnr_bounds_too_where_it_is_asked_for():
    found = [Judged(f"v{i}", 0.999, 36 + i) for i in range(5)]
    assert Goal(0.97).accepts(found) and not Goal(0.97, 35.9).accepts(found)
    assert Goal(0.97, 30).accepts(found)


def test_equal_videos_are_accepted_without_a_deviation():
    assert Goal(0.97).margin(videos(1.0, 1.0)) == math.inf
    assert Goal(0.97).accepts(videos(1.0, 1.0000002, 1.0))


@pytest.mark.parametrize(("arguments", "reason"), [
    ((1.0,), "similarity must be"), ((-0.1,), "similarity must be"), ((0.9, -1), "psnr must be")])
def test_a_goal_that_cannot_be_met_or_means_nothing_is_refused(arguments, reason):
    with pytest.raises(ValueError, match=reason):
        Goal(*arguments)


def test_one_video_has_no_margin():
    with pytest.raises(ValueError, match="two videos or more, got 1"):
        Goal().margin(videos(0.99))


def with_shares(*shares):
    return [Judged(f"v{number}", 0.999, 40.0, share=share) for number, share in enumerate(shares)]


def test_videos_whose_worst_places_come_close_to_a_limit_do_not_vouch_for_others():
    """They all pass; but the bound that nine of ten others keep lies beyond the limit, 1."""
    near, far = with_shares(0.5, 0.6, 0.7, 0.8, 0.95), with_shares(0.2, 0.3, 0.3, 0.4, 0.25)
    goal = Goal(0.97, 35)
    assert goal.why_not(near) == [] and not goal.accepts(near) and goal.accepts(far)
    assert Goal(0.97).accepts(near), "the contest's gate asks for no more than the checks"
    logs = np.log([0.5, 0.6, 0.7, 0.8, 0.95])
    expected = -logs.mean() / logs.std(ddof=1) - tolerance_factor(5, PLACE_COVERAGE, PLACE_CONFIDENCE)
    assert goal.margin(near) == pytest.approx(expected)
    assert goal.margin(with_shares(*[0.0] * 5)) == math.inf, "equal videos"


def test_the_largest_share_is_of_the_error_that_comes_nearest_to_its_limit():
    most = {name: limits[1] for name, limits in LIMITS.items()}
    found = {"colour_block": most["colour_block"] / 2, "structure": most["structure"] / 4, "frozen": 0,
             "sharpness": 1.1, "shift": None}
    assert largest_share(found) == 0.5 and largest_share({}) == 0
