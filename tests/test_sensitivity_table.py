"""The table of what is caught: on videos it never saw, every defect is, and no harmless change."""

from types import SimpleNamespace

import numpy as np
import pytest

from bench.defects import DEFECTS, Defect, Kind, Scene, encoded_again
from bench.judge import Judge
from bench.sensitivity import Row, measure, scenes_of, table
from bench.similarity import load_extractor
from bench.stfn_training import make_scene
from pipeline.errors import InputError
from tests.clips import picture_frames, write


def comparison(cosine, failed=()):
    return {"passes": not failed, "cosine": {"x": {"value": cosine}},
            "checks": [{"name": name, "passes": False} for name in failed],
            "metrics": dict.fromkeys(("ssim", "temporal_error", "motion_correlation", "sharpness"), 1.0)
            | {"psnr": None}}


@pytest.mark.slow
def test_every_defect_is_caught_and_no_harmless_change_on_held_out_clips():
    scenes = []
    for seed in (540_000, 540_001):
        made = make_scene(seed, 2.0, 24)
        near = made.frames.astype(int) + np.random.default_rng(seed).integers(-1, 2, made.frames.shape)
        rerun = encoded_again(Scene(near.clip(0, 255).astype(np.uint8), made.frames, made.frames))
        scenes.append(Scene(encoded_again(made), made.other_person, made.other_pose, rerun))
    rows = measure(scenes, Judge([load_extractor("stfn")]), lambda text: None)
    assert [row.defect for row in rows] == list(DEFECTS)
    assert [row.defect.name for row in rows if not row.as_wanted] == []


def test_a_row_is_as_wanted_only_if_all_its_videos_are():
    caught, missed = comparison(0.9, ["lag"]), comparison(0.99)
    late, again = Defect("late", None, Kind.TIME), Defect("again", None, Kind.HARMLESS)
    assert Row(late, [caught, caught]).as_wanted and not Row(late, [caught, missed]).as_wanted
    assert Row(again, [missed]).as_wanted and not Row(again, [missed, caught]).as_wanted


def test_the_table_says_what_caught_a_defect_in_how_many_videos_and_what_nothing_did():
    rows = [Row(Defect("again", None, Kind.HARMLESS), [comparison(0.999)] * 2),
            Row(Defect("late", None, Kind.TIME),
                [comparison(0.91, ["lag", "shift"]), comparison(0.9, ["lag"])]),
            Row(Defect("moved", None, Kind.LOOK), [comparison(0.99)] * 2)]
    lines = table(rows, SimpleNamespace(extractors=[SimpleNamespace(name="x")])).splitlines()
    assert lines[2].startswith("| again | 0.9990 to 0.9990 | none | 1 |")
    assert lines[2].endswith("| nothing, as it should |")
    assert "| 0.9000 to 0.9100 |" in lines[3] and lines[3].endswith("| lag, shift (1 of 2) |")
    assert lines[4].endswith("| **nothing** |")


def test_scenes_come_from_a_folder_and_another_engines_videos_beside_it(tmp_path):
    (tmp_path / "outputs").mkdir()
    for name, count in (("a", 4), ("b", 6)):
        write(tmp_path / "outputs" / f"{name}.mp4", picture_frames(count))
    scenes = scenes_of(tmp_path)
    assert [len(scene.other_person) for scene in scenes] == [4, 6]
    assert (scenes[0].other_pose[2:] == scenes[0].frames[:2]).all() and scenes[0].other_engine is None
    again = scenes_of(tmp_path, tmp_path / "outputs")
    assert (again[1].other_engine == again[1].frames).all()
    (tmp_path / "outputs" / "b.mp4").unlink()
    with pytest.raises(InputError, match="needs two or more videos of one size"):
        scenes_of(tmp_path)
