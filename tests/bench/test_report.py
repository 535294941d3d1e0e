"""The report's files: whole, plain JSON, and a page that needs nothing beside it."""

import base64
import hashlib
import json
import os
import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from bench import report as module
from bench.report import curves, markdown, write_report
from bench.score import level_of
from pipeline.video.reader import VideoWriter, read


def run(name, passes=True, seconds=4.0, **video):
    videos = [{"id": "a", "status": "failed", "error": "none", "passes": False, **video}]
    verdict = {"passes": passes, "alike": passes, "gate_held": passes, "in_time": True, "similarity": 0.99,
               "speed_ratio": 2.0, "score": None, "reasons": []}
    timing = {"contest_seconds": seconds, "seconds_per_video": {"p50": 3.0, "p90": 3.5}}
    return {"name": name, "folder": "f", "verdict": verdict, "timing": timing, "videos": videos}


def of(*runs):
    return {"schema": 1, "created": "now", "runs": list(runs), "settings": {"gate": [0.97, 1.0]}}


@pytest.fixture
def video(tmp_path):
    path = tmp_path / "videos" / "a b.mp4"
    path.parent.mkdir()
    path.write_bytes(b"video")
    return str(path)


def judged(video):
    return of(run("one", status="judged", reference=video, candidate=video))


@pytest.mark.parametrize("size", [(32, 16), (33, 17)])
def test_lossless_videos_are_shown_as_copies_that_browsers_play(tmp_path, size):
    frames = np.random.default_rng(0).integers(0, 255, (3, size[1], size[0], 3), np.uint8)
    frames[:] = frames.mean((1, 2), keepdims=True)
    original = tmp_path / "videos" / "a.mp4"
    original.parent.mkdir()
    with VideoWriter(original, *size, 24, lossless=True) as writer:
        for frame in frames:
            writer.write(frame)
    report = judged(str(original))
    for _ in range(2):
        text = write_report(report, tmp_path / "out", lossless=True).read_text()
        (copy,) = (tmp_path / "out" / "playable").iterdir()
        assert base64.b64encode(copy.read_bytes()).decode() in text
    shown = read(copy).frames
    assert shown.shape == (3, 18 if size[1] == 17 else 16, 34 if size[0] == 33 else 32, 3)
    assert np.abs(shown[:, :size[1], :size[0]].astype(int) - frames).max() <= 3


def test_numbers_that_json_lacks_are_null_and_nothing_is_left_half_written(tmp_path):
    metrics = {"psnr": float("inf"), "ssim": float("nan")}
    index = write_report(of(run("one", metrics=metrics)), tmp_path / "out")
    assert sorted(path.name for path in index.parent.iterdir()) == ["index.html", "report.json", "report.md"]
    metrics = json.loads((index.parent / "report.json").read_text())["runs"][0]["videos"][0]["metrics"]
    assert metrics == {"psnr": None, "ssim": None}
    assert (index.parent / "report.md").read_text() == markdown(of(run("one", metrics=metrics)))


