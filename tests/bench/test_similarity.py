"""Extractors: what is loaded is what was described and can tell people apart; cosines are clamped at one."""

import json
from fractions import Fraction

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from PIL import Image

from bench import described, similarity
from bench.judge import Judge
from bench.similarity import Cosine, ExtractorError, load_extractor, load_extractors
from engines.artifact import file_sha256
from pipeline.video.reader import Clip
from tests.extractors import picture, write_extractor


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder of extractors."""
    monkeypatch.setattr(similarity, "EXTRACTORS", tmp_path / "extractors")
    return tmp_path / "extractors"


def clip(seed, frames=4):
    return np.repeat(picture(seed)[None], frames, 0)


@pytest.mark.parametrize("kind", ["frames", "clip"])
def test_a_clip_is_like_itself_and_not_like_another(folder, kind):
    write_extractor(folder, kind=kind)
    extractor = load_extractor("grid")
    same, other = extractor.cosine(clip(3), clip(3)), extractor.cosine(clip(3), clip(4))
    assert same.value == pytest.approx(1, abs=1e-9) and same.frames == pytest.approx([1] * 4)
    assert other.value < 0.5 and other.to_json((0.97, 1.0))["passes"] is False


def test_a_frames_extractor_gives_the_mean_and_the_least_over_frames(folder):
    write_extractor(folder)
    half = np.concatenate([clip(3, 2), clip(4, 2)])
    cosine = load_extractor("grid").cosine(clip(3), half)
    assert cosine.value == pytest.approx(np.mean(cosine.frames))
    figures = cosine.to_json((0.97, 1.0))
    assert figures["frame_min"] == min(cosine.frames) < 0.5 < figures["value"] < 0.97


def test_a_clip_of_one_frame_and_one_longer_than_a_batch_work(folder):
    write_extractor(folder)
    write_extractor(folder, "whole", "clip")
    assert load_extractor("whole").cosine(clip(3, 1), clip(3, 1)).value == pytest.approx(1)
    assert len(load_extractor("grid").cosine(clip(3, 37), clip(3, 37)).frames) == 37


@pytest.mark.parametrize(("raw", "value", "passes"), [
    (1.0000002, 1.0, True), (1.00001, 1.0, True), (1.00002, 1.00002, False), (1.01, 1.01, False),
    (0.97, 0.97, True), (0.9699, 0.9699, False), (float("nan"), None, False)])
def test_a_cosine_above_one_by_rounding_is_one_and_the_gate_has_both_ends(raw, value, passes):
    figures = Cosine(raw, []).to_json((0.97, 1.0))
    assert (figures["value"], figures["passes"]) == (value, passes)
    assert figures["raw"] == raw or value is None


def test_another_file_than_the_described_one_is_not_loaded(folder):
    path = write_extractor(folder)
    with path.with_suffix(".onnx").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(ExtractorError, match="is not the file that grid.json describes: SHA-256"):
        load_extractor("grid")
    path.with_suffix(".onnx").unlink()
    with pytest.raises(ExtractorError, match="grid.onnx, which is not beside it"):
        load_extractor(str(path))


def test_a_network_that_finds_everybody_alike_fails_the_self_test(folder):
    write_extractor(folder)
    Image.fromarray(picture(1)).save(folder / "self_test" / "b.png")
    with pytest.raises(ExtractorError, match="a person and another person have the cosine 1.0000"):
        load_extractor("grid")


def test_an_unknown_name_says_which_there_are(folder):
    write_extractor(folder)
    with pytest.raises(ExtractorError, match="no extractor 'gird'; there are grid"):
        load_extractor("gird")


@pytest.mark.parametrize(("change", "text"), [
    ({"sze": 1}, "unknown key 'sze'; did you mean 'size'"),
    ({"frames_per_second": 1}, "unknown key 'frames_per_second'; known: name, onnx, sha256"),
    ({"kind": "video"}, "kind is 'video'; known: frames, clip"),
    ({"resize": "lanczos"}, "resize is 'lanczos'"),
    ({"size": 128}, "size is 128; expected two whole numbers from 1 to 16384"),
    ({"size": [96]}, r"size is \[96\]; expected two whole numbers"),
    ({"size": [96.0, 96.0]}, r"size is \[96.0, 96.0\]; expected two whole numbers"),
    ({"size": [0, 96]}, "expected two whole numbers"),
    ({"onnx": 5}, "onnx is 5; expected a text"),
    ({"sha256": None}, "sha256 is null; expected a text"),
    ({"output": ["a"]}, r'output is \["a"\]; expected a text'),
    ({"resize": ["box"]}, r'resize is \["box"\]; expected a text'),
    ({"mean": [0.5, 0.5]}, r"mean is \[0.5, 0.5\]; expected three numbers"),
    ({"mean": [0.5, 0.5, float("nan")]}, "expected three numbers"),
    ({"std": [1, 0, 1]}, "std has a 0"),
    ({"output": "clip"}, "its graph gives 1 rows for 8 frames"),
])
def test_a_description_with_a_mistake_is_refused_with_it(folder, change, text):
    write_extractor(folder, **change)
    with pytest.raises(ExtractorError, match=text):
        load_extractor("grid")


@pytest.mark.parametrize("where", ["initializer", "subgraph"])
def test_weights_in_another_file_which_the_sha256_does_not_cover_are_refused(folder, where):
    path = write_extractor(folder)
    graph, weights = path.with_suffix(".onnx"), np.full(4, 127.5, np.float32)
    model = onnx.load(graph)
    moved = numpy_helper.from_array(weights, "moved")
    if where == "initializer":
        model.graph.initializer.append(moved)
    else:
        model.graph.node.append(helper.make_node("Constant", [], ["moved"], value=moved))
    onnx.save(model, graph, save_as_external_data=True, location="grid.data", size_threshold=0,
              convert_attribute=where == "subgraph")
    path.write_text(json.dumps({**json.loads(path.read_text()), "sha256": file_sha256(graph)}))
    assert (folder / "grid.data").is_file()
    with pytest.raises(ExtractorError, match="grid.onnx has weights in another file: .*save it as one file"):
        load_extractor("grid")


def test_a_description_that_lacks_a_key_or_is_no_json_is_refused(folder):
    path = write_extractor(folder)
    path.write_text(json.dumps({"name": "grid"}))
    with pytest.raises(ExtractorError, match="does not describe an extractor: .*'onnx'"):
        load_extractor("grid")
    path.write_text("[")
    with pytest.raises(ExtractorError, match="does not describe an extractor"):
        load_extractor("grid")


def test_a_graph_that_onnxruntime_does_not_take_is_named(folder):
    path = write_extractor(folder)
    path.with_suffix(".onnx").write_bytes(b"no graph")
    spec = json.loads(path.read_text())
    spec["sha256"] = file_sha256(path.with_suffix(".onnx"))
    path.write_text(json.dumps(spec))
    with pytest.raises(ExtractorError, match="onnxruntime cannot load .*grid.onnx"):
        load_extractor("grid")


def test_padding_keeps_the_whole_picture_and_its_proportions(folder):
    write_extractor(folder, fit="pad", resize="bicubic")
    spec = load_extractor("grid").spec
    wide = np.full((48, 64, 3), 200, np.uint8)
    fitted = described.fitted(wide, spec)
    assert fitted.shape == (48, 32, 3)
    assert (fitted[:12] == 0).all() and (fitted[12:36] == 200).all() and (fitted[36:] == 0).all()


def test_extractors_of_one_name_are_told_apart_by_their_paths(folder, tmp_path):
    paths = [str(write_extractor(tmp_path / place, "clip")) for place in ("one", "two")]
    write_extractor(folder)
    found = load_extractors([*paths, "grid"])
    assert [each.name for each in found] == [f"clip of {paths[0]}", f"clip of {paths[1]}", "grid"]
    cosine = Judge(found).compare(*[Clip(clip(3), Fraction(24))] * 2)["cosine"]
    assert list(cosine) == [each.name for each in found]
    with pytest.raises(ValueError, match="two extractors have one name, of clip, clip"):
        Judge([load_extractor(path) for path in paths])


def test_an_extractor_that_is_named_twice_counts_once(folder):
    path = write_extractor(folder)
    assert [each.name for each in load_extractors(["grid", str(path), "grid"])] == ["grid"]
