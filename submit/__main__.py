"""Pack a submission, and prove it before it is sent.

python -m submit pack --recipe fast.toml --out submit.zip --target cpu
python -m submit check submit.zip --data DATA --target cpu --time-threshold 30

pack takes the built files that the recipe runs on (export_onnx.py, build_trt.py) and writes an archive with
infer.py at its root; with --data, its recipe says how the videos in DATA/outputs, the base model's own, are
coded. check unpacks it, installs its requirements in a new environment, runs it without network in another
folder on DATA, and judges its videos against DATA/outputs.
Targets: submit/profiles, or a TOML file of your own.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

from bench.judge import Folders, Judge, judge_folder, reasons, similarity
from bench.similarity import load_extractor
from engines.cli import above_zero, common_arguments, ending, new_parser, run, say
from engines.errors import Exit
from pipeline.batch.dataset import find_requests, first_requests
from pipeline.recipe import load_recipe
from pipeline.video.base_colours import OUTPUTS, as_base_videos
from submit.archive import MB
from submit.check import check_archive, exit_status, told
from submit.checks import FAIL, NOT_EVALUATED
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
    judge = judge_against(args.data, args.extractors)
    question = Question(args.data, judge, args.time_threshold, args.limit)
    results = []
    for result in check_archive(args.archive, profile, question, say):
        results.append(result)
        if not args.json:
            print(told(result), flush=True)
    results.sort(key=lambda result: result.id)
    if args.json:
        about = {"target": profile.name, "checks": [asdict(each) for each in results]}
        print(json.dumps(about, ensure_ascii=False))
    failed = [each.id for each in results if each.status == FAIL]
    open_ = [each.id for each in results if each.status == NOT_EVALUATED]
    say(f"{len(results) - len(failed) - len(open_)} of {len(results)} checks pass"
        + (f"; failed: {', '.join(failed)}" if failed else "")
        + (f"; not evaluated: {', '.join(open_)}" if open_ else ""))  # fmt: skip
    return exit_status(results)


def judge_against(data: Path, extractors: list[str]) -> Callable[[Path], Verdict]:
    """Return what compares a folder's videos with those of data/outputs. InputError, ExtractorError."""
    first_requests(data, 1)  # an error here, not in the trial
    judge = Judge([load_extractor(name) for name in extractors])
    skeletons = {request.id: request.video for request in find_requests(data).requests}

    def against(folder: Path) -> Verdict:
        comparisons = judge_folder(judge, Folders(data / OUTPUTS, folder, skeletons), lambda text: None)
        return Verdict(similarity(comparisons), reasons(comparisons))

    return against


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
    )  # fmt: skip
    checking.add_argument("--max-mb", type=above_zero, metavar="N", help="MB allowed (the target's)")
    checking.add_argument("--limit", type=above_zero, default=3600, metavar="S", help="of any run (3600)")
    checking.set_defaults(run_command=run_check)
    for command in (packing, checking):
        command.add_argument("--target", default="cpu", help="the machine: a profile, or a TOML file (cpu)")
        common_arguments(command, "json")
    return parser.parse_args()


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")
    run(main)
