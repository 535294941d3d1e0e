"""Judge single videos for searches for faster settings."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.checks import largest_share
from bench.judge import Judge
from bench.quality_goal import Judged
from bench.video_folders import videos_in
from engines.artifact import file_sha256, key
from engines.errors import InputError
from pipeline.batch.dataset import Request
from pipeline.batch.run_folder import MANIFEST

SAME = 100.0  # dB, for videos that do not differ


def find_references(data: Path, requests: Sequence[Request], generator: str) -> dict[str, Path]:
    """Find the base model's videos by id; InputError says how to make those that are missing."""
    folder = data / "outputs"
    references = videos_in(folder)
    missing = [request.id for request in requests if request.id not in references]
    if missing:
        ours = not references or (folder / MANIFEST).is_file()
        out = folder if ours else Path("out", "base")
        command = shlex.join(
            ["python", "infer.py", "--generator", generator, "--data", str(data), "--out", str(out)]
        )
        raise InputError(
            f"{folder} lacks the base model's videos of {', '.join(missing)}; make them: {command}"
            + ("" if ours else f", and copy those that are missing to {folder}")
        )
    return references


@dataclass(frozen=True)
class RequestJudge:
    """A judge of requests' videos by their references, the base model's videos by id."""

    judge: Judge
    references: Mapping[str, Path]

    @property
    def identity(self) -> str:
        """A key that changes with whatever decides a verdict, but for the video: kept verdicts have it."""
        videos = {name: file_sha256(path) for name, path in self.references.items()}
        return key({"judge": self.judge.identity, "references": videos})

    def __call__(self, request: Request, made: Path) -> Judged:
        """Compare a request's video with its reference, and name failed checks. InputError: see Judge."""
        found = self.judge.compare_files(self.references[request.id], made, request.video)
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
