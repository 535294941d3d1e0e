"""Draw where time goes: seconds a video of each run, its factor, how near its networks' roofline it is."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.roofline import calls, operations, peak, roofline_seconds
from engines.load import native_precision
from engines.precision import NATIVE, choose_precisions
from generators.contract import Generator
from pipeline.recipe import Recipe
from pipeline.step_plan import StepPlan

STAGES = ("start", "read", "condition", "denoise", "decode", "write", "other")
COLOURS = ("#57606a", "#54aeff", "#4ac26b", "#0969da", "#8250df", "#d4a72c", "#d0d7de")


@dataclass(frozen=True)
class Bar:
    """One timed run: mean seconds a video by stage, and the least that its networks could take."""

    name: str
    stages: dict[str, float]
    roofline: float

    @property
    def seconds(self) -> float:
        """Return the sum over all stages."""
        return sum(self.stages.values())

    @classmethod
    def of(cls, run: dict, roofline: float) -> Bar:
        """Make the bar of a timed run of report.json; "start" is the script's time that no video took."""
        timing = run["timing"]
        count = len(timing["videos"])
        return cls(run["name"], {"start": timing["cold_start"] / count, **timing["stages"]}, roofline)


def bars_of(report: dict, generator: Generator, device: str = "cpu") -> list[Bar]:
    """Make a bar for each timed run of a report.json but those with a technique, whose calls are not known.

    The slowest comes first. The roofline takes the rate of half precision where the denoiser runs in that, or
    in 8 bits. ValueError: the report has no such run. RecipeError: it is of another generator.
    """
    work, rates, bars = operations(generator), {}, []
    for run in report["runs"]:
        if not run["timing"] or not run["recipe"] or run["recipe"].get("technique"):
            continue
        recipe = _recipe(run["recipe"])
        precision = choose_precisions(recipe.precision, generator.components)["denoise"]
        if precision == NATIVE:
            precision = native_precision(recipe.backend, device)
        kind = precision if precision in ("fp32", "fp16", "bf16") else "bf16"
        rates[kind] = rates.get(kind) or peak(kind, device)
        rooflines = [
            roofline_seconds(calls(generator, recipe, video["frames"]), work, rates[kind])
            for video in run["videos"]
            if "frames" in video
        ]
        bars.append(Bar.of(run, statistics.fmean(rooflines)))
    if not bars:
        raise ValueError("the report has no timed recipe; make one with python -m bench --recipes")
    return sorted(bars, key=lambda bar: -bar.seconds)


def _recipe(found: dict) -> Recipe:
    """A recipe whose calls of the networks are those of the one that asdict() was taken of."""
    steps = found.get("steps")
    if steps:  # what else a plan has costs no call
        steps = StepPlan(steps["actions"], overlaps=steps.get("overlaps", ()))
    engine = found["name"], found["backend"], found["precision"]
    return Recipe(*engine, overlap=found.get("overlap"), steps=steps)


def draw_waterfall(bars: Sequence[Bar], path: Path) -> None:
    """Write a PNG. Above, seconds a video on a logarithmic scale with the factor to the bar before and a mark
    for the floor; below, each bar's stages in percent.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 2.4 + 0.75 * len(bars)), layout="constrained")
    total, shares = figure.subplots(2, sharey=True)
    places = range(len(bars))
    total.barh(places, [bar.seconds for bar in bars], color=COLOURS[3], height=0.6)
    for place, bar in enumerate(bars):
        before = bars[place - 1].seconds if place else bar.seconds
        factor = f"   {before / bar.seconds:.1f} times as fast as the row above" if place else ""
        total.text(bar.seconds * 1.03, place, f"{bar.seconds:.2f} s{factor}", va="center", fontsize=9)
        total.plot([bar.roofline] * 2, [place - 0.38, place + 0.38], color="black", linewidth=2,
                   label=None if place else "floor: the networks' arithmetic at peak rate")  # fmt: skip
        left = 0.0
        for stage, colour in zip(STAGES, COLOURS, strict=True):
            part = 100 * bar.stages.get(stage, 0.0) / bar.seconds
            shares.barh(place, part, left=left, color=colour, height=0.6, label=None if place else stage)
            left += part
    limits = min(bar.roofline for bar in bars) / 1.5, 12 * max(bar.seconds for bar in bars)
    total.set(xscale="log", xlabel="seconds a video, the script's start included", xlim=limits)
    total.legend(loc="lower left", bbox_to_anchor=(0, 1), fontsize=8)
    shares.set(xlabel="percent of the seconds a video", xlim=(0, 100))
    shares.legend(ncols=len(STAGES), loc="upper center", bbox_to_anchor=(0.5, -0.35), fontsize=8)
    for panel in (total, shares):
        panel.set_yticks(list(places), [bar.name for bar in bars])
    total.invert_yaxis()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
