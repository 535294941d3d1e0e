"""Format the results as tables: every prediction with the figure measured, then the rest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from lab.gpu.expected import PREDICTED

NOT_RUN = "not run yet"
BRIEF, WIDE = 11_000, 160  # characters of what is printed, and of its lines: logs are kept by their ends


def markdown(entries: Mapping[str, Mapping]) -> str:
    """Return all of a results file: the machine, predictions, a table for each entry, and kernels."""
    machine = entries.get("machine", {})
    parts = [f"# {machine.get('name', 'No GPU so far')}"]
    parts += ["Written by `python -m lab.gpu`; all figures are in the JSON file of the same name."]
    about = [machine.get("processor", ""), *(f"{k} {v}" for k, v in machine.get("installed", {}).items())]
    about += [f"{k} {v}" for k, v in (machine.get("gpu") or {}).items()]
    parts += [", ".join(filter(None, about)), "## Predictions", _predictions(entries, PREDICTED)]
    for name, entry in entries.items():
        parts += [f"## {name}", *_entry(name, entry, machine.get("rates", {}))]
    return "\n\n".join(filter(None, parts)) + "\n"


def brief(entries: Mapping[str, Mapping], names: Sequence[str]) -> str:
    """Return short tables of those entries, for a log: few kernels or none, long lines cut, predictions last.

    They have more than BRIEF characters only where they have no kernels any more.
    """
    rates = entries.get("machine", {}).get("rates", {})
    for kernels in (3, 1, 0):
        parts = []
        for name in names:
            if name in entries:
                parts += [f"## {name}", *_entry(name, entries[name], rates, kernels)]
        if PREDICTED.keys() & set(names):
            parts += ["## Predictions", _predictions(entries, names)]
        text = "\n".join(filter(None, parts))
        text = "\n".join(line[:WIDE] for line in text.splitlines())
        if len(text) <= BRIEF:
            break
    return text


def rows(head: str, lines: list[str]) -> str:
    """Return a Markdown table; head and lines are cells joined by |."""
    rule = "|".join("---" for _ in head.split("|"))
    return "\n".join(f"|{line}|" for line in (head, rule, *lines))


def floor_of(work: Mapping, rates: Mapping) -> float | None:
    """Return the least seconds of a call at this machine's rates; None where these were not measured.

    Operations at the rate of a bf16 product, or least bytes at that of a copy, whichever takes longer.
    """
    found = [rates.get(name) for name in ("bf16", "copy")]
    if not all(isinstance(rate, float) for rate in found):
        return None
    return max(work["operations"] / found[0], work["least_bytes"] / found[1])


def _predictions(entries: Mapping[str, Mapping], names: Iterable[str]) -> str:
    lines = []
    for name in names:
        for row, value in PREDICTED.get(name, {}).items():
            found = _measured(name, row, entries.get(name, {}))
            ratio = f"{found / value:.2f}" if isinstance(found, float) else ""
            lines.append(f"{name}: {row}|{_short(value)}|{_short(found)}|{ratio}")
    return rows("of what|predicted|measured|measured / predicted", lines)


def _measured(name: str, row: str, entry: Mapping) -> float | str:
    """Return the figure in the prediction's unit, or in words why there is none."""
    if name == "machine":
        return entry.get("rates", {}).get(row, NOT_RUN)
    figures = entry.get("ways", {}).get(row, {})
    found = figures.get("seconds", figures.get("refused", entry.get("left_out", NOT_RUN)))
    return found if isinstance(found, str) or name.endswith("end to end") else 1e3 * found


def _entry(name: str, entry: Mapping, rates: Mapping, kernels: int | None = None) -> list[str]:
    parts = [f"{entry.get('status') or NOT_RUN}, {entry.get('seconds', '?')} s. {entry.get('left_out', '')}"]
    if name == "machine":
        parts += [f"Largest error of the noise: {_short(entry.get('noise_error', NOT_RUN))}"]
        parts += [rows("what|T a second", [f"{k}|{_short(v, 1e-12)}" for k, v in rates.items()])]
    if "modules" in entry:
        parts += [", ".join(f"{module} {seconds} s" for module, seconds in entry["modules"].items())]
    if name == "tests":
        parts += [f"{entry.get('counts', '')}, pytest: {entry.get('pytest', NOT_RUN)}"]
        parts += [f"- {test}: {why}" for test, why in entry.get("reasons", {}).items()]
    if "work" in entry:
        parts += _network(entry, rates, kernels)
    elif "ways" in entry:
        lines = [
            f"{variant}|" + "|".join(_short(row.get(key)) for key in (
                "refused", "seconds", "least", "most", "speed", "similarity", "psnr", "temporal_error"))
            for variant, row in {**entry["ways"], **entry.get("noise_floor", {})}.items()
        ]  # fmt: skip
        head = "variant and recipe|refused|s|least|most|speed|similarity|PSNR, dB|temporal error, levels"
        parts += [rows(head, lines)]
    return parts


def _network(entry: Mapping, rates: Mapping, kernels: int | None) -> list[str]:
    work, floor, profile = entry["work"], floor_of(entry["work"], rates), entry.get("profile", {})
    parts = [
        f"A call: {_short(work['operations'], 1e-12)} TFLOP, of them {_short(work['attention'], 1e-12)} "
        f"attention; at least {_short(work['least_bytes'], 1e-9)} GB, {_short(work['eager_bytes'], 1e-9)} if "
        f"each operation moves its own; {_short(work['crossing'], 1e-6)} MB across. "
        f"Floor: {_short(floor, 1e3)} ms."
    ]
    bare = [row["seconds"] for variant, row in entry.get("ways", {}).items()
            if "seconds" in row and "engine" not in variant]  # fmt: skip
    lines = []
    for variant, row in entry.get("ways", {}).items():
        if "seconds" not in row:
            lines.append(f"{variant}|{row['refused']}||||||||")
            continue
        seconds = row["seconds"]
        cells = (1e3 * seconds, 1e3 * row.get("least", seconds), 1e3 * row.get("most", seconds),
                 seconds / floor if floor else None, seconds / bare[0] if bare else None, row.get("error"),
                 row["apart"], row.get("memory_mb"), row["start_seconds"])  # fmt: skip
        lines.append("|".join([variant, *map(_short, cells)]))
    head = "variant|ms|least|most|times the floor|of the first|error, tiny|apart from it|memory, MB|start, s"
    parts += [rows(head, lines)] * bool(lines)
    if profile:
        parts += [f"{profile['way']}: {_short(100 * profile['idle'])} % of a call without a kernel."]
        lines = [
            f"`{each['kernel'].replace('|', '/')}`|{_short(1e3 * each['seconds'])}|"
            f"{_short(100 * each['seconds'] / profile['busy'])}|{each['launches']:g}"
            for each in profile["kernels"][:kernels]
        ]
        parts += [rows("kernel|ms a call|% of the busy time|launches", lines)] * bool(lines)
    return parts


def _short(value: object, scale: float = 1) -> str:
    """Return a number with four digits; words as they are."""
    if isinstance(value, (int, float)):
        return f"{value * scale:.4g}"
    return "" if value is None else str(value).replace("|", "/")
