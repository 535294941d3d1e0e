"""What tests stand on: real generators at tiny size, one in NumPy alone, small videos, data folders."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import tempfile
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from generators.samplers import FlowMatchEuler
from generators.windows import OverlapWindows
from pipeline.video.ffmpeg import ffmpeg_exe
from pipeline.video.reader import VideoWriter

ROOT = Path(__file__).resolve().parent.parent
pytest_plugins = ["tests.graphs"]
sys.path.insert(0, str(ROOT))
# A shell's background jobs, and nohup, ignore Ctrl-C, and so would what tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Hashes of files that last a test are not to be remembered in the user's own folder.
CACHE = tempfile.TemporaryDirectory(prefix="vivace-cache-")
os.environ["VIVACE_CACHE"] = CACHE.name
# Exporting a graph makes so many objects that a twelfth of its time went into looking for cycles.
gc.set_threshold(100_000, 20, 100)
# Files of a minute and more, the longest first.
LONGEST = (
    "test_walk_through.py", "test_mimicmotion_engines.py", "test_wan.py", "test_readme.py",
    "test_streamed.py", "test_bundled_int8.py", "test_gpu_run.py", "test_cluster.py", "test_submit_trials.py",
)


def pytest_collection_modifyitems(items):
    """Mark the tests that docs/faults.md names, for `-m faults`; begin with files that take long.

    With several processes a long one that came last would run alone.
    """
    from tests.fault_counts import rows

    named = {name for names in rows().values() for name in names}
    for item in items:
        if f"{item.path.name}::{item.originalname}" in named:
            item.add_marker("faults")
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    rank = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: (rank.get(item.path.name, len(rank)), item.path not in slow))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(call):
    """Figures travel with the report of a test, which may run in another process than the summary's."""
    from tests.fault_counts import FIGURES

    report = yield
    if call.when == "call":
        report.user_properties += [("figure", text) for text in FIGURES]
        FIGURES.clear()
    return report


