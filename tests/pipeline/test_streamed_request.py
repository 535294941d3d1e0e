"""Videos made piece by piece: the bytes of those made at once, the first frames before the last are read."""

import json
import re
import textwrap
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import infer
from engines.backends.torch_backend import TorchEngine
from engines.errors import InputError, UsageError
from generators.contract import load_generator
from generators.pieces import gathered, in_chunks
from pipeline.batch.dataset import Request
from pipeline.guard import Guard
from pipeline.recipe import Recipe
from pipeline.request import Options, make_video
from pipeline.runner import Settings
from pipeline.step_plan import StepPlan
from pipeline.streamed_request import sampling_of

ROOT = Path(__file__).parents[2]
FAR = (9.0,) * 25, (9.0,) * 25  # the parts of two constants: 16 groups of channels and 9 regions
FIRES = StepPlan("FS", guard=Guard(5, (0.0,), ("pose", "reference"), FAR, ((1.0,) * 25,) * 2, (1.0, 1.0)))


def silent(total):
    return nullcontext(SimpleNamespace(tick=lambda: None, grow=lambda count: None))


def request(path, make_video_file, make_image_file, frames):
    image = make_image_file(path / "a.png", (32, 48))
    return Request("a", make_video_file(path / f"{frames}.mp4", frames, (32, 48)), image, 1)


@pytest.mark.parametrize("frames", [1, 7, 16, 17, 48, 200])
@pytest.mark.parametrize("plan", [
    None, StepPlan("FC", overlaps=(0,)), StepPlan("FS", guard=Guard(5, (0.0,))),
    FIRES])
def test_frames_are_those_of_the_batch_run(
    tiny, tiny_engines, make_video_file, make_image_file, tmp_path, frames, plan
):
    asked = request(tmp_path, make_video_file, make_image_file, frames)
    options = Options(Recipe("a", steps=plan))
    made = [
        make_video(asked, tmp_path / "o.mp4", tiny, tiny_engines, silent, replace(options, sampling=sampling))
        for sampling in (None, sampling_of)
    ]
    assert made[0]["frames_sha256"] == made[1]["frames_sha256"] and made[1]["frames"] == frames
    assert made[0]["actions"] == made[1]["actions"] and made[0]["guard_fired"] == made[1]["guard_fired"]
    assert [why[:8] for why in made[0]["guard_fired"]] == ["pose is "] * (plan is FIRES)
    assert set(made[0]["seconds"]) == set(made[1]["seconds"]) and min(made[1]["seconds"].values()) >= 0
    assert sum(made[1]["seconds"].values()) <= made[1]["total_seconds"] + 0.01


def test_the_first_frames_are_written_before_the_last_are_read(
    tiny, tiny_engines, make_video_file, make_image_file, tmp_path
):
    asked, order = request(tmp_path, make_video_file, make_image_file, 200), []

    def encode(pixels):
        order.append("encode")
        return tiny_engines["encode"](pixels=pixels)

    def decode(latents):
        order.append("decode")
        return tiny_engines["decode"](latents=latents)

    engines = {**tiny_engines, "encode": encode, "decode": decode}
    made = make_video(asked, tmp_path / "o.mp4", tiny, engines, silent, Options(sampling=sampling_of))
    assert order.index("decode") < 8 and order[-1] == "decode" and made["frames"] == 200
    assert made["first_frame_seconds"] < made["total_seconds"] / 2


def test_a_generator_that_does_not_stream_delivers_at_the_end_and_says_so(
    plain, make_video_file, make_image_file, tmp_path
):
    asked, generator = request(tmp_path, make_video_file, make_image_file, 20), plain()
    options = Options(sampling=sampling_of)
    made = make_video(asked, tmp_path / "o.mp4", generator, generator.engines(), silent, options)
    assert "plain does not make its frames piece by piece: they come at the end" in made["notes"]


