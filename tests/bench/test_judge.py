"""Judging folders: every video gets a verdict, and what could not be evaluated is never a pass."""

import json
import tracemalloc
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from bench import judge as module
from bench import similarity
from bench.boxes import rule_of
from bench.checks import form_checks, metric_checks
from bench.judge import Folders, Judge, judge_folder, reasons
from bench.judge import similarity as least_similarity
from bench.judging import RequestJudge, find_references
from bench.pose import POSE_MODELS
from bench.score import score
from bench.similarity import Cosine, load_extractor
from bench.verdict import Question, run_entry
from bench.vmaf import VmafError
from engines.errors import InputError
from pipeline.batch.dataset import find_requests
from pipeline.video.reader import Clip, Form, VideoWriter
from tests.clips import picture_frames, run, write
from tests.extractors import write_extractor


@pytest.fixture
def judge(tmp_path, monkeypatch):
    monkeypatch.setattr(similarity, "EXTRACTORS", tmp_path / "extractors")
    write_extractor(tmp_path / "extractors")
    return Judge([load_extractor("grid")])


@pytest.fixture
def folders(tmp_path):
    """References and equal candidates a.mp4, b.mp4."""
    for folder in ("reference", "candidate"):
        (tmp_path / folder).mkdir()
        for name in "ab":
            write(tmp_path / folder / f"{name}.mp4", picture_frames(6, 96, 64))
    return Folders(tmp_path / "reference", tmp_path / "candidate", {})


def clip(frames, fps=24):
    return Clip(np.stack(frames), Fraction(fps))


def judged(judge, folders):
    return judge_folder(judge, folders, lambda text: None)


def test_kept_verdicts_are_told_apart_by_whatever_decides_them(judge, folders, tmp_path, monkeypatch):
    reference, code = folders.reference / "a.mp4", tmp_path / "checks.py"
    code.write_text("LIMIT = 1")
    monkeypatch.setattr(module, "CODE", [code])

    def identity(judge):
        return RequestJudge(judge, {"a": reference}).identity

    first = identity(judge)
    assert identity(Judge([load_extractor("grid")])) == first, "the same judge, opened again"
    write_extractor(tmp_path / "extractors", "clips", kind="clip")
    pose = tmp_path / "pose.json"
    pose.write_bytes((POSE_MODELS / "presenter.json").read_bytes().replace(b'"presenter"', b'"mine"'))
    (tmp_path / "presenter.onnx").symlink_to(POSE_MODELS / "presenter.onnx")
    others = [identity(replace(judge, extractors=[load_extractor("clips")])),
              identity(replace(judge, gate=(0.5, 1.0))), identity(replace(judge, pose_model=str(pose)))]
    code.write_text("LIMIT = 2")
    others.append(identity(judge))
    reference.write_bytes((folders.candidate / "b.mp4").read_bytes() + b"another base run")
    others.append(identity(judge))
    assert len({first, *others}) == 1 + len(others)


def test_equal_videos_pass_and_are_plain_json(judge, folders):
    comparisons = judged(judge, folders)
    assert [(each["id"], each["status"], each["passes"]) for each in comparisons] == [
        ("a", "judged", True), ("b", "judged", True)]
    assert reasons(comparisons) == [] and least_similarity(comparisons) == pytest.approx(1)
    again = json.loads(json.dumps(comparisons, allow_nan=False))
    assert again[0]["per_frame"]["cosine"]["grid"] == pytest.approx([1] * 6)


def test_vmaf_is_told_and_judges_nothing(judge, folders, monkeypatch):
    monkeypatch.setattr(module, "vmaf", lambda *about: 3.0)
    assert [(each["metrics"]["vmaf"], each["passes"]) for each in judged(judge, folders)] == [(3.0, True)] * 2

    def fail(*about):
        raise VmafError("no way")

    monkeypatch.setattr(module, "vmaf", fail)
    write(folders.candidate / "a.mp4", picture_frames(5, 96, 64))
    write(folders.candidate / "b.mp4", picture_frames(6, 98, 64))
    assert [each["metrics"]["vmaf"] for each in judged(judge, folders)] == [None, None]
    said = []
    folders = replace(folders, candidate=folders.reference)
    comparisons = judge_folder(judge, folders, said.append)
    assert all(each["passes"] and each["metrics"]["vmaf"] is None for each in comparisons)
    assert said[0] == "a: VMAF could not be measured: no way"


def test_a_missing_a_foreign_and_a_corrupt_video_fail_and_the_others_are_judged(judge, folders):
    write(folders.reference / "c.mp4", picture_frames(2))
    write(folders.candidate / "d.mp4", picture_frames(2))
    (folders.candidate / "a.mp4").write_bytes(b"no video")
    a, b, c, d = judged(judge, folders)
    assert [each["passes"] for each in (a, b, c, d)] == [False, True, False, False]
    assert "a.mp4" in a["error"] and b["error"] is None
    assert c["error"] == f"no video of that name in {folders.candidate}"
    assert d["error"] == f"no video of that name in {folders.reference}"
    assert least_similarity([a, b, c, d]) is None and len(reasons([a, b, c, d])) == 3


