"""The Wan conditioners at tiny size the whole way: export, engines, videos, judge; clips of any length."""

import copy
import json
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import bench.__main__ as bench
import build_trt
import export_onnx
import infer
from engines.artifact import fingerprint_of
from engines.backends.torch_backend import TorchEngine
from engines.load import Choice, start_engines
from engines.onnx.parity import draw
from generators.contract import FROM_FOLDER, REQUIRED, load_generator
from optimize.steps.tuning_runner import TuningRunner
from pipeline.batch.dataset import Request, find_requests
from pipeline.caches.calibration import Calibration, save_calibration
from pipeline.request import Options, make_video
from pipeline.runner import VideoRunner
from pipeline.sampler import Sampler, first_frames, generate
from pipeline.streamed_request import sampling_of
from pipeline.streaming import StreamedClip
from pipeline.video.reader import read
from tests.wan_checkpoints import write_checkpoint, write_settings

ROOT = Path(__file__).resolve().parents[2]
NAMES = sorted(name for name in FROM_FOLDER if name.startswith("wan-"))
FRAMES = [1, 3, 17, 18, 30]
PRECISION = ("--precision", "fp16,denoise=int8")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """A folder with a tiny checkpoint for each conditioner, by its name."""
    folder = tmp_path_factory.mktemp("wan")
    for name in NAMES:
        (folder / name).mkdir()
        write_checkpoint(folder / name, name)
    return folder


@pytest.fixture(scope="module")
def running(checkpoints):
    """A function that gives a generator and its torch engines."""
    made = {}

    def get(name):
        if name not in made:
            generator = load_generator(f"{name}={checkpoints / name}")
            specs = generator.components.items()
            made[name] = generator, {part: TorchEngine(spec, generator.build(part)) for part, spec in specs}
        return made[name]
    return get


def clip(frames):
    """Skeletons (F, 48, 32, 3) and a picture, at the generators' size."""
    random = np.random.default_rng(3)
    return random.integers(0, 256, (frames, 48, 32, 3), np.uint8), random.integers(
        0, 256, (48, 32, 3), np.uint8)


def in_chunks_of(frames, read):
    for start in range(0, len(frames), 8):
        read.append(start)
        yield frames[start : start + 8]


@pytest.mark.parametrize("name", ["wan-fun-control", "wan-unianimate"])
@pytest.mark.parametrize("frames", [1, 18, 62])
def test_clips_that_are_streamed_have_the_same_bytes(running, name, frames):
    """The tiny one has windows of 17 frames."""
    generator, engines = running(name)
    skeletons, image = clip(frames)
    whole, read, at = generate(generator, engines, skeletons, image, 5), [], []
    pieces = generator.condition_pieces(engines, in_chunks_of(skeletons, read), image[None])
    streamed = StreamedClip(Sampler(generator, engines), pieces, frames, 5)
    found = []
    for pixels in first_frames(generator.decode_pieces(engines, streamed.latents()), frames):
        found.append(pixels)
        at.append(read[-1])
    assert np.concatenate(found).tobytes() == whole.tobytes()
    assert frames < 62 or at[0] < read[-1]  # the first frames come before the last are read


def test_components_that_start_together_share_an_autoencoder_unless_their_precisions_differ(
        running, checkpoints):
    generator, alone = running("wan-fun-control")
    started = copy.copy(generator)
    started.components = {name: spec for name, spec in generator.components.items() if "code_" in name}
    precisions = dict.fromkeys(started.components, "fp32") | {"decode_next": "bf16"}
    _, engines = start_engines(started, Choice("torch", precisions, "cpu", checkpoints), print)
    weights = {name: {each.data_ptr() for each in engine._module.parameters()}
               for name, engine in engines.items()}
    assert weights["encode_first"] == weights["encode_next"]
    assert weights["decode_first"].isdisjoint(weights["decode_next"])
    spec = generator.components["decode_next"]
    alone = {**alone, "decode_next": TorchEngine(spec, generator.build("decode_next"), precision="bf16")}
    for name in ("encode_next", "decode_first", "decode_next"):
        given = draw(generator.components[name], {}, seed=1)
        for output, expected in alone[name](**given).items():
            np.testing.assert_array_equal(engines[name](**given)[output], expected)