def pytest_terminal_summary(terminalreporter):
    for report in (*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")):
        for name, text in report.user_properties:
            if name == "figure":
                terminalreporter.write_line(text)


TINY = '''
from pathlib import Path

from generators.presenter.generator import Presenter
from generators.samplers import FlowMatchEuler


class Tiny(Presenter):
    """The presenter's own classes with small random weights, for 32x48 pixels and two steps."""

    name = "tiny"
    size = (32, 48)
    scheduler = FlowMatchEuler(2, 3.0)

    def __init__(self) -> None:
        super().__init__(Path(__file__).parent)
'''


@pytest.fixture(scope="session")
def tiny_file(alone) -> Path:
    """A generator file whose class Tiny is a small random presenter; its weights lie beside it.

    One for all processes: safetensors writes what is said of weights in any order, so other bytes each time.
    """
    import torch

    from generators.presenter.load import AUTOENCODER_FILE, DENOISER_FILE, save_weights
    from generators.presenter.model import Autoencoder, AutoencoderSize, Denoise, DenoiserSize

    with alone("tiny") as root:
        folder = root / "tiny"
        if not (folder / "tiny.py").is_file():
            folder.mkdir()
            torch.manual_seed(0)
            save_weights(Autoencoder(AutoencoderSize(8, 8, 1, 1)), folder / AUTOENCODER_FILE)
            save_weights(Denoise(DenoiserSize(1, 24, 1, 32)), folder / DENOISER_FILE)
            (folder / "tiny.py").write_text(TINY)
    return folder / "tiny.py"


@pytest.fixture(scope="session")
def tiny(tiny_file):
    """The tiny presenter."""
    from generators.contract import load_generator

    return load_generator(f"{tiny_file}:Tiny")


@pytest.fixture(scope="session")
def tiny_engines(tiny):
    """A torch engine per component of the tiny presenter."""
    from engines.backends.torch_backend import TorchEngine

    return {name: TorchEngine(spec, tiny.build(name)) for name, spec in tiny.components.items()}


class Plain:
    """A generator in NumPy alone: latents (1, F, 12, 8) are means of 8x8 pixels; `flow` says its flow.

    flow(conditional, latents, pose): the prediction; calls keeps what it was asked.
    """

    name, size, chunk, frame_axis = "plain", (64, 96), 8, 1
    components: dict = {}
    per_frame, fingerprint_files = frozenset({"pose"}), ()

    windows = OverlapWindows(16, 4)

    def __init__(self, steps: int = 3, guidance: float = 2.0) -> None:
        self.scheduler, self.guidance = FlowMatchEuler(steps, 2.0), guidance
        self.calls: list[SimpleNamespace] = []
        self.flow = lambda conditional, latents, pose: latents - pose

    def engines(self) -> dict:
        """Functions that answer like engines."""
        return {"encode": self._encode, "denoise": self._denoise, "decode": self._decode}

    def fit(self, pixels):
        means = pixels.mean((1, 2, 3), keepdims=True)
        return np.broadcast_to(means, (len(pixels), 96, 64, 3)).astype(np.uint8)

    def condition(self, engines, chunks, image):
        pose = np.concatenate([engines["encode"](pixels=chunk)["latents"] for chunk in chunks], 1)
        return {"pose": pose, "reference": engines["encode"](pixels=image)["latents"]}

    def noise(self, frames, seed):
        draws = np.random.Generator(np.random.Philox(seed))
        return draws.standard_normal((frames, 12, 8), np.float32)[None]

    def denoise(self, engine, latents, step, constants, conditional):
        self.calls.append(SimpleNamespace(step=step, conditional=conditional, constants=constants))
        return engine(latents=latents, pose=constants["pose"], conditional=conditional)["flow"]

    def decode(self, engines, latents):
        for start in range(0, latents.shape[1], self.chunk):
            yield engines["decode"](latents=latents[:, start:start + self.chunk])["pixels"]

    def _encode(self, pixels):
        means = pixels.reshape(len(pixels), 12, 8, 8, 8, 3).mean((2, 4, 5), dtype=np.float32)
        return {"latents": means[None] / 127.5 - 1}

    def _denoise(self, latents, pose, conditional):
        flow = self.flow(conditional, latents, pose)
        return {"flow": np.broadcast_to(np.asarray(flow, np.float32), latents.shape)}

    def _decode(self, latents):
        pixels = ((latents[0] + 1) * 127.5).clip(0, 255).astype(np.uint8)
        return {"pixels": pixels.repeat(8, 1).repeat(8, 2)[..., None].repeat(3, 3)}


@pytest.fixture
def plain():
    """The class of a generator in NumPy alone."""
    return Plain


VIDEOS: dict[tuple, bytes] = {}  # what make_video_file has written


def skeleton_frames(count: int, width: int, height: int) -> np.ndarray:
    """Coloured strokes that move on black, (F, H, W, 3) uint8."""
    y, x = np.mgrid[:height, :width]
    frames = np.zeros((count, height, width, 3), np.uint8)
    for i in range(count):
        for limb, colour in enumerate(((255, 60, 0), (0, 200, 90), (40, 60, 255))):
            at = width * (0.3 + 0.2 * limb + 0.1 * np.sin(i / 5 + limb))
            frames[i][np.abs(x - at - 0.2 * (y - height / 2)) < max(2, width / 40)] = colour
    return frames


@pytest.fixture
def make_video_file():
    """A function that writes a moving skeleton to a video file; lossless where the size is odd.

    One like it that was written before is copied: the next start of ffmpeg takes longer than its frames.
    """
    def make(path: Path, frames: int = 3, size: tuple = (64, 96), fps: Fraction | int = 24) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        like = path.suffix, frames, tuple(size), fps
        if like not in VIDEOS:
            odd = size[0] % 2 or size[1] % 2
            how = {"lossless": True} if odd else {"preset": "ultrafast"}
            with VideoWriter(path, *size, fps, **how) as writer:
                for frame in skeleton_frames(frames, *size):
                    writer.write(frame)
            VIDEOS[like] = path.read_bytes()
        path.unlink(missing_ok=True)  # not through a link of another name
        path.write_bytes(VIDEOS[like])
        return path
    return make


@pytest.fixture
def make_image_file():
    """A function that writes a picture of noise over a ramp."""
    def make(path: Path, size: tuple[int, int] = (64, 96)) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(1).integers(0, 90, (size[1], size[0], 3), np.uint8)
        pixels[:, :, 1] += np.linspace(0, 160, size[0]).astype(np.uint8)
        Image.fromarray(pixels).save(path)
        return path
    return make


@pytest.fixture
def make_data(tmp_path, make_video_file, make_image_file):
    """A function that makes a data folder of pairs: frames by id, and how to make the videos."""
    def make(frames: dict[str, int], **options) -> Path:
        data = tmp_path / "data"
        for name, count in frames.items():
            make_video_file(data / "videos" / f"{name}.mp4", count, **options)
            make_image_file(data / "images" / f"{name}.png")
        return data
    return make


@pytest.fixture
def run_main(monkeypatch, capsys):
    """A function that runs a script's main here with arguments: its status, what went to out and to err."""
    def run(script, *arguments):
        monkeypatch.setattr(sys, "argv", [f"{script.__name__}.py", *map(str, arguments)])
        try:
            status = script.main()
        except SystemExit as stop:  # argparse
            status = stop.code
        return SimpleNamespace(status=int(status), **capsys.readouterr()._asdict())
    return run


@pytest.fixture
def sound_only():
    """A function that writes an mp4 with sound and no picture."""
    def make(path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        command = [ffmpeg_exe(), "-v", "error", "-y", "-f", "lavfi", "-i", "sine=d=0.5", str(path)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        return path
    return make
