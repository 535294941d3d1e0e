"""Time a folder's videos with the work beside the networks overlapped and one after the other, in turn.

Overlapped, frames are hashed and written in a thread, and the next video's inputs are read, while networks
run. The frames are the same, which is checked.

  python -m lab.overlap --recipe optimize/recipes/fast.toml             the networks on this processor
  python -m lab.overlap --call-seconds 0.02                            a stand-in for a GPU: calls only wait
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.interleave import interleave, median_ratio
from engines.cli import SAMPLE, common_arguments, ending, new_parser, run, say
from engines.errors import EngineError, Exit, InputError
from lab.null_engine import NullEngine
from pipeline.batch.batch import Jobs, run_here
from pipeline.batch.dataset import find_requests
from pipeline.batch.run_folder import RunFolder
from pipeline.recipe import BASELINE, load_recipe
from pipeline.request import Options
from pipeline.runner import Settings, VideoRunner, start_runner

AT_ONCE, IN_TURN = "overlapped", "one after the other"


def main() -> Exit:
    """Parse, call, print."""
    args = parse()
    return ending("lab.overlap", lambda: compare(args))


def compare(args: argparse.Namespace) -> Exit:
    """Time both ways; print seconds a video by stage, and the ratio. InputError, EngineError."""
    recipe = load_recipe(args.recipe) if args.recipe else BASELINE
    settings = Settings(args.generator, recipe)
    if args.call_seconds is None:
        runner = start_runner(settings, say)
    else:
        generator = settings.load()
        engines = {name: NullEngine(spec, args.call_seconds) for name, spec in generator.components.items()}
        runner = VideoRunner(generator, engines, Options(recipe))
    ways = {way: partial(measure, runner, args.data, way == AT_ONCE) for way in (AT_ONCE, IN_TURN)}
    expected = ways[IN_TURN]()[1]  # a warm-up
    found = {way: [] for way in ways}
    for way, number, (seconds, lines) in interleave(ways, args.rounds):
        if [line["frames_sha256"] for line in lines] != [line["frames_sha256"] for line in expected]:
            raise EngineError(f"{way} made other frames; does fit depend on what came before?")
        found[way].append((seconds, lines))
        say(f"round {number} of {args.rounds}: {way}: {seconds:.2f} s")
    print(json.dumps(figures(found, len(expected)), indent=1))
    return Exit.OK


def measure(runner: VideoRunner, data: Path, overlap: bool) -> tuple[float, list[dict]]:
    """Make a folder's videos; return the seconds it took and the manifest lines. InputError: one failed."""
    runner.options = replace(runner.options, overlap=overlap)
    with TemporaryDirectory() as out, RunFolder(Path(out)) as folder:
        jobs = Jobs(find_requests(data), folder, runner.identity, lambda text: None)
        start = time.perf_counter()
        run_here(jobs, runner)
        seconds = time.perf_counter() - start
    failed = [f"{line['id']}: {line['error']}" for line in jobs.lines if line["status"] != "done"]
    if failed:
        raise InputError("; ".join(failed))
    return seconds, jobs.lines


def figures(found: dict[str, list[tuple[float, list[dict]]]], videos: int) -> dict:
    """Return the ratio of the rounds' seconds, and of each way the median seconds a video, by stage too."""
    seconds = {way: [each for each, _ in rounds] for way, rounds in found.items()}
    ratios = [own / base for own, base in zip(seconds[AT_ONCE], seconds[IN_TURN], strict=True)]
    result: dict[str, object] = {
        "speed_ratio": round(median_ratio(seconds[IN_TURN], seconds[AT_ONCE]), 4),
        "of_rounds": [round(1 / ratio, 4) for ratio in ratios],
        "videos": videos,
    }
    for way, rounds in found.items():
        lines = [line for _, made in rounds for line in made]
        stages = {stage: [line["seconds"][stage] for line in lines] for stage in lines[0]["seconds"]}
        ahead = [line["read_ahead_seconds"] for line in lines]
        result[way] = {
            "seconds_a_video": round(statistics.median(seconds[way]) / videos, 4),
            "stages": {stage: round(statistics.fmean(each), 4) for stage, each in stages.items()},
            "read_ahead": round(statistics.fmean(ahead), 4),
        }
    return result


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser(__doc__, "python -m lab.overlap")
    common_arguments(parser, "generator", data={"default": SAMPLE})
    parser.add_argument("--recipe", type=Path, help="how videos are made (the base model)")
    parser.add_argument("--rounds", type=int, default=5, help="of both ways (5)")
    parser.add_argument(
        "--call-seconds", type=float, metavar="S", help="engines that compute nothing and take so long a call"
    )
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