def test_a_report_that_cannot_be_written_leaves_the_older_one_whole(tmp_path, monkeypatch):
    write_report(of(run("older")), tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    write_text, written = module.Path.write_text, []

    def full_disk(path, *arguments, **options):
        written.append(path)
        if len(written) == 3:
            raise OSError("no space left")
        return write_text(path, *arguments, **options)

    monkeypatch.setattr(module.Path, "write_text", full_disk)
    with pytest.raises(OSError, match="no space left"):
        write_report(of(run("newer")), tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_reports_that_are_written_to_one_folder_at_once_are_both_whole(tmp_path):
    """Each finds the drafts of the other in its way if they have fixed names."""
    long = {**of(run("one")), "notes": ["x" * 5_000_000]}
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(write_report, long, tmp_path) for _ in range(8)]:
            done.result()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index.html", "report.json", "report.md"]
    assert json.loads((tmp_path / "report.json").read_text()) == long


def test_a_page_holds_its_videos_and_may_ask_for_nothing_else(tmp_path, video):
    text = write_report(judged(video), tmp_path).read_text()
    assert base64.b64encode(b"video").decode() in text
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:|//)""", text)
    policy = re.search(r'Security-Policy" content="([^"]*)"', text)[1]
    assert "default-src 'none'" in policy and "file:" not in policy
    for part in ("script", "style"):
        inside = re.findall(f"<{part}>(.*?)</{part}>", text, re.S)[0]
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{part}-src 'sha256-{digest}'" in policy


def test_large_videos_stay_where_they_are(tmp_path, video, monkeypatch):
    monkeypatch.setattr(module, "LARGEST", 4)
    text = write_report(judged(video), tmp_path / "o").read_text()
    assert '"../videos/a%20b.mp4"' in text and "media-src blob: file: 'self'" in text


def test_a_large_video_whose_name_is_no_text_is_linked_by_its_bytes(tmp_path, monkeypatch):
    path = tmp_path / "videos" / os.fsdecode(b"\xcb\xef.mp4")
    path.parent.mkdir()
    path.write_bytes(b"video")
    monkeypatch.setattr(module, "LARGEST", 4)
    assert '"../videos/%CB%EF.mp4"' in write_report(judged(str(path)), tmp_path / "o").read_text()


def test_remarks_on_a_run_are_below_the_table():
    entry = run("one") | {"remarks": ["its speed is no ratio: b failed"]}
    assert "- one: its speed is no ratio: b failed\n" in markdown(of(entry))


def test_a_video_that_went_away_leaves_the_rest_of_the_report(tmp_path):
    assert write_report(judged(str(tmp_path / "gone.mp4")), tmp_path).is_file()


def test_data_cannot_end_its_script(tmp_path):
    text = write_report(of(run("</script><b>")), tmp_path).read_text()
    assert text.count("</script>") == 2 and "<title>Vivace: &lt;/script&gt;&lt;b&gt;</title>" in text
    data = re.search(r'id="data">(.*?)</script>', text, re.S)[1]
    assert json.loads(data)["report"]["runs"][0]["name"] == "</script><b>"


def test_a_file_name_that_is_no_text_is_written(tmp_path):
    report = of(run("one", error="\udcff.mp4"))
    index = write_report(report, tmp_path)
    assert json.loads((tmp_path / "report.json").read_text()) == report and index.is_file()


def test_a_table_row_has_the_worst_video_and_dashes_for_what_is_not_known():
    good = {"metrics": {"psnr": 40.0, "temporal_error": 1.0}}
    entry = run("a|b\n<c>")
    others = [{"metrics": {"psnr": value, "temporal_error": 2.0}} for value in (None, 45.0)]
    entry["videos"] = [good, *others, {}]
    entry["timing"] = None
    row = "| a\\|b &lt;c&gt; | 2.00 | – | 0.9900 | 40.0 | 2.00 | passes | faithful |"
    assert markdown(of(entry)).splitlines()[2] == row
    for videos, psnr in (([{"metrics": {"psnr": None}}, {}], "equal"), ([{}], "–"), ([good], "40.0")):
        assert markdown(of({**entry, "videos": videos})).splitlines()[2].split(" | ")[4] == psnr


@pytest.mark.parametrize("passes, similarity, psnr, level", [
    (True, 0.999, 46.0, "exact"), (True, 1.0, None, "exact"), (True, 0.98, 46.0, "exact"),
    (True, 0.992, 36.0, "faithful"), (True, 0.985, 36.0, "fast"), (True, 0.992, 30.0, "fast"),
    (True, 0.96, 50.0, None), (True, None, 50.0, None), (False, 1.0, 50.0, None)])
def test_a_run_has_the_strictest_level_that_all_its_videos_keep_to(passes, similarity, psnr, level):
    entry = run("one", passes=passes)
    entry["verdict"]["similarity"] = similarity
    entry["videos"] = [{"metrics": {"psnr": 60.0}}, {"metrics": {"psnr": psnr}}]
    assert level_of(entry) == level


def test_notes_and_requests_without_a_video_are_said_below_the_table():
    entry = run("fast")
    entry["recipe"] = {"note": "for <GPUs>,\nwith |"}
    entry["failed"] = {"b": "b.mp4: is damaged"}
    entry["notes"] = {"a": ["a.png: 66% of it is cut away", "second"]}
    text = markdown(of(run("baseline"), entry))
    assert text.split("\n\n")[1].startswith(
        "- fast: for &lt;GPUs&gt;, with \\|\n- fast: a: a.png: 66% of it is cut away\n- fast: a: second\n"
        "- fast: b was not made: b.mp4: is damaged\n- ")
    assert markdown(of(run("baseline"))).split("\n\n")[1].startswith("- A cosine of pooled features alone")


def test_why_a_run_fails_stands_below_the_table():
    entry = run("late")
    entry["verdict"] |= {"passes": False, "in_time": False, "reasons": ["9.00 s a video, allowed are 2"]}
    assert "- late: 9.00 s a video, allowed are 2\n" in markdown(of(entry))


def test_a_score_has_a_column_where_there_is_one():
    scored, unscored = run("scored"), run("unscored")
    scored["verdict"]["score"] = 61.25
    head, _, *rows = markdown(of(scored, unscored)).split("\n\n")[0].splitlines()
    assert head.endswith("| verdict | level | score |")
    assert [row.split(" | ")[-1] for row in rows] == ["61.2 |", "– |"]


def test_curves_go_from_nothing_to_the_score_at_twice_the_slowest_run():
    fast, slow = curves(of(run("fast", seconds=2.0), run("slow", passes=False, seconds=4.0)))
    assert fast["points"][-1] == [8.0, pytest.approx(30 + 70 * 0.75)]
    assert slow["points"][-1] == [8.0, pytest.approx(35)] and slow["points"][0][1] == 0
    assert fast["points"][0][1] == 30
    untimed = run("untimed")
    untimed["timing"] = None
    assert curves(of(untimed)) == []


def test_a_name_makes_no_link_and_commands_no_terminal_in_the_table():
    text = markdown(of(run("[x](javascript:alert(1)) ![y](http://z) \\[q](d) \x1b[2J\x9b0m\u202e")))
    row = text.splitlines()[2]
    assert row.startswith("| \\[x\\](javascript:alert(1)) !\\[y\\](http://z) \\\\\\[q\\](d) "
                          "\\u001b\\[2J\\u009b0m\\u202e |"), row