def test_names_are_found_however_their_accents_are_stored(judge, folders, make_data):
    apart, one = "Zoe\u0301", "Zo\u00e9"  # as macOS stores them, and as ids of requests have them
    data = make_data({apart: 2})
    for folder, name in ((folders.reference, apart), (folders.candidate, one)):
        (folder / "a.mp4").rename(folder / f"{name}.mp4")
    assert [(each["id"], each["passes"]) for each in judged(judge, folders)] == [(one, True), ("b", True)]
    (data / "outputs").symlink_to(folders.reference)
    requests = find_requests(data).requests
    assert find_references(data, requests, "presenter")[one] == data / "outputs" / f"{apart}.mp4"
    (folders.candidate / f"{apart}.mp4").write_bytes(b"")
    with pytest.raises(InputError, match=f"two videos named {one}; keep one"):
        judged(judge, folders)
    (folders.candidate / "manifest.jsonl").write_text(json.dumps({"id": one, "fit": "contain"}) + "\n")
    assert {rule_of(folders.candidate / f"{name}.mp4") for name in (apart, one)} == {"contain"}


def test_other_counts_rates_and_sizes_fail_their_checks_and_are_still_measured(judge):
    frames = picture_frames(6, 96, 64)
    found = judge.compare(clip(frames), clip(frames[:5], 25))
    failed = {check["name"]: check["value"] for check in found["checks"] if not check["passes"]}
    assert failed == {"frame count": "5", "frames per second": "25"} and not found["passes"]
    assert found["cosine"]["grid"]["value"] == pytest.approx(1)
    small = judge.compare(clip(frames), clip([frame[::2, ::2] for frame in frames]))
    assert not small["passes"] and small["metrics"] == {} and small["cosine"]["grid"]["value"] > 0.9


UNEVEN = "setpts='if(lt(N,6),N*0.1,if(lt(N,11),0.6+(N-6)*1.88,11))/24/TB'"


def failed_forms(judge, *videos):
    checks = judge.compare_files(*videos)["checks"]
    return {each["name"]: each["value"] for each in checks if not each["passes"]}


def test_the_same_pictures_shown_wider_or_at_other_times_are_another_video(judge, tmp_path):
    video = write(tmp_path / "a.mp4", picture_frames(12, 96, 64))
    wide, uneven = tmp_path / "wide.mp4", tmp_path / "uneven.mp4"
    run("-i", video, "-c", "copy", "-bsf:v", "h264_metadata=sample_aspect_ratio=3/2", wide)
    timed = "-fps_mode", "passthrough", "-enc_time_base", "1/24000", "-bf", "0", "-crf", "1"
    run("-i", video, "-vf", UNEVEN, *timed, uneven)
    assert failed_forms(judge, video, wide) == {"size as shown": "96 x 96"}
    assert failed_forms(judge, wide, video) == {"size as shown": "64 x 96"}
    assert failed_forms(judge, video, uneven) == {"frame times": "0.225 s away"}  # the seventh: 5.4 / 24 s
    assert failed_forms(judge, uneven, video).keys() == {"frame times"}
    assert failed_forms(judge, wide, wide) == failed_forms(judge, uneven, uneven) == {}


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov", "webm", "avi", "ts"])
@pytest.mark.parametrize("rate", ["24", "30000/1001", "59.94"])
def test_containers_that_round_times_and_begin_later_show_the_same(judge, tmp_path, suffix, rate):
    video = write(tmp_path / "a.mp4", picture_frames(12, 96, 64), Fraction(rate))
    other = tmp_path / f"b.{suffix}"
    coded = ("-c:v", "libvpx-vp9", "-crf", "8", "-b:v", "0", "-cpu-used", "8") if suffix == "webm" else (
        "-c:v", "libx264", "-bf", "0", "-crf", "8")
    later = () if suffix == "avi" else ("-output_ts_offset", "0.7")
    run("-i", video, "-vf", "setsar=404/405", *coded, *later, other)
    assert {"size as shown", "frame times"} & failed_forms(judge, video, other).keys() == set()


