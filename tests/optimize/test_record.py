"""What is recorded of real runs: every step and branch, one window a clip, copies that stay as they were."""

from dataclasses import replace
from functools import partial
from itertools import combinations

import numpy as np
import pytest

from engines.errors import InputError
from engines.hashes import file_sha256
from engines.progress import Progress
from optimize.calibration import Recorder, describe, record
from pipeline.batch.dataset import find_requests, first_requests


@pytest.fixture
def requests(make_data):
    """Requests of two clips: one longer than a window, one shorter."""
    return find_requests(make_data({"a": 20, "b": 3}, size=(32, 48)), 42).requests


def test_the_denoiser_is_recorded_at_every_step_in_both_branches_for_one_window_a_clip(
        tiny, tiny_engines, requests):
    inputs = record(tiny, tiny_engines, requests)["denoise"]
    seen = [(round(float(each["time"][0]), 4), float(each["conditional"][0])) for each in inputs]
    times = [round(float(time), 4) for time in tiny.scheduler.times[:tiny.scheduler.steps]]
    assert seen == [(time, branch) for time in times for branch in (1.0, 0.0)] * 2
    assert {each["latents"].shape[2] for each in inputs} == {tiny.windows.length}


def test_how_far_recording_has_come_is_shown(tiny, tiny_engines, requests, monkeypatch, capsys):
    monkeypatch.setattr("optimize.calibration.Progress", partial(Progress, every=0))
    evaluated = len(record(tiny, tiny_engines, requests)["denoise"]) // 2  # of two branches each
    assert f"evaluations recorded: {evaluated}/{evaluated}" in capsys.readouterr().err


def test_encoder_and_decoder_are_recorded_for_the_frames_of_one_window(tiny, tiny_engines, requests):
    inputs = record(tiny, tiny_engines, requests)
    assert [len(each["pixels"]) for each in inputs["encode"]] == [1, 8, 8, 1, 3]  # image, then chunks
    assert [len(each["latents"]) for each in inputs["decode"]] == [8, 8, 3]


def test_what_is_recorded_fits_the_spec_and_runs_to_the_same_outputs(tiny, tiny_engines, requests):
    for name, inputs in record(tiny, tiny_engines, requests[1:]).items():
        for arrays in inputs:
            tiny.components[name].check(arrays)
    again = record(tiny, tiny_engines, requests[1:])
    assert all(np.array_equal(a, b) for a, b in zip(inputs[0].values(), again[name][0].values(), strict=True))


def test_equal_arrays_are_held_once_and_later_writes_of_the_caller_do_not_reach_them(tiny, tiny_engines):
    arrays = {}
    recorder = Recorder(tiny_engines["decode"], arrays)
    latents = np.zeros((1, 16, 6, 4), np.float32)
    recorder(latents=latents)
    recorder(latents=latents)
    latents[:] = 1
    recorder(latents=latents)
    first, second, third = (each["latents"] for each in recorder.inputs)
    assert first is second and first.max() == 0 and third.min() == 1 and len(arrays) == 2


def test_arrays_of_equal_bytes_and_other_shapes_stay_apart(tiny, tiny_engines):
    recorder = Recorder(lambda_engine(tiny.components["decode"]), {})
    recorder(latents=np.zeros((1, 4), np.float32))
    recorder(latents=np.zeros((2, 2), np.float32))
    recorder(latents=np.zeros((1, 4), np.int32))
    assert [(each["latents"].shape, each["latents"].dtype.name) for each in recorder.inputs] == [
        ((1, 4), "float32"), ((2, 2), "float32"), ((1, 4), "int32")]


def lambda_engine(spec):
    """An engine that gives nothing."""
    def engine(**arrays):
        return {}
    engine.spec = spec
    return engine


def test_a_recorder_leaves_the_engine_open(tiny, tiny_engines):
    recorder = Recorder(tiny_engines["encode"], {})
    recorder.close()
    recorder(pixels=np.zeros((1, 48, 32, 3), np.uint8))


def test_the_first_clips_are_chosen_and_none_is_an_error(make_data):
    data = make_data({"c": 1, "a": 1, "b": 1})
    assert [request.id for request in first_requests(data, 2)] == ["a", "b"]
    for picture in (data / "images").iterdir():
        picture.rename(picture.with_stem(f"{picture.stem}-2"))
    with pytest.raises(InputError, match=r"no video in .* has its image: .*a\.mp4 has no image"):
        first_requests(data, 2)


def test_the_description_changes_with_a_clip_and_not_with_its_path(make_data, tmp_path):
    data = make_data({"a": 1, "b": 2})
    first = describe(find_requests(data, 1).requests)
    moved = data.rename(tmp_path / "moved")
    assert describe(find_requests(moved, 1).requests) == first
    (moved / "videos" / "b.mp4").write_bytes((moved / "videos" / "a.mp4").read_bytes())
    changed = describe(find_requests(moved, 1).requests)
    assert changed[0] == first[0] and changed[1] != first[1]


def test_requests_with_other_columns_are_described_otherwise(make_data, make_image_file, tmp_path):
    """Prompts and further pictures go into the networks too; without any, the form is as before."""
    plain = find_requests(make_data({"a": 1}), 1).requests[0]
    coats = [make_image_file(tmp_path / f"{width}.png", (width, 96)) for width in (64, 32)]
    asked = [plain, replace(plain, columns={"prompt": "a man"}), replace(plain, columns={"prompt": "a dog"}),
             replace(plain, pictures={"image2": coats[0]}), replace(plain, pictures={"image2": coats[1]})]
    described = [each for request in asked for each in describe([request])]
    assert all(one != other for one, other in combinations(described, 2))
    assert described[0] == {
        "video": file_sha256(plain.video), "image": file_sha256(plain.image), "seed": 1}


def test_an_unreadable_video_is_an_input_error(tiny, tiny_engines, requests):
    requests[0].video.write_text("not a video")
    with pytest.raises(InputError, match=r"a\.mp4"):
        record(tiny, tiny_engines, requests)
