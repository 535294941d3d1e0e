"""Each defect does to a clip what its name says, the same each time, and nothing else."""

import numpy as np
import pytest

from lab.extractor.defects import DEFECTS, Scene
from lab.extractor.stfn_batches import make_scene

BY_NAME = {defect.name: defect for defect in DEFECTS}


@pytest.fixture(scope="module")
def scene():
    """12 rendered frames, with the same frames as another engine's."""
    made = make_scene(510_000, 0.0, 12)
    return Scene(made.frames, made.other_person, made.other_pose, made.frames.copy())


def error(scene, name):
    return BY_NAME[name].change(scene).astype(float) - scene.frames


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.name)
def test_a_defect_keeps_the_form_leaves_its_clip_alone_and_repeats_itself(scene, defect):
    before = scene.frames.copy()
    changed = defect.change(scene)
    assert changed.shape == before.shape and changed.dtype == np.uint8
    assert (scene.frames == before).all() and (defect.change(scene) == changed).all()
    assert (changed != before).any() == (defect.name != "another engine, fp32")


def test_levels_are_as_said(scene):
    inner = (scene.frames > 20) & (scene.frames < 230)
    assert (error(scene, "3 levels brighter")[inner] == 3).all()
    assert set(np.unique(error(scene, "flicker of 3 levels")[inner])) == {-3, 3}
    assert error(scene, "noise, 5 levels")[inner].std() == pytest.approx(5, rel=0.02)
    red, green, blue = (scene.frames[..., channel].mean() for channel in range(3))
    tint = error(scene, "colours tinted by 5 %").mean((0, 1, 2))
    assert tint[0] == pytest.approx(0.05 * red, rel=0.1) and tint[1] == 0
    assert tint[2] == pytest.approx(-0.05 * blue, rel=0.1)


def test_times_are_as_said(scene):
    frames = scene.frames

    def change(name):
        return BY_NAME[name].change(scene)

    assert (change("all frozen") == frames[0]).all()
    assert (change("one frame late")[1:] == frames[:-1]).all()
    assert (change("time reversed")[::-1] == frames).all()
    mixed = change("order shuffled")
    assert sorted(f.tobytes() for f in mixed) == sorted(f.tobytes() for f in frames)
    assert (mixed.reshape(12, -1) != frames.reshape(12, -1)).any(1).sum() > 6
    black = change("one black frame")
    assert (black[6] == 0).all() and (np.delete(black, 6, 0) == np.delete(frames, 6, 0)).all()


def test_places_are_as_said(scene):
    assert (BY_NAME["moved by 1 pixel"].change(scene)[:, :, 1:] == scene.frames[:, :, :-1]).all()
    assert (BY_NAME["upside down"].change(scene)[:, ::-1] == scene.frames).all()


def test_encoding_again_is_the_only_harmless_change_besides_another_engine():
    assert [defect.name for defect in DEFECTS if defect.harmless] == ["encoded again", "another engine, fp32"]
