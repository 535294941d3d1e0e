"""One face for classic TensorRT 10.x and 11.x and TensorRT-RTX; every refusal becomes an error with a text.

TensorRT reports failure by returning None, False or -1 and logging why. Here the log is kept, and repeated in
the EngineError or MemoryError that `checked` raises. What not every flavour has is asked for by name.
"""

from __future__ import annotations

import functools
import importlib
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import TypeVar

from engines.errors import EngineError

Answer = TypeVar("Answer")
FLAVOURS = ("tensorrt", "tensorrt_rtx")
INSTALL = "run: pip install -r requirements-gpu.txt (Hopper and B200 need tensorrt, not tensorrt-rtx)"
_KEPT = ("INTERNAL_ERROR", "ERROR", "WARNING")
_OUT_OF_MEMORY = ("out of memory", "outofmemory", "failed_allocation", "mem_alloc_failed")
# What TensorRT says, and what to do about it.
_ADVICE = {
    "zero point": "TensorRT takes symmetric quantization only; run export_onnx.py again",
    "uint8": "uint8 may only go from an input into a Cast, or from a Cast into an output; "
    "change the module's order and run export_onnx.py again",
    "same input types": "the graph mixes precisions, which strong typing refuses; run export_onnx.py again",
    "cannot compile for target": "leave that target out, or choose another --precision",
    "could not find any implementation": "raise --memory-limit or --level",
}
# TensorRT's data types by NumPy's names; those it lacks (bfloat16, float8) are no input or output of ours.
_DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "UINT8": "uint8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
}


class TensorRT:
    """An installed TensorRT: its module, and the last messages that it logged.

    One for each flavour and process: TensorRT wants the same logger wherever it takes one.
    """

    def __init__(self, module: ModuleType) -> None:
        self.trt = module
        self.flavour, self.version = module.__name__, module.__version__
        self.is_rtx = self.flavour == "tensorrt_rtx"
        self._messages: deque[tuple[str, str]] = deque(maxlen=50)
        self._lock = threading.Lock()
        self.logger = _logger(module, self._hear)

    def __str__(self) -> str:
        return f"{self.flavour} {self.version}"

    def maybe(self, name: str) -> object | None:
        """Return the module's object of that dotted name; None if this flavour lacks it."""
        found = self.trt
        for part in name.split("."):
            found = getattr(found, part, None)
        return found

    def create(self, make: Callable[..., Answer], *arguments: object) -> Answer:
        """Call make(*arguments, logger) for a Builder, Runtime or OnnxParser; EngineError if it fails."""
        what = f"{self} cannot start a {getattr(make, '__name__', make)}"
        try:
            return self.checked(make(*arguments, self.logger), what)
        except TypeError as error:  # "factory function returned nullptr"
            raise self.failure(f"{what}, as without a working NVIDIA driver ({error})") from error

    def checked(self, answer: Answer, what: str) -> Answer:
        """Return the answer; raise `failure` if it is None, False or -1, by which TensorRT reports one."""
        if answer is None or answer is False or (type(answer) is int and answer == -1):
            raise self.failure(what)
        return answer

    @contextmanager
    def heard(self, what: str) -> Iterator[None]:
        """Raise `failure` if an error is logged while the block runs: of some calls nothing else tells it."""
        self.take_messages()
        yield
        with self._lock:
            failed = any(level != "WARNING" for level, _ in self._messages)
        if failed:
            raise self.failure(what)

    def failure(self, what: str, reasons: Sequence[str] = ()) -> EngineError | MemoryError:
        """Make an error to raise: what failed, why by TensorRT's last messages, and what to do about it.

        reasons: those words, where they are not in the log.
        """
        logged = [text for level, text in self.take_messages() if level != "WARNING"]
        text = f"{what}: {'; '.join(reasons or logged[-3:]) or f'{self} gives no reason'}"
        if any(sign in text.lower() for sign in _OUT_OF_MEMORY):
            return MemoryError(text)
        advice = [advice for sign, advice in _ADVICE.items() if sign in text.lower()]
        return EngineError("\n".join([text, *advice[:1]]))

    def take_messages(self) -> list[tuple[str, str]]:
        """Return (level, text) of what was logged since the last time, and forget it."""
        with self._lock:
            taken = list(dict.fromkeys(self._messages))
            self._messages.clear()
        return taken

    def dtype_name(self, dtype: object) -> str:
        """Translate a TensorRT data type to NumPy's name; TensorRT's own name for those NumPy lacks."""
        return _DTYPES.get(dtype.name, dtype.name)

    def _hear(self, level: str, text: str) -> None:
        with self._lock:
            self._messages.append((level, text.strip()))


@functools.cache
def load(flavour: str) -> TensorRT | None:
    """Import the TensorRT of that flavour; None if it is not installed."""
    try:
        return TensorRT(importlib.import_module(flavour))
    except (ImportError, OSError):  # OSError: the bindings are there, their libraries are not
        return None


def installed() -> list[TensorRT]:
    """List what is installed, classic first: it is the faster one where both run."""
    return [api for flavour in FLAVOURS if (api := load(flavour))]


def _logger(trt: ModuleType, hear: Callable[[str, str], None]) -> object:
    """Make an ILogger that passes on errors and warnings. An IErrorRecorder crashes the process (RTX 1.7)."""

    class Collector(trt.ILogger):
        """The logger, which passes errors and warnings on."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: object, message: str) -> None:
            """Pass one message on; TensorRT calls this from any thread."""
            if severity.name in _KEPT:
                hear(severity.name, message)

    return Collector()
