"""Pack a submission, and prove it before it is sent.

python -m submit pack --recipe fast.toml --out submit.zip --target cpu
python -m submit check submit.zip --data DATA --target cpu --time-threshold 30

pack takes the built files that the recipe runs on (export_onnx.py, build_trt.py) and writes an archive with
infer.py at its root; with --data, its recipe says how the videos in DATA/outputs, the base model's own, are
coded. check unpacks it, installs its requirements in a new environment, runs it isolated, without network, on
DATA and on videos that nobody has seen, and judges what it makes against DATA/outputs and the base model.
Targets: submit/profiles, or a TOML file of your own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from bench.judge import Judge, judge_folder, reasons, similarity
from bench.judging import find_references
from bench.similarity import load_extractors
from bench.timed_run import Ended, Job, RunFailed, run_script
from bench.video_folders import Folders
from engines.cli import above_zero, common_arguments, ending, new_parser, printable, run, say, show
from engines.errors import Exit
from generators.contract import load_generator
from pipeline.batch.dataset import find_requests, first_requests
from pipeline.batch.run_folder import check_replaced
from pipeline.recipe import BASELINE, load_recipe
from pipeline.video.base_colours import as_base_videos
from submit.archive import MB
from submit.check import check_archive, exit_status, told
from submit.checks import FAIL, NOT_EVALUATED, ON_TRUST, PASS, NotEvaluated
from submit.pack import pack
from submit.profile import load_profile
from submit.trial import Question, Verdict


def main() -> Exit:
    """Parse, call, print."""
    args = parse()
    return ending("submit", lambda: args.run_command(args))


def run_pack(args: argparse.Namespace) -> Exit:
    """Write the archive."""
    recipe = load_recipe(args.recipe)
    check_replaced(args.out)
    if args.data is not None:
        find_requests(args.data)
        recipe = as_base_videos(recipe, args.data, say)
    packed = pack(recipe, args.generator, load_profile(args.target), args.out, args.wheels)
    manifest, build = packed.manifest, packed.manifest["build"]
    if build["components"]:
        seconds = build["seconds_at_a_guess"]
        say(f"built at the first run there: {', '.join(build['components'])}, {seconds} s at a guess")
    if args.json:
        about = {"file": str(packed.path), "sha256": packed.sha256, "bytes": packed.size}
        print(json.dumps({**about, **manifest}))
    else:
        print(f"{packed.path}: {packed.size / MB:.1f} MB, {len(manifest['files'])} files, {packed.sha256}")
    return Exit.OK


def run_check(args: argparse.Namespace) -> Exit:
    """Prove the archive."""
    profile = load_profile(args.target)
    if args.max_mb is not None:
        profile = replace(profile, max_mb=args.max_mb)
    requests = first_requests(args.data)  # an error here, not in the trial
    if (args.data / "outputs").is_dir():  # else S10 says that there is nothing to judge by
        find_references(args.data, requests, args.generator or "presenter")
    if args.generator:
        load_generator(args.generator)
    judge = Judge(load_extractors(args.extractors))
    base = partial(run_base, args.data, profile.device)
    question = Question(
        args.data, partial(verdict, judge), base, args.generator, args.time_threshold, args.trust
    )
    results = []
    for result in check_archive(args.archive, profile, question, args.limit, say):
        results.append(result)
        if not args.json:
            print(printable(told(result)), flush=True)
    results.sort(key=lambda result: result.id)
    if args.json:
        about = {"target": profile.name, "checks": [asdict(each) for each in results]}
        show(about)
    passed = sum(each.status == PASS for each in results)
    counts = [f"{passed} of {len(results)} checks pass"]
    for status in (FAIL, NOT_EVALUATED, ON_TRUST):
        ids = ", ".join(each.id for each in results if each.status == status)
        counts += [f"{status}: {ids}"] if ids else []
    say("; ".join(counts))
    return exit_status(results)


def verdict(judge: Judge, folders: Folders) -> Verdict:
    """Compare the videos of two folders. InputError."""
    comparisons = judge_folder(judge, folders, lambda text: None)
    return Verdict(similarity(comparisons), reasons(comparisons))


def run_base(like: Path, device: str, generator: str, data: Path, out: Path, seconds: float) -> None:
    """Make a generator's base videos of data in out, coded as those in like/outputs. NotEvaluated."""

    def start(command: list[str], log: Path) -> Ended:
        with log.open("wb") as messages:
            try:
                pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": messages}
                found = subprocess.run(command, **pipes, timeout=seconds)
            except subprocess.TimeoutExpired as error:
                raise NotEvaluated(f"the base model's run took longer than {seconds:.0f} s") from error
        return Ended(found.returncode, 0.0, found.stdout.decode("utf-8", "replace"))

    recipe = as_base_videos(BASELINE, like, say)
    try:
        outcome = run_script(recipe, Job(data, out, generator, device), data, out, start)
    except RunFailed as error:
        raise NotEvaluated(f"the base model cannot be run here:\n{error}") from error
    if outcome.failed:
        raise NotEvaluated(f"the base model made no video of {outcome.failed}")


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser(__doc__, "python -m submit")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    packing = commands.add_parser("pack", help="write submit.zip")
    packing.add_argument("--recipe", type=Path, required=True, help="what is changed to be fast: a TOML file")
    common_arguments(
        packing, "generator",
        out={"default": Path("submit.zip"), "help": "the archive"},
        data={"help": "write videos there as those in its outputs/ are written"},
    )  # fmt: skip
    packing.add_argument("--wheels", action="store_true", help="with all packages, to install offline")
    packing.set_defaults(run_command=run_pack)
    checking = commands.add_parser("check", help="prove an archive; 0 if all checks pass")
    checking.add_argument("archive", type=Path, help="the zip file")
    common_arguments(
        checking, "time-threshold", "extractors",
        data={"required": True, "help": "folder with videos/, images/, outputs/"},
        generator={"default": None, "help": "the model that made outputs/, where it is not a bundled one"},
    )  # fmt: skip
    checking.add_argument("--max-mb", type=above_zero, metavar="N", help="MB allowed (the target's)")
    checking.add_argument("--limit", type=above_zero, default=14400, metavar="S", help="for all (14400)")
    checking.add_argument("--trust", action="store_true", help="run it even where nothing isolates it")
    checking.set_defaults(run_command=run_check)
    for command in (packing, checking):
        command.add_argument("--target", default="cpu", help="the machine: a profile, or a TOML file (cpu)")
        common_arguments(command, "json")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
