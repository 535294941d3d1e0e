"""Judge single videos for searches for faster settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bench.checks import largest_share
from bench.judge import Judge, videos_in
from bench.quality_goal import Judged
from engines.errors import InputError
from pipeline.batch.dataset import Request

SAME = 100.0  # dB, for videos that do not differ


def find_references(data: Path, requests: Sequence[Request]) -> dict[str, Path]:
    """Find the base model's videos by id; InputError says how to make those that are missing."""
    references = videos_in(data / "outputs")
    missing = [request.id for request in requests if request.id not in references]
    if missing:
        raise InputError(
            f"{data / 'outputs'} lacks the base model's videos of {', '.join(missing)}; make them: "
            f"python infer.py --data {data} --out {data / 'outputs'}"
        )
    return references


def judging(judge: Judge, references: Mapping[str, Path]) -> Callable[[Request, Path], Judged]:
    """Return a function that compares a request's video with its reference, and names failed checks."""

    def judged(request: Request, made: Path) -> Judged:
        found = judge.compare_files(references[request.id], made, request.video)
        cosines = [each["value"] for each in found["cosine"].values()]
        failed = tuple(
            f"{check['name']} {check['value']}, needs {check['limit']}"
            for check in found["checks"]
            if not check["passes"] and not check["name"].startswith("similarity (")
        )
        psnr = found["metrics"].get("psnr", 0.0)
        valid = all(cosine is not None and cosine <= 1 for cosine in cosines)
        return Judged(
            request.id,
            min(cosines) if valid else None,
            SAME if psnr is None else psnr,
            failed,
            largest_share(found["metrics"]),
        )

    return judged
