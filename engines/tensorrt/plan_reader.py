"""Read an engine file while TensorRT deserialises it: never the whole file in memory beside the engine."""

from __future__ import annotations

import os
from typing import BinaryIO

from engines.start_times import timed
from engines.tensorrt.api import TensorRT

BLOCK = 64 << 20  # bytes that are read at a time
_WHENCE = {"SET": os.SEEK_SET, "CUR": os.SEEK_CUR, "END": os.SEEK_END}


def plan_of(api: TensorRT, file: BinaryIO) -> object:
    """Return what deserialize_cuda_engine takes of an open file: a reader.

    What cannot be read is reported as no bytes: by that TensorRT gives up, and exceptions do not pass it.
    """
    base = api.trt.IStreamReaderV2

    class PlanReader(base):
        """A reader of the file, which it does not close."""

        def __init__(self) -> None:
            base.__init__(self)

        def read(self, size: int, stream: int) -> bytes:
            """Give the next bytes, at most BLOCK; TensorRT asks again for those that are missing."""
            try:
                with timed("read"):
                    return file.read(min(size, BLOCK))
            except OSError:
                return b""

        def seek(self, offset: int, where: object) -> bool:
            """Go to another place; False if there is none."""
            try:
                file.seek(offset, _WHENCE[where.name])
            except (OSError, ValueError):
                return False
            return True

    return PlanReader()
