"""Prepare a packed submission's first run: read its default options, and build the engines it lacks."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from engines.errors import EngineError
from engines.hashes import CACHE
from engines.load import Choice, precisions_on
from engines.spec import Model

FILE = "submission.json"
LOCK = ".building"
PATHS = ("data", "out", "recipe")  # of the entry, relative to the submission's folder


def entry_defaults(folder: Path) -> dict[str, object]:
    """Return the defaults of infer.py's options in a submission unpacked in folder; none in a checkout.

    In a submission no hashes are remembered from here on.

    submit/pack.py writes them: generator, recipe, device, data, out, restart, and whether to build engines.
    """
    path = folder / FILE
    if not path.is_file():
        return {}
    os.environ[CACHE] = ""  # it leaves nothing on the grader's disk but its output
    entry = json.loads(path.read_text(encoding="utf-8"))["entry"]
    entry |= {name: folder / entry[name] for name in PATHS}
    if entry["generator"].partition(":")[0].endswith(".py"):
        entry["generator"] = str(folder / entry["generator"])
    return entry


def build_engines_once(
    generator: str, model: Model, choice: Choice, root: Path, say: Callable[[str], None]
) -> None:
    """Build the TensorRT engines that are missing for this GPU with root's build_trt.py, before any timing.

    generator: the argument for build_trt.py. One process builds while others wait for it; where none is
    missing nothing is written, so that another user's run, or one from a read-only folder, succeeds.
    EngineError: TensorRT or a GPU is missing, or an engine cannot be built.
    """
    if choice.backend != "tensorrt":
        return
    from engines.backends.tensorrt_backend import lacking

    precisions = precisions_on(choice.backend, choice)
    wanted = model, precisions, choice.device, choice.folder
    if not lacking(*wanted):
        return
    with _locked(choice.folder):
        missing = lacking(*wanted)  # another process may have built them while this one waited for the lock
        if not missing:
            return
        say(f"first run: building {', '.join(missing)} for this GPU")
        command = [
            sys.executable, str(root / "build_trt.py"), "--generator", generator,
            "--component", ",".join(missing), "--precision", _text(precisions),
            "--target", choice.device.replace("cuda", "gpu"),
        ]  # fmt: skip
        status = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=sys.stderr).returncode
    if status:
        raise EngineError(f"build_trt.py ended with status {status}; what it said is above")


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock inside a with block; the system frees it when the process dies. EngineError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / LOCK).open("w")
    except OSError as error:
        raise EngineError(
            f"cannot build engines in {folder}: {error.strerror}; set VIVACE_BUILT to a folder that can be "
            f"written, with the graphs of {folder.name}/ in it"
        ) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _text(precisions: Mapping[str, str]) -> str:
    """Return precisions in the form of the scripts' --precision: "fp16,decode=fp32"."""
    exceptions = (f"{name}={precision}" for name, precision in precisions.items())
    return ",".join([next(iter(precisions.values())), *exceptions])
