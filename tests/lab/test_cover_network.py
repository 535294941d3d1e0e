"""The cover network: it orders held-out pictures by what they are worth, in every precision."""

import json

import numpy as np
import onnx
import pytest
import torch

from engines.artifact import Label, find
from engines.backends.onnxruntime_backend import OnnxRuntimeEngine
from engines.onnx.export import Target
from finish.network import CoverNet, CoverSize, folded, unfolded
from finish.scorer import WEIGHTS, Cover, Scorer, start_scorer
from generators.contract import GeneratorError
from lab.finish import training
from lab.finish.degrade import COST, degrade, quality
from lab.finish.evaluate import order, rank_correlation
from lab.finish.export import BUDGET, export_cover
from lab.finish.flawed import FlawedVideo
from lab.finish.pictures import HELD_OUT, draw, graded, training_batch
from lab.finish.training import train
from lab.presenter.train import Plan

TINY = CoverSize(8, 8)


@pytest.fixture(scope="module")
def bundled():
    return start_scorer("torch", "fp32", "cpu", print)


def random_network(size=TINY):
    torch.manual_seed(0)
    network = CoverNet(size)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.2, 0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
    return network


def test_the_bundled_network_orders_held_out_pictures_by_what_they_are_worth(bundled):
    found = order(bundled, lambda text: None, 20)
    assert found["all"] >= 0.87  # scenes and kinds together: 0.90 over 500 pictures, 0.89 over these
    assert found["within, mean"] >= 0.95 and min(found["within"].values()) >= 0.8, found


def test_closed_eyes_cost_a_portrait_some_of_its_score(bundled):
    alone = [seed for seed in range(HELD_OUT, HELD_OUT + 40) if draw(seed).shape[1] == 192][:8]
    open_, closed = (bundled([draw(seed, lids) for seed in alone]) for lids in (1.0, 0.0))
    assert (open_ > closed).mean() >= 0.75


def test_the_network_is_small_and_its_weights_are_bundled_in_half_precision():
    assert sum(parameter.numel() for parameter in CoverNet().parameters()) < 1_000_000
    assert WEIGHTS.stat().st_size < 2_000_000


def test_folding_the_normalisations_changes_no_score():
    network = random_network().eval()
    pixels = torch.from_numpy(graded([HELD_OUT], 0).pixels)
    with torch.inference_mode():
        before = network(pixels)
        torch.testing.assert_close(folded(network)(pixels), before, rtol=1e-4, atol=1e-5)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules())


def test_no_strength_changes_nothing_and_more_of_anything_is_worth_less():
    picture, random = draw(HELD_OUT), np.random.default_rng(0)
    other = picture[::-1].copy()
    assert quality({}) == 1
    for kind in COST:
        assert (degrade(picture, {kind: 0.0}, other, random) == picture).all()
        assert quality({kind: 0.2}) > quality({kind: 0.3}) > quality({kind: 0.3, "blur": 0.5})
        if kind != "eyes":  # drawn, not degraded
            near, far = (
                np.abs(degrade(picture, {kind: s}, other, random) - picture.astype(float)).mean()
                for s in (0.3, 0.9)
            )
            assert 0 < near < far


def test_weights_that_are_missing_are_named_with_the_command_that_makes_them(tmp_path):
    words = r"no weights .*cover\.safetensors; .* python -m lab.finish train"
    with pytest.raises(GeneratorError, match=words):
        Cover(tmp_path / "cover.safetensors").build("score")


def test_a_batch_is_a_function_of_its_number_and_holds_flawless_pictures():
    one, again, other = training_batch(3), training_batch(3), training_batch(4)
    assert (one.pixels == again.pixels).all() and (one.pixels != other.pixels).any()
    assert (one.quality[::5] == 1).all() and one.quality.min() < 0.6


def test_a_flawed_video_is_worth_what_its_strengths_say():
    video = FlawedVideo(HELD_OUT)
    assert len(video.quality) == video.count == sum(1 for _ in video.frames())
    assert video.quality[0] == quality(video.strengths[0]) and np.ptp(video.quality) > 0.1


def test_ranks_of_equal_numbers_are_shared():
    assert rank_correlation(np.array([1, 2, 3]), np.array([10, 20, 30])) == pytest.approx(1)
    assert rank_correlation(np.array([1, 2, 2]), np.array([1, 2, 3])) == pytest.approx(0.8660254)


@pytest.mark.slow
def test_graphs_in_fp32_and_8_bits_score_as_torch_does(tmp_path, monkeypatch):
    # Each layer is measured on all of them.
    monkeypatch.setattr("lab.finish.export.CALIBRATION", (1_900_000, 4))
    model = Cover()
    made = export_cover(["fp32", "int8-fp32"], Target(tmp_path, lambda text: None))
    assert [each.manifest["precision"] for each in made] == ["fp32", "int8-fp32"]
    assert made[1].manifest["facts"]["quantised_layers"] > 10
    assert made[1].manifest["built_from"]["recipe"]["budget"] == BUDGET
    takers = [n.op_type for n in onnx.load(made[0].path).graph.node if "pixels" in n.input]
    assert takers == ["Cast"]  # TensorRT takes uint8 into nothing else
    pictures = list(graded([HELD_OUT], 0).pixels)
    with torch.inference_mode():
        reference = model.build("score")(torch.from_numpy(np.stack(pictures))).numpy()
    for artifact, most in zip(made, (1e-4, 0.02), strict=True):
        scores = Scorer(OnnxRuntimeEngine(model.components["score"], artifact.path))(pictures)
        assert np.abs(scores - reference).max() < most * np.abs(reference).max()
    again = export_cover(["fp32"], Target(tmp_path, lambda text: None))[0]
    assert again.path == find(tmp_path, Label("score", "fp32", ".onnx"), {}, "").path == made[0].path


def test_folded_weights_can_be_trained_on_from_the_same_scores():
    network = folded(random_network())
    pixels = torch.from_numpy(graded([HELD_OUT], 0).pixels)
    with torch.inference_mode():
        before = network(pixels)
    again = unfolded(network, pixels)
    with torch.inference_mode():
        torch.testing.assert_close(again(pixels), before, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(again.train()(pixels), before, rtol=1e-4, atol=1e-5)
    assert again.state_dict().keys() == CoverNet(TINY).state_dict().keys()


@pytest.mark.slow
def test_training_goes_on_where_it_stopped_and_ends_in_weights_that_load(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "STATISTICS", 1)
    train(tmp_path / "run", Plan(1, 1e-3), tmp_path / "a.safetensors", TINY)
    path = train(tmp_path / "run", Plan(2, 1e-3), tmp_path / "b.safetensors", TINY)
    log = (tmp_path / "run" / "cover.log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in log] == [1, 2]
    network = Cover(path).build("score")
    assert network.size == TINY and not any("running" in name for name in network.state_dict())
