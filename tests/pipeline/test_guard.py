"""The guard: what it fires on, what is run then, what the user is told, and how it is fitted."""

import io
from contextlib import nullcontext
from dataclasses import replace
from statistics import NormalDist
from types import SimpleNamespace

import numpy as np
import pytest

from engines.progress import Progress
from optimize.steps.guard_fit import RISK, ROOM, SINGLE, fit_guard, upper_bound
from pipeline.batch.dataset import Request
from pipeline.guard import STRETCH, Guard, GuardError, change, distance, profile
from pipeline.guard_watch import ClipForm, GuardWatch
from pipeline.recipe import Recipe, RecipeError, load_recipe
from pipeline.request import Options, make_video
from pipeline.sampler import Sampler, evaluations
from pipeline.step_plan import StepPlan, StepPlanError, base_plan
from tests.pipeline.test_sample import conditions

POSE = {"constants": ("pose",), "means": ((0,) * 12,), "spreads": ((1,) * 12,), "limits": (0.1,)}
ALWAYS, NEVER = 1e-6, 100.0
PER_FRAME = frozenset({"pose"})


def clip(seed, frames=24, size=1.0):
    """Constants of a clip whose eight channels have sizes of their own."""
    rng = np.random.default_rng(seed)
    sizes = np.linspace(0.5, 2, 8)[None, :, None, None, None] * size
    pose = rng.normal(0, 1, (1, 8, frames, 6, 4)) * sizes * rng.normal(1, 0.05)
    reference = rng.normal(0, size, (1, 8, 6, 4))
    return {"pose": pose.astype(np.float32), "reference": reference.astype(np.float32)}


def fitted(count=5):
    clips = [clip(seed) for seed in range(count)]
    changes = [[0.0, 0.2 + 0.01 * seed] for seed in range(count)]
    return fit_guard(clips, changes, 2, PER_FRAME)


def unlike(guard, constants):
    frames = constants["pose"].shape[2] if "pose" in constants else 1
    watch = GuardWatch(guard, ClipForm(2, PER_FRAME, frames, frames))
    watch.constants(constants)
    return watch.unlike and watch.unlike.why


@pytest.fixture
def drifting(plain):
    """A generator of 8 steps whose prediction changes from step to step."""
    generator = plain(steps=8)
    generator.flow = lambda conditional, latents, pose: latents + 0.3 * generator.calls[-1].step + conditional
    return generator


def guarded(*changes, **others):
    return StepPlan("FSSFSSCS", guard=Guard(5, changes, **others))


def run(generator, plan, frames=40, **options):
    engine = generator.engines()["denoise"]
    sampler = Sampler(generator, {"denoise": engine}, plan, **options)
    return sampler.sample(conditions(frames), frames, 1)


def test_clips_like_the_tuning_clips_pass_and_others_are_named():
    guard = fitted()
    assert guard.videos == 5 and guard.constants == ("pose", "reference")
    for seed in range(100, 120):
        assert unlike(guard, clip(seed, frames=seed % 7 + 1)) is None
    assert unlike(guard, clip(7, size=2.0)).startswith("pose is ")
    other = {**clip(7), "reference": clip(7, size=3.0)["reference"]}
    assert unlike(guard, other).startswith("reference is ")


def test_a_stretch_that_is_unlike_is_found_in_a_long_clip():
    guard, long = fitted(), clip(200, frames=300)
    assert unlike(guard, long) is None
    long["pose"][:, :, 250:250 + STRETCH] *= 2
    assert unlike(guard, long).startswith("pose is ")


