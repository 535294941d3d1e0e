"""Load weights from checkpoint files into a network, memory-mapped: nothing is read before it is used.

Built without numbers and filled, a network occupies memory only for what is computed with it:
  with weightless():
      network = Network(...)
  fill(network, checkpoint.tensors(), checkpoint.path)

Pickles that hold more than tensors are refused, because loading them runs code.
"""

from __future__ import annotations

import json
import math
import pickle
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from engines.errors import FILE_ERRORS
from engines.files import map_file
from generators.contract import GeneratorError
from generators.families import family
from generators.tied_weights import lacking_twins, tie
from generators.weight_files import SAFETENSORS, weight_files

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

SHOWN = 10
WRAPPERS = ("state_dict", "model", "module")  # where training programs put the tensors of a torch file
ARCHIVE_ERRORS = (pickle.PickleError, zipfile.BadZipFile)
AGAIN = "copy or download it again"
SCALES = re.compile(r"(^|\.)(scaled_fp8|scale_weight|weight_scale|comfy_quant)$")  # by ComfyUI's programs
LFS = b"version https://git-lfs"
DTYPES = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "I16": "int16", "I32": "int32", "I64": "int64",
    "F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
}  # fmt: skip


@dataclass(frozen=True)
class Stored:
    """The place of a tensor: its file, and its name there."""

    file: Path
    name: str


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of one or more files by name. Each is read from its file when it is computed with."""

    path: Path
    stored: Mapping[str, Stored]

    def tensors(self, names: Iterable[str] | None = None) -> dict[str, Tensor]:
        """Return the named tensors, or all: views of mapped files in their own dtypes, freed with the last.

        Only files of torch before 1.6 are read whole.
        """
        wanted = list(self.stored if names is None else names)
        found: dict[str, Tensor] = {}
        for file in dict.fromkeys(self.stored[name].file for name in wanted):
            here = {name: self.stored[name].name for name in wanted if self.stored[name].file == file}
            if file.suffix in SAFETENSORS:
                found |= _mapped(file, here)
            else:
                inside = _load_torch(file)
                found |= {name: inside[its] for name, its in here.items()}
        return {name: found[name] for name in wanted}

    def renamed(self, renames: Sequence[tuple[str, str]]) -> Checkpoint:
        """Rename tensors: each (regular expression, replacement) in turn, on every name."""
        stored: dict[str, Stored] = {}
        for name, where in self.stored.items():
            new = name
            for pattern, replacement in renames:
                new = re.sub(pattern, replacement, new)
            if new in stored:
                both = f"{where.name} and {stored[new].name}"
                raise GeneratorError(f"{self.path}: {both} are both called {new}")
            stored[new] = where
        return replace(self, stored=stored)

    def part(self, prefix: str) -> Checkpoint:
        """Select the tensors under a prefix as "unet.", and drop it. GeneratorError if there is none."""
        stored = {
            name.removeprefix(prefix): where for name, where in self.stored.items() if name.startswith(prefix)
        }
        if not stored:
            raise GeneratorError(f"{self.path} has no {prefix}*; {_contents(self.stored)}")
        return replace(self, stored=stored)


def open_checkpoint(path: Path) -> Checkpoint:
    """Open a file, an index or a folder; GeneratorError names what is missing or damaged."""
    stored: dict[str, Stored] = {}
    for file in weight_files(path):
        for name in tensor_names(file):
            if name in stored:
                raise GeneratorError(f"{name} is in {stored[name].file.name} and in {file.name}; remove one")
            stored[name] = Stored(file, name)
    return Checkpoint(path, stored)


@contextmanager
def weightless() -> Iterator[None]:
    """Build networks in this block with parameters on the meta device (without numbers) and real buffers.

    A parameter that has several names stays one.
    """
    from torch import nn
    from torch.nn.modules.module import register_module_parameter_registration_hook
    from torch.utils.weak import WeakTensorKeyDictionary

    made = WeakTensorKeyDictionary()  # by what a network was given, of which it keeps nothing

    def without_numbers(module: nn.Module, name: str, parameter: nn.Parameter | None) -> nn.Parameter | None:
        if parameter is None or parameter.is_meta:
            return parameter
        if parameter not in made:
            made[parameter] = nn.Parameter(parameter.to("meta"), requires_grad=False)
        return made[parameter]

    hook = register_module_parameter_registration_hook(without_numbers)
    try:
        yield
    finally:
        hook.remove()


def fill(
    network: nn.Module,
    tensors: Mapping[str, Tensor],
    origin: Path | str,
    dtype: torch.dtype | None = None,
    ignored: Sequence[str] = (),
) -> nn.Module:
    """Set tensors as the network's weights, uncopied, and make it ready for inference.

    dtype: what floats are turned into, which does copy; None keeps the file's. ignored: regular expressions
    of tensors that the network needs not have. A tensor that the network has by several names may be there
    by one of them, as some programs save it. GeneratorError lists the tensors that are missing, unexpected or
    of another shape, and says so if they are of another family; origin is what it calls them by.
    """
    own = network.state_dict()
    unused = [name for name in tensors if name not in own and any(re.search(each, name) for each in ignored)]
    tensors = {name: tensor for name, tensor in tensors.items() if name not in unused}
    twins = lacking_twins(network, tensors)
    tensors |= {name: tensors[twin] for name, twin in twins.items()}
    _check_names(network, own, tensors, origin)
    _check_shapes(network, own, tensors, origin)
    if dtype is not None:
        tensors = {name: t.to(dtype) if t.is_floating_point() else t for name, t in tensors.items()}
    network.load_state_dict(tensors, assign=True)
    tie(network, twins)
    return network.requires_grad_(False).eval()


def kept_dtype(stored: torch.dtype) -> torch.dtype:
    """Return the dtype to keep in what was computed with a weight: its own, bfloat16 for one in 8 bits."""
    import torch

    return torch.bfloat16 if stored.itemsize == 1 else stored


def metadata(path: Path) -> dict[str, str]:
    """Read what the safetensors file at a path says of itself; nothing where it is another file."""
    file = weight_files(path)[0]
    return _header(file)[2] if file.suffix in SAFETENSORS else {}


def _check_names(network: nn.Module, own: Mapping, tensors: Mapping, origin: Path | str) -> None:
    missing = [name for name in own if name not in tensors]
    unexpected = [name for name in tensors if name not in own]
    if not missing and not unexpected:
        return
    is_a, wanted, kind = family(tensors), family(own), type(network).__name__
    lines = [f"{origin} does not fit {kind}"]
    if is_a and is_a != wanted:
        lines[0] += f": it is of another family, {is_a}" + (f"; expected {wanted}" if wanted else "")
    lines += listed("missing", missing) + listed("unexpected", unexpected)
    if any(SCALES.search(name) for name in unexpected):
        lines += ["its weights are in 8 bits with scales, not read here: take one in bf16, fp16 or plain fp8"]
    raise GeneratorError("\n".join(lines))


def _check_shapes(network: nn.Module, own: Mapping, tensors: Mapping, origin: Path | str) -> None:
    wrong = [
        f"{name} is {tuple(tensors[name].shape)} in the file, {tuple(own[name].shape)} in the network"
        for name in own
        if tensors[name].shape != own[name].shape
    ]
    if wrong:
        first = f"{origin} does not fit {type(network).__name__}: is it of another size of the model?"
        raise GeneratorError("\n".join([first, *listed("of another shape", wrong)]))


def listed(what: str, names: Sequence[str]) -> list[str]:
    """Write lines for an error: how many names there are, and the first of them."""
    if not names:
        return []
    more = [f"  and {len(names) - SHOWN} more"] * (len(names) > SHOWN)
    return [f"{len(names)} {what}:", *(f"  {name}" for name in names[:SHOWN]), *more]


def _contents(names: Iterable[str]) -> str:
    starts = sorted({name.partition(".")[0] for name in names})
    return f"its names begin with {', '.join(starts[:SHOWN])}"


def tensor_names(file: Path) -> list[str]:
    """List the tensors of a file; GeneratorError if it is cut short or no such file."""
    with file.open("rb") as opened:
        start = opened.read(len(LFS))
    if start == LFS:
        raise GeneratorError(f"{file} is only a pointer of git LFS; fetch the file itself: git lfs pull")
    return list(_header(file)[1]) if file.suffix in SAFETENSORS else list(_load_torch(file))


def _mapped(file: Path, wanted: Mapping[str, str]) -> dict[str, Tensor]:
    """Map tensors of a safetensors file; wanted: their new names, and those in the file.

    The safetensors package would map copy-on-write, which Linux refuses for files larger than its memory.
    """
    import torch

    (begin, entries, _), numbers = _header(file), map_file(file)
    found = {}
    for name, inside in wanted.items():
        entry = entries[inside]
        if entry["dtype"] not in DTYPES:
            raise GeneratorError(f"{file}: {inside} is of dtype {entry['dtype']}; known: {', '.join(DTYPES)}")
        dtype, shape = getattr(torch, DTYPES[entry["dtype"]]), torch.Size(entry["shape"])
        place, end = entry["data_offsets"]
        if math.prod(shape) * dtype.itemsize != end - place:
            raise GeneratorError(f"{file} is damaged at {inside}; {AGAIN}")
        if not shape.numel():  # which frombuffer has no view of
            found[name] = torch.empty(shape, dtype=dtype)
            continue
        flat = torch.frombuffer(numbers, dtype=dtype, count=shape.numel(), offset=begin + place)
        found[name] = flat.view(shape)
    return found


def _header(file: Path) -> tuple[int, dict[str, dict], dict[str, str]]:
    """Read where a safetensors file's numbers begin, its tensors' entries, and what it says of itself.

    Eight bytes of length, that much JSON, then the numbers; the JSON says where they end.
    """
    size = file.stat().st_size
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        header = opened.read(length) if length < size else b""
    try:
        tensors = json.loads(header)
        about = tensors.pop("__metadata__", None) or {}
        end = 8 + length + max((_end(entry) for entry in tensors.values()), default=0)
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise GeneratorError(f"{file} is damaged or cut short; {AGAIN}") from error
    if size != end:
        what = "cut short" if size < end else "too long"
        raise GeneratorError(f"{file} is {what}: {size} bytes of {end}; {AGAIN}")
    return 8 + length, tensors, about


def _end(entry: Mapping) -> int:
    """Check a tensor's entry in a header; return where its numbers end. ValueError, KeyError, TypeError."""
    (start, end), shape = entry["data_offsets"], entry["shape"]
    numbers = [start, end, *shape]
    if not isinstance(entry["dtype"], str) or not all(type(n) is int and 0 <= n < 2**63 for n in numbers):
        raise ValueError(f"{entry} is no tensor")
    return end


def _load_torch(file: Path) -> dict[str, Tensor]:
    import torch

    try:
        loaded = torch.load(file, "cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except pickle.UnpicklingError as error:
        reason = f"{file} is damaged, or holds more than tensors, which would run code when it is loaded"
        raise GeneratorError(f"{reason}; save its tensors as safetensors") from error
    except (*FILE_ERRORS, *ARCHIVE_ERRORS) as error:
        raise GeneratorError(f"{file} is damaged or cut short; {AGAIN} ({error})") from error
    for _ in WRAPPERS:  # at most one in another of each; a pickle may hold itself, without end
        named = loaded if isinstance(loaded, dict) else {}
        loaded = next((named[k] for k in WRAPPERS if isinstance(named.get(k), dict)), loaded)
    if not isinstance(loaded, dict) or not all(isinstance(each, torch.Tensor) for each in loaded.values()):
        raise GeneratorError(f"{file} holds other things than tensors by name; save only its state_dict")
    return loaded
