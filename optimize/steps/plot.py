"""Plot the tuner's trials: speed against similarity and PSNR, with the goal and the recipe it chose."""

from __future__ import annotations

from pathlib import Path

from bench.quality_goal import Goal
from optimize.steps.tuner import Trial, Tuned

LEAST_APART = 1e-5  # least 1 - similarity on the logarithmic scale, for videos that hardly differ
ACCEPTED, NARROW, FAILED = "#1a7f37", "#bf8700", "#cf222e"


def draw_trials(tuned: Tuned, goal: Goal, path: Path) -> None:
    """Write a PNG with a mark for each trial: its worst video against predicted seconds of the denoiser.

    The upper panel shows 1 - similarity on a logarithmic scale, the lower one PSNR in dB.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 7), layout="constrained")
    apart, psnr = figure.subplots(2, sharex=True)
    for trial in tuned.trials:
        colour, words = _kind(trial)
        marker, size = ("*", 180) if trial == tuned.best else ("o", 40)
        style = {"color": colour, "marker": marker, "s": size, "label": words}
        similarities = [video.similarity for video in trial.videos if video.similarity is not None]
        if similarities:
            apart.scatter(trial.seconds, max(1 - min(similarities), LEAST_APART), **style)
        if trial.videos:  # none where numbers were not finite
            psnr.scatter(trial.seconds, min(video.psnr for video in trial.videos), **style)
    apart.axhline(1 - goal.similarity, color="black", linestyle="--", linewidth=1)
    apart.set(yscale="log", ylabel="1 - similarity, worst video")
    if goal.psnr:
        psnr.axhline(goal.psnr, color="black", linestyle="--", linewidth=1)
    psnr.set(xscale="log", ylabel="PSNR to the base, worst video, dB",
             xlabel="seconds of the denoiser on all tuning videos, predicted")  # fmt: skip
    handles, labels = psnr.get_legend_handles_labels()
    known = dict(zip(labels, handles, strict=True))
    figure.suptitle(f"{len(tuned.trials)} trials; the star was chosen, dashed lines are the goal")
    psnr.legend(known.values(), known.keys(), loc="lower right")
    for panel in (apart, psnr):
        panel.grid(alpha=0.3, which="both")
    figure.savefig(path, dpi=120)


def _kind(trial: Trial) -> tuple[str, str]:
    """Return a colour and a word for a trial's result."""
    if trial.accepted:
        return ACCEPTED, "accepted"
    return (FAILED, "fails") if trial.reasons else (NARROW, "passes, too narrowly")
