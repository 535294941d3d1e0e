"""export_onnx.py as people run it: what it prints where, its exit status, and what it leaves behind."""

import json
import shutil
import subprocess
import sys
from argparse import Namespace
from functools import partial
from pathlib import Path

import pytest

import export_onnx as script
from engines.onnx import export

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def run(run_main, tmp_path, tiny_file):
    """A function that runs export_onnx.py on the tiny presenter, into tmp_path/out."""
    return partial(run_main, script, "--generator", f"{tiny_file}:Tiny", "--out", tmp_path / "out")


def names(folder):
    """The artifacts in a folder without the hash in their names."""
    return sorted("-".join(path.stem.split("-")[:-1]) for path in folder.glob("*.onnx"))


def test_components_come_out_in_their_precisions_and_again_nothing_is_made(
        run, tiny, graph, make_data, tmp_path):
    """The denoiser's fp32 graph, which takes longest, is there already."""
    (tmp_path / "out").mkdir()
    for path in (found := graph(tiny, "denoise").path).parent.glob(f"{found.name}*"):
        shutil.copy(path, tmp_path / "out")
    precision = "fp32,decode=fp16,denoise=int8-fp32"
    choice = ("--data", make_data({"a": 2}, size=(32, 48)), "--precision", precision)
    first = run(*choice)
    assert first.status == 0, first.err
    files = [Path(line).name.rpartition("-")[0] for line in first.out.splitlines()]
    assert files == ["encode-fp32", "denoise-int8-fp32", "decode-fp16"]
    assert names(tmp_path / "out") == ["decode-fp16", "decode-fp32", "denoise-fp32", "denoise-int8-fp32",
                                       "encode-fp32"]
    assert "recording a over all steps" in first.err and "denoise-int8-fp32.onnx: flow: max" in first.err
    again = run(*choice)
    assert again.out == first.out and again.err.count("kept ") == 5 and "recording" not in again.err


def test_json_prints_one_object_for_each_graph_with_its_parity(run, tmp_path):
    result = run("--component", "decode", "--json")
    assert result.status == 0
    (about,) = (json.loads(line) for line in result.out.splitlines())
    assert Path(about["file"]).is_file() and about["parity"]["pixels"]["max_error"] <= 1
    assert names(tmp_path / "out") == ["decode-fp32"]


def test_without_out_graphs_go_where_engines_look(run, tmp_path, monkeypatch):
    folders, parse = [], script.parse

    def export_all(generator, chosen, data, target, opset):
        folders.append(target.folder)
        return []

    monkeypatch.setenv("VIVACE_BUILT", str(tmp_path / "built"))
    monkeypatch.setattr(script, "export_all", export_all)
    monkeypatch.setattr(script, "parse", lambda: Namespace(**{**vars(parse()), "out": None}))
    assert run().status == 0 and folders == [tmp_path / "built" / "tiny"]


@pytest.mark.parametrize(("arguments", "text"), [
    (("--precision", "fp12"), "unknown precision 'fp12'"),
    (("--precision", "fp32,denoize=fp16"), "unknown component 'denoize'; did you mean 'denoise'?"),
    (("--component", "encode,denoize"), "unknown component 'denoize'; did you mean 'denoise'?"),
    (("--generator", "nope"), "no generator 'nope'"),
    (("--opset", "twenty"), "argument --opset"),
])
def test_what_is_not_known_is_status_2_and_makes_nothing(run, tmp_path, arguments, text):
    result = run(*arguments)
    assert result.status == 2 and text in result.err and result.out == ""
    assert not (tmp_path / "out").exists()


def test_data_that_cannot_calibrate_is_status_3_and_fp32_does_not_ask_for_it(run, tmp_path):
    nowhere = ("--component", "decode", "--data", tmp_path / "nowhere")
    result = run(*nowhere, "--precision", "fp16")
    assert result.status == 3 and "does not exist; it needs videos/ and images/" in result.err
    assert run(*nowhere, "--precision", "fp32").status == 0


def test_an_opset_that_does_not_exist_is_status_4(run, tmp_path):
    result = run("--component", "decode", "--opset", 99)
    assert result.status == 4 and "this torch has no opset 99" in result.err
    assert list((tmp_path / "out").iterdir()) == []


def test_a_missing_package_is_status_4(run, monkeypatch):
    monkeypatch.setattr(export, "TOOLS", ("no-such-package",))
    result = run()
    assert result.status == 4 and "no-such-package is not installed; run: pip install" in result.err


def test_a_full_disk_is_status_8_and_leaves_nothing(run, tmp_path, monkeypatch):
    def full(model, path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(export, "save_graph", full)
    result = run("--component", "decode")
    assert result.status == 8 and "No space left on device" in result.err and "make room" in result.err
    assert list((tmp_path / "out").iterdir()) == []


def test_a_file_in_place_of_the_folder_is_status_2(run, tmp_path):
    (tmp_path / "file").write_text("x")
    assert run("--component", "decode", "--out", tmp_path / "file" / "out").status == 2


def test_an_interrupt_is_status_130(run, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(script, "export_all", interrupted)
    assert run().status == 130


def test_help_answers_at_once_without_importing_torch_or_onnx():
    command = [sys.executable, "-X", "importtime", "export_onnx.py", "--help"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    loaded = {line.rpartition("|")[2].strip() for line in answer.stderr.splitlines()}
    assert answer.returncode == 0 and "--precision" in answer.stdout
    assert "argparse" in loaded and not {"torch", "onnx", "onnxruntime", "openvino"} & loaded