def test_windows_that_continue_one_another_are_streamed_one_by_one(
    running, make_video_file, make_image_file, tmp_path
):
    generator, engines = running("wan-animate")
    asked = Request("a", make_video_file(tmp_path / "v.mp4", 24, (32, 48)),
                    make_image_file(tmp_path / "a.png", (32, 48)), 5)
    calls, at, shas = [], [], []

    def denoise(**inputs):
        calls.append(1)
        return engines["denoise"](**inputs)

    def watch(chunks, size, fps):
        for chunk in chunks:
            at.append(len(calls))
            yield chunk

    def silent(total):
        return nullcontext(SimpleNamespace(tick=lambda: None, grow=lambda count: None))

    for sampling in (None, sampling_of):
        del calls[:], at[:]
        options = Options(sampling=sampling, watch=watch)
        counted = {**engines, "denoise": denoise}
        made = make_video(asked, tmp_path / "o.mp4", generator, counted, silent, options)
        shas.append(made["frames_sha256"])
    assert shas[0] == shas[1] and made["frames"] == 24
    assert not any("they come at the end" in note for note in made["notes"])
    assert at[0] < at[-1]  # the first window's frames come before the second is sampled


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_scripts_take_a_conditioner_the_whole_way(
    checkpoints, name, make_data, tmp_path, run_main, monkeypatch
):
    monkeypatch.setenv("VIVACE_BUILT", str(tmp_path / "built"))
    chosen = ("--generator", f"{name}={checkpoints / name}")
    data = make_data({"a": 18}, size=(61, 97))  # an odd size, and one frame more than a window has
    generator, denoise = load_generator(chosen[1]), ("--component", "denoise", "--precision", "fp16")
    about = {}
    for what in (PRECISION, denoise):
        exported = run_main(export_onnx, *chosen, *what, "--data", data, "--json")
        assert exported.status == 0, exported.err
        lines = map(json.loads, exported.out.splitlines())
        about |= {Path(line["file"]).name.rpartition("-")[0]: line["parity"] for line in lines}
    halves = {f"{part}-fp16" for part in generator.components}
    assert set(about) == halves | {"denoise-int8"} and about["denoise-int8"]["flow"]["cosine"] > 0.98
    for what, count in ((PRECISION, len(generator.components)), (denoise, 1)):
        built = run_main(build_trt, *chosen, *what, "--target", "89")
        assert built.status == 0, built.err
        assert len(built.out.splitlines()) == count

    base = run_main(infer, *chosen, "--data", data, "--out", data / "outputs", "--lossless")
    assert base.status == 0, base.err
    out = tmp_path / "out"
    ran = run_main(infer, *chosen, "--data", data, "--out", out, "--backend", "onnxruntime", "--lossless")
    assert ran.status == 0, ran.err
    shown = read(out / "a.mp4")
    assert shown.frames.shape == (18, 48, 32, 3) and shown.fps == 24
    judged = run_main(bench, "--data", data, "--candidate", out, "--out", tmp_path / "report", "--json")
    assert judged.status == 0, judged.err
    psnr = json.loads(judged.out)["runs"][0]["videos"][0]["metrics"]["psnr"]
    assert psnr is None or psnr > 50  # None: not one level differs


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("frames", FRAMES)
def test_a_clip_of_any_length_gives_that_many_frames_and_the_same_bytes_again(running, name, frames):
    generator, engines = running(name)
    skeletons, image = clip(frames)
    first = generate(generator, engines, skeletons, image, 1)
    assert first.shape == (frames, 48, 32, 3) and first.std() > 5
    if frames == 18:
        assert generate(generator, engines, skeletons, image, 1).tobytes() == first.tobytes()
        assert (generate(generator, engines, skeletons, image, 2) != first).mean() > 0.5


@pytest.mark.parametrize("name", NAMES)
def test_what_depends_on_the_picture_alone_is_computed_once_a_request(running, name):
    generator, engines = running(name)
    calls = dict.fromkeys(engines, 0)

    def counting(part):
        def call(**arrays):
            calls[part] += 1
            return engines[part](**arrays)
        return call

    generate(generator, {part: counting(part) for part in engines}, *clip(30), 1)
    windows, steps = generator.windows.count(30), generator.scheduler.steps
    assert calls["image_kv"] == 1 and calls["denoise"] == windows * steps * (1 + generator.guided)
    assert calls["decode_first"] == (windows if name == "wan-animate" else 1)
    assert calls.get("reference_pose", 1) == 1


