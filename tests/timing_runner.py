"""What tests of timing stand on: a stand-in for infer.py, and recipes."""

import json
from pathlib import Path

from bench.timed_run import Ended
from pipeline.batch.dataset import find_requests
from pipeline.recipe import Recipe

BUILT = {"encode": {"file": "e.onnx", "seconds": 1.5}, "decode": {"file": "d.onnx", "seconds": 2.25}}
BASE, FAST = Recipe("baseline"), Recipe("fast", "openvino", "bf16")


class Runner:
    """Stands in for infer.py: a second a video and half a second around them, ten times faster on openvino.

    The tests change what it answers: seconds and hash of a video, the exit status, what else it prints.
    """

    def __init__(self):
        self.calls, self.broken, self.status, self.printed, self.notes = [], {}, 0, "", {}
        self.lengths, self.sizes = {}, {}  # frames, width and height by id
        self.seconds = lambda call, name: 0.1 if "openvino" in call else 1.0
        self.frames = lambda call, name: "same"

    def __call__(self, command, log):
        out, recipe = (Path(command[command.index(flag) + 1]) for flag in ("--out", "--recipe"))
        self.calls.append(call := f"{' '.join(command[2:])} {recipe.read_text()}")
        log.write_text("".join(f"message {i} on {out}\n" for i in range(30)))
        pairing = find_requests(Path(command[command.index("--data") + 1]))
        lines = [self.line(call, request.id, out) for request in pairing.requests]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (out / "manifest.jsonl").write_text(text)
        total = sum(line.get("total_seconds", 0) for line in lines)
        return Ended(self.status or 7 * bool(self.broken), total + 0.5, text + self.printed)

    def line(self, call, name, out):
        if name in self.broken:
            return {"id": name, "status": "failed", "error": self.broken[name]}
        (out / f"{name}.mp4").write_bytes(str(len(self.calls)).encode())
        seconds = self.seconds(call, name)
        spent = {"read": 0.1, "condition": 0.1, "denoise": 0.5, "decode": 0.1, "write": 0.1}
        return {"id": name, "status": "done", "recipe": "baseline", "output": str(out / f"{name}.mp4"),
                "notes": self.notes.get(name, []), "frames": self.lengths.get(name, 1),
                "size": self.sizes.get(name, [64, 96]),
                "backend": "openvino" if "openvino" in call else "torch", "peak_memory_mb": 10**6,
                "built": BUILT if "openvino" in call else {},
                "frames_sha256": self.frames(call, name), "total_seconds": seconds,
                "seconds": {stage: part * seconds for stage, part in spent.items()}}
