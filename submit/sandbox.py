"""Make a machine like the grader's: a new virtual environment, no network, a home that was nobody's."""

from __future__ import annotations

import os
import shlex
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from engines.artifact import file_sha256
from submit.checks import NotEvaluated
from submit.isolation import Ended, View, isolation, run
from submit.packages import WHEELS, Pin, only_what_is_given

NAME = "提交 检查"  # in every path of the trial: a space, and letters that are not ASCII
KEPT = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH")
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")
PIP_FILES = (".netrc", ".pip", ".config/pip")  # in HOME


@dataclass(frozen=True)
class Environment:
    """A Python with the submission's packages, to be run in a jail alone: a wheel may replace bin/python.

    base: the installation that it was made from. seconds: how long making it took.
    """

    python: Path
    base: Path = Path(sys.base_prefix)
    seconds: float = 0.0

    @property
    def seen(self) -> list[Path]:
        """Return the folders that it consists of."""
        return [self.base, self.python.parent.parent]


def make_environment(
    folder: Path, python: str, unpacked: Path, pins: Sequence[Pin], left: Callable[[], float],
    index: str | None = None, image: bool = False,
) -> Environment:  # fmt: skip
    """Make a virtual environment in folder, with the pinned packages and nothing else.

    Wheels only: installing one runs nothing of it. They come from the archive if it has any, then without
    network, else from index and wherever pip takes packages here. image: with this machine's own packages, as
    the target's image has some. left: seconds that are left. NotEvaluated if that fails: with pins that
    resolve (S06) it is the network's or the disk's fault.
    """
    began = time.perf_counter()
    own = folder / "bin" / "python"
    image_too = ["--system-site-packages"] if image else []
    _made([python, "-m", "venv", "--without-pip", *image_too, str(folder)])
    _made([str(own), "-Im", "ensurepip", "--default-pip"])  # by itself: venv keeps what it says to itself
    names = folder / "pins.txt"  # the archive's own file may say more than pins
    names.write_text("".join(f"{pin}\n" for pin in pins), encoding="utf-8")
    ask = [python, "-I", "-c", "import sys; print(sys.base_prefix)"]
    base = subprocess.run(ask, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True).stdout
    own = Environment(own, Path(base.strip()))
    options = ["--quiet", "--no-input", "--no-deps", "--disable-pip-version-check", "--no-compile"]
    install = [str(own.python), "-m", "pip", "install", *options, "--only-binary=:all:", "-r", str(names)]
    wheels = unpacked / WHEELS
    if wheels.is_dir():
        install += ["--require-hashes", "--no-index", "--find-links", str(wheels)]
        view = View([*own.seen, wheels], [folder])
        variables = only_what_is_given()
    else:
        install += ["--extra-index-url", index] if index else []
        view = View([*own.seen, *_of_pip(own.python)], [folder], network=True)
        names = (*PROXIES, *(each.lower() for each in PROXIES))
        variables = {name: text for name, text in os.environ.items() if name in names or name[:4] == "PIP_"}
        variables["HOME"] = str(Path.home())
    ended = run(install, {**variables, "TMPDIR": str(folder)}, folder, view, left())
    if ended.status:
        said = [line for line in ended.said.splitlines() if "is ignored" not in line][-3:]
        raise NotEvaluated("\n".join([f"{' '.join(install)} ended with status {ended.status} here:", *said]))
    return replace(own, seconds=time.perf_counter() - began)


def _made(command: list[str]) -> None:
    """Run what makes an environment. NotEvaluated, with all that it said: it fails."""
    made = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if made.returncode:
        said = (made.stdout + made.stderr).strip()
        raise NotEvaluated(f"{' '.join(command)} ended with status {made.returncode} here:\n{said}")


