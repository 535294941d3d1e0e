"""Size and rate by video: a wrapper's rule, columns of pairs.csv, and networks that take one size only."""

from contextlib import nullcontext
from fractions import Fraction
from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest

from engines.backends.torch_backend import TorchEngine
from engines.errors import Exit, InputError
from generators.contract import load_generator
from generators.resize import Fit
from pipeline.batch.dataset import find_requests
from pipeline.check_generator import check_generator
from pipeline.output_form import at_size
from pipeline.parallel.ray_actors import FileWorker, NetworkWorker
from pipeline.request import Limits, Source, make_video
from pipeline.runner import Settings, VideoRunner
from pipeline.video.reader import Form, VideoReader, read
from pipeline.video.times import at_rate
from tests.clips import run
from tests.pipeline.test_contract_check import PLUGIN

SILENT = nullcontext(SimpleNamespace(tick=lambda: None))
# The plug-in of the contract's check with named sides; its size is the picture's shape, or a column's.
BY_VIDEO = PLUGIN
for old, new in {
    '"pixels", ("n", 48, 32, 3)': '"pixels", ("n", "H", "W", 3)',
    '"latents", ("n", 3, 6, 4)': '"latents", ("n", 3, "h", "w")',
    '("b", 3, 4, 6, 4), {"n": DimRange(1, 4, 4)}, {"b": DimRange(1, 1, 2)}':
        '("b", 3, 4, "h", "w"), {"n": DimRange(1, 4, 4)}, {"b": DimRange(1, 1, 2)}\n'
        '    sides = {"H": DimRange(32, 48, 48), "W": DimRange(32, 32, 48)}\n'
        '    places = {"h": DimRange(4, 6, 6), "w": DimRange(4, 4, 6)}',
    '("b", 3, 6, 4)': '("b", 3, "h", "w")',
    "(latents,), n)": "(latents,), n | sides)",
    "window),), b)": "window),), b | places)",
    "(pixels,), n)": "(pixels,), n | places)",
    "(1, 3, frames, 6, 4)": "(1, 3, frames, self.size[1] // 8, self.size[0] // 8)",
    "    def build(": '''    def output_size(self, video, picture, *, size=""):
        if size:
            return tuple(map(int, size.split("x")))
        return (48, 32) if picture[0] > picture[1] else (32, 48)

    def output_fps(self, fps, *, rate=30.0):
        return rate

    def build(''',
}.items():
    assert old in BY_VIDEO, old
    BY_VIDEO = BY_VIDEO.replace(old, new)


@pytest.fixture(scope="module")
def by_video(tmp_path_factory):
    path = tmp_path_factory.mktemp("by video") / "mine.py"
    path.write_text(BY_VIDEO)
    return f"{path}:Mine"


@pytest.fixture
def listed(make_data, make_image_file):
    """A function that makes a data folder with a wide picture and lines of pairs.csv, and finds requests."""
    def make(*lines, frames=6):
        data = make_data({"a": frames})
        make_image_file(data / "images" / "wide.png", (60, 40))
        (data / "pairs.csv").write_text("\n".join(lines) + "\n")
        return find_requests(data).requests
    return make


def runner_of(name):
    generator = load_generator(name)
    engines = {n: TorchEngine(spec, generator.build(n)) for n, spec in generator.components.items()}
    return VideoRunner(generator, engines)


def test_each_video_has_its_own_size_and_the_rate_of_the_rule(by_video, listed, tmp_path):
    runner, forms = runner_of(by_video), {}
    for request in listed("id,video,image,size,rate", "tall,a.mp4,a.png,,", "wide,a.mp4,wide.png,,",
                          "asked,a.mp4,a.png,40x32,12"):
        line, status = runner(request, tmp_path, lambda total: SILENT)
        assert status is Exit.OK, line
        forms[request.id] = Form.of(read(tmp_path / f"{request.id}.mp4"))
        assert (line["size"], Fraction(line["fps"])) == (list(forms[request.id].size), forms[request.id].fps)
        assert not [note for note in line["notes"] if "pairs.csv" in note]
    assert forms["tall"] == Form(8, Fraction(30), (32, 48))  # 6 frames at 24 last as long as 7.5 at 30
    assert forms["wide"] == Form(8, Fraction(30), (48, 32))
    assert forms["asked"] == Form(3, Fraction(12), (40, 32))
    assert runner.generator.size == (32, 48)


@pytest.mark.parametrize(("cells", "why"), [
    ("33x48,", "an even width and height"), ("0x48,", "an even width"), ("40,", r"output_size gives \(40,\)"),
    ("wide,", "output_size cannot use {'size': 'wide'}: invalid literal"), (",0", "output_fps gives 0"),
    (",much", "rate in pairs.csv is no number: 'much'"), (",nan", "output_fps gives nan"),
    ("100000x100000,", "above .* pixels"), (",1000", "a: 250 frames at 1000/s, above 200"),
    ("64x96,", "would be 64 x 96, and encode: H of pixels must lie in 32..48, got 96: networks take")])
