"""Metrics of frames: exact where the maths gives the value, and blind spots of a cosine seen."""

import cv2
import numpy as np
import pytest

from bench.boxes import Boxes, find_boxes, rule_of
from bench.frame_metrics import FrameMetrics
from generators.resize import FITS
from lab.presenter.evaluate import hand_and_face_boxes, held_out
from lab.presenter.render.clip import HEIGHT, WIDTH
from pipeline.video.reader import read
from tests.clips import write


@pytest.fixture(scope="module")
def clip():
    """24 rendered frames of a person who gestures."""
    return held_out(3, 24).truth


def frame_metrics(reference, candidate, boxes=None):
    watched = FrameMetrics()
    for wanted, found in zip(reference, candidate, strict=True):
        watched.update(wanted, found, boxes)
    return watched.summary()


def of(reference, candidate, boxes=None):
    return frame_metrics(reference, candidate, boxes)[0]


def test_a_copy_has_no_error_and_nothing_to_report(clip):
    metrics, per_frame = frame_metrics(clip, clip)
    assert metrics["psnr"] is None and metrics["ssim"] == pytest.approx(1)
    assert [metrics[name] for name in ("temporal_error", "lag", "frozen", "black", "colour_shift")] == [0] * 5
    assert metrics["sharpness"] == 1 and metrics["motion_correlation"] == pytest.approx(1)
    assert per_frame["psnr"] == [None] * 24 and per_frame["temporal_error"] == [0.0] * 24


def test_a_constant_is_a_colour_shift_and_no_flicker(clip):
    reference = clip // 2
    metrics = of(reference, reference + np.array([0, 3, 0], np.uint8))
    assert metrics["colour_shift"] == pytest.approx(3) and metrics["temporal_error"] == 0
    assert metrics["psnr"] == pytest.approx(10 * np.log10(255**2 / 3))


def test_flicker_changes_the_error_by_its_whole_swing(clip):
    reference = clip // 2 + 10
    sign = np.where(np.arange(24) % 2, 3, -3)[:, None, None, None]
    metrics = of(reference, (reference + sign).astype(np.uint8))
    assert metrics["temporal_error"] == pytest.approx(6) == metrics["temporal_error_block"]
    assert metrics["colour_shift"] == 0


