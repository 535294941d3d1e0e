"""Small real videos for tests, made by ffmpeg or by VideoWriter, and programs to stand in for ffmpeg."""

import subprocess
import sys

import numpy as np

from pipeline.video import ffmpeg
from pipeline.video.reader import VideoWriter

MADE = {}
FLOOD = "import sys; sys.stderr.write('x' * 262144); sys.stderr.flush(); sys.stdin.buffer.read(); sys.exit(3)"


def run(*arguments):
    command = [ffmpeg.ffmpeg_exe(), "-v", "error", "-y", *map(str, arguments)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def make(path, *options, size="64x48", rate="24", seconds=1, source="testsrc2="):
    """Write ffmpeg's test pictures; a video like one that was written before is copied."""
    like = path.suffix, *options, size, rate, seconds, source
    if like not in MADE:
        source = f"{source}s={size}:r={rate}:d={seconds}"
        run("-f", "lavfi", "-i", source, "-preset", "ultrafast", *options, path)
        MADE[like] = path.read_bytes()
    path.write_bytes(MADE[like])
    return path


def picture_frames(count, height=48, width=64):
    """Smooth moving grey-ish frames, which chroma subsampling hardly hurts."""
    y, x = np.mgrid[:height, :width]
    waves = [128 + 90 * np.sin((x + 3 * i) / 9) * np.cos(y / 7) for i in range(count)]
    return [np.stack([wave, wave * 0.9, wave * 0.8 + 20], -1).astype(np.uint8) for wave in waves]


def write(path, frames, fps=24, **options):
    height, width, _ = frames[0].shape
    with VideoWriter(path, width, height, fps, **{"preset": None, **options}) as writer:
        for frame in frames:
            writer.write(frame)
    return path


def hidden_files(folder):
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


TICKING = "import time\nwhile True:\n    print('0, 0', flush=True)\n    time.sleep(0.01)"


def stand_in(tmp_path, monkeypatch, program):
    """Put a Python program in ffmpeg's place."""
    path = tmp_path / "stand_in"
    path.write_text(f"#!{sys.executable}\n{program}\n")
    path.chmod(0o755)
    monkeypatch.setattr(ffmpeg, "ffmpeg_exe", lambda: str(path))


def told(notes):
    """Notes without the one that these videos are no key points on black."""
    return [note for note in notes if not note.startswith("the skeleton video does not look like")]