def test_of_stretches_in_a_row_more_and_more_are_the_base_models_until_one_is_like_the_others():
    guard, odd = fitted(), clip(7, frames=16 * 30, size=1.0)
    for begin, end in ((2, 3), (5, 25)):
        odd["pose"][:, :, 16 * begin : 16 * end] *= 100
    watch = GuardWatch(guard, ClipForm(2, PER_FRAME, 480, 480))
    watch.constants(odd)
    found = [(part.begin // 16, part.end // 16) for part in watch.parts() if part.unlike]
    assert found == [(2, 3), (5, 6), (6, 8), (8, 12), (12, 20), (20, 28)]
    for _ in range(2):
        assert watch.described().endswith(", at latent frames 32 to 47 and others, 384 of 480")
        assert [(part.begin // 16, part.end // 16) for part in watch.parts() if part.unlike] == found
    assert not next(watch.parts()).unlike
    assert watch.described() == watch.unlike.why  # no unlike part has come yet
    tied = GuardWatch(guard, ClipForm(2, PER_FRAME, 480, 480, tied=True))
    tied.constants(odd)
    assert [*tied.parts()] == [(0, 480, True)] and "at latent" not in tied.described()


def test_a_clip_that_does_not_fill_a_window_is_unlike_longer_ones():
    guard = fitted()
    assert guard.shortest == 24
    for own, sampled, fires in ((1, 16, True), (15, 16, True), (16, 16, False), (20, 20, False)):
        unlike = GuardWatch(guard, ClipForm(2, PER_FRAME, own, sampled)).unlike
        assert bool(unlike) == fires
        assert not unlike or unlike.why == (
            f"it has {own} latent frames, less than a window; the shortest of theirs has 24")
    assert GuardWatch(replace(guard, shortest=8), ClipForm(2, PER_FRAME, 9, 16)).unlike is None


def test_what_lies_elsewhere_is_unlike():
    moved = clip(7)
    moved["pose"][:, :, :, :, 0] *= 0.1
    moved["pose"][:, :, :, :, 3] *= 2.0
    assert unlike(fitted(), moved).startswith("pose is ")


def test_a_constant_of_another_form_is_unlike_and_one_that_is_new_does_not_count():
    guard = fitted()
    few = {**clip(7), "pose": clip(7)["pose"][:, :5]}
    assert unlike(guard, few) == "pose has 14 parts instead of 17"
    assert unlike(guard, {"mask": np.ones((1, 8))}) is None


def test_not_a_number_is_unlike():
    broken = clip(7)
    broken["pose"][0, 0, 0] = np.nan
    assert unlike(fitted(), broken)


def test_a_limit_leaves_room_beyond_what_tuning_clips_are_from_each_other():
    clips = [clip(seed) for seed in range(4)]
    guard = fit_guard(clips, [[0.0]] * 4, 2, PER_FRAME)
    apart = []
    for own in clips:
        others = fit_guard([each for each in clips if each is not own], [[0.0]] * 3, 2, PER_FRAME)
        found = profile(own["pose"], 2)
        apart.append(distance(found, np.array(others.means[0]), np.array(others.spreads[0])))
    assert guard.limits[0] == pytest.approx(ROOM * max(1.0, np.sqrt(np.mean(np.square(apart)))), abs=2e-3)


def test_profiles_are_logarithms_of_sizes_by_channel_whatever_the_axis_of_frames():
    array = np.stack([np.full((3, 2, 2), size) for size in (1.0, np.e, np.e**2)])[None]  # (1, C, F, h, w)
    np.testing.assert_allclose(profile(array, 2)[:, :3], [[0, 1, 2]] * 3)
    np.testing.assert_allclose(profile(np.moveaxis(array, 2, 1), 1)[:, :3], [[0, 1, 2]] * 3)
    assert profile(np.ones((1, 40, 7)), None).shape == (1, 16)


def test_another_value_of_a_normal_distribution_stays_below_as_often_as_is_said():
    rng = np.random.default_rng(0)
    values = rng.normal(5, 2, (4000, 6))
    below = np.mean([each[-1] <= upper_bound(each[:-1]) for each in values])
    assert below == pytest.approx(1 - RISK, abs=0.02)
    wanted = NormalDist(0, 3**-0.5).inv_cdf(1 - RISK)
    assert upper_bound(np.linspace(-1, 1, 100_000)) == pytest.approx(wanted, abs=1e-3)
    assert upper_bound([0.2]) == pytest.approx(SINGLE * 0.2)


@pytest.mark.parametrize("change", [0.1234375, 0.00003, 0.98080694])
def test_a_guard_is_silent_on_what_it_was_fitted_to_though_clips_are_equal_and_numbers_rounded(change):
    same = fit_guard([clip(0)] * 2, [[0.0, change]] * 2, 2, PER_FRAME)
    assert 1.02 * change < same.changes[1] and same.changes[0] == 0.0
    assert not unlike(same, clip(0))
    alone = fit_guard([clip(0)], [[0.0, change]], 2, PER_FRAME)
    assert alone.changes[1] >= SINGLE * change


def test_a_change_is_that_of_the_worst_stretch():
    old, new = np.ones((1, 2, 48, 1, 1)), np.ones((1, 2, 48, 1, 1))
    new[:, :, 32:] = 2
    assert change(new, old, 2) == 0.5 and change(new[:, :, :32], old[:, :, :32], 2) == 0
    assert change(np.moveaxis(new, 2, 1), np.moveaxis(old, 2, 1), 1) == 0.5


def test_a_prediction_that_changed_too_far_has_the_base_models_run_from_the_start(drifting):
    base = run(drifting, None)
    for changes, calls in (((0, ALWAYS, NEVER), 2 * 2), ((0, NEVER, ALWAYS), 2 * 2 + 1)):
        drifting.calls.clear()
        walk = run(drifting, guarded(*changes))
        assert walk.latents.tobytes() == base.latents.tobytes() and walk.taken == "F" * 8
        assert walk.unlike.startswith("the prediction changed by 0.")
        assert len(drifting.calls) == (calls + 16) * 3  # windows


def test_a_clip_that_is_like_the_others_is_left_to_the_plan(drifting):
    walk = run(drifting, guarded(0, NEVER, NEVER))
    assert walk.unlike is None and walk.taken == "FSSFSSCS"
    assert walk.latents.tobytes() == run(drifting, StepPlan("FSSFSSCS")).latents.tobytes()


def test_what_the_constants_tell_costs_no_evaluation(drifting):
    walk = run(drifting, guarded(0, NEVER, NEVER, **POSE))
    assert walk.unlike.startswith("pose is ") and len(drifting.calls) == 16 * 3


@pytest.mark.parametrize(("changes", "constants"), [((0, ALWAYS, NEVER), False), ((0, NEVER, NEVER), True)])
def test_progress_grows_to_as_many_evaluations_as_there_are(drifting, changes, constants):
    plan, ticks, more = guarded(*changes, **POSE if constants else {}), [], []
    run(drifting, plan, tick=lambda: ticks.append(1), more=more.append)
    assert evaluations(drifting, 40, plan) + sum(more) == len(ticks)


def test_a_progress_that_grew_never_shows_more_done_than_there_is():
    stream = io.StringIO()
    with Progress("a", 22, stream, every=0) as progress:
        progress.reach(22)
        progress.grow(16)
        progress.reach(30)
    assert "30/38" in stream.getvalue() and "30/22" not in stream.getvalue()


def test_the_manifest_line_says_why_and_what_it_cost(drifting, make_video_file, make_image_file, tmp_path):
    request = Request("a", make_video_file(tmp_path / "a.mp4", 20), make_image_file(tmp_path / "a.png"), 1)
    ticks, grown = [], []

    def start(total):
        return nullcontext(SimpleNamespace(tick=lambda: ticks.append(1), grow=grown.append))

    for limit, fired in ((NEVER, False), (ALWAYS, True)):
        recipe = Recipe("fast", steps=guarded(0, limit, NEVER))
        line = make_video(request, tmp_path / "o.mp4", drifting, drifting.engines(), start, Options(recipe))
        wanted = "is unlike the 5 videos that recipe fast was tuned on"
        texts = [note for note in line["notes"] if wanted in note]
        assert bool(texts) == bool(line["guard_fired"]) == fired
    assert line["guard_fired"][0] in texts[0] and f"{sum(grown)} evaluations more" in texts[0]
    assert line["actions"] == "FFFFFFFF" and sum(grown) == 2 * (2 + 8 - 3)
    base = make_video(request, tmp_path / "b.mp4", drifting, drifting.engines(), start)
    assert base["frames_sha256"] == line["frames_sha256"]


def test_a_recipe_keeps_its_guard(tmp_path):
    plan = replace(StepPlan("FS"), guard=replace(fitted(), changes=(0.0,)))
    path = tmp_path / "a.toml"
    path.write_text(Recipe("a", steps=plan).to_toml())
    assert load_recipe(path).steps == plan


@pytest.mark.parametrize(("text", "reason"), [
    ("videos = 5\nchanges = [0, 1]", "guard.changes: must be 1 numbers"),
    ("videos = 0\nchanges = [0]", "guard.videos: must be how many the plan was tuned on, is 0"),
    ("changes = [0]", "guard.videos: is missing; tune again"),
    ("videos = 5\nchanges = 0", "guard.changes: must be a list of numbers"),
    ('videos = 5\nchanges = [0]\nconstants = [1]', "guard.constants: must be a list of names"),
    ('videos = 5\nchanges = [0]\nconstants = ["pose"]',
     "guard.constants, means, spreads and limits: must have an entry for each constant"),
    ("videos = 5\nchanges = [nan]", "guard.spreads: must be above 0, and all numbers finite"),
    ("video = 5", "guard.video: unknown setting 'video'; did you mean 'videos'?"),
])
def test_a_guard_that_cannot_be_used_is_refused(tmp_path, text, reason):
    path = tmp_path / "a.toml"
    path.write_text(f'[steps]\nactions = "FS"\n[guard]\n{text}\n')
    with pytest.raises(RecipeError) as refusal:
        load_recipe(path)
    assert str(refusal.value).startswith(f"{path}: {reason}")


def test_a_guard_without_a_plan_is_refused(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text("[guard]\nvideos = 5\nchanges = [0]\n")
    with pytest.raises(RecipeError, match="guard: is for a step plan, and there is no table"):
        load_recipe(path)
    with pytest.raises(StepPlanError, match="guard.changes: must be 1 numbers"):
        StepPlan("FS", guard=Guard(1, (0, 1)))
    with pytest.raises(GuardError, match="must have an entry for each constant"):
        Guard(1, (0,), ("pose",), ((1,),), ((1, 1),), (1,))


def test_few_videos_and_videos_that_are_alike_are_doubted():
    assert fitted(5).doubts == []
    assert fitted(2).doubts[0].startswith("tuned on 2 videos: with fewer than 5 it is not known how")
    clips = [{**clip(seed), "reference": clip(0)["reference"]} for seed in range(5)]
    doubts = fit_guard(clips, [[0.0]] * 5, 2, PER_FRAME).doubts
    assert len(doubts) == 1 and doubts[0].startswith("the tuning videos are alike in reference (sizes of")


def test_pictures_and_masks_of_whole_numbers_are_guarded_and_ids_are_not():
    def whole(seed, black=False):
        rng = np.random.default_rng(seed)
        picture = rng.integers(0, 200 + seed, (1, 48, 32, 3), np.uint8)
        return {**clip(seed), "picture": picture * np.uint8(not black), "mask": picture[:, :6, :4, 0] > 9,
                "ids": rng.integers(0, 9, (1, 8)), "count": np.int64(seed)}

    guard = fit_guard([whole(seed) for seed in range(5)], [[0.0]] * 5, 2, PER_FRAME)
    assert guard.constants == ("pose", "reference", "picture", "mask")
    assert guard.means[:2] == fitted().means and unlike(guard, whole(6)) is None
    assert unlike(guard, whole(6, black=True)).startswith("picture is ")


def test_the_base_models_plan_has_no_guard(drifting):
    assert base_plan(drifting).guard is None