def test_flicker_in_one_place_shows_in_its_block(clip):
    reference = clip // 2
    candidate = reference.copy()
    candidate[::2, : HEIGHT // 8, : WIDTH // 8] += 40
    metrics = of(reference, candidate)
    assert metrics["temporal_error"] == pytest.approx(40 / 64)
    assert metrics["temporal_error_block"] == pytest.approx(40)


@pytest.mark.parametrize("late", [-2, -1, 1, 3])
def test_a_late_or_early_clip_is_late_by_so_many_frames(clip, late):
    index = np.clip(np.arange(24) - late, 0, 23)
    assert of(clip, clip[index])["lag"] == late


def test_standing_still_is_frozen_only_where_the_reference_moves(clip):
    index = np.minimum(np.arange(24), 9)
    assert of(clip, clip[index])["frozen"] == 14
    assert of(clip[index], clip[index])["frozen"] == 0


def test_a_black_frame_is_black_unless_the_reference_is(clip):
    candidate = clip.copy()
    candidate[5] = 0
    assert of(clip, candidate)["black"] == 1
    assert of(candidate, candidate)["black"] == 0


@pytest.mark.parametrize(("axis", "by"), [(1, 1), (2, -2)])
def test_a_moved_picture_has_moved_by_its_pixels(clip, axis, by):
    assert of(clip, np.roll(clip, by, axis))["shift"] == pytest.approx(abs(by), abs=0.1)


@pytest.mark.parametrize("quality", [30, 10])
def test_a_soft_picture_that_was_encoded_anew_has_not_moved(quality):
    """Phase correlation alone says it has,: noise of the encoder is all it finds."""
    y, x = np.mgrid[:96, :128]
    soft = 200 * np.exp(-((x - 64) ** 2 + (y - 48) ** 2) / 400)
    frames = np.repeat(soft.astype(np.uint8)[None, ..., None], 3, -1)
    again = cv2.imdecode(cv2.imencode(".jpg", frames[0], [cv2.IMWRITE_JPEG_QUALITY, quality])[1], 1)[None]
    grey = [frame.astype(np.float32).mean(2) for frame in (frames[0], again[0])]
    assert np.abs(cv2.phaseCorrelate(*grey, cv2.createHanningWindow((128, 96), cv2.CV_32F))[0]).max() > 1
    assert of(frames, again)["shift"] == 0


def test_blur_and_noise_change_sharpness_in_opposite_directions(clip):
    blurred = np.stack([cv2.GaussianBlur(frame, (0, 0), 1.0) for frame in clip])
    noise = np.random.default_rng(0).normal(0, 5, clip.shape)
    noisy = (clip + noise).clip(0, 255).astype(np.uint8)
    assert of(clip, blurred)["sharpness"] < 0.85 and of(clip, noisy)["sharpness"] > 1.2


def moving_by(levels):
    """A clip whose pixels change by so many levels from frame to frame."""
    values = np.concatenate([[20], 20 + np.cumsum(levels)]).round().astype(np.uint8)
    return np.broadcast_to(values[:, None, None, None], (len(values), 32, 32, 3)).copy()


def test_motion_that_hardly_varies_is_not_correlated_with_what_coding_makes_of_it():
    """A steady clip's would be that of coding noise with nothing; a varied one's says what moved."""
    rng = np.random.default_rng(0)
    steady, varied = moving_by([2] * 24), moving_by(rng.integers(0, 6, 24))
    noisy = [np.clip(frames + rng.integers(-2, 3, frames.shape), 0, 255).astype(np.uint8)
             for frames in (steady, varied)]
    assert of(steady, noisy[0])["motion_correlation"] is None
    assert of(varied, noisy[1])["motion_correlation"] > 0.8
    assert of(varied, varied[rng.permutation(25)])["motion_correlation"] < 0.8


def test_boxes_have_figures_of_their_own(clip):
    hands, face = np.zeros(clip.shape[1:3], bool), np.zeros(clip.shape[1:3], bool)
    hands[10:20, 10:20] = True
    reference = clip // 2
    candidate = reference.copy()
    candidate[:, 10:20, 10:20] += 5
    metrics = of(reference, candidate, Boxes(hands, face))
    assert metrics["psnr_hands"] == pytest.approx(10 * np.log10(255**2 / 25))
    assert metrics["temporal_error_hands"] == 0 and metrics["psnr_face"] is None


@pytest.mark.parametrize("frames", [1, 2])
def test_short_clips_have_what_can_be_measured(clip, frames):
    metrics = of(clip[:frames], clip[:frames] // 2)
    assert metrics["psnr"] > 5 and metrics["motion_correlation"] is None and metrics["lag"] == 0


def test_boxes_that_lack_in_one_frame_give_no_figures(clip):
    boxes, watched = find_boxes(np.zeros((HEIGHT, WIDTH, 3), np.uint8)), FrameMetrics()
    for each in (boxes, None, boxes):
        watched.update(clip[0], clip[1], each)
    found = watched.summary()[0]
    assert not [name for name in found if name.startswith(("psnr_", "temporal_")) and name.endswith("_face")]
    assert found["structure_face"] is None and found["colour_hands"] is None
    assert "psnr_face" in of(clip, clip, boxes)


def test_other_shapes_are_refused(clip):
    with pytest.raises(ValueError, match="cannot be compared"):
        frame_metrics(clip, clip[:, 1:])


def test_hands_and_face_are_found_in_an_encoded_skeleton_video(tmp_path):
    for number in range(4):
        item = held_out(number, 12)
        skeletons = read(write(tmp_path / f"{number}.mp4", item.skeletons)).frames
        hands, face = hand_and_face_boxes(item)
        boxes = [find_boxes(each) for each in skeletons]
        found_hands = np.stack([each.hands for each in boxes])
        found_face = np.stack([each.face for each in boxes])
        covered = (found_hands & hands).sum() / hands.sum()
        assert covered > 0.6 and (found_hands & ~hands).sum() < 0.3 * hands.sum()
        assert (found_face & face).sum() > 0.95 * face.sum()  # the renderer's box ends at the eyes' height
        assert found_face.sum() < 0.2 * found_face.size


def test_a_video_without_key_points_has_no_boxes():
    found = find_boxes(np.full((64, 48, 3), 90, np.uint8))
    assert not found.hands.any() and not found.face.any()


@pytest.mark.parametrize("rule", FITS)
def test_the_rule_that_fitted_a_skeleton_is_the_manifests(rule, tmp_path):
    made, failed = f'{{"id": "a", "status": "done", "fit": "{rule}"}}\n', '{"id": "a", "status": "failed"}\n'
    (tmp_path / "manifest.jsonl").write_text(made + failed)  # its picture was away for a run
    assert rule_of(tmp_path / "a.mp4") == rule and rule_of(tmp_path / "b.mp4") == "cover"
