"""What techniques that are fitted to a model need to know of its base runs, kept in a file of its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engines.artifact import built_folder, fingerprint
from engines.errors import EngineError
from engines.files import atomic_write
from generators.checkpoint import tensor_names
from generators.weight_files import SAFETENSORS

if TYPE_CHECKING:
    from generators.contract import Generator

CALIBRATIONS = "calibration-????????.json"  # in a generator's folder, by the start of its weights' hash
COMMAND = "run: python -m pipeline.caches calibrate (same --generator and --data)"
EMBEDDER = "condition_embedder."  # of a Wan network, in the names of its tensors


@dataclass(frozen=True)
class Calibration:
    """Measurements of a generator's base runs, means over windows, branches and videos.

    changes: for each step but the first, the mean absolute change of the prediction since the step before,
    relative to that one's mean magnitude. ratios: for each step, of the length of the residual over all
    blocks to that at the step before, mean over tokens; the first step has 1. Empty if the network has no
    list of blocks. signals: as changes, of what the network makes of the time; empty if it is not Wan's.
    """

    changes: tuple[float, ...]
    ratios: tuple[float, ...] = ()
    signals: tuple[float, ...] = ()


def find_calibration(generator: Generator) -> Path:
    """The calibration of the generator's weights, beside its artifacts; EngineError if there is none.

    Where the weights are not here, as in a submission, it is the only one that is.
    """
    folder, weights = built_folder(generator.name), _weights(generator)
    found = list(folder.glob(f"calibration-{weights[:8]}.json" if weights else CALIBRATIONS))
    if len(found) != 1:
        raise EngineError(f"{folder}: there is no calibration of {generator.name}'s weights; {COMMAND}")
    return found[0]


def embedder_names(generator: Generator) -> dict[Path, list[str]]:
    """List the tensors of a Wan network's time embedder, by the file among the generator's that has them."""
    found = {
        path: [name for name in tensor_names(path) if f"{EMBEDDER}time_" in name]
        for path in map(Path, generator.fingerprint_files)
        if path.suffix in SAFETENSORS
    }
    return {path: names for path, names in found.items() if names}


def save_calibration(calibration: Calibration, generator: Generator, data: Iterable[str]) -> Path:
    """Write a calibration to where find_calibration looks for it. data: the requests that it is from."""
    weights = _weights(generator)
    path = built_folder(generator.name) / f"calibration-{weights[:8]}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as draft:
        draft.write_text(json.dumps({"requests": list(data), **asdict(calibration)}, indent=1) + "\n")
    return path


def load_calibration(path: Path, steps: int) -> Calibration:
    """Read a calibration; EngineError if the file is another thing, or of a schedule of other steps."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        calibration = Calibration(
            *(tuple(map(float, found[name])) for name in ("changes", "ratios", "signals"))
        )
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise EngineError(f"{path} is no calibration ({error}); delete it and {COMMAND}") from error
    if len(calibration.changes) != steps - 1:
        raise EngineError(f"{path} is of {len(calibration.changes) + 1} steps, not of {steps}; {COMMAND}")
    return calibration


def _weights(generator: Generator) -> str | None:
    """Hash the generator's files and its adapters' scales; None where a file is not here.

    Of settings there may be no file, as the default ones count then.
    """
    settings = [path for path in getattr(generator, "settings_files", ()) if path.is_file()]
    adapters = getattr(generator, "lora_files", ())
    found = fingerprint([*generator.fingerprint_files, *settings], adapters)
    loras = getattr(generator, "loras", None)
    return hashlib.sha256(f"{found} {loras}".encode()).hexdigest() if found and loras else found
