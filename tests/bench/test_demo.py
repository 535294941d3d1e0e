"""The demo: all videos by a recipe, the shortest by the base model, and what its table says of them."""

import json
import re

import pytest

import bench.__main__ as bench
import infer
from bench.base_again import seconds_of
from tests.graphs import copy_built


@pytest.fixture
def data(tiny_file, make_data, run_main, tmp_path):
    """A data folder with the tiny presenter's own videos in outputs/."""
    folder = make_data({"long": 20, "short": 5}, size=(32, 48))
    where = "--generator", f"{tiny_file}:Tiny", "--data", folder
    assert run_main(infer, *where, "--out", folder / "outputs").status == 0
    return folder


@pytest.fixture(autouse=True)
def built(tiny_built, tmp_path, monkeypatch):
    """Have a folder of the test's own for VIVACE_BUILT: the demo builds what is not there."""
    monkeypatch.setenv("VIVACE_BUILT", str(copy_built(tiny_built, tmp_path / "built")))


@pytest.mark.parametrize(("actions", "status"), [("FF", 0), ("FS", 5)])
def test_the_table_has_the_ratio_and_the_verdict(tiny_file, data, run_main, tmp_path, actions, status):
    recipe = tmp_path / "quick.toml"
    recipe.write_text(f'backend = "onnxruntime"\n[steps]\nactions = "{actions}"\n')
    out = tmp_path / "demo"
    found = run_main(bench, "demo", "--generator", f"{tiny_file}:Tiny", "--data", data,
                     "--recipe", recipe, "--out", out)  # fmt: skip
    assert found.status == status, found.err
    header, base, quick, *rest = found.out.splitlines()
    assert re.split(r"\s{2,}", header.strip())[1:3] == ["seconds for short", "times faster"]
    told = [float(base.split()[2]), *map(float, quick.split()[1:3])]
    slow, seconds = (seconds_of(out / run)["short"] for run in ("base", "fast"))
    assert told == [round(slow, 2), round(seconds, 2), round(slow / seconds, 1)]
    assert quick.startswith("quick") and ("2 of 2 are the same video" in quick) == (status == 0)
    made = [json.loads(line)["id"] for line in (out / "base" / "manifest.jsonl").read_text().splitlines()]
    assert made == ["short"] and (out / "report" / "index.html").exists()
    assert str(out / "report" / "index.html") in rest[-1]


def test_a_script_that_fails_ends_it_with_what_it_said(tiny_file, data, run_main, tmp_path):
    (recipe := tmp_path / "bad.toml").write_text('backend = "nothing"\n')
    found = run_main(bench, "demo", "--generator", f"{tiny_file}:Tiny", "--data", data, "--recipe", recipe,
                     "--out", tmp_path / "demo")  # fmt: skip
    assert found.status == 4 and "infer.py ended with status 2; what it says is above" in found.err
