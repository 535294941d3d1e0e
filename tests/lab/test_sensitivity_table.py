"""The table of what is caught: on videos it never saw, every defect is, and no harmless change."""

from types import SimpleNamespace

import numpy as np
import pytest

from bench import similarity
from bench.beside import ANOTHER_SEED
from bench.boxes import find_boxes
from bench.judge import Judge
from bench.similarity import load_extractor
from engines.errors import InputError
from lab.extractor.defects import DEFECTS, Defect, Kind, Scene, encoded_again
from lab.extractor.footage import scenes_of_footage
from lab.extractor.sensitivity import Row, changes_of, measure, scenes_of, table
from lab.extractor.stfn_batches import make_scene
from tests.clips import picture_frames, write
from tests.extractors import write_extractor


@pytest.fixture
def judge(tmp_path, monkeypatch):
    monkeypatch.setattr(similarity, "EXTRACTORS", tmp_path / "extractors")
    write_extractor(tmp_path / "extractors")
    return Judge([load_extractor("grid")])


def comparison(cosine, failed=()):
    return {"passes": not failed, "cosine": {"x": {"value": cosine, "passes": cosine >= 0.97}},
            "checks": [{"name": name, "passes": False} for name in failed],
            "metrics": {"structure": 1.0, "psnr": None}}


@pytest.mark.slow
def test_every_defect_is_caught_and_no_harmless_change_on_held_out_clips():
    scenes = []
    for seed in (540_000, 540_001):
        made = make_scene(seed, 2.0, 24)
        near = made.frames.astype(int) + np.random.default_rng(seed).integers(-1, 2, made.frames.shape)
        rerun = encoded_again(Scene(near.clip(0, 255).astype(np.uint8), made.frames, made.frames))
        scenes.append(Scene(encoded_again(made), made.other_person, made.other_pose, rerun))
    rows = measure(scenes, Judge([load_extractor("stfn")]), lambda text: None)
    assert {row.defect for row in rows} == set(DEFECTS)
    assert [row.defect.name for row in rows if not row.as_wanted] == []


def test_a_row_is_as_wanted_only_if_all_its_videos_are():
    caught, missed = comparison(0.9, ["lag"]), comparison(0.99)
    late, again = Defect("late", None, Kind.TIME), Defect("again", None, Kind.HARMLESS)
    assert Row(late, [caught, caught]).as_wanted and not Row(late, [caught, missed]).as_wanted
    assert Row(again, [missed]).as_wanted and not Row(again, [missed, caught]).as_wanted


def test_the_table_says_what_caught_a_defect_in_how_many_videos_and_what_nothing_did():
    rows = [Row(Defect("again", None, Kind.HARMLESS), [comparison(0.999)] * 2),
            Row(Defect("late", None, Kind.TIME),
                [comparison(0.91, ["shift", "lag"]), comparison(0.98, ["lag"])])]
    real = [Row(Defect("late", None, Kind.TIME), [comparison(0.99)])]
    judge = SimpleNamespace(extractors=[SimpleNamespace(name="x")])
    lines = table({"rendered": rows, "real": real}, judge).splitlines()
    assert lines[2:] == [
        "| again (rendered) | 0.9990 to 0.9990 | 2 of 2 | none | 1 | 0 of 2 | nothing, as it should |",
        "| late (rendered) | 0.9100 to 0.9800 | 1 of 2 | none | 1 | 2 of 2 | lag 2, shift 1 |",
        "| late (real) | 0.9900 to 0.9900 | 1 of 1 | none | 1 | 0 of 1 | **nothing** |"]


def test_a_change_that_a_scene_cannot_have_leaves_it_out_and_folders_make_rows(judge):
    clip = np.stack(picture_frames(4, 96, 64))
    scenes = [Scene(clip, clip, clip, made={"exact": clip}), Scene(clip, clip, clip)]
    rows = {row.defect.name: row for row in measure(scenes, judge, str, changes_of(["exact"]))}
    assert len(rows["exact"].comparisons) == 1 and rows["exact"].as_wanted
    assert "glasses" not in rows and ANOTHER_SEED not in rows and len(rows["mirrored"].comparisons) == 2
    assert list(rows)[:4] == ["encoded again", "crf 18", "crf 23", "crf 28"]


def test_a_face_is_followed_through_footage_and_marked_for_the_boxes(tmp_path):
    y, x = np.mgrid[:128, :96]
    frames = []
    for i in range(5):
        frame = np.full((128, 96, 3), 60, np.uint8)
        frame[(abs(x - 40 - 2 * i) < 16) & (abs(y - 50) < 20)] = (200, 150, 120)
        frame[(abs(x - 40 - 2 * i) < 4) & (abs(y - 50) < 5)] = (20, 20, 20)
        frames.append(frame)
    for name in "ab":
        write(tmp_path / f"{name}.mp4", frames, lossless=True)
    (tmp_path / "faces.csv").write_text("name,x,y,width,height\na,0.25,0.25,0.35,0.33\n")
    a, b = scenes_of_footage(tmp_path, 4)
    assert len(a.frames) == 4 and a.faces[:, 0].tolist() == [24, 26, 28, 30] and b.faces is None
    faces = [find_boxes(each).face for each in a.skeletons]
    assert all(face[45].any() for face in faces) and b.skeletons is None
    (tmp_path / "faces.csv").write_text("name,x\na,1\n")
    with pytest.raises(InputError, match="name,x,y,width,height"):
        scenes_of_footage(tmp_path, 4)


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
