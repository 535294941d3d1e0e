"""Rivals: what others do to sample faster.

python -m bench.rivals list                                          what there is, with sources and knobs
python -m bench.rivals calibrate --data DATA                         base runs for those that are fitted
python -m bench.rivals search teacache --level fast --out DIR        its fastest settings that pass
python -m bench.rivals run teacache --set threshold=0.2 --out DIR    as infer.py, with a rival
python -m bench.rivals tuner --out DIR                               the tuner against random search and TPE

search writes DIR/<rival>-<level>.json, which python -m bench --rivals times beside recipes.
"""

from __future__ import annotations

import argparse
import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from bench.levels import LEVELS
from bench.rivals.calibration import Calibration, calibration_file, load_calibration, save_calibration
from bench.rivals.entrant import Entrant
from bench.rivals.errors import RivalError
from bench.rivals.rival import RIVALS, load_rival
from bench.rivals.search import MOST, Search
from bench.rivals.trial_runs import TrialRuns, calibrate, start
from engines.artifact import built_files, file_sha256, fingerprint, key
from engines.load import BACKENDS
from engines.precision import choose_precisions
from engines.whole import whole
from generators.contract import Generator, load_generator
from optimize.goal import Judged
from optimize.recipe import load_recipe
from optimize.tuner import Tuner, TuningError
from pipeline.data import SEED, find_requests
from pipeline.exit_code import Exit
from pipeline.jobs import Jobs, run_here
from pipeline.maker import Maker
from pipeline.request import Options
from pipeline.run_folder import RunFolder, check_writable
from pipeline.script import ending, run, say, show

ROOT = Path(__file__).resolve().parents[2]
SAMPLE, START = ROOT / "data" / "sample", ROOT / "optimize" / "recipes" / "cpu.toml"


def main() -> Exit:
    """Parse, call, print."""
    args = parse()
    own = {RivalError: Exit.USAGE, TuningError: Exit.SIMILARITY}
    words = "interrupted; the same search goes on from here"
    return ending("bench.rivals", lambda: args.run_command(args), own, words)


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
    from bench.similarity import load_extractor
    from bench.tuning import find_references, judging

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
    identity = key({"weights": fingerprint(generator.sources), "files": files, "way": way})
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


def run_tuner(args: argparse.Namespace) -> Exit:
    """Search plans in several ways with as many runs each; searches.json and a picture go to --out."""
    from bench.rivals.plan_search import PROPOSERS, best_so_far, described, draw_race, race
    from bench.tuning import TuningJob, record_of, workbench_of

    recipe = load_recipe(args.start)
    job = TuningJob(args.data, args.generator, args.device, lossless=args.lossless)
    with closing(workbench_of(job, args.out)) as workbench:
        goal, steps = LEVELS[args.level], workbench.generator.grid.steps
        record = record_of(workbench, goal, args.out)
        races = [
            race(Tuner(workbench, goal, record, say), recipe, list(PROPOSERS), seed, steps)
            for seed in range(args.seeds)
        ]
    draw_race(races, args.out / "searches.png")
    found = {"level": args.level, "data": args.data.name, "searches": described(races)}
    with whole(args.out / "searches.json") as draft:
        draft.write_text(json.dumps(found) + "\n", encoding="utf-8")
    for name in races[0]:
        best = ", ".join(f"{best_so_far(each[name])[-1]:g}" for each in races)
        print(f"{name}: {best} evaluated branches a window, in {len(races[0][name])} runs")
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
        maker = Maker(generator, engines, Options(entrant.recipe, args.lossless), ran_with)
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
        prog="python -m bench.rivals",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    listed = _command(commands, "list", run_list, "rivals, sources, knobs")
    fitted = _command(commands, "calibrate", run_calibrate, "base runs for those that are fitted")
    fitted.add_argument("--videos", type=int, default=2, help="how many of DATA (2)")
    search = _command(commands, "search", run_search, "the fastest settings that pass")
    made = _command(commands, "run", run_rival, "make videos with a rival")
    tuner = _command(commands, "tuner", run_tuner, "the tuner against other searches")
    for each in (listed, fitted, search, made, tuner):
        each.add_argument("--generator", default="presenter", help="presenter, or path/to/file.py:Class")
    for each in (fitted, search, made, tuner):
        each.add_argument("--data", type=Path, default=SAMPLE, help="data folder (the sample)")
        each.add_argument("--device", default="cpu", help="cpu, cuda (cpu)")
    for each in (search, made):
        each.add_argument("rival", choices=list(RIVALS), metavar="RIVAL")
        each.add_argument("--backend", choices=list(BACKENDS), default="torch", help="what runs it (torch)")
        each.add_argument("--precision", default="fp32", help="as infer.py takes it (fp32)")
    for each in (search, made, tuner):
        each.add_argument("--out", type=Path, required=True, help="folder")
        each.add_argument("--lossless", action="store_true", help="as infer.py takes it")
    for each in (search, tuner):
        each.add_argument("--level", choices=list(LEVELS), default="fast", help="what to keep to (fast)")
    tuner.add_argument("--start", type=Path, default=START, help="recipe whose engines run (cpu.toml)")
    tuner.add_argument("--seeds", type=int, default=1, help="races, each with a seed of its own (1)")
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
