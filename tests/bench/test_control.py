"""Control fidelity: whose joints follow the skeleton, by the bundled finders and by a user's model."""

import json
import re
from fractions import Fraction

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from bench.checks import metric_checks
from bench.control import METRICS, Control
from bench.described import ExtractorError
from bench.judge import Judge
from bench.pose import FROM_COCO, load_pose_model
from engines.artifact import file_sha256
from generators.resize import FITS
from lab.joints.poses import frozen_arms, late, mirrored
from lab.presenter.render.brush import Brush
from lab.presenter.render.clip import HEIGHT, WIDTH, Clip
from lab.presenter.render.figure import draw_figure
from lab.presenter.render.talk import random_talk
from pipeline.video.reader import Clip as Frames

SEED, FRAMES = 500_006, 10  # a person and a motion that no network was trained on; both arms move


@pytest.fixture(scope="module")
def clip():
    return Clip(SEED)


@pytest.fixture(scope="module")
def skeletons(clip):
    return clip.skeletons(clip.times(FRAMES))


def rendered(clip, change):
    """The clip's person in another pose, at the size of the skeletons."""
    t = clip.times(FRAMES)
    pose, talk = change(clip.pose(t)), random_talk(SEED, t)
    frames = np.repeat(clip.wall[None], FRAMES, 0)
    for i, frame in enumerate(frames):
        draw_figure(Brush(frame), clip.who, pose, talk, i)
    return frames


def control(skeletons, reference, candidate, model="presenter"):
    found = Control(load_pose_model(model))
    for frames in zip(skeletons, reference, candidate, strict=True):
        found.update(*frames)
    return found.summary()


def failed(metrics):
    return {check.name for check in metric_checks(metrics) if not check.passes}


@pytest.fixture(scope="module")
def truth(clip):
    return rendered(clip, lambda pose: pose)


def test_a_pose_that_is_followed_passes_and_late_mirrored_or_frozen_ones_fall(clip, skeletons, truth):
    noise = np.random.default_rng(0).normal(0, 3, truth.shape)
    same = control(skeletons, truth, np.clip(truth + noise, 0, 255).astype(np.uint8))
    assert same["control_reference"] > 0.85 and failed(same) == set()
    for change in (late, mirrored, frozen_arms):
        assert "control_arms_error" in failed(control(skeletons, truth, rendered(clip, change))), change


def enlarged(skeletons):
    return skeletons.repeat(3, 1).repeat(3, 2)


def widened(skeletons):
    """Three quarters as wide again, black, of which "cover" keeps the middle."""
    return np.pad(skeletons, ((0, 0), (0, 0), (48, 48), (0, 0)))


def squeezed(skeletons):
    """Every second column, which "stretch" makes as wide again."""
    return skeletons[:, :, ::2]


def letterboxed(skeletons):
    """A tenth as high again, black, which "contain" leaves at both sides too."""
    return np.pad(skeletons, ((0, 0), (10, 10), (0, 0), (0, 0)))


@pytest.mark.parametrize(("change", "rule"), [
    (enlarged, "cover"), (widened, "cover"), (squeezed, "stretch"), (letterboxed, "contain")])
def test_joints_and_boxes_are_where_the_rule_brought_the_skeleton(change, rule, skeletons, truth):
    """A mirrored candidate falls for every shape of skeleton video, as it does by one of the video's own."""
    def judged(skeletons, rule, reference, candidate):
        clips = [Frames(np.ascontiguousarray(frames), Fraction(24)) for frames in (reference, candidate)]
        return Judge([]).compare(*clips, skeletons, rule)["metrics"]

    drawn, reference, candidate = change(skeletons), truth, truth[:, :, ::-1]
    if rule == "contain":
        reference, candidate = (FITS[rule](change(each), WIDTH, HEIGHT) for each in (reference, candidate))
    fitted = FITS[rule](drawn, WIDTH, HEIGHT)
    wanted, found = (judged(*given, reference, candidate) for given in ((fitted, "cover"), (drawn, rule)))
    assert wanted["control_reference"] > 0.85 and wanted["structure_hands"] is not None
    assert found == pytest.approx(wanted)
    assert {"control_loss", "control_arms_loss", "control_arms_error"} <= failed(found)


def test_people_that_the_model_does_not_know_are_not_judged_and_black_skeletons_neither(skeletons, truth):
    noise = np.random.default_rng(0).integers(0, 256, truth.shape, np.uint8)
    unknown = control(skeletons, noise, truth)
    assert unknown["control_reference"] < 0.7 and unknown["control_loss"] is None and failed(unknown) == set()
    assert control(np.zeros_like(skeletons), truth, truth) == dict.fromkeys(METRICS)


