"""The results as tables that people read."""

from __future__ import annotations

from collections.abc import Mapping

from bench.gpu.plan import ENTRIES

NOT_RUN = "not run yet"
WORDS = 200  # characters of a reason in a table


def markdown(data: Mapping) -> str:
    """All of a results file: the machine, the tests, a table for each entry, and what was not run."""
    gpu = data.get("machine", {}).get("gpu")
    parts = [f"# {gpu['name'] if gpu else 'A rehearsal on a processor'}"]
    parts += ["Written by `python -m bench gpu`; all figures are in the JSON file of the same name."]
    parts += [_machine(data["machine"])] if "machine" in data else []
    parts += [_tests(data["tests"])] if "tests" in data else []
    for name, entry in data["entries"].items():
        parts += [f"## {name}", *_entry(entry)]
    missing = [entry.name for entry in ENTRIES if entry.name not in data["entries"]]
    parts += [f"Not run yet: {', '.join(missing)}."] * bool(missing)
    return "\n\n".join(parts) + "\n"


def rows(head: str, lines: list[str]) -> str:
    """A Markdown table; head and lines are cells joined by |."""
    rule = "|".join("---" for _ in head.split("|"))
    return "\n".join(f"|{line}|" for line in (head, rule, *lines))


def _machine(machine: Mapping) -> str:
    gpu = machine.get("gpu") or {}
    said = [f"{name} {value}" for name, value in {**gpu, **machine.get("versions", {})}.items()]
    return ", ".join([*said, f"{machine['cores']} cores"]) + "."


def _tests(tests: Mapping) -> str:
    counts = ", ".join(f"{tests[name]} {name}" for name in ("passed", "failed", "skipped") if name in tests)
    lines = [f"Tests marked `gpu`: {counts or tests['status']}."]
    lines += [f"- {name}: {why}" for name, why in tests.get("reasons", {}).items()]
    return "\n".join(lines)


def _entry(entry: Mapping) -> list[str]:
    status = [] if entry["status"] == "done" else [f"**{entry['status']}**: {entry.get('why', '')}"]
    status += [
        f"- {way or 'before any way'}: ended the process: {why}" for way, why in entry["ended"].items()
    ]
    table = {"network": _network, "recipes": _recipes, "foreign": _foreign, "profile": _profile}[
        entry["kind"]
    ]
    return [*status, *table(entry)]


def _network(entry: Mapping) -> list[str]:
    parts, work = [], entry.get("work")
    if work:
        ceilings = entry["ceilings"]
        rates = ", ".join(
            f"{name} {rate / 1e12:.0f} TFLOP/s" for name, rate in ceilings.items() if name in ("bf16", "fp8")
        )
        parts.append(
            f"{entry['calls']}. A call: {work['operations'] / 1e12:.4g} TFLOP, of which "
            f"{work['attention'] / 1e12:.4g} are attention; at least {work['least_bytes'] / 1e9:.3g} GB, "
            f"{work['eager_bytes'] / 1e9:.4g} GB if every operation reads and writes by itself, "
            f"{entry.get('crossing_bytes', 0) / 1e6:.4g} MB between host and device as engines take them. "
            f"Ceilings in this run: {rates}, copy {ceilings['copy'] / 1e12:.3g} TB/s. "
            f"Floor: {1e3 * entry['floor_seconds']:.4g} ms."
        )
    head = "way|ms, median|least to most|times the floor|TFLOP/s|error to fp32|memory, MB|start, s"
    lines = []
    for way, row in entry["ways"].items():
        if "refused" in row or "seconds" not in row:
            lines.append(f"{way}|{row.get('refused', NOT_RUN)[:WORDS]}||||||")
            continue
        rate = f"{work['operations'] / row['seconds'] / 1e12:.1f}" if work else ""
        lines.append(
            f"{way}|{1e3 * row['seconds']:.4g}|{1e3 * row.get('least', row['seconds']):.4g} to "
            f"{1e3 * row.get('most', row['seconds']):.4g}|{_number(row.get('to_floor'), '.2f')}|{rate}|"
            f"{_number(row.get('error'), '.2g')}|{row.get('peak_memory_mb', '')}|{row['start_seconds']:.1f}"
        )
    return [*parts, rows(head, lines)]


def _recipes(entry: Mapping) -> list[str]:
    ways = entry["ways"]
    base = next((row["seconds"] for row in ways.values() if "seconds" in row), None)
    head = (
        "backend and recipe|s, median|least to most|speed against the first|PSNR, dB|temporal error, levels"
    )
    lines = []
    for way, row in ways.items():
        if "seconds" not in row:
            lines.append(f"{way}|{row.get('refused', NOT_RUN)[:WORDS]}||||")
            continue
        lines.append(
            f"{way}|{row['seconds']:.4f}|{row['least']:.4f} to {row['most']:.4f}|{base / row['seconds']:.2f}|"
            f"{_number(row['psnr'], '.1f', 'the same')}|{row['temporal_error']:.3f}"
        )
    return [rows(head, lines)]


def _foreign(entry: Mapping) -> list[str]:
    head = "built for|header|deserialized|context|runs|what it said"
    lines = []
    for target, row in entry["ways"].items():
        header = ": ".join(filter(None, [row.get("validity"), ", ".join(row.get("reasons", []))]))
        said = [
            *row.get("said", []),
            *row.get("said_running", []),
            row.get("run_refused"),
            row.get("refused"),
        ]
        text = "; ".join(filter(None, said)).replace("|", "/").replace("\n", " ")
        cells = (row.get(name, "") for name in ("deserialized", "context", "runs"))
        lines.append("|".join([target, header, *map(str, cells), text or str(row.get("version", ""))]))
    return [rows(head, lines)]


def _profile(entry: Mapping) -> list[str]:
    parts = []
    for way, row in entry["ways"].items():
        if "kernels" not in row:
            parts.append(f"{way}: {row.get('refused', NOT_RUN)}")
            continue
        parts.append(
            f"{way}: {1e3 * row['seconds']:.4g} ms a call, {100 * row['idle']:.0f} % of it without a kernel; "
            f"{row['others']} kernels are not shown."
        )
        lines = [
            f"`{each['kernel'].replace('|', '/')}`|{1e3 * each['seconds']:.4g}|"
            f"{100 * each['seconds'] / row['busy_seconds']:.1f}|{each['launches']:g}"
            for each in row["kernels"]
        ]
        parts.append(rows("kernel|ms a call|% of the busy time|launches", lines))
    return parts


def _number(value: float | None, form: str, otherwise: str = "") -> str:
    return otherwise if value is None else format(value, form)
