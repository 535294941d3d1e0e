"""Draw how throughput grows with machines and what bounds it: simulated, with what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lab.scaling.simulation import Costs, Machines, Simulated, simulate
from pipeline.parallel.stage_scheduler import Stage

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COUNTS = (1, 2, 4, 8, 16)  # machines
TIMES_FASTER = (1, 10, 100)  # networks than those measured
PER_WORKER = 40  # videos: enough for the rate to settle
SECONDS = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)  # of networks, for one video
COLOURS = ("#0969da", "#1a7f37", "#bf8700")
BOUNDS = ("#8250df", "#cf222e", "#57606a", "#bf8700")


def grown(costs: Costs, machine: Machines) -> list[tuple[int, Simulated]]:
    """Yield numbers of machines, and what so many do."""
    machines = [replace(machine, count=count) for count in COUNTS]
    return [(each.count, simulate(costs, each, PER_WORKER * each.count * each.networks)) for each in machines]


def shortest(found: Simulated) -> str:
    """Return what was busiest: it is where scaling stops."""
    return max(found.busy, key=found.busy.get)


def draw(costs: Costs, large: Costs, machine: Machines, measured: Sequence[dict], path: Path) -> None:
    """Write a PNG. Left: videos a second by workers, for networks as measured and faster ones. Then: those of
    the largest cluster by what networks take, with the lines that bound them, for small and large videos.

    measured: machines and rate of runs of null workers, with these costs.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 4.6), layout="constrained")
    growth, small, big = figure.subplots(1, 3)
    for factor, colour in zip(TIMES_FASTER, COLOURS, strict=True):
        faster = replace(costs, make=costs.make / factor)
        found = grown(faster, machine)
        workers = [count * machine.networks for count, _ in found]
        growth.plot(workers, [each.rate for _, each in found], color=colour, marker=".",
                    label=f"networks {faster.make:.3g} s a video")  # fmt: skip
        growth.plot(workers, [each / faster.make for each in workers], color=colour, linestyle=":")
    places = [run["machines"] * machine.networks for run in measured]
    growth.scatter(places, [run["rate"] for run in measured], color="black", marker="x", zorder=3,
                   label="measured: null workers on Ray, all on one machine")  # fmt: skip
    growth.set(xscale="log", yscale="log", xlabel="workers of networks, 8 a machine",
               ylabel="videos a second", title="simulated; dotted: in proportion")  # fmt: skip
    growth.set_xticks(workers, list(map(str, workers)))
    growth.minorticks_off()
    for panel, case, words in ((small, costs, "small videos"), (big, large, "large videos")):
        _bounds(panel, case, replace(machine, count=COUNTS[-1]))
        panel.set(xscale="log", yscale="log", xlabel="seconds of networks for one video",
                  title=f"{COUNTS[-1]} machines, {words}: what bounds them")  # fmt: skip
    for panel in (growth, small, big):
        panel.grid(alpha=0.3, which="both")
        panel.legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def _bounds(panel: Axes, costs: Costs, machines: Machines) -> None:
    workers, files = machines.count * machines.networks, machines.count * machines.files
    rates = [simulate(replace(costs, make=make), machines, PER_WORKER * workers).rate for make in SECONDS]
    panel.plot(SECONDS, rates, color=COLOURS[0], marker=".", label="simulated")
    network = machines.count * machines.bandwidth / (costs.read_bytes + costs.made_bytes)
    lines = {
        f"{workers} workers of networks": [workers / make for make in SECONDS],
        f"{files} workers of files": [files / (costs.read + costs.write)] * len(SECONDS),
        "one driver": [1 / (len(Stage) * costs.dispatch)] * len(SECONDS),
        "10 Gbit/s, if all frames change machines": [network] * len(SECONDS),
    }
    for (label, line), colour in zip(lines.items(), BOUNDS, strict=True):
        panel.plot(SECONDS, line, color=colour, linestyle="--", linewidth=1, label=label)
