"""Make videos as a service, with a page on which you watch them being made.

  python -m serve                                   the presenter by fast and baseline, on http://127.0.0.1:8000
  python -m serve --recipe fast.toml --recipe exact.toml --device cuda:0,cuda:1
  python -m serve --keys keys.txt --add-key ada     a key for ada, shown once
  python -m serve --keys keys.txt --host 0.0.0.0 --name videos.example.com

docs/serve.md has the requests that it answers. It may be killed at any moment: the next start goes on.
"""

from __future__ import annotations

import argparse
import ipaddress
import shutil
import socket
from contextlib import closing
from pathlib import Path

from engines.cli import ROOT, check_numbers, common_arguments, devices_of, ending, new_parser, run, say
from engines.errors import EngineError, Exit, UsageError
from generators.contract import load_generator
from generators.weight_files import licences
from pipeline.batch.run_folder import check_writable, locked_folder
from pipeline.recipe import Recipe, load_recipe
from pipeline.request import Limits
from serve.keys import add_key, load_keys
from serve.settings import ServeSettings
from serve.store import ID, Store

RECIPES = ROOT / "optimize" / "recipes"
DEFAULT_RECIPES = [RECIPES / "fast.toml", RECIPES / "baseline.toml"]


def main() -> Exit:
    """Parse, call, print."""
    args = parse()
    work = add if args.add_key else serve
    return ending("serve", lambda: work(args), "stopped; jobs go on at the next start")


def add(args: argparse.Namespace) -> Exit:
    """Make a key, and print it."""
    if args.keys is None:
        raise UsageError("--add-key needs --keys FILE, where the key's hash is kept")
    print(add_key(args.keys, args.add_key))
    return Exit.OK


def serve(args: argparse.Namespace) -> Exit:
    """Run the service until it is stopped."""
    settings = settings_of(args)
    if not settings.keys and not is_loopback(args.host):
        raise UsageError(f"--host {args.host}: others reach that, so it needs --keys FILE; see --add-key")
    try:
        from serve.server import answer
    except ModuleNotFoundError as error:
        raise EngineError(f"{error.name} is missing; run: pip install -r requirements-serve.txt") from error
    for line in licences(load_generator(settings.generator).fingerprint_files):
        say(line)
    known = settings.generator_hash  # reads its files: once, and before anybody waits
    say(f"generator {settings.generator_name}, {known}")
    check_writable(settings.home)
    settings.videos.mkdir(exist_ok=True)
    with locked_folder(settings.home), closing(Store(settings.database)) as store:
        go_on(settings, store)
        try:
            family = socket.AF_INET6 if ":" in args.host else socket.AF_INET
            listener = socket.create_server((args.host, args.port), family=family, backlog=128)
        except OSError as error:
            where = f"--host {args.host} --port {args.port}"
            raise UsageError(f"{where}: cannot be used ({error}); choose others") from error
        with listener:
            return answer(settings, store, listener)


def go_on(settings: ServeSettings, store: Store) -> None:
    """Queue what ran when the service was stopped, and remove files that belong to no job."""
    store.release()
    kept = store.kept()
    for folder in settings.videos.iterdir():
        if ID.fullmatch(folder.name) and folder.name not in kept:
            shutil.rmtree(folder, ignore_errors=True)


def settings_of(args: argparse.Namespace) -> ServeSettings:
    """Return the settings that were asked for. UsageError."""
    recipes: dict[str, Recipe] = {}
    for recipe in map(load_recipe, args.recipe or DEFAULT_RECIPES):
        if recipes.setdefault(recipe.name, recipe) is not recipe:
            raise UsageError(f"two recipes are called {recipe.name}: rename the file of one")
    names = args.name or ("*" if args.keys else ())  # who has a key is no page of another site
    return ServeSettings(
        args.home, args.generator, recipes, tuple(args.devices), load_keys(args.keys),
        Limits(args.max_frames, args.max_pixels), args.max_megabytes << 20, args.max_queued, args.max_per_key,
        args.job_seconds, keep_seconds=args.keep_hours * 3_600,
        hosts=(*ServeSettings.hosts, args.host, *names),
    )  # fmt: skip


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches a host."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser(__doc__, "python -m serve")
    common_arguments(parser, "generator", device={"help": "cpu, cuda, or one a worker: cuda:0,cuda:1"})
    kept = ServeSettings
    parser.add_argument("--recipe", type=Path, action="append", help="one offered; the first is the default")
    parser.add_argument("--home", type=Path, default=Path("out/serve"), help="folder of the jobs (out/serve)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, help="0: any that is free (8000)")
    parser.add_argument("--name", action="append", default=[], help="name that others reach it by (any)")
    parser.add_argument("--keys", type=Path, help="file with the hashes of keys, needed beyond this machine")
    parser.add_argument("--add-key", metavar="NAME", help="make a key, print it, and add its hash to --keys")
    numbers = (
        ("max-frames", int, kept.limits.frames, "of a skeleton video"),
        ("max-pixels", int, kept.limits.pixels, "of a frame or picture"),
        ("max-megabytes", int, kept.most_bytes >> 20, "of an upload"),
        ("max-queued", int, kept.most_queued, "videos that wait"),
        ("max-per-key", int, kept.most_per_key, "videos of one key that wait or run"),
        ("job-seconds", float, kept.job_seconds, "seconds that one video may run"),
        ("keep-hours", float, kept.keep_seconds / 3_600, "hours that ended videos are kept"),
    )
    for name, kind, default, about in numbers:
        parser.add_argument(f"--{name}", type=kind, default=default, help=f"{about}, at most ({default:g})")
    args = parser.parse_args()
    args.devices = devices_of(parser, args.device)
    port, args.port = args.port, 1
    check_numbers(parser, args)
    args.port = port
    return args


if __name__ == "__main__":
    run(main)
