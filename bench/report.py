"""Write the report for people: one HTML file that needs no network, JSON, and a Markdown table."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from urllib.parse import quote

from bench.base_again import UNKNOWN, floor_of
from bench.beside import ANOTHER_SEED
from bench.judge import plain
from bench.playable import playable
from bench.score import level_of, score
from engines.cli import printable
from engines.files import atomic_write
from pipeline.batch.run_folder import check_replaced

PAGE = Path(__file__).parent / "page"
TEXT, STYLES = "report.html", ("report.css", "player.css")
SCRIPTS = ("elements.js", "player.js", "showcase.js", "report.js")
LARGEST = 40_000_000  # bytes of videos within the page; above that they stay where they are
FILES = ("index.html", "report.md", "report.json")
POINTS = 120  # of a score curve
FROM_FILES = " file: 'self'"  # what a Content-Security-Policy calls its own folder, opened or served
HEADS = ["run", "speed ratio", "s a video, p50 / p90", "similarity", "PSNR, dB", "temporal error"]
HEADS += ["verdict", "level"]
UNKNOWN_SCALE = (
    "How far another sample lies is unknown: no videos of another seed were given (--other-seed). Limits on "
    "structure and colour in every place carry the verdict."
)
COSINE_ALONE = (
    "A cosine of pooled features alone decides nothing about the same video: mirrored, reversed, boxed and "
    "half-resolution clips can pass its gate (docs/sensitivity.md counts them); the checks decide."
)


def write_report(report: dict, folder: Path, lossless: bool = False) -> Path:
    """Write index.html, report.json and report.md to the folder, all or none; returns index.html's path.

    lossless: the videos are; the page shows copies.
    """
    folder.mkdir(parents=True, exist_ok=True)
    report = plain(report)
    data = json.dumps(report, allow_nan=False, indent=1, ensure_ascii=False) + "\n"
    texts = page(report, folder, lossless), markdown(report), data
    with ExitStack() as drafts:  # they replace what was there when all are written, the page last
        for name, text in zip(FILES, texts, strict=True):
            draft = drafts.enter_context(atomic_write(folder / name))
            # A file name that is no text has bytes that UTF-8 cannot hold; \udcff is still valid JSON.
            draft.write_text(text, encoding="utf-8", errors="backslashreplace")
    return folder / "index.html"


def check_report_place(folder: Path) -> None:
    """Raise FolderError if write_report could not write to a folder, before the work."""
    for name in FILES:
        check_replaced(folder / name)


def markdown(report: dict) -> str:
    """Return one table of all runs, with remarks below it.

    Similarity, PSNR and temporal error are those of the worst video; videos that do not differ have the PSNR
    "equal", and "–" is what is not known. Levels: see bench/score.py. The PSNR of another seed, and of the
    base again, are those of the video that lies nearest to its reference, of those that differ.
    """
    scored = any(run["verdict"]["score"] is not None for run in report["runs"])
    scales = list(report["settings"].get("beside", {}))
    heads = HEADS + [f"PSNR of {name}, dB" for name in scales] + ["score"] * scored
    lines = [heads, ["---"] * len(heads)]
    for run in report["runs"]:
        verdict, videos = run["verdict"], run["videos"]
        seconds = (run["timing"] or {}).get("seconds_per_video")
        lines.append([
            _words(run["name"]),
            _number(verdict["speed_ratio"], 2),
            f"{seconds['p50']:.2f} / {seconds['p90']:.2f}" if seconds else "–",
            _number(verdict["similarity"], 4),
            _decibels(min, (each.get("metrics", {}) for each in videos)),
            _number(max(metric(run, "temporal_error"), default=None), 2),
            "passes" if verdict["passes"] else "fails",
            level_of(run) or "–",
            *[_decibels(max, (each.get("beside", {}).get(name, {}) for each in videos)) for name in scales],
            *[_number(verdict["score"], 1)] * scored,
        ])  # fmt: skip
    table = "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
    remarks = [(run["name"], remark) for run in report["runs"] for remark in _remarks(run)]
    below = "".join(f"- {_words(name)}: {_words(remark)}\n" for name, remark in remarks)
    below += "".join(f"- {_words(remark)}\n" for remark in remarks_of_all(report))
    return f"{table}\n{below}"


def remarks_of_all(report: dict) -> list[str]:
    """Return what a reader of any verdict should know: a cosine's meaning, the noise floor, the scale."""
    known = ANOTHER_SEED in report["settings"].get("beside", {})
    floor = floor_of(report)
    noise = f"Noise floor: the base model made again is {floor}." if floor else UNKNOWN
    return [COSINE_ALONE, noise, *([] if known else [UNKNOWN_SCALE])]


def curves(report: dict) -> list[dict]:
    """Return points (threshold, score) of each timed run, in seconds a video up to twice the slowest's."""
    timed = [run for run in report["runs"] if run["timing"]]
    most = max((2 * run["timing"]["contest_seconds"] for run in timed), default=0.0)
    thresholds = [most * (i + 1) / POINTS for i in range(POINTS)]
    return [{"name": run["name"], "points": [[t, _score(run, t)] for t in thresholds]} for run in timed]


