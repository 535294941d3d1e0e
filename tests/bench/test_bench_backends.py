"""bench backends: interleaved rounds, figures against the base, and variants that cannot run."""

import json
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

import bench.__main__ as script
from bench import engine_bench as backends
from bench.engine_bench import BASE, Clip, compare, table
from engines.errors import EngineError

CLIP = Clip(np.zeros((20, 96, 64, 3), np.uint8), np.zeros((96, 64, 3), np.uint8), 7)


@pytest.fixture
def runs(monkeypatch, plain):
    """compare() on NumPy engines whose flow is the backend's offset everywhere, from latents of zero."""
    offsets = {"torch": 0.0, "openvino": 0.25}
    order, closed = [], []

    def start(generator, choice, say):
        if choice.backend not in offsets:
            raise EngineError(f"{choice.backend} is not installed; run: pip install {choice.backend}\nmore")
        functions = generator.engines()

        def engine(name, own):
            def run(**arrays):
                if name == "encode" and len(arrays["pixels"]) == 1:  # the picture: once a run
                    order.append(choice.backend)
                outputs = own(**arrays)
                if name == "denoise":
                    return {"flow": np.full_like(arrays["latents"], offsets[choice.backend])}
                return outputs
            run.close = lambda: closed.append(f"{choice.backend} {name}")
            return run

        return choice.backend, {name: engine(name, own) for name, own in functions.items()}

    monkeypatch.setattr(backends, "start_engines", start)

    def run(variants, rounds=3):
        generator = plain()
        generator.noise = lambda frames, seed: np.zeros((1, frames, 12, 8), np.float32)
        return compare(generator, CLIP, variants, "cpu", rounds, lambda text: None)

    return SimpleNamespace(run=run, order=order, closed=closed, offsets=offsets)


def test_a_variant_is_fp32_unless_it_says_so_and_runs_once(runs):
    figures = runs.run(["openvino", "openvino:fp32", "openvino:bf16", "torch"], rounds=1)
    assert list(figures) == ["torch:fp32", "openvino:fp32", "openvino:bf16"]
    assert len(runs.closed) == 3 * 3


def test_rounds_interleave_the_variants_and_begin_with_the_next_of_them(runs):
    runs.run(["openvino:fp32", BASE])
    assert runs.order == ["torch", "openvino", "torch", "openvino", "openvino", "torch", "torch", "openvino"]


def test_figures_are_ratios_to_the_base_and_distances_from_its_frames(runs):
    figures = runs.run(["openvino:fp32"])
    base, other = figures["torch:fp32"], figures["openvino:fp32"]
    assert base["speedup"] == 1.0 and base["psnr_to_base"] is None and base["temporal_error"] == 0
    assert len(other["seconds"]) == 3 and other["speedup"] > 0
    # A flow of 0.25 all the way moves latents by -0.25: pixels from 127 to 95, in every frame.
    assert other["psnr_to_base"] == round(20 * np.log10(255 / 32), 2) and other["temporal_error"] == 0


def test_a_variant_that_cannot_run_has_its_reason_and_the_others_still_run(runs):
    figures = runs.run(["tensorrt:fp16", "openvino:fp32"], rounds=1)
    assert figures["tensorrt:fp16"] == {"refused": "tensorrt is not installed; run: pip install tensorrt"}
    assert "speedup" in figures["openvino:fp32"]
    assert "| tensorrt:fp16 | tensorrt is not installed; run: pip install tensorrt |" in table(figures)


def test_without_the_base_there_is_nothing_to_compare_with(runs):
    del runs.offsets["torch"]
    with pytest.raises(EngineError, match="the base, torch:fp32, cannot run: torch is not installed"):
        runs.run(["openvino:fp32"])


def test_every_engine_is_closed(runs):
    runs.run(["openvino:fp32"], rounds=1)
    names = ("encode", "denoise", "decode")
    assert sorted(runs.closed) == sorted(f"{b} {n}" for b in ("torch", "openvino") for n in names)


@pytest.fixture
def bench(run_main):
    """A function that runs the command: status, stdout, stderr."""
    return partial(run_main, script, "backends")


def test_the_command_prints_a_table_and_writes_a_report(bench, tiny_file, make_data, tmp_path, monkeypatch):
    monkeypatch.setenv("VIVACE_BUILT", str(tmp_path / "built"))
    report = tmp_path / "results" / "report.json"
    result = bench("--generator", f"{tiny_file}:Tiny", "--data", make_data({"a": 4}), "--frames", 3,
                   "--ways", "openvino:fp32", "--rounds", 1, "--report", report)
    assert result.status == 0, result.err
    assert "| torch:fp32 | 1.00 | the base | 0.000 |" in result.out
    assert "no encode-fp32.onnx" in result.out  # nothing was exported
    written = json.loads(report.read_text())
    assert written["frames"] == 3 and written["machine"]["cores"] > 0 and set(written["ways"]) == {
        "torch:fp32", "openvino:fp32"}


@pytest.mark.parametrize(("arguments", "status", "text"), [
    (["--data", "nowhere"], 3, "data folder nowhere does not exist"),
    (["--ways", "torch:fp17"], 2, "unknown precision 'fp17'"),
    (["--generator", "nobody"], 2, "no generator 'nobody'"),
])
def test_bad_input_stops_with_its_status(bench, arguments, status, text):
    result = bench(*arguments)
    assert result.status == status and text in result.err