def _of_pip(python: Path) -> Iterator[Path]:
    """Return files and folders that pip's settings name here, and those settings' own."""
    ask = [str(python), "-m", "pip", "config", "list"]
    answer = subprocess.run(ask, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    words = [word for line in answer.stdout.splitlines() for word in shlex.split(line.partition("=")[2])]
    texts = [each.removeprefix("file://") for word in words for each in word.split()]
    texts += ["/etc/pip.conf", "/etc/xdg/pip", *(str(Path.home() / each) for each in PIP_FILES)]
    texts += [os.environ.get("PIP_CONFIG_FILE", ""), *(os.environ.get(name, "") for name in PROXIES)]
    for path in {each for each in texts if each.startswith("/")}:
        # `/simple` of a folder that is an index names files beside it.
        found = Path(path).parent if Path(path).name == "simple" else Path(path)
        if found.exists():
            yield found


@dataclass(frozen=True)
class Sandbox:
    """A place where programs of an environment run.

    work: the folder in which HOME and TMPDIR are made. hidden: folders that no program must see.
    """

    environment: Environment
    work: Path
    hidden: Sequence[Path] = ()

    @property
    def home(self) -> Path:
        """Return the folder for HOME, which begins empty."""
        return self.work / "home"

    @property
    def temporary(self) -> Path:
        """Return the folder for TMPDIR."""
        return self.work / "tmp"

    def run(
        self, arguments: Sequence[str], folder: Path, readable: Sequence[Path], writable: Sequence[Path],
        seconds: float,
    ) -> Ended:  # fmt: skip
        """Run Python with arguments in a folder; it sees the environment, what is readable, and no more."""
        for each in (self.home, self.temporary, folder, *writable):
            each.mkdir(parents=True, exist_ok=True)
        inside = Path("/tmp") if isolation() else self.temporary
        variables = {"HOME": str(self.home), "TMPDIR": str(inside), "PATH": "/usr/bin:/bin"}
        variables |= {"LANG": "C.UTF-8", "PYTHONNOUSERSITE": "1"}
        variables["PYTHONIOENCODING"] = "utf-8:backslashreplace"
        variables |= {name: os.environ[name] for name in KEPT if name in os.environ}
        seen = [*self.environment.seen, *readable]
        view = View(seen, [folder, self.home, *writable], self.temporary, self.hidden)
        return run([str(self.environment.python), *arguments], variables, folder, view, seconds)


def snapshot(folder: Path) -> Mapping[str, tuple]:
    """Return a mark of every file below a folder by its path, which changes with it; nothing is opened."""
    marks = {}
    for parent, folders, files in os.walk(folder):
        links = [name for name in folders if os.path.islink(os.path.join(parent, name))]
        for name in (*files, *links):
            path = os.path.join(parent, name)
            mark = (0,)  # for a name that is too long for the system
            with suppress(OSError):
                found = os.lstat(path)
                mark = (found.st_mode, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)
            marks[os.path.relpath(path, folder)] = mark
    return marks


def remove_what_is_no_file(folder: Path) -> list[str]:
    """Remove links, pipes and the like below a folder, which would lead readers elsewhere; return names."""
    found = [path for path, mark in snapshot(folder).items() if not stat.S_ISREG(mark[0])]
    for path in found:
        with suppress(OSError):
            (folder / path).unlink()
    return sorted(found)


def content(path: Path, size: int) -> str | None:
    """Return the SHA-256 of a plain file of that size, else None; no other is read."""
    return file_sha256(path) if _is_plain(path) and path.lstat().st_size == size else None


def _is_plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def read_only(folder: Path) -> None:
    """Remove write permission from a folder and all in it; root may still write, so compare snapshots too."""
    for parent, _, files in os.walk(folder, topdown=False):
        for name in files:
            if _is_plain(Path(parent, name)):
                os.chmod(os.path.join(parent, name), 0o444)
        os.chmod(parent, 0o555)


def remove(folder: Path) -> None:
    """Remove a folder whatever is in it: folders without permission, or deeper than any path may be."""
    for parent, folders, _ in os.walk(folder):
        for path in (os.path.join(parent, name) for name in folders):
            with suppress(OSError):
                if not os.path.islink(path):
                    os.chmod(path, 0o700)
    folder.chmod(0o700)
    subprocess.run(["/bin/rm", "-rf", "--", str(folder)], stdin=subprocess.DEVNULL)  # rmtree recurses