def page(report: dict, folder: Path, lossless: bool = False) -> str:
    """Return the HTML page. Small videos are in it; large ones are named relative to the folder."""
    videos = _videos(report, folder, lossless)
    linked = not all(address.startswith("data:") for address in videos.values())
    data = {"report": report, "curves": curves(report), "videos": videos, "linked": linked}
    data["remarks"] = remarks_of_all(report)
    floor = floor_of(report)
    data["floor"] = asdict(floor) if floor else None
    style, script = _texts(STYLES), f'"use strict";\n{_texts(SCRIPTS)}'
    parts = {
        "policy": "default-src 'none'; base-uri 'none'; form-action 'none'; "
        f"script-src '{_hash(script)}'; style-src '{_hash(style)}'; "
        f"media-src blob:{FROM_FILES if linked else ''}",
        "title": html.escape("Vivace: " + ", ".join(run["name"] for run in report["runs"])),
        "style": style,
        "data": json.dumps(data, ensure_ascii=False).replace("<", "\\u003c"),
        "script": script,
    }
    first, *others = _texts([TEXT]).split("{{")
    return first + "".join(parts[name] + rest for name, _, rest in (each.partition("}}") for each in others))


def _remarks(run: dict) -> Iterator[str]:
    """Return why a run fails, a recipe's note, its base, what infer.py notes, and why some were not made."""
    yield from run.get("verdict", {}).get("reasons", ())
    if (run.get("recipe") or {}).get("note"):
        yield run["recipe"]["note"]
    if run.get("base"):
        yield run["base"]
    yield from run.get("remarks") or ()
    yield from _blind(run)
    fired = run.get("guard_fired") or {}
    for name, why in fired.items():
        yield f"{name}: the guard had the base model's steps run: {'; '.join(why)}"
    yield from (f"{name}: {note}" for name, said in (run.get("notes") or {}).items() for note in said)
    yield from (f"{name} was not made: {why}" for name, why in (run.get("failed") or {}).items())


def _blind(run: dict) -> Iterator[str]:
    """Return what a reader that ignores tags sees of the worst video, if that differs for any."""
    found = {each["id"]: each["tag_blind"] for each in run["videos"] if each.get("tag_blind")}
    if found:
        worst = min(found, key=lambda name: min(value or 0 for value in found[name]["cosine"].values()))
        seen, coded = found[worst], found[worst]["coded"]
        cosine = _number(min(value or 0 for value in seen["cosine"].values()), 4)
        yield (
            f"{len(found)} of {len(run['videos'])} videos are coded otherwise than the reference ({worst}: "
            f"{coded[1]}, not {coded[0]}); who ignores colour tags, as OpenCV 4 does, sees there similarity "
            f"{cosine} and {_number(seen['psnr'], 1)} dB"
        )


def _words(text: str) -> str:
    """Escape text for Markdown, on one line, so that it makes no link, no picture and no HTML."""
    plain = re.sub(r"[\\\[\]|]", r"\\\g<0>", html.escape(text, quote=False))
    return " ".join(printable(plain).split())


def _texts(names: Iterable[str]) -> str:
    return "\n".join((PAGE / name).read_text(encoding="utf-8") for name in names)


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _videos(report: dict, folder: Path, lossless: bool) -> dict[str, str]:
    """Return an address for each video's path; the bytes themselves if all are small enough for a page."""
    judged = [each for run in report["runs"] for each in run["videos"] if each["status"] == "judged"]
    paths = {each[side]: Path(each[side]) for each in judged for side in ("reference", "candidate")}
    paths = {name: path for name, path in paths.items() if path.is_file()}
    if lossless:
        copies = playable(paths.values(), folder / "playable")
        paths = {name: copies[path] for name, path in paths.items()}
    if sum(path.stat().st_size for path in paths.values()) > LARGEST:
        return {name: _relative(path, folder) for name, path in paths.items()}
    return {name: _inline(path) for name, path in paths.items()}


def _relative(path: Path, folder: Path) -> str:
    return quote(os.fsencode(Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()))


def _inline(path: Path) -> str:
    kind = "video/webm" if path.suffix.lower() == ".webm" else "video/mp4"
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def _score(run: dict, threshold: float) -> float:
    return round(score(run["timing"]["contest_seconds"], threshold, run["verdict"]["gate_held"]), 3)


def metric(run: dict, name: str) -> list[float]:
    """Return a metric of each video of a run that has it."""
    found = [each.get("metrics", {}).get(name) for each in run["videos"]]
    return [value for value in found if value is not None]


def _decibels(pick: Callable, videos: Iterable[dict]) -> str:
    """Return one PSNR of videos' figures, of those that differ; where it is None, there is no difference."""
    found = [each["psnr"] for each in videos if "psnr" in each]
    differ = [value for value in found if value is not None]
    return "equal" if found and not differ else _number(pick(differ, default=None), 1)


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
