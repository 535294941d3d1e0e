"""The bundled stfn tells defects from harmless changes on people it never saw; training can be resumed."""

import json

import numpy as np
import onnx
import pytest
import torch

from bench import similarity
from bench.described import read_description
from bench.similarity import EXTRACTORS, Extractor, load_extractor
from lab.extractor import pool_training
from lab.extractor.defects import DEFECTS, Scene, encoded_again, levels
from lab.extractor.pool_training import NEAR, PoolFit, fit_pool
from lab.extractor.stfn import HEIGHT, WIDTH, Stfn, StfnSize
from lab.extractor.stfn_batches import HARMFUL, make_batch, make_near, make_scene
from lab.extractor.stfn_training import export, loss, loss_near, train

SEEDS = (520_000, 520_001, 520_002)
# Above the gate in some clip, by the cosine alone: weights that let crf 28 pass let these pass too; weights
# before let only the shift by a pixel. The checks see each: tests/lab/test_sensitivity_table.py.
FAINT = {"blur, sigma 1 pixel", "noise, 5 levels", "flicker of 3 levels", "time reversed", "one frame late",
         "moved by 1 pixel", "half the resolution"}
CAUGHT = [defect for defect in DEFECTS if defect in HARMFUL and defect.name not in FAINT]
TINY = StfnSize((4, 4, 4), 2, 8, 8)


@pytest.fixture(scope="module")
def stfn():
    return load_extractor("stfn")


@pytest.fixture(scope="module")
def scenes():
    """Three held-out clips of 24 frames, encoded once, as the videos are that judges see."""
    made = [make_scene(seed, 1.0, 24) for seed in SEEDS]
    return [Scene(encoded_again(scene), scene.other_person, scene.other_pose) for scene in made]


@pytest.fixture(scope="module")
def likeness(stfn, scenes):
    """A function that gives the cosine of a scene, by number, and other frames; its own features are kept."""
    own = [stfn.features(scene.frames) for scene in scenes]
    return lambda number, frames: stfn.between(own[number], stfn.features(frames))


def test_encoding_again_stays_above_0_995(likeness, scenes):
    for number, scene in enumerate(scenes):
        cosine = likeness(number, encoded_again(scene))
        assert cosine.value > 0.995 and min(cosine.frames) > 0.97


def test_errors_below_one_level_stay_above_0_995(likeness, scenes):
    for number, scene in enumerate(scenes):
        noise = np.random.default_rng(1).normal(0, 0.7, scene.frames.shape)
        assert likeness(number, levels(scene.frames + noise)).value > 0.995


@pytest.mark.parametrize("crf", [18, 23, 28])
def test_a_coarser_encoding_stays_above_the_gate(likeness, scenes, crf):
    for number, scene in enumerate(scenes):
        assert likeness(number, encoded_again(scene, crf)).value > 0.97


