"""What fitting cuts away and stretches, and that the user is told; the rules of --fit."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import infer
from generators.mimicmotion import preprocess
from generators.resize import FITS, Fit
from pipeline.batch.dataset import Request
from pipeline.request import Source, read_opening
from pipeline.video.framing import Framing
from pipeline.video.reader import VideoReader, read
from tests.clips import run, write

MADE = Path(__file__).parents[3] / "shared" / "real" / "made"
needs_made = pytest.mark.skipif(not MADE.is_dir(), reason="real files are not here")
TALL = (128, 192)


def limb(left, width=384, height=192, count=3):
    """Frames of a coloured limb, 24 pixels wide, on black."""
    frames = np.zeros((count, height, width, 3), np.uint8)
    frames[:, 20:170, left:left + 24] = (255, 60, 0)
    return frames


def note(rule, frames, size=TALL):
    framing = Framing(Fit(rule, size), frames.shape[2:0:-1])
    for frame in frames:
        framing.look(frame)
    return framing.note


@pytest.mark.parametrize("size", [(1366, 768), (768, 1366), (720, 720), TALL, (97, 500)])
@pytest.mark.parametrize("target", [TALL, (120, 208), (192, 108)])
def test_what_is_cut_and_stretched_is_found_from_the_rule_alone(size, target):
    shape, wanted = size[0] / size[1], target[0] / target[1]
    for cover in (Fit("cover", target), lambda pixels: preprocess.cover(pixels, *target)):
        assert Framing(cover, size).cut == pytest.approx(1 - min(shape / wanted, wanted / shape), abs=0.01)
        assert Framing(cover, size).stretched == pytest.approx(1, abs=0.04)
    stretched, contained = Framing(Fit("stretch", target), size), Framing(Fit("contain", target), size)
    assert stretched.cut == pytest.approx(0, abs=0.005) == contained.cut
    assert stretched.stretched == pytest.approx(wanted / shape, rel=0.02)
    assert contained.stretched == pytest.approx(1, abs=0.06) and contained.note is None


def test_a_drawn_limb_that_is_cut_away_is_told_and_one_that_is_kept_is_not():
    assert note("cover", limb(10)) == (
        "100% of what is drawn is cut away (384 x 192 to 128 x 192); --fit contain shows it whole")
    half = int(note("cover", limb(128 - 12)).partition("% of what is drawn is cut away")[0])
    assert half == pytest.approx(50, abs=100 / 24)  # a column of 24
    assert note("cover", limb(180)) is None
    assert note("contain", limb(10)) is None
    assert note("stretch", limb(10)).startswith("it is stretched to 3.0 times its height (384 x 192")
    assert note("stretch", limb(10, 64)).startswith("it is stretched to 2.0 times its width (64 x 192")


def test_of_a_picture_much_that_is_cut_is_told():
    square = Framing(Fit("cover", TALL), (300, 300))
    assert square.note == "33% of it is cut away (300 x 300 to 128 x 192); --fit contain shows it whole"
    assert Framing(Fit("cover", TALL), (1080, 1920)).note is None


def test_of_a_rule_that_keeps_no_places_nothing_is_said():
    framing = Framing(lambda pixels: np.full((len(pixels), 48, 32, 3), 127, np.uint8), (300, 100))
    assert framing.note is None and framing.cut == 0


def test_contain_keeps_the_shape_on_black():
    pixels = np.full((2, 20, 40, 3), 200, np.uint8)
    framed = FITS["contain"](pixels, 32, 48)
    assert framed.shape == (2, 48, 32, 3)
    assert (framed[:, 16:32] == 200).all() and not framed[:, :16].any() and not framed[:, 32:].any()
    assert np.array_equal(FITS["contain"](pixels, 40, 20), pixels)


@pytest.fixture
def generate(run_main, tiny_file, tmp_path):
    """A function that makes one video of a person at the left of a wide picture and skeleton."""
    def make(*arguments):
        data = tmp_path / "data"
        if not data.exists():
            (data / "images").mkdir(parents=True), (data / "videos").mkdir()
            Image.fromarray(limb(4, 96, 48)[0]).save(data / "images" / "a.png")
            write(data / "videos" / "a.mp4", limb(4, 96, 48), lossless=True)
        ended = run_main(infer, "--data", data, "--out", tmp_path / "out", "--generator", f"{tiny_file}:Tiny",
                         *arguments)
        lines = [json.loads(line) for line in (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()]
        return ended, lines[-1]
    return make


def test_the_user_is_told_and_fit_contain_shows_all(generate):
    ended, line = generate()
    told = [note for note in line["notes"] if "is cut away" in note]
    assert line["fit"] is None and len(told) == 2
    assert re.search(r"images/a.png: 6[67]% of it is cut away \(96 x 48 to 32 x 48\)", told[0])
    assert "videos/a.mp4: 100% of what is drawn is cut away" in told[1]
    assert all(note in ended.err for note in told)
    refused, _ = generate("--fit", "contain")
    assert refused.status == 2 and 'fit was null when it was made, is "contain" here' in refused.err
    ended, contained = generate("--fit", "contain", "--restart")
    assert ended.status == 0 and contained["fit"] == "contain" and "cut away" not in ended.err
    assert contained["frames_sha256"] != line["frames_sha256"]
    assert not any("nothing is drawn" in note for note in contained["notes"])


def test_workers_fit_by_the_same_rule(generate):
    _, alone = generate("--fit", "stretch")
    _, line = generate("--fit", "stretch", "--workers", "2", "--restart")
    assert line["fit"] == "stretch" and line["frames_sha256"] == alone["frames_sha256"]


def test_an_odd_size_is_refused_before_anything_is_made(generate, tiny_file, tmp_path, run_main):
    text = tiny_file.read_text().replace("size = (32, 48)", "size = (33, 49)")
    for weights in tiny_file.parent.glob("*.safetensors"):
        (tmp_path / weights.name).symlink_to(weights)
    (tmp_path / "odd.py").write_text(text)
    generate()
    ended = run_main(infer, "--data", tmp_path / "data", "--out", tmp_path / "odd",
                     "--generator", f"{tmp_path / 'odd.py'}:Tiny")
    assert ended.status == 2
    assert "tiny makes videos of 33 x 49, which is odd; give the generator an even size" in ended.err
    assert "Traceback" not in ended.err


def test_a_skeleton_with_wide_pixels_is_read_as_players_show_it(tiny, tmp_path, make_image_file):
    wide, image = write(tmp_path / "wide.mp4", limb(14, 64, 96)), make_image_file(tmp_path / "a.png")
    run("-i", wide, "-vf", "scale=32:96,setsar=2", "-qp", "0", tmp_path / "narrow.mp4")
    shown = []
    for name in ("wide.mp4", "narrow.mp4"):
        request = Request("a", tmp_path / name, image, 1)
        with Source(request, tiny) as source:
            shown.append(np.concatenate(list(source)).astype(int))
        assert not [note for note in source.notes if "cut away" in note or "stretched" in note]
        assert np.abs(read_opening(request, tiny, 1)[0] - shown[-1][:1]).max() == 0
    assert shown[0].max() > 200 and np.abs(shown[1] - shown[0]).mean() < 3
    with VideoReader(tmp_path / "narrow.mp4") as coded:
        assert np.abs(tiny.fit(next(iter(coded))[None]) - shown[0][:1]).mean() > 10


@needs_made
def test_a_real_person_at_the_left_is_told():
    frames = read(MADE / "skeleton-at-left.mp4").frames[:2]
    assert "of what is drawn is cut away (1366 x 768 to 128 x 192)" in note("cover", frames)
    assert note("contain", frames) is None
