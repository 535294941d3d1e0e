"""Classic TensorRT's timings of kernels, kept between builds; TensorRT-RTX measures nothing and has none."""

from __future__ import annotations

import re
from pathlib import Path

from engines.cuda.driver import Gpu
from engines.files import atomic_write, locked, read_cache
from engines.tensorrt.api import TensorRT


class TimingCache:
    """The timings of one GPU, TensorRT and driver in a folder: read before a build, added to after it."""

    def __init__(self, api: TensorRT, config: object, folder: Path, gpu: Gpu) -> None:
        self.path = folder / timing_cache_name(api, gpu)
        self._config = config
        self._cache = api.checked(config.create_timing_cache(read_cache(self.path)), "no timing cache")
        # False, where NVIDIA's sample says True: a mismatch means that the timings are another GPU's.
        if not config.set_timing_cache(self._cache, ignore_mismatch=False):
            self._cache = api.checked(config.create_timing_cache(b""), "no timing cache")
            refused = "an empty timing cache was refused"
            api.checked(config.set_timing_cache(self._cache, ignore_mismatch=False), refused)

    def keep(self) -> None:
        """Write the timings, with those that other builds have added meanwhile. OSError."""
        with locked(self.path.parent):
            theirs = self._config.create_timing_cache(read_cache(self.path))
            if theirs is not None:
                self._cache.combine(theirs, ignore_mismatch=False)
            with atomic_write(self.path) as draft:
                draft.write_bytes(bytes(self._cache.serialize()))


def timing_cache_name(api: TensorRT, gpu: Gpu) -> str:
    """Make a file name of all that timings depend on."""
    name = re.sub(r"[^A-Za-z0-9]+", "_", gpu.name)
    return f"timing-{name}-{gpu.sm}-{api.version}-cuda{gpu.driver // 1000}.cache"