def test_the_example_of_the_docs_streams_the_frames_that_its_generator_makes_at_once(
    make_video_file, make_image_file, tmp_path
):
    chapter = (ROOT / "docs" / "wrapping.md").read_text().split("## Frames piece by piece")[1]
    [code] = re.findall(r"^```python\n(.*?)^```$", chapter, re.MULTILINE | re.DOTALL)
    plain = load_generator(str(ROOT / "examples" / "my_generator.py:MyGenerator"))
    members = {"gathered": gathered, "in_chunks": in_chunks}
    exec(textwrap.dedent(code), members)
    streams = type("Streams", (type(plain),), members)()
    engines = {name: TorchEngine(spec, plain.build(name)) for name, spec in plain.components.items()}
    asked = request(tmp_path, make_video_file, make_image_file, 40)
    made = {}
    for name, generator, sampling in (("plain", plain, None), ("whole", streams, None),
                                      ("streamed", streams, sampling_of)):
        options = Options(sampling=sampling)
        made[name] = make_video(asked, tmp_path / "o.mp4", generator, engines, silent, options)
    assert len({each["frames_sha256"] for each in made.values()}) == 1 and made["plain"]["frames"] == 40
    assert not any("piece by piece" in note for note in made["streamed"]["notes"])


def test_a_file_with_fewer_frames_than_packets_is_refused(
    tiny, tiny_engines, make_video_file, make_image_file, tmp_path, monkeypatch
):
    asked = request(tmp_path, make_video_file, make_image_file, 20)
    for packets in (19, 30):
        told = property(lambda source, count=packets: count, lambda source, count: None)
        monkeypatch.setattr("pipeline.request.Source.announced", told, raising=False)
        with pytest.raises(InputError, match=f"has not the {packets} frames of its packets; leave --stream"):
            make_video(asked, tmp_path / "o.mp4", tiny, tiny_engines, silent, Options(sampling=sampling_of))
    assert not (tmp_path / "o.mp4").exists()


def test_the_command_streams_and_refuses_what_cannot_be(
        tiny_file, tiny_built, make_data, run_main, tmp_path, monkeypatch):
    monkeypatch.setenv("VIVACE_BUILT", str(tiny_built))
    data = make_data({"a": 20, "b": 3}, size=(32, 48))
    shas = []
    for extra in ((), ("--stream",), ("--stream", "--workers", "2")):
        out = tmp_path / f"out{len(shas)}"
        where = "--generator", f"{tiny_file}:Tiny", "--data", data, "--out", out
        assert run_main(infer, *where, "--backend", "onnxruntime", *extra).status == 0
        lines = map(json.loads, (out / "manifest.jsonl").read_text().splitlines())
        shas.append({line["id"]: line["frames_sha256"] for line in lines})
    assert shas[0] == shas[1] == shas[2]
    for extra in (("--split", "2"), ("--ray", "local")):
        refused = run_main(infer, "--stream", *extra)
        assert refused.status == 2 and "--stream goes with neither --split nor --ray" in refused.err


def test_a_technique_is_refused(tiny_file, tmp_path):
    from pipeline.recipe import load_recipe

    path = tmp_path / "a.toml"
    path.write_text('[technique]\nname = "teacache"\n')
    with pytest.raises(UsageError, match="--stream: a technique keeps what all windows of a step have"):
        Settings(f"{tiny_file}:Tiny", load_recipe(path), stream=True)


def test_chunks_have_their_length_whatever_the_pieces():
    frames = np.arange(23)[:, None]
    for cuts in ([], [1, 2, 3], [8, 16], [20], [5, 5, 12]):
        found = [*in_chunks(np.split(frames, cuts), 8)]
        assert [len(each) for each in found] == [8, 8, 7]
        assert (np.concatenate(found) == frames).all()


def test_pieces_of_conditions_are_joined_along_their_frames():
    first, second = {"pose": np.zeros((1, 2, 3)), "reference": np.ones(2)}, {"pose": np.ones((1, 2, 1))}
    found = gathered([first, second], 2)
    assert found["pose"].shape == (1, 2, 4) and found["reference"].shape == (2,)
