"""The GPUs an engine is built for: the one that is here, or with TensorRT-RTX any by compute capability."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from engines.cuda.driver import Gpu, open_driver
from engines.errors import EngineError, UsageError
from engines.precision import PRECISIONS
from engines.tensorrt.api import INSTALL, TensorRT, installed, load
from engines.tensorrt.artifact import ANY_GPU, target_of

HERE = "gpu"


@dataclass(frozen=True)
class Targets:
    """The TensorRT that builds, and what for: by architecture (sm_86), the name of a GPU or ANY_GPU."""

    api: TensorRT
    gpus: Mapping[str, str]
    here: Gpu | None = None
    current: Callable[[], AbstractContextManager[object]] = nullcontext  # makes that GPU the one to build on

    @property
    def capabilities(self) -> list[int]:
        """The compute capabilities times ten, ascending."""
        return sorted(int(sm.removeprefix("sm_")) for sm in self.gpus)


def resolve_targets(text: str) -> Targets:
    """Read the targets of a command line: "gpu", "gpu:1", or compute capabilities as "80,86,89,120".

    UsageError if it is neither; EngineError if there is no GPU, no TensorRT, or it has no such target.
    """
    kind, _, index = text.partition(":")
    if kind == HERE and (index.isdecimal() or text == HERE):
        return _here(f"cuda:{index or 0}")
    capabilities = text.split(",")
    if not all(each.isdecimal() and len(each) in (2, 3) for each in capabilities):
        raise UsageError(
            f"--target takes gpu, gpu:1 (the second), or compute capabilities as 80,86,89,120; got {text!r}"
        )
    api = load("tensorrt_rtx")
    if api is None:
        raise EngineError("only TensorRT-RTX builds for GPUs elsewhere; run: pip install tensorrt-rtx")
    return _supported(Targets(api, {f"sm_{each}": ANY_GPU for each in capabilities}))


def check_precision(targets: Targets, precision: str) -> None:
    """Raise EngineError if a target has no arithmetic of that precision."""
    oldest = PRECISIONS[precision].capability
    lacking = [f"sm_{each}" for each in targets.capabilities if each < oldest]
    if lacking:
        raise EngineError(
            f"{precision} needs compute capability {oldest / 10} or newer; leave {', '.join(lacking)} "
            "out of --target, or choose another --precision"
        )


def runs_on(api: TensorRT, gpu: Gpu) -> bool:
    """Tell whether this TensorRT supports that GPU; TensorRT-RTX leaves out Hopper, for one."""
    return not api.is_rtx or capability(api, 10 * gpu.capability[0] + gpu.capability[1]) is not None


def capability(api: TensorRT, number: int) -> object | None:
    """Return TensorRT-RTX's constant for a compute capability times ten, or None."""
    return api.maybe(f"ComputeCapability.SM{number}")


def _here(device: str) -> Targets:
    if not installed():
        raise EngineError(f"TensorRT is not installed; {INSTALL}")
    api = installed()[0]
    try:
        driver = open_driver(device)
    except EngineError as error:
        raise EngineError(
            f"{error}\nwithout a GPU, TensorRT-RTX builds for others: --target 80,86,89,120"
        ) from error
    return _supported(Targets(api, target_of(api, driver.gpu), driver.gpu, driver.current))


def _supported(targets: Targets) -> Targets:
    """Return the targets; EngineError if this TensorRT-RTX does not build for one of them."""
    api = targets.api
    unknown = [each for each in targets.capabilities if capability(api, each) is None]
    if api.is_rtx and unknown:
        known = sorted(int(name[2:]) for name in dir(api.trt.ComputeCapability) if name.startswith("SM"))
        raise EngineError(
            f"{api} does not build for sm_{', sm_'.join(map(str, unknown))}, only for "
            f"{', '.join(map(str, known))}; Hopper (90) and B200 (100) need classic tensorrt"
        )
    return targets