@pytest.mark.parametrize("defect", CAUGHT, ids=lambda defect: defect.name)
def test_a_visible_defect_falls_below_the_gate(likeness, scenes, defect):
    for number, scene in enumerate(scenes):
        assert likeness(number, np.ascontiguousarray(defect.change(scene))).value < 0.97


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A small random network, and an extractor of its graphs."""
    torch.manual_seed(0)
    network, folder = Stfn(TINY).eval(), tmp_path_factory.mktemp("tiny")
    spec = read_description(export(network, folder), similarity.Spec, "an extractor")
    return network, Extractor(spec, folder / spec.onnx)


@pytest.mark.parametrize("frames", [16, 17, 40])
def test_a_clip_taken_in_parts_has_the_features_of_the_whole(frames, tiny):
    network, extractor = tiny
    clip = np.random.default_rng(0).integers(0, 256, (frames, HEIGHT, WIDTH, 3), np.uint8)
    with torch.inference_mode():
        wanted = network(torch.from_numpy(clip))
    found = extractor.features(clip)
    assert np.abs(found[0] - wanted[0][0].numpy()).max() < 1e-5
    assert np.abs(found[1] - wanted[1].numpy()).max() < 1e-5


@pytest.mark.parametrize("frames", [1, 2, 7, 60])
def test_any_number_of_frames_works(stfn, frames):
    clip = make_scene(530_000, 0.0, frames).frames
    cosine = stfn.cosine(clip, clip)
    assert cosine.value == pytest.approx(1, abs=1e-6) and len(cosine.frames) == max(2, frames)


def test_the_bundled_graphs_are_small_and_tell_nothing_of_the_machine_that_made_it():
    paths = [EXTRACTORS / "stfn.onnx", EXTRACTORS / "stfn-pool.onnx"]
    graphs = [onnx.load(path).graph for path in paths]
    assert sum(int(np.prod(weight.dims)) for graph in graphs for weight in graph.initializer) < 3e6
    for path, graph in zip(paths, graphs, strict=True):
        assert b"/home" not in path.read_bytes() and not any(node.metadata_props for node in graph.node)


@pytest.fixture(scope="module")
def batch():
    return make_batch(3)


def test_a_batch_is_a_function_of_its_number(batch):
    one, again, other = batch, make_batch(3), make_batch(4)
    assert (one.clip == again.clip).all() and one.clip.shape[1:] == other.clip.shape[1:]
    assert all((a == b).all() for a, b in zip(one.defects, again.defects, strict=True))
    assert one.clip.shape != other.clip.shape or (one.clip != other.clip).any()


@pytest.mark.slow
def test_training_goes_on_where_it_stopped_and_ends_in_a_described_graph(tmp_path, monkeypatch):
    # In this process: another would render batches ahead, of which two are needed.
    monkeypatch.setattr("lab.extractor.stfn_training.stream", lambda dataset, workers: iter(dataset))
    with monkeypatch.context() as patch:
        # It takes longest.
        patch.setattr("lab.extractor.stfn_training.export", lambda network, folder, footage: None)
        train(tmp_path / "run", 1, tmp_path / "b", TINY)
    described = train(tmp_path / "run", 2, tmp_path / "b", TINY)
    log = (tmp_path / "run" / "stfn.log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in log] == [1, 2]
    spec = json.loads(described.read_text())
    session_input = onnx.load(described.with_name(spec["onnx"])).graph.input[0]
    assert session_input.name == spec["input"]


@pytest.fixture(scope="module")
def near():
    return make_near(3)


def test_a_near_clip_is_off_by_so_many_decibels(near):
    again = make_near(3)
    assert all((a == b).all() for a, b in zip(near.off, again.off, strict=True))
    assert len(near.decibels) == len(near.off) == 3 and all(25 < each < 60 for each in near.decibels)
    assert all(each.shape == near.clip.shape for each in [*near.off, *near.compressed])


def test_the_pooling_alone_is_fitted_to_rows_that_are_made_once(tiny, batch, near, tmp_path, monkeypatch):
    network, numbers = tiny[0], []
    weights = {name: weight.clone() for name, weight in network.state_dict().items()}
    monkeypatch.setattr(pool_training, "make_batch", lambda number, footage: numbers.append(number) or batch)
    monkeypatch.setattr(pool_training, "make_near", lambda number: numbers.append(number) or near)
    monkeypatch.setattr(pool_training, "read_weights", lambda folder: weights)
    monkeypatch.setattr(pool_training, "export", lambda network, folder, footage: network)
    fits = [PoolFit(1, 1, steps, 1e-2, 2) for steps in (1, 30)]
    fitted = [fit_pool(tmp_path / "rows", fit, tmp_path, tmp_path, size=TINY) for fit in fits]
    assert numbers == [pool_training.FIRST, 0]
    before, after = (loss(each, batch) + NEAR * loss_near(each, near) for each in fitted)
    assert after < before
    now = fitted[1].state_dict()
    changed = {name.split(".")[0] for name, was in weights.items() if (now[name] != was).any()}
    assert changed == {"over_time", "out", "head"}