def test_a_form_that_cannot_be_fails_its_video_by_name(by_video, listed, tmp_path, cells, why):
    runner = runner_of(by_video)
    object.__setattr__(runner.options, "limits", Limits(frames=200))
    [request] = listed("id,video,image,size,rate", f"a,a.mp4,a.png,{cells}")
    line, status = runner(request, tmp_path, lambda total: SILENT)
    assert status is Exit.INPUT and line["status"] == "failed"
    with pytest.raises(InputError, match=why):
        raise InputError(line["error"])
    assert not list(tmp_path.glob("*.mp4"))


def test_the_skeleton_is_brought_to_the_rate_by_what_is_shown_at_each_time():
    shown = {"1": "01234", "5/4": "0012344", "1/2": "024", "2": "0011223344", "3/5": "013"}
    for ratio, wanted in shown.items():
        ratio = Fraction(ratio)
        assert "".join(at_rate("01234", count(ratio, ratio))) == wanted


def test_a_variable_rate_skeleton_is_brought_to_the_rate_by_its_own_times(by_video, make_data, tmp_path):
    """Five levels of grey at 30 frames/s, then five at 10, at times in whole milliseconds."""
    data, levels = make_data({"a": 2}), tmp_path / "levels.raw"
    levels.write_bytes(b"".join(bytes([20 + 20 * level]) * (48 * 32 * 3) for level in range(10)))
    late = "setpts='if(lt(N,5),N,5+(N-5)*3)/30/TB'"
    run("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "32x48", "-r", 30, "-i", levels, "-vf", late,
        "-fps_mode", "vfr", "-c:v", "ffv1", data / "videos" / "vfr.mkv")
    (data / "pairs.csv").write_text("id,video,image,rate\na,vfr.mkv,a.png,12\nb,vfr.mkv,a.png,30\n")
    for request, wanted in zip(find_requests(data).requests, ("02556789", "012345556667778889"), strict=True):
        with Source(request, load_generator(by_video)) as source:
            shown = np.concatenate(list(source))
            assert "".join(str(round((frame.mean() - 20) / 20)) for frame in shown) == wanted
            assert source.announced == len(wanted)
            [note] = [note for note in source.notes if "variable" in note]
            assert note.endswith(f"at {source.fps} frames/s each frame is the one that is shown at its time")
    with VideoReader(data / "videos" / "vfr.mkv") as reader:
        assert len(list(reader.at_rate(reader.fps))) == 10 and "every frame is kept" in reader.notes[0]


def test_a_rule_of_fit_goes_by_the_videos_size(by_video, listed):
    generator = load_generator(by_video)
    generator.fit = Fit("contain", generator.size)
    [request] = listed("id,video,image", "a,a.mp4,wide.png")
    with Source(request, generator) as source:
        assert source.image.shape == (1, 32, 48, 3) and source.announced == 8
        assert np.concatenate(list(source)).shape == (8, 32, 48, 3)
    assert generator.fit.size == (32, 48) and at_size(generator, (32, 48)) is generator


def test_a_clusters_stages_make_the_same_video(by_video, listed, tmp_path, monkeypatch):
    """The stages of a cluster, in this process."""
    monkeypatch.setattr("pipeline.parallel.ray_actors.store", list)
    monkeypatch.setattr("pipeline.parallel.ray_actors.stored", lambda receipt: iter(receipt.arrays))
    monkeypatch.setattr("pipeline.parallel.ray_actors._node_and_name", lambda kind: ("node", "name"))
    wide, large = listed("id,video,image,size", "a,a.mp4,wide.png,", "b,a.mp4,a.png,64x96")
    files, networks = (worker(Settings(by_video)) for worker in (FileWorker, NetworkWorker))
    runner = runner_of(by_video)
    networks.__dict__["_runner"] = runner
    made = networks.make(files.read(wide), wide.seed)
    written = files.write(made, tmp_path / "a.mp4").facts
    alone = make_video(wide, tmp_path / "b.mp4", runner.generator, runner.engines, lambda total: SILENT)
    assert written["output_sha256"] == alone["output_sha256"]
    with pytest.raises(InputError, match="the video would be 64 x 96"):
        networks.make(files.read(large), 1)


def test_the_check_tries_every_size_that_the_rule_gives(by_video, tmp_path):
    found = check_generator(load_generator(by_video))
    assert not any(found.values()) and {"denoise", "decode at 48 x 32", "output"} <= found.keys()
    for old, new, where, why in (
        ('"W": DimRange(32, 32, 48)', '"W": DimRange(32, 32, 32)', "condition at 48 x 32", "W of pixels"),
        ("return (48, 32)", "return (48, 33)", "output", "an even width and height"),
        ("return rate", "return 0", "output", "output_fps gives 0"),
        ('*, size=""', "*, size", "output", "needs the column size"),
    ):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.py"
        path.write_text(BY_VIDEO.replace(old, new))
        wrong = {name: each for name, each in check_generator(load_generator(f"{path}:Mine")).items() if each}
        assert list(wrong) == [where] and why in str(wrong[where][0])
