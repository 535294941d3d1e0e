"""Measure VMAF of two videos by ffmpeg's filter, where this ffmpeg has it; for information, no check uses it.

VMAF guesses how people rate a picture of 1080p that fills a screen seen from three times its height away. On
smaller pictures it is too kind, and what it was trained on are films that were scaled down and encoded.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from pipeline.video.ffmpeg import EXACT, Ffmpeg, strict_input

SMALLEST = 32  # pixels a side; at 16 the filter crashes (ffmpeg 9.0.2)
SECONDS_A_FRAME = 2.0  # at most; 1080p takes a tenth of one on a slow core
# Frames are paired by their number, whatever the files' rates and clocks. Both are converted alike, which
# ffmpeg 9 sees to by itself; older ones take RGB to BT.601.
SAME = f"settb=1/1000,setpts=N,scale=out_color_matrix=bt709:out_range=tv:{EXACT},format=yuv420p"
GRAPH = f"[0:V:0]{SAME}[c];[1:V:0]{SAME}[r];[c][r]libvmaf=log_fmt=json:log_path=/dev/stdout"


class VmafError(RuntimeError):
    """An error: VMAF could not be measured, though there is the filter; the text says why."""


def vmaf(reference: Path, candidate: Path, frames: int, size: tuple[int, int]) -> float | None:
    """Return the mean VMAF of a candidate's frames, 0 to 100, by the model vmaf_v0.6.1.

    frames, size: of both, as they were read. None if the picture is too small for the filter, or if ffmpeg
    lacks it. VmafError.
    """
    if min(size) < SMALLEST:
        return None
    inputs = [*strict_input(candidate), *strict_input(reference)]
    arguments = [*inputs, "-filter_complex", GRAPH, "-fps_mode", "passthrough", "-f", "null", "-"]
    child = Ffmpeg(arguments, 30 + SECONDS_A_FRAME * frames, stdout=subprocess.PIPE)
    try:
        text, failed = child.listing(), child.wait()
        if "No such filter: 'libvmaf'" in child.messages():
            return None
        if failed or not text:
            raise VmafError(child.reason())
        log = json.loads(text)
    except ValueError as error:
        raise VmafError(f"its log is no JSON ({error})") from error
    finally:
        child.close()
    if len(log["frames"]) != frames:
        raise VmafError(f"it was measured on {len(log['frames'])} of {frames} frames")
    return log["pooled_metrics"]["vmaf"]["mean"]