def test_memory_does_not_grow_with_the_clip(judge, tmp_path):
    peaks = []
    for count in (30, 120):
        video = write(tmp_path / f"{count}.mp4", picture_frames(30, 192, 128) * (count // 30))
        tracemalloc.start()
        assert judge.compare_files(video, video, video)["passes"]
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 3 * 192 * 128 * 3  # of 90 frames more, in each of three videos


@pytest.mark.parametrize(("lossless", "said"), [
    ((False, True), "(the reference is lossy, the other is not"), ((True, False), "(the candidate is lossy"),
    ((False, False), "(it flickers")])
def test_loss_of_one_video_alone_is_not_called_flicker(judge, tmp_path, lossless, said):
    noise = np.random.default_rng(0).integers(0, 256, (2, 12, 48, 64, 3), np.uint8)
    paths = [tmp_path / f"{name}.mp4" for name in ("reference", "candidate")]
    videos = noise[[0, 0]] if any(lossless) else noise
    for path, frames, kept in zip(paths, videos, lossless, strict=True):
        with VideoWriter(path, 64, 48, 24, lossless=kept) as writer:
            for frame in frames:
                writer.write(frame)
    values = {each["name"]: each["value"] for each in judge.compare_files(*paths)["checks"]}
    assert said in values["temporal_error"]


def test_a_damaged_end_of_the_longer_video_or_of_the_skeleton_is_still_an_error(judge, tmp_path):
    frames = [np.random.default_rng(i).integers(0, 256, (64, 96, 3), np.uint8) for i in range(24)]
    short = write(tmp_path / "short.mkv", frames[:6])
    cut = write(tmp_path / "cut.mkv", frames)
    cut.write_bytes(cut.read_bytes()[:-9000])
    for videos in ((cut, short), (short, cut), (short, short, cut)):
        with pytest.raises(InputError, match="damaged or truncated"):
            judge.compare_files(*videos)


def test_a_feature_that_is_not_finite_is_no_pass(judge, monkeypatch):
    monkeypatch.setattr(judge.extractors[0], "between", lambda *both: Cosine(float("nan"), [float("nan")]))
    found = judge.compare(*[clip(picture_frames(3, 96, 64))] * 2)
    assert found["cosine"]["grid"]["value"] is None and not found["passes"]
    assert found["checks"][0]["value"] == "not finite"
    assert least_similarity([{**found, "status": "judged"}]) is None


def test_the_gate_of_the_least_extractor_decides(judge):
    low = SimpleNamespace(update=lambda *frames: None, summary=lambda: Cosine(0.9, [0.9]))
    extractor = SimpleNamespace(name="low", pair=lambda: low)
    found = Judge([*judge.extractors, extractor]).compare(*[clip(picture_frames(3, 96, 64))] * 2)
    assert not found["passes"] and least_similarity([{**found, "status": "judged"}]) == 0.9
    assert [check["passes"] for check in found["checks"][:2]] == [True, False]


@pytest.mark.parametrize("spoil", ["no folder", "no video", "two of a name"])
def test_a_folder_without_clear_videos_is_an_input_error(judge, folders, tmp_path, spoil):
    empty = tmp_path / "empty"
    if spoil != "no folder":
        empty.mkdir()
    if spoil == "two of a name":
        for suffix in ("mp4", "mkv"):
            (empty / f"a.{suffix}").write_bytes(b"")
    with pytest.raises(InputError, match="two videos named a" if "two" in spoil else str(empty)):
        judged(judge, Folders(folders.reference, empty, {}))


def test_limits_are_inclusive_and_a_nan_never_passes():
    checks = {check.name: check.passes for check in metric_checks(
        {"shift": 0.5, "sharpness": 1.21, "lag": 0, "frozen": 1, "motion_correlation": None,
         "colour_shift": float("nan")})}
    assert checks == {"shift": True, "sharpness": False, "lag": True, "frozen": False, "colour_shift": False}


def test_rates_are_compared_as_fractions():
    ntsc, near = Form(2, Fraction(30000, 1001), (4, 4)), Form(2, Fraction(2997, 100), (4, 4))
    assert [check.passes for check in form_checks(ntsc, near)] == [True, False, True]


@pytest.mark.parametrize(("seconds", "similar", "points"), [
    (0, True, 100), (5, True, 65), (5, False, 35), (10, True, 30), (11, True, 30), (11, False, 0)])
def test_the_score_is_70_percent_speed_and_30_percent_similarity(seconds, similar, points):
    assert score(seconds, 10, similar) == pytest.approx(points)


@pytest.mark.parametrize("threshold", [0, -1, float("nan"), float("inf")])
def test_a_threshold_that_is_no_time_is_refused(threshold):
    with pytest.raises(ValueError, match="above 0 seconds"):
        score(1, threshold, True)


def test_a_cosine_above_one_fails_its_check_and_is_the_one_that_counts():
    found = Judge([])._gate_check("x", Cosine(1.01, []).to_json((0.97, 1.0)))
    assert not found.passes and found.value.startswith("1.01000 (no cosine is above 1, so this one scores")
    videos = [{"status": "judged", "cosine": {"x": {"value": value}}} for value in (0.98, 1.01)]
    assert least_similarity(videos) == 1.01
    assert run_entry("r", Path("r"), [{**each, "id": "a", "passes": True, "error": None} for each in videos],
                     Question(Path("d"), Path("d"), ["x"]))["verdict"]["gate_held"] is False
