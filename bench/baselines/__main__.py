"""Rivals: what others do to sample faster.

python -m bench.baselines list                                          what there is, with sources and knobs
python -m bench.baselines calibrate --data DATA                         base runs for those that are fitted
python -m bench.baselines search teacache --level fast --out DIR        its fastest settings that pass
python -m bench.baselines run teacache --set threshold=0.2 --out DIR    as infer.py, with a rival

search writes DIR/<rival>-<level>.json, which python -m bench --rivals times beside recipes.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from bench.baselines.calibration import Calibration, calibration_file, load_calibration, save_calibration
from bench.baselines.entrant import Entrant
from bench.baselines.errors import RivalError
from bench.baselines.rival import RIVALS, load_rival
from bench.baselines.search import MOST, Search
from bench.baselines.trial_runs import TrialRuns, calibrate, start
from bench.quality_goal import Judged
from bench.score import LEVELS
from engines.artifact import built_files, file_sha256, fingerprint, key
from engines.cli import ending, run, say, show
from engines.errors import Exit
from engines.load import BACKENDS
from engines.precision import choose_precisions
from generators.contract import Generator, load_generator
from pipeline.batch.batch import Jobs, run_here
from pipeline.batch.dataset import SEED, find_requests
from pipeline.batch.run_folder import RunFolder, check_writable
from pipeline.request import Options
from pipeline.runner import VideoRunner

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "data" / "sample"


def main() -> Exit:
    """Parse, call, print."""
    args = parse()
    words = "interrupted; the same search goes on from here"
    return ending("bench.baselines", lambda: args.run_command(args), words)


def run_list(args: argparse.Namespace) -> Exit:
    """One line a rival, and one a knob."""
    generator = load_generator(args.generator)
    for name in RIVALS:
        rival = load_rival(name)
        print(f"{name}: {rival.source}")
        for knob, values in rival.knobs(generator).items():
            print(f"  {knob}: {', '.join(map(str, values))}")
    return Exit.OK


def run_calibrate(args: argparse.Namespace) -> Exit:
    """Base runs, watched."""
    generator = load_generator(args.generator)
    requests = find_requests(args.data).requests[: args.videos]
    calibration, path = calibrate(generator, requests, args.device, say), calibration_file(generator)
    save_calibration(calibration, path, [request.id for request in requests])
    print(path)
    return Exit.OK


def run_search(args: argparse.Namespace) -> Exit:
    """Walk the knobs on the videos of a data folder, which has the base model's."""
    from bench.judge import Judge
    from bench.judging import find_references, judging
    from bench.similarity import load_extractor

    generator, rival = load_generator(args.generator), load_rival(args.rival)
    entrant = Entrant(f"{args.rival}-{args.level}", args.rival, {}, args.backend, args.precision)
    asked = find_requests(args.data).requests
    requests = {request.id: request for request in asked}
    compare = judging(Judge([load_extractor("stfn")]), find_references(args.data, asked))
    check_writable(args.out)
    calibration, folder = calibration_of(args.rival, generator), args.out / "videos"
    runs = TrialRuns(entrant, generator, calibration, asked, folder, args.device, args.lossless)

    def judge(name: str, made: Path) -> Judged:
        return compare(requests[name], made)

    files = {each.id: [file_sha256(path) for path in (each.video, each.image)] for each in asked}
    way = [entrant.backend, entrant.precision, args.device, args.lossless]
    identity = key({"weights": fingerprint(generator.fingerprint_files), "files": files, "way": way})
    record = args.out / f"{args.rival}-{identity}.jsonl"
    search = Search(list(requests), runs, judge, record, say, args.most)
    try:
        found = search.fastest(rival.knobs(generator), LEVELS[args.level])
    finally:
        runs.close()
    if found.best is None:
        say(f"{args.rival}: none of {len(found.tried)} settings keeps to {args.level}")
        return Exit.SIMILARITY
    complete = "" if found.complete else ", where the limit of settings ended the search"
    where = f"on {len(requests)} videos at level {args.level}{complete}"
    note = f"Fastest of {len(found.tried)} settings {where}."
    path = args.out / f"{entrant.name}.json"
    replace(entrant, settings=found.best.settings, note=note).save(path)
    print(path)
    return Exit.OK