def write_model(folder, form, count, **changes):
    """A pose model that finds every joint at the brightest cell, or bin, of the picture's red."""
    width, height = 32, 48
    pixels = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", height, width, 3])
    nodes = [helper.make_node("Slice", ["pixels", "zero", "one", "last"], ["red"]),
             helper.make_node("Transpose", ["red"], ["map"], perm=[0, 3, 1, 2])]
    weights = [helper.make_tensor(name, TensorProto.INT64, [1], [value])
               for name, value in (("zero", 0), ("one", 1), ("last", 3), ("down", 3), ("across", 2))]
    weights.append(helper.make_tensor("times", TensorProto.INT64, [4], [1, count, 1, 1]))
    nodes.append(helper.make_node("Tile", ["map", "times"], ["heat"]))
    names = ["heat"]
    if form == "simcc":
        names = ["x", "y"]
        nodes += [helper.make_node("ReduceMax", ["heat", axis], [name], keepdims=0)
                  for axis, name in (("across", "x"), ("down", "y"))]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names]
    graph = helper.make_graph(nodes, "pose", [pixels], outputs, weights)
    path = folder / "pose.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    spec = {"name": "pose", "onnx": path.name, "sha256": file_sha256(path), "kind": form,
            "size": [width, height], "joints": "coco-17", "input": "pixels", "outputs": names,
            "dtype": "float32", "resize": "box", "split": 1.0, "licence": "CC0",
            "source": "made by a test", **changes}  # fmt: skip
    described = folder / "pose.json"
    described.write_text(json.dumps(spec))
    return str(described)


@pytest.mark.parametrize(("kind", "exact"), [("heatmaps", 0.01), ("simcc", 1.01)])
def test_a_users_model_finds_joints_in_pixels_of_pictures_of_other_sizes(tmp_path, kind, exact):
    model = load_pose_model(write_model(tmp_path, kind, 133))  # as COCO-WholeBody has
    picture = np.zeros((96, 128, 3), np.uint8)  # fits at a quarter: 24 rows of 48, black above and below
    picture[40:44, 80:84] = 255
    found = model.joints([picture])
    assert found.shape == (1, 18, 3) and np.abs(found[0, :, :2] - (81.5, 41.5)).max() <= 1.5 * exact
    assert found[0, :, 2] == pytest.approx(1)


def test_what_a_description_gets_wrong_is_said(tmp_path):
    for changes, said in (({"joints": "openpose-18"}, "finds 17 joints; openpose-18 has 18"),
                          ({"kind": "points"}, "kind is 'points'"), ({"outputs": ["a", "b"]}, "simcc two"),
                          ({"sha256": "0"}, "is not the file that pose.json describes"),
                          ({"outputs": "heat"}, 'outputs is "heat"; expected a list of texts'),
                          ({"split": "2"}, 'split is "2"; expected a number above 0'),
                          ({"split": 0}, "split is 0; expected a number above 0"),
                          ({"size": 96}, "size is 96; expected two whole numbers"),
                          ({"input": "x"}, "cannot be run as its description says"),
                          ({"size": [16, 16]}, "cannot be run as its description says")):  # fmt: skip
        folder = tmp_path / said
        folder.mkdir(exist_ok=True)
        with pytest.raises(ExtractorError, match=said):
            load_pose_model(write_model(folder, "heatmaps", 17, **changes)).joints(
                [np.zeros((48, 32, 3), np.uint8)]
            )
    with pytest.raises(ExtractorError, match="no pose model 'dw'; there are presenter, skeleton"):
        load_pose_model("dw")


@pytest.mark.parametrize(("form", "changes", "said"), [
    ("simcc", {"kind": "heatmaps", "outputs": ["x"]}, "(1, 17, 32) for N = 1; heatmaps is (N, joi"),
    ("heatmaps", {"kind": "simcc", "outputs": ["heat", "heat"]}, "(1, 17, 48, 32) for N = 1; simcc is (N, ")])
def test_outputs_of_another_shape_are_refused_when_the_model_is_loaded(tmp_path, form, changes, said):
    with pytest.raises(ExtractorError, match=re.escape(said)):
        load_pose_model(write_model(tmp_path, form, 17, **changes))


def test_left_and_right_of_coco_become_openposes():
    assert FROM_COCO[4] == 10 and FROM_COCO[7] == 9  # wrists: COCO's 9 is the left one, OpenPose's 7 is


def test_the_bundled_finders_are_near_on_people_that_they_never_saw(clip, truth, skeletons):
    body = clip.pose(clip.times(FRAMES)).body * WIDTH
    shown = ~np.isnan(body).any(-1) & (body > 0).all(-1) & (body < (WIDTH, HEIGHT)).all(-1)
    for model, pictures in (("presenter", truth), ("skeleton", skeletons)):
        away = np.linalg.norm(load_pose_model(model).joints(list(pictures))[..., :2] - body, axis=-1)
        assert np.median(away[shown]) < 2.0, model  # pixels; 0.4 and 1.1 were measured
