"""Tell pickles, which can run any code when they are read, from other files."""

from __future__ import annotations

import pickle
import pickletools
from pathlib import Path
from typing import BinaryIO

import numpy as np

PICKLES = {".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".bin", ".joblib"}
CALLS = {
    "GLOBAL",
    "STACK_GLOBAL",
    "INST",
    "OBJ",
    "REDUCE",
    "NEWOBJ",
    "NEWOBJ_EX",
    "BUILD",
    "EXT1",
    "EXT2",
    "EXT4",
}
MOST_PICKLED = 16 << 20  # bytes in which a pickle calls something, if it does


def is_pickle(path: Path) -> bool:
    """Tell whether a file is a pickle: by its name, as it calls something, or as an array of objects."""
    if path.suffix.lower() in PICKLES:
        return True
    with path.open("rb") as file:
        if file.read(6) == b"\x93NUMPY":
            file.seek(0)
            return _holds_objects(file)
        file.seek(0)
        seen, protocol = set(), False
        try:
            for opcode, argument, _ in pickletools.genops(file.read(MOST_PICKLED)):
                protocol = protocol or (opcode.name == "PROTO" and 2 <= argument <= pickle.HIGHEST_PROTOCOL)
                seen.add(opcode.name)
        except (ValueError, OverflowError, MemoryError, IndexError):
            return protocol  # cut or not, its beginning says what it is
    return protocol or bool(seen & CALLS)


def _holds_objects(file: BinaryIO) -> bool:
    try:
        major = np.lib.format.read_magic(file)[0]
        read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
        return read(file)[2].hasobject
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return True  # no header that NumPy writes