def test_each_window_of_unianimate_embeds_its_skeletons_as_if_the_clip_began_there(running):
    """As upstream's long pipeline does: its windows' first frame stands for three that are missing before."""
    import torch

    generator, engines = running("wan-unianimate")
    skeletons, image = clip(30)  # 9 latent frames, windows of 5 that share 4
    chunks = np.split(skeletons, range(4, 30, 4))
    found = generator.condition(engines, chunks, image[None])["pose"]
    filled = np.concatenate([skeletons, skeletons[-1:].repeat(3, 0)])
    network = generator.build("pose").network
    assert found.shape[2] == generator.windows.conditions(30) == 25
    for number, place in enumerate(generator.windows.window_indices(30)):
        start = place[-1] - 4
        own = filled[4 * start : 4 * start + 17]
        given = np.concatenate([own[:1].repeat(3, 0), own])
        with torch.no_grad():
            wanted = network(torch.from_numpy(given).permute(3, 0, 1, 2)[None].float() / 255)
        seen = generator.windows.seen(place)
        assert seen.tolist() == list(range(5 * number, 5 * number + 5))
        np.testing.assert_allclose(found[:, :, seen], wanted, rtol=0, atol=1e-5)


def test_later_windows_of_unianimate_begin_with_frames_of_their_own_that_are_not_shown(running):
    generator, _ = running("wan-unianimate")
    windows, frames = generator.windows, 30
    places, sources = windows.window_indices(frames), windows.condition_indices(frames)
    own = windows.latent_frames(frames)
    assert own == 9 and [place[0] for place in places] == [0, 9, 11, 13, 15]
    for start, place in enumerate(places):
        assert sources[place].tolist() == list(range(start, start + 5))
        assert start == 0 or (place[:2] >= own).all() and (place[2:] < own).all()
    assert len(sources) == own + 2 * 4 and set(np.concatenate(places)) == set(range(len(sources)))
    assert windows.weights(5).tolist() == [1] * 5  # averaged, as upstream


@pytest.mark.parametrize("name", ["wan-fun-control", "wan-unianimate"])
def test_what_fills_a_window_sees_its_own_conditions_not_those_of_the_clips_last_frame(running, name):
    generator, _ = running(name)
    assert generator.windows.condition_indices(6).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("name", NAMES)
def test_a_generator_is_made_without_torch_and_answers_the_contract(checkpoints, name):
    chosen = f"{name}={checkpoints / name}"
    code = f"import sys; from generators.contract import load_generator as load; load({chosen!r}); " \
           "assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    generator = load_generator(chosen)
    assert generator.name == name and all(hasattr(generator, member) for member in REQUIRED)
    assert {path.name for path in generator.fingerprint_files} >= {"diffusion_pytorch_model.safetensors",
                                                         "prompt.safetensors", "transformer.py", "vae.py"}
    assert all(path.is_file() for path in generator.fingerprint_files)


def test_other_settings_are_another_run_tuning_and_calibration_of_the_same_graphs(tmp_path, monkeypatch):
    """Graphs depend on vivace.toml by shapes alone, videos, base runs and fits by all of it."""
    monkeypatch.setenv("VIVACE_BUILT", str(tmp_path))
    name, folder = "wan-fun-control", write_checkpoint(tmp_path / "w", "wan-fun-control")
    requests = find_requests(ROOT / "data" / "sample").requests[:1]

    def identities(**settings):
        write_settings(folder, **settings)
        generator = load_generator(f"{name}={folder}")
        tuning = TuningRunner(requests, generator, "cpu", tmp_path, judge=None)
        found = [VideoRunner(generator, {}).identity["generator_sha256"], tuning.identity,
                 tuning.clips[0].folder, save_calibration(Calibration((1.0,)), generator, ["a"])]
        return found, [fingerprint_of(generator, component) for component in generator.components]

    was, graphs = identities()
    for change in ({"shift": 3.5}, {"steps": 3}, {"half": True}):
        found, same = identities(**change)
        assert same == graphs and not any(a == b for a, b in zip(was, found, strict=True)), change
    assert identities() == (was, graphs)
