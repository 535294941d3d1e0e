"""Local measures: what stays in place passes, what one place shows is found, whatever the frame's size."""

import cv2
import numpy as np
import pytest

from bench.boxes import find_boxes
from bench.checks import metric_checks
from bench.local import RUN, Local
from lab.extractor.defects import Scene, encoded_again, half_size
from lab.extractor.drawn import box, busiest, face_places, mirrored, with_beard, with_glasses
from lab.presenter.evaluate import held_out


@pytest.fixture(scope="module")
def item():
    """8 rendered frames of a person who gestures, with the skeletons."""
    return held_out(3, 8)


@pytest.fixture(scope="module")
def faces(item):
    return face_places(find_boxes(each) for each in item.skeletons)


def of(reference, candidate, areas=None):
    local = Local()
    for pair in zip(reference, candidate, strict=True):
        local.update(*pair, areas)
    return local.summary()


def failed(metrics):
    return {check.name for check in metric_checks(metrics) if not check.passes}


def test_a_copy_has_no_error_anywhere_and_all_its_detail(item):
    found = of(item.truth, item.truth)
    assert found.pop("detail") == 1 and found.pop("structure_face") is None
    assert all(value == pytest.approx(0, abs=1e-6) for value in found.values() if value is not None)


@pytest.mark.parametrize("crf", [18, 23, 28])
def test_encoding_passes_and_loses_no_detail_that_an_enlarged_picture_does(item, crf):
    scene = Scene(item.truth, item.truth, item.truth)
    again = of(item.truth, encoded_again(scene, crf))
    assert not failed(again) and again["detail"] > 0.75
    assert "detail" in failed(of(item.truth, half_size(scene)))


@pytest.mark.parametrize("part", [0.06, 0.16])
def test_a_box_over_the_person_fails_in_one_place_wherever_it_stands(item, faces, part):
    for centres in (busiest(item.truth), faces[:, :2] + faces[:, 2:] / 2):
        found = of(item.truth, box(item.truth, part, centres))
        assert failed(found) & {"structure_block", "colour_block"} and found["structure"] < 0.2


def test_glasses_a_beard_and_a_mirror_fail(item, faces):
    mirror = mirrored(Scene(item.truth, item.truth, item.truth))
    assert (mirror[:, :, ::-1] == item.truth).all()
    for changed in (with_glasses(item.truth, faces), with_beard(item.truth, faces), mirror):
        assert "structure_block" in failed(of(item.truth, changed))


def test_the_error_of_a_block_is_the_same_at_a_whole_multiple_of_the_size(item, faces):
    changed = with_beard(item.truth, faces)
    small, large = (
        of(*[np.stack([cv2.resize(f, None, fx=k, fy=k, interpolation=cv2.INTER_NEAREST) for f in clip])
             for clip in (item.truth, changed)]) for k in (1, 3)
    )
    assert large["structure_block"] == pytest.approx(small["structure_block"], abs=1e-4)
    assert large["colour_block"] == pytest.approx(small["colour_block"], abs=1e-3)


def test_a_colour_is_told_in_levels_of_the_worst_channel(item):
    reference = item.truth // 2
    candidate = reference + np.array([0, 0, 40], np.uint8)
    found = of(reference, candidate)
    assert found["colour_block"] == pytest.approx(40, abs=1e-3) == found["colour_run"]


def test_a_defect_of_a_few_frames_shows_in_a_run_and_not_in_the_median(item, faces):
    changed = with_glasses(item.truth, faces)
    candidate = item.truth.copy()
    candidate[2 : 2 + RUN] = changed[2 : 2 + RUN]
    found = of(item.truth, candidate)
    assert found["structure_block"] == pytest.approx(0, abs=1e-6) and "structure_run" in failed(found)
    candidate[2] = item.truth[2]
    assert "structure_run" not in failed(of(item.truth, candidate))


def test_an_area_has_its_own_worst_place(item):
    candidate = item.truth // 2
    candidate[:, 20:60, 20:60] += 90
    inside, outside = np.zeros((2, *item.truth.shape[1:3]), bool)
    inside[24:56, 24:56], outside[100:140, 80:120] = True, True
    found = of(item.truth // 2, candidate, {"face": inside, "hands": outside})
    assert found["colour_face"] == pytest.approx(90, abs=1e-3) and found["colour_hands"] == 0


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (7, 300)])
def test_any_size_can_be_measured(size):
    frames = np.random.default_rng(0).integers(0, 256, (2, *size, 3), np.uint8)
    assert of(frames, frames)["structure_block"] == pytest.approx(0, abs=1e-6)