def run_rival(args: argparse.Namespace) -> Exit:
    """Make the videos of a data folder, as infer.py does."""
    pairing = find_requests(args.data, args.seed)
    with RunFolder(args.out, args.restart) as folder:
        settings = parse_settings(args.set)
        entrant = Entrant(args.name or args.rival, args.rival, settings, args.backend, args.precision)
        inner = load_generator(args.generator)
        generator = load_rival(args.rival).apply(inner, settings, calibration_of(args.rival, inner))
        backend, engines = start(generator, entrant, args.device, say)
        precisions = choose_precisions(entrant.precision, generator.components)
        ran_with = {"backend": backend, "precision": precisions, "device": args.device}
        ran_with |= {"built": built_files(engines), "rival": args.rival, "settings": settings}
        maker = VideoRunner(generator, engines, Options(entrant.recipe, args.lossless), ran_with)
        jobs = Jobs(pairing, folder, maker.identity, say, show if args.json else None)
        run_here(jobs, maker)
    return jobs.conclude()


def calibration_of(rival: str, generator: Generator) -> Calibration | None:
    """What was measured of the generator's base runs, if the rival needs it."""
    return load_calibration(calibration_file(generator)) if load_rival(rival).calibrated else None


def parse_settings(texts: list[str]) -> dict[str, float]:
    """Numbers by knob from texts such as threshold=0.2; RivalError."""
    settings = {}
    for text in texts:
        name, _, value = text.partition("=")
        try:
            settings[name] = int(value) if value.lstrip("-").isdecimal() else float(value)
        except ValueError:
            raise RivalError(f"--set takes KNOB=NUMBER, got {text!r}") from None
    return settings


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.baselines",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    listed = _command(commands, "list", run_list, "rivals, sources, knobs")
    fitted = _command(commands, "calibrate", run_calibrate, "base runs for those that are fitted")
    fitted.add_argument("--videos", type=int, default=2, help="how many of DATA (2)")
    search = _command(commands, "search", run_search, "the fastest settings that pass")
    made = _command(commands, "run", run_rival, "make videos with a rival")
    for each in (listed, fitted, search, made):
        each.add_argument("--generator", default="presenter", help="presenter, or path/to/file.py:Class")
    for each in (fitted, search, made):
        each.add_argument("--data", type=Path, default=SAMPLE, help="data folder (the sample)")
        each.add_argument("--device", default="cpu", help="cpu, cuda (cpu)")
    for each in (search, made):
        each.add_argument("rival", choices=list(RIVALS), metavar="RIVAL")
        each.add_argument("--backend", choices=list(BACKENDS), default="torch", help="what runs it (torch)")
        each.add_argument("--precision", default="fp32", help="as infer.py takes it (fp32)")
    for each in (search, made):
        each.add_argument("--out", type=Path, required=True, help="folder")
        each.add_argument("--lossless", action="store_true", help="as infer.py takes it")
    search.add_argument("--level", choices=list(LEVELS), default="fast", help="what to keep to (fast)")
    search.add_argument("--most", type=int, default=MOST, help=f"settings to try ({MOST})")
    made.add_argument("--set", action="append", default=[], metavar="KNOB=NUMBER", help="again for each knob")
    made.add_argument("--name", help="of the run in the manifest (the rival's)")
    made.add_argument("--seed", type=int, default=SEED, help=f"where pairs.csv gives none ({SEED})")
    made.add_argument("--restart", action="store_true", help="make finished videos anew too")
    made.add_argument("--json", action="store_true", help="print each video's manifest line on stdout")
    return parser.parse_args()


def _command(commands, name: str, function, summary: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=summary)
    parser.set_defaults(run_command=function)
    return parser


if __name__ == "__main__":
    run(main)
