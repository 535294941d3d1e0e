"""The doctor's advice: what this machine should take, and the next command for a data folder."""

import pytest

import infer
from engines.advice import next_steps, recipe_for
from engines.load import BACKENDS

PACKAGES = {"torch": "2", "onnx": "1", "onnxscript": "1", "imageio-ffmpeg": "1"}


def found(*works, packages=PACKAGES):
    """What the doctor finds on a machine where those backend-device pairs run."""
    backends = {
        name: {device: None if (name, device) in works else "no" for device in ("cpu", "cuda")}
        for name in BACKENDS
    }
    return {"packages": packages, "backends": backends}


CPU = (("torch", "cpu"), ("onnxruntime", "cpu"), ("openvino", "cpu"))
GPU = (*CPU, ("tensorrt", "cuda"))


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("VIVACE_BUILT", str(tmp_path / "built"))
    for part in ("videos", "images", "outputs"):
        (tmp_path / "my data" / part).mkdir(parents=True)
    for path in ("videos/a.mp4", "images/a.png"):
        (tmp_path / "my data" / path).touch()
    return tmp_path / "my data"


def test_the_recipe_is_that_of_the_fastest_backend_that_runs():
    recipes = [recipe_for(found(*works)["backends"]).recipe for works in (GPU, CPU, CPU[:2], CPU[:1])]
    assert recipes == ["gpu-fp16.toml", "fast.toml", "cpu-steps.toml", None]


def test_each_step_that_is_done_is_no_longer_asked_for(data, tmp_path):
    def first():
        return next_steps(found(*CPU), data)[0].command

    assert first() == "python export_onnx.py --precision fp32"
    (tmp_path / "built" / "presenter").mkdir(parents=True)
    (tmp_path / "built" / "presenter" / "denoise.onnx").touch()
    assert first() == f"python infer.py --data '{data}' --out '{data}'/outputs"
    (data / "outputs" / "a.mp4").touch()
    steps = [step.command for step in next_steps(found(*CPU), data)]
    assert steps[0] == f"python infer.py --data '{data}' --out out/fast --recipe optimize/recipes/fast.toml"
    assert steps[1].startswith("python -m bench") and steps[2].startswith("python tune.py")
    built = [step.command for step in next_steps(found(*GPU), data)]
    assert built[0] == "python build_trt.py --precision fp16" and built[1].endswith("--device cuda")


def test_what_is_missing_comes_first(data):
    (data / "images" / "a.png").unlink()
    (step,) = next_steps(found(*CPU), data)
    assert step.command == "make demo" and "images holds none of the pictures" in step.why
    (step,) = next_steps(found(*CPU), data / "none")
    assert "there is no data folder" in step.why
    (step,) = next_steps(found(packages={"torch": "2"}), data)
    assert step.command == "pip install -r requirements.txt" and "onnx, onnxscript" in step.why


def test_an_empty_folder_leads_to_the_doctor(tmp_path, run_main):
    ended = run_main(infer, "--data", tmp_path, "--out", tmp_path / "out")
    assert ended.status == 3 and f"what now? python -m engines doctor --data {tmp_path}" in ended.err
