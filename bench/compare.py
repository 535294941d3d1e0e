"""Hold a report against an older one: is anything slower or less alike than noise explains?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bench.verdict import SCHEMA
from engines.errors import Exit

LEAST_FLOOR = 0.02  # relative speed that is never called a regression
LESS_ALIKE = 0.001  # of the least cosine


@dataclass(frozen=True)
class Comparison:
    """What became worse, in words, and a Markdown table of every run of either report."""

    less_alike: list[str]
    slower: list[str]
    table: str

    @property
    def regressions(self) -> list[str]:
        """Return all that became worse, what is less alike first."""
        return self.less_alike + self.slower

    @property
    def exit(self) -> Exit:
        """Return 5 if something is less alike or missing, else 6 if something is slower, else 0."""
        return Exit.SIMILARITY if self.less_alike else Exit.TIME if self.slower else Exit.OK

    def __str__(self) -> str:
        texts = [f"- {text}" for text in self.regressions]
        return "\n".join([self.table, "", *(texts or ["no regression beyond the noise floor"])])


def compare(old: dict, new: dict) -> Comparison:
    """Compare two reports, runs matched by name. ValueError: one has not the schema that is understood."""
    for which, report in (("old", old), ("new", new)):
        schema = report.get("schema") if isinstance(report, dict) else None
        if schema != SCHEMA:
            raise ValueError(f"the {which} report has the schema {schema}, understood is {SCHEMA}")
    try:
        return _compare(old, new)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"one of the reports is not whole: {error}") from error


def _compare(old: dict, new: dict) -> Comparison:
    floor = max(LEAST_FLOOR, old["noise_floor"] or 0, new["noise_floor"] or 0)
    before, after = ({run["name"]: run for run in report["runs"]} for report in (old, new))
    extractors = [set(report["settings"]["extractors"]) for report in (old, new)]
    less_alike = [f"extractor {name} is missing" for name in sorted(extractors[0] - extractors[1])]
    slower = []
    for name, run in before.items():
        if name not in after:
            less_alike.append(f"{name}: the new report has no such run")
            continue
        less_alike += [f"{name}: {text}" for text in _less_alike(run, after[name])]
        slower += [f"{name}: {text}" for text in _slower(run, after[name], floor)]
    return Comparison(less_alike, slower, _table(before, after))


def _less_alike(old: dict, new: dict) -> Iterator[str]:
    videos = {video["id"]: video for video in new["videos"]}
    for video in old["videos"]:
        if video["id"] not in videos:
            yield f"video {video['id']} is missing"
        elif video["passes"] and not videos[video["id"]]["passes"]:
            yield f"video {video['id']} does not pass any more"
    was, found = old["verdict"], new["verdict"]
    if was["alike"] and not found["alike"]:
        yield f"is not the same video any more: {'; '.join(found['reasons'][:3])}"
    if was["similarity"] is None:
        return
    if found["similarity"] is None:
        yield f"similarity was {was['similarity']:.4f} and could not be evaluated now"
    elif found["similarity"] < was["similarity"] - LESS_ALIKE:
        yield f"similarity fell from {was['similarity']:.4f} to {found['similarity']:.4f}"


def _slower(old: dict, new: dict, floor: float) -> Iterator[str]:
    """Yield what became slower by the ratio to its own baseline, which holds elsewhere; else by seconds.

    Of runs that made other videos than their baseline neither says anything.
    """
    if old["verdict"]["in_time"] and not new["verdict"]["in_time"]:
        yield "is above the time threshold now"
    ratios, seconds = [_speed(run) for run in (old, new)], [_seconds(run) for run in (old, new)]
    if None not in ratios:
        if ratios[1] < ratios[0] * (1 - floor):
            yield f"{ratios[1]:.2f} times the baseline's speed, was {ratios[0]:.2f}"
    elif unknown := new.get("speed_unknown"):
        yield from () if ratios[0] is None else [f"was {ratios[0]:.2f} times as fast, and now {unknown}"]
    elif old.get("speed_unknown"):
        return
    elif None not in seconds and seconds[1] > seconds[0] * (1 + floor):
        yield f"{seconds[1]:.2f} s a video, was {seconds[0]:.2f}"


def _table(before: dict[str, dict], after: dict[str, dict]) -> str:
    lines = ["| run | similarity | speed ratio | s a video |", "|---|---|---|---|"]
    for name in dict.fromkeys([*before, *after]):
        runs = before.get(name), after.get(name)
        cells = [_change(runs, *column) for column in ((_similarity, 4), (_speed, 2), (_seconds, 2))]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _change(runs: tuple[dict | None, dict | None], pick: Callable, digits: int) -> str:
    values = [pick(run) if run else None for run in runs]
    texts = ["–" if value is None else f"{value:.{digits}f}" for value in values]
    return texts[0] if texts[0] == texts[1] else " → ".join(texts)


def _similarity(run: dict) -> float | None:
    return run["verdict"]["similarity"]


def _speed(run: dict) -> float | None:
    return run["verdict"]["speed_ratio"]


def _seconds(run: dict) -> float | None:
    return run["timing"]["contest_seconds"] if run["timing"] else None
