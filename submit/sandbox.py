"""Make a machine like the grader's: a new virtual environment, no network, a home that was nobody's."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.timed_run import Ended, start_process
from submit.checks import NotEvaluated
from submit.pack import REQUIREMENTS, WHEELS
from submit.packages import only_what_is_given

NAME = "提交 检查"  # in every path of the trial: a space, and letters that are not ASCII
# Runs in the child instead of its own sitecustomize, where the system permits no network namespaces.
GUARD = """
import socket


def refuse(*arguments, **options):
    raise OSError("no network: this is a trial of a submission")


socket.socket.connect = socket.socket.connect_ex = socket.create_connection = socket.getaddrinfo = refuse
"""
TIMED_OUT = 124  # coreutils' timeout


@dataclass(frozen=True)
class Environment:
    """A Python with the submission's packages; seconds: how long making it took."""

    python: Path
    seconds: float


def make_environment(folder: Path, python: str, unpacked: Path, image: bool = False) -> Environment:
    """Make a virtual environment in folder, with what the submission's requirements say and nothing else.

    Packages come from the archive's wheels if it has them, else from wherever pip takes packages here. image:
    with this machine's own packages, as the target's image has some. NotEvaluated if that fails: with pins
    that resolve (S06) it is the network's or the disk's fault.
    """
    began = time.perf_counter()
    _run([python, "-m", "venv", *(["--system-site-packages"] if image else []), str(folder)])
    own = folder / "bin" / "python"
    options = ["--quiet", "--no-input", "--no-deps", "--disable-pip-version-check", "--no-compile"]
    install = [str(own), "-m", "pip", "install", *options, "-r", REQUIREMENTS]
    if (unpacked / WHEELS).is_dir():
        _run([*network_namespace(), *install, "--require-hashes"], unpacked, only_what_is_given())
    else:
        _run(install, unpacked)
    return Environment(own, time.perf_counter() - began)


def _run(command: Sequence[str], folder: Path | None = None, env: Mapping[str, str] | None = None) -> None:
    answer = subprocess.run(
        command, cwd=folder, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if answer.returncode:
        said = [line for line in answer.stderr.splitlines() if "is ignored" not in line][-3:]
        raise NotEvaluated("\n".join([f"{' '.join(command)} failed here:", *said]))


def network_namespace() -> list[str]:
    """Return words that keep a command from the network; none where the system does not permit it."""
    unshare = shutil.which("unshare")
    if unshare is None:
        return []
    command = [unshare, "--map-root-user", "--net"]
    tried = subprocess.run([*command, "true"], stdin=subprocess.DEVNULL, capture_output=True)
    return command if tried.returncode == 0 else []


@dataclass(frozen=True)
class Sandbox:
    """A place where programs of an environment run.

    work: the folder in which HOME and TMPDIR are made. seconds: the most that a program may take.
    """

    environment: Environment
    work: Path
    seconds: float

    @property
    def blocked_by(self) -> str:
        """Return how the network is kept away."""
        return "a network namespace" if network_namespace() else "a guard in Python's socket module"

    @property
    def home(self) -> Path:
        """Return the folder for HOME, which begins empty."""
        return self.work / "home"

    @property
    def temporary(self) -> Path:
        """Return the folder for TMPDIR."""
        return self.work / "tmp"

    def run(self, arguments: Sequence[str], folder: Path, log: Path) -> Ended:
        """Run Python with arguments in a folder, its stderr in the log; status 124: it took too long."""
        for each in (self.home, self.temporary, folder):
            each.mkdir(parents=True, exist_ok=True)
        variables = {"HOME": str(self.home), "TMPDIR": str(self.temporary), "PATH": "/usr/bin:/bin"}
        variables |= {"LANG": "C.UTF-8", "PYTHONNOUSERSITE": "1"}
        kept = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH")
        variables |= {name: os.environ[name] for name in kept if name in os.environ}
        before = network_namespace()
        if not before:
            guard = self.work / "guard"
            guard.mkdir(exist_ok=True)
            (guard / "sitecustomize.py").write_text(GUARD)
            variables["PYTHONPATH"] = str(guard)
        limit = ["timeout", "--kill-after=20", f"{self.seconds:.0f}"]
        clean = ["env", "-i", f"--chdir={folder}", *(f"{name}={value}" for name, value in variables.items())]
        return start_process([*before, *limit, *clean, str(self.environment.python), *arguments], log)


def snapshot(folder: Path) -> Mapping[str, str]:
    """Return SHA-256 of every file below a folder by its path, to compare two looks."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def read_only(folder: Path) -> None:
    """Remove write permission from a folder and all in it; root may still write, so compare snapshots too."""
    for path in [*folder.rglob("*"), folder]:
        path.chmod(0o555 if path.is_dir() else 0o444)


def writable(folder: Path) -> None:
    """Restore write permission on folders, so that all can be removed."""
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir():
            path.chmod(0o755)
