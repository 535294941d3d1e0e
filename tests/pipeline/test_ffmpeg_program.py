"""Which ffmpeg program is taken, and what is said of one that cannot be."""

import sys

import imageio_ffmpeg
import pytest

import infer
from engines.errors import EngineError, Exit
from pipeline.video import ffmpeg
from pipeline.video.reader import VideoWriter, probe
from tests.clips import make


@pytest.fixture
def chosen(tmp_path, monkeypatch):
    """A function that puts a program which prints a text in IMAGEIO_FFMPEG_EXE; it returns the path."""
    def choose(text):
        path = tmp_path / f"program{len(list(tmp_path.iterdir()))}"
        path.write_text(f"#!{sys.executable}\nprint({text!r})\n")
        path.chmod(0o755)
        monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(path))
        return path
    return choose


@pytest.mark.parametrize("text", ["ffmpeg version 5.1.9-0+deb12u1 Copyright", "ffmpeg version n7.0 Copy",
                                  "ffmpeg version 10.0", "ffmpeg version N-109468-gd39b34123d"])
def test_a_new_enough_one_is_taken(chosen, text):
    path = chosen(text)
    assert ffmpeg.ffmpeg_exe() == str(path)


@pytest.mark.parametrize(("text", "why"), [
    ("ffmpeg version 4.4.2-0ubuntu0.22.04.1 Copyright", r"is too old \(ffmpeg version 4.4\)"),
    ("ffmpeg version n5.0.1 Copyright", r"is too old \(ffmpeg version n5.0\)"),
    ("hello", "is not an ffmpeg that runs here"),
])
def test_one_that_would_call_good_videos_damaged_is_refused(chosen, tmp_path, text, why):
    video = make(tmp_path / "a.mp4")
    path = chosen(text)
    with pytest.raises(EngineError, match=f"{path}: {why}. Expected version 5.1 .*IMAGEIO_FFMPEG_EXE"):
        probe(video)
    with pytest.raises(EngineError, match=why), VideoWriter(tmp_path / "b.mp4", 32, 32, 24):
        pass
    assert {name.name for name in tmp_path.iterdir()} == {"a.mp4", path.name}


@pytest.mark.parametrize("path", ["/no/such/ffmpeg", "/"])
def test_a_wrong_path_says_so(monkeypatch, tmp_path, path):
    video = make(tmp_path / "a.mp4")
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", path)
    with pytest.raises(EngineError, match=f"{path}: cannot be started") as caught:
        probe(video)
    assert caught.value.exit is Exit.ENVIRONMENT


def test_a_run_with_a_wrong_path_ends_without_a_traceback(
        tiny_file, make_data, tmp_path, monkeypatch, run_main):
    data = make_data({"a": 2})
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "/no/such/ffmpeg")
    ended = run_main(infer, "--data", data, "--out", tmp_path / "out", "--generator", f"{tiny_file}:Tiny")
    assert ended.status == Exit.ENVIRONMENT
    assert "infer.py: /no/such/ffmpeg: cannot be started" in ended.err


def test_none_at_all_is_said(monkeypatch):
    def nothing():
        raise RuntimeError("No ffmpeg exe could be found.")
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", nothing)
    with pytest.raises(EngineError, match="No ffmpeg exe could be found. Or run: pip install"):
        ffmpeg.ffmpeg_exe()
