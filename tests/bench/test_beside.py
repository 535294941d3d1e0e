"""The scale: how far another seed lies from the base, and who lies nearer."""

import json
from pathlib import Path

import numpy as np
import pytest

from bench import similarity
from bench.base_again import base_judged
from bench.beside import AGAIN, ANOTHER_SEED, distance, nearer
from bench.judge import Folders, Judge, judge_folder, reasons
from bench.report import markdown
from bench.similarity import load_extractor
from bench.verdict import Question, make_report, run_entry
from engines.errors import InputError
from lab.presenter.evaluate import held_out
from tests.clips import write
from tests.extractors import write_extractor


@pytest.fixture(scope="module")
def base():
    """8 rendered frames."""
    return held_out(3, 8).truth


@pytest.fixture(scope="module")
def other():
    """The same motion and person, with the mouth, eyes and lights drawn anew."""
    item = held_out(3, 8)
    return item.clip.frames(item.t, detail_seed=99)


@pytest.fixture
def folders(tmp_path, base, other):
    for name, frames in {"reference": base, "candidate": base, "seed": other, "again": base}.items():
        (tmp_path / name).mkdir()
        write(tmp_path / name / "a.mp4", frames, **({"lossless": True} if name != "candidate" else {}))
    return tmp_path


def judged(folders, candidate="candidate", **beside):
    names = {"seed": ANOTHER_SEED, "again": AGAIN}
    scales = {names[key]: folders / value for key, value in beside.items()}
    asked = Folders(folders / "reference", folders / candidate, {}, scales)
    return judge_folder(Judge([load_extractor("grid")]), asked, lambda text: None), scales


@pytest.fixture(autouse=True)
def grid(tmp_path, monkeypatch):
    monkeypatch.setattr(similarity, "EXTRACTORS", tmp_path / "extractors")
    write_extractor(tmp_path / "extractors")


def test_the_distance_of_equal_frames_is_nothing_and_of_others_in_db(base):
    same = distance(base, base)
    assert same.pop("psnr") is None and same == pytest.approx(dict.fromkeys(same, 0), abs=1e-6)
    away = distance(base // 2, base // 2 + 3)
    assert away["psnr"] == pytest.approx(10 * np.log10(255**2 / 9)) and away["structure"] < 1e-4
    with pytest.raises(ValueError, match="no frames"):
        distance(base[:0], base)
    with pytest.raises(ValueError, match="cannot be compared"):
        distance(base, base[:, 1:])


def test_a_run_as_far_as_another_seed_is_not_the_same_video(base, other):
    scale = distance(base, other)
    path = Path("seed/a.mp4")
    assert not nearer(scale, scale, path).passes and "no nearer" in nearer(scale, scale, path).value
    assert nearer({"structure": 0.5 * scale["structure"]}, scale, path).passes
    with pytest.raises(InputError, match="seed/a.mp4: equals the reference; make it with another --seed"):
        nearer(scale, distance(base, base), path)


def test_another_seed_and_the_base_again_stand_beside_a_run(folders):
    comparisons, scales = judged(folders, seed="seed", again="again")
    (video,) = comparisons
    assert video["passes"] and video["checks"][-1]["name"] == "structure beside another seed's"
    assert video["beside"][AGAIN]["psnr"] is None
    assert video["beside"][ANOTHER_SEED]["psnr"] < video["metrics"]["psnr"]
    question = Question(folders, folders / "reference", ["grid"], beside=scales)
    text = markdown(make_report([run_entry("one", folders, comparisons, question)], question))
    assert "| PSNR of another seed, dB | PSNR of the base again, dB |" in text.splitlines()[0]
    assert "scale is unknown" not in text and "decides nothing" in text


@pytest.mark.parametrize(("made", "base", "said"), [
    ([], [], None), (None, None, None),
    (["fast:1"], ["fast:1"], "judged against the base model with the same adapters: fast:1"),
    (["a:1", "b:0.5"], [], "another base model: adapters here: a:1, b:0.5; of the reference: none"),
    ([], ["a:1"], "another base model: adapters here: none; of the reference: a:1"),
    (["a:1"], None, "another base model: adapters here: a:1; of the reference: unknown")])
def test_it_is_said_against_which_base_model_an_adapter_is_judged(tmp_path, made, base, said):
    for folder, loras in (("candidate", made), ("reference", base)):
        (tmp_path / folder).mkdir()
        line = {"id": "a", "status": "done", **({"loras": loras} if loras else {})}
        if loras is not None:
            (tmp_path / folder / "manifest.jsonl").write_text(json.dumps(line) + "\n")
    found = base_judged(tmp_path / "candidate", tmp_path / "reference")
    assert found == said if said is None else said in found


def test_another_seed_as_candidate_is_not_the_same_video(folders):
    comparisons, _ = judged(folders, candidate="seed", seed="seed")
    assert not comparisons[0]["passes"]
    assert "no nearer to the base than another seed" in reasons(comparisons)[-1]


def test_without_another_seed_the_report_says_that_the_scale_is_unknown(folders):
    comparisons, _ = judged(folders)
    question = Question(folders, folders / "reference", ["grid"])
    assert "beside another seed" not in str(comparisons) and comparisons[0]["passes"]
    run = {**run_entry("one", folders, comparisons, question), "base": "judged against another base model"}
    text = markdown(make_report([run], question))
    assert "How far another sample lies is unknown" in text
    assert "- one: judged against another base model" in text


def test_a_scale_that_lacks_a_video_is_an_input_error(folders):
    (folders / "seed" / "a.mp4").rename(folders / "seed" / "b.mp4")
    with pytest.raises(InputError, match="another seed, lacks a"):
        judged(folders, seed="seed")


def test_a_scale_whose_video_cannot_be_used_costs_that_video_and_not_the_judgement(folders, base):
    for name in ("reference", "candidate", "seed", "again"):
        (folders / name / "b.mp4").write_bytes((folders / name / "a.mp4").read_bytes())
    for spoil, said in ((lambda path: write(path, base[:, 2:], lossless=True), "cannot be compared"),
                        (lambda path: path.write_bytes(path.read_bytes()[:-99]), "is truncated"),
                        (lambda path: write(path, base, lossless=True), "equals the reference")):
        spoil(folders / "seed" / "a.mp4")
        (a, b), _ = judged(folders, seed="seed", again="again")
        assert b["passes"] and not a["passes"] and a["status"] == "judged" and a["beside"].keys() == {AGAIN}
        assert a["error"].startswith("another seed: ") and str(folders / "seed" / "a.mp4") in a["error"]
        assert said in a["error"] and a["error"] in reasons([a, b])[0]
        (folders / "seed" / "a.mp4").write_bytes((folders / "seed" / "b.mp4").read_bytes())


def test_a_video_of_the_base_again_that_cannot_be_used_is_said_and_left_out(folders):
    path = folders / "again" / "a.mp4"
    path.write_bytes(path.read_bytes()[:-99])
    asked, said = Folders(folders / "reference", folders / "candidate", {}, {AGAIN: folders / "again"}), []
    (video,) = judge_folder(Judge([load_extractor("grid")]), asked, said.append)
    assert video["passes"] and video["error"] is None and video["beside"] == {}
    assert said[0].startswith(f"a: the base again is left out: {path}: is truncated")
    question = Question(folders, folders / "reference", ["grid"], beside=asked.beside)
    run = run_entry("x", folders, [video], question)
    assert "noise floor is unknown" in markdown(make_report([run], question))
