"""What the service is loaded with: clips of mixed lengths, bad inputs, a generator that takes no time."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.batch.dataset import find_requests
from pipeline.video.writer import VideoWriter

FRAMES = (1, 7, 24, 48, 120)  # of the clips
ROUNDS = 3  # of each clip in a batch run
FIRST = "a-first"  # the clip that warms a batch run up
BAD = {"text": b"not a video", "playlist": b"#EXTM3U\nfile:///etc/passwd\n", "empty": b""}


def clips(data: Path) -> tuple[list[bytes], bytes]:
    """Make a data folder for infer.py with clips of FRAMES lengths; return the videos and the picture."""
    (data / "images").mkdir(parents=True)
    Image.new("RGB", (64, 96), (180, 140, 120)).save(data / "images" / "person.png")
    paths = [data / "videos" / f"clip-{count}.mp4" for count in FRAMES]
    paths[0].parent.mkdir()
    for path, count in zip(paths, FRAMES, strict=True):
        frames = np.zeros((count, 96, 64, 3), np.uint8)
        for number, frame in enumerate(frames):
            frame[20:80, 10 + number % 40 : 16 + number % 40] = (255, 60, 0)
        with VideoWriter(path, 64, 96, 24) as writer:
            for frame in frames:
                writer.write(frame)
    return repeated(paths), (data / "images" / "person.png").read_bytes()


def given(source: Path, data: Path) -> tuple[list[bytes], bytes]:
    """Do the same with the videos of a data folder, all with its first picture."""
    found = find_requests(source).requests
    for part, paths in (("videos", [each.video for each in found]), ("images", [found[0].image])):
        (data / part).mkdir(parents=True)
        for path in paths:
            shutil.copyfile(path, data / part / path.name)
    return repeated(sorted((data / "videos").iterdir())), found[0].image.read_bytes()


def repeated(paths: list[Path]) -> list[bytes]:
    """Give each video ROUNDS - 1 copies beside it, and the last one more to warm up; return them."""
    for path in paths:
        for number in range(1, ROUNDS):
            shutil.copyfile(path, path.with_name(f"{path.stem}-{number}{path.suffix}"))
    shutil.copyfile(paths[-1], paths[-1].with_name(f"{FIRST}{paths[-1].suffix}"))
    return [path.read_bytes() for path in paths]


TINY = """
from pathlib import Path

from generators.presenter.generator import Presenter
from generators.samplers import FlowMatchEuler


class Tiny(Presenter):
    name, size, scheduler = "tiny", (32, 48), FlowMatchEuler({steps}, 3.0)

    def __init__(self):
        super().__init__(Path(__file__).parent)
"""


def tiny_generator(folder: Path, steps: int = 2) -> str:
    """Make a presenter with small random weights, for 32x48 pixels and so many steps; return its name.

    One that is there is taken.
    """
    import torch

    from generators.presenter.load import AUTOENCODER_FILE, DENOISER_FILE, save_weights
    from generators.presenter.model import Autoencoder, AutoencoderSize, Denoise, DenoiserSize

    name = f"{folder.resolve() / 'tiny.py'}:Tiny"
    if (folder / "tiny.py").is_file():
        return name
    torch.manual_seed(0)
    save_weights(Autoencoder(AutoencoderSize(8, 8, 1, 1)), folder / AUTOENCODER_FILE)
    save_weights(Denoise(DenoiserSize(1, 24, 1, 32)), folder / DENOISER_FILE)
    (folder / "tiny.py").write_text(TINY.format(steps=steps))
    return name
