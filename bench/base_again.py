"""Look at runs of the base model: how far a second lies from the first, how long it took, which it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from bench.beside import AGAIN
from pipeline.batch.run_folder import finished_lines

Told = TypeVar("Told")
UNKNOWN = (
    "The base model's own noise floor is unknown: no second run of it was given (--base-again FOLDER: "
    "another backend or thread count on a processor, the same seed again on a GPU; one video will do). So it "
    "is not known how much of a distance is rounding."
)


@dataclass(frozen=True)
class Floor:
    """The least PSNR of the base model's second run, None if its videos are equal; how many; which run."""

    psnr: float | None
    videos: int
    source: str

    def __str__(self) -> str:
        count = f"{self.videos} video{'s' if self.videos > 1 else ''}"
        if self.psnr is None:
            return f"equal to the reference in {count} ({self.source})"
        return f"{self.psnr:.1f} dB at worst, of {count} ({self.source})"


def floor_of(report: Mapping) -> Floor | None:
    """Return the noise floor: of the base's second run, else of a timed baseline; None if it is unknown."""
    folder = report["settings"].get("beside", {}).get(AGAIN)
    if folder:
        found = {
            video["id"]: video["beside"][AGAIN]["psnr"]
            for run in report["runs"]
            for video in run["videos"]
            if AGAIN in video.get("beside", {})
        }
        return _floor(list(found.values()), folder)
    for run in report["runs"]:
        if run["name"] == report.get("baseline"):
            judged = [video["metrics"] for video in run["videos"] if "psnr" in video.get("metrics", {})]
            return _floor([metrics["psnr"] for metrics in judged], f"the run {run['name']}")
    return None


def _floor(values: list[float | None], source: str) -> Floor | None:
    known = [value for value in values if value is not None]
    return Floor(min(known, default=None), len(values), str(source)) if values else None


def seconds_of(folder: Path) -> dict[str, float]:
    """Return the seconds that each finished video of a run folder took, by name; none without manifest."""
    return _of_done(folder, lambda lines: {line["id"]: line["total_seconds"] for line in lines}, {})


def _of_done(folder: Path, read: Callable[[list[dict]], Told], unknown: Told) -> Told:
    """Read something of a run folder's finished videos; unknown: what is said where that cannot be read.

    That is no run of infer.py, or one of another version.
    """
    try:
        return read(list(finished_lines(folder).values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return unknown


def manifest_ratio(candidate: Path, bases: list[Path]) -> dict | None:
    """Compare seconds of the videos that both the candidate's and the first base's manifest have."""
    fast = seconds_of(candidate)
    for base in bases:
        both = {name: seconds for name, seconds in seconds_of(base).items() if fast.get(name)}
        if both:
            ratio = sum(both.values()) / sum(fast[name] for name in both)
            return {"ratio": ratio, "videos": sorted(both), "base": str(base)}
    return None


def adapters_of(folder: Path) -> list[str] | None:
    """List the adapters that a run folder's videos were made with; None without a manifest that tells."""

    def named(lines: list[dict]) -> list[str] | None:
        return sorted({name for line in lines for name in line.get("loras", ())}) if lines else None

    return _of_done(folder, named, None)


def base_judged(candidate: Path, reference: Path) -> str | None:
    """Say against which base model videos are judged, if an adapter made another of it; else None."""
    made, base = adapters_of(candidate), adapters_of(reference)
    if not made and not base:
        return None
    if made == base:
        return f"judged against the base model with the same adapters: {', '.join(base)}"
    told = ["unknown" if each is None else ", ".join(each) or "none" for each in (made, base)]
    return f"judged against another base model: adapters here: {told[0]}; of the reference: {told[1]}"
