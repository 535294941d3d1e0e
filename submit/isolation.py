"""Run foreign programs where they see, reach and outlive nothing: in namespaces of Linux.

bubblewrap makes them where it is installed, else unshare and submit/jail.py. Where the system permits
neither, there is no isolation, and nothing foreign runs unless its owner is trusted.
"""

from __future__ import annotations

import glob
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

JAIL = Path(__file__).with_name("jail.py")
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/etc/alternatives",
          "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/localtime", "/etc/passwd",
          "/etc/OpenCL", "/sys/devices", "/sys/bus", "/sys/class")  # fmt: skip
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/nvidia*")
NETWORK = ("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/ssl", "/etc/pki", "/etc/gai.conf")
TEMPORARY = "/tmp"  # in a jail
TIMED_OUT = 124  # coreutils' timeout
KEPT = 64 * 1024  # last bytes kept of what a program says
PROCESSES, LARGEST_FILE, MEMORY = 1000, 64 << 30, 0.9  # what a jail may have; of memory that share
DISK = 1 << 30  # bytes that it must leave free


@dataclass(frozen=True)
class View:
    """What a program sees beside the system: folders and files to read, and folders that it may change.

    temporary: what it finds as /tmp. hidden: folders that it must not see, wherever they lie.
    """

    readable: Sequence[Path] = ()
    writable: Sequence[Path] = ()
    temporary: Path | None = None
    hidden: Sequence[Path] = ()
    network: bool = False

    @property
    def mounts(self) -> list[tuple[str, str, bool]]:
        """Return (source, target, whether it may be changed); those further up come first."""
        found = {path: (path, False) for path in SYSTEM if os.path.exists(path) and path not in links()}
        found |= {path: (path, False) for each in DEVICES for path in glob.glob(each)}
        if self.network:
            found |= {path: (path, False) for path in NETWORK if os.path.exists(path)}
        for paths, free in ((self.readable, False), (self.writable, True)):
            found |= {str(path.absolute()): (str(path.absolute()), free) for path in paths}
        if self.temporary:
            found[TEMPORARY] = (str(self.temporary.absolute()), True)
        ordered = sorted(found.items(), key=lambda each: each[0].count("/"))
        return [(source, target, free) for target, (source, free) in ordered]


@dataclass(frozen=True)
class Ended:
    """The end of a program: its exit status, 124 if its time was over; seconds; its last words on stderr.

    left: names of processes that lived on after it, until they were ended.
    """

    status: int
    seconds: float
    said: str
    left: list[str]


@cache
def isolation() -> str | None:
    """Return what isolates here, bubblewrap or unshare, as a trial showed; None if nothing does."""
    for tool in ("bwrap", "unshare"):
        if sys.platform == "linux" and shutil.which(tool):
            with tempfile.TemporaryDirectory() as folder:
                command = [os.path.realpath(sys.executable), "-I", "-S", "-c", "pass"]
                view = View(readable=[Path(sys.base_prefix)])
                if _run(tool, command, {}, Path("/"), view, Path(folder), 20.0).status == 0:
                    return tool
    return None


def run(
    command: Sequence[str], variables: Mapping[str, str], folder: Path, view: View, seconds: float
) -> Ended:
    """Run a program in a folder with these variables and no others, and end all that it started with it.

    Where there is no isolation it has the rights of the caller, and only its process group is ended.
    """
    with tempfile.TemporaryDirectory(prefix="vivace-root-") as root:
        return _run(isolation(), command, variables, folder, view, Path(root), seconds)


def _run(
    tool: str | None, command: Sequence[str], variables: Mapping[str, str], folder: Path, view: View,
    root: Path, seconds: float,
) -> Ended:  # fmt: skip
    reading, writing = os.pipe()
    began = time.perf_counter()
    try:
        process = subprocess.Popen(
            [*_jail(tool, view, root, folder, writing), *command],
            cwd="/" if tool else folder, env=dict(variables), stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, pass_fds=[writing], start_new_session=True,
        )  # fmt: skip
        os.close(writing)
        try:
            said, status = _wait(process, began + seconds)
        finally:
            _end(process)
        told = os.read(reading, 1 << 16) if select.select([reading], [], [], 0)[0] else b""
    finally:
        os.close(reading)
    report = json.loads(told or b"{}")
    taken = report.get("seconds", time.perf_counter() - began)
    return Ended(status, taken, said.decode("utf-8", "replace"), report.get("left", []))


def _jail(tool: str | None, view: View, root: Path, folder: Path, report: int) -> list[str]:
    """Return the words before a command that put it into a jail."""
    if tool is None:
        return []
    hidden = [str(path.resolve()) for path in view.hidden]
    spec = {
        "root": str(root) if tool == "unshare" else None, "folder": str(folder), "report": report,
        "mounts": view.mounts, "links": links(), "hidden": hidden, "processes": PROCESSES,
        "file": LARGEST_FILE, "disk": DISK, "memory": MEMORY * _memory(),
        "disks": [target for _, target, free in view.mounts if free],
    }  # fmt: skip
    first = [os.path.realpath(sys.executable), "-I", "-S", str(JAIL), json.dumps(spec)]
    if tool == "unshare":
        net = [] if view.network else ["--net"]
        spaces = ["--user", "--map-root-user", "--mount", "--pid", "--ipc", "--uts", *net]
        return [shutil.which(tool), *spaces, "--fork", "--kill-child", "--", *first]
    spaces = ["--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts"]
    spaces += [] if view.network else ["--unshare-net"]
    words = [shutil.which(tool), *spaces, "--die-with-parent", "--as-pid-1", "--cap-drop", "ALL"]
    for target, source in links().items():
        words += ["--symlink", source, target]
    needed = [(str(path), str(path), False) for path in (sys.base_prefix, JAIL)]
    for source, target, free in sorted([*view.mounts, *needed], key=lambda each: each[1].count("/")):
        device = "--dev-bind" if source.startswith("/dev/") else "--ro-bind"
        words += ["--bind" if free else device, source, target]
    words += ["--proc", "/proc", "--remount-ro", "/proc", "--tmpfs", "/dev/shm"]
    for path in hidden:
        if any(Path(path).is_relative_to(target) for _, target, _ in view.mounts):
            words += ["--tmpfs", path, "--remount-ro", path]
    return [*words, "--remount-ro", "/", "--", *first]


def links() -> dict[str, str]:
    """Return where folders of the system that are links lead, as /bin to usr/bin."""
    return {path: os.readlink(path) for path in SYSTEM if path.count("/") == 1 and os.path.islink(path)}


def _memory() -> int:
    """Return the bytes of memory that are free on this machine."""
    text = Path("/proc/meminfo").read_text()
    return int(text.partition("MemAvailable:")[2].split()[0]) * 1024


def _wait(process: subprocess.Popen, until: float) -> tuple[bytes, int]:
    """Read what a process says until it ends; the last of it, and the exit status, TIMED_OUT after until."""
    said, pipe, is_open = b"", process.stderr.fileno(), True
    while (left := until - time.perf_counter()) > 0:
        if not is_open:
            with suppress(subprocess.TimeoutExpired):
                return said, process.wait(left)
        elif select.select([pipe], [], [], min(left, 0.2))[0]:
            chunk = os.read(pipe, 1 << 16)
            said, is_open = (said + chunk)[-KEPT:], bool(chunk)
        elif process.poll() is not None:  # what holds the pipe is no part of it
            return said, process.returncode
    return said, TIMED_OUT


def _end(process: subprocess.Popen) -> None:
    """End a process and its group; with that of a jail all in it ends."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stderr.close()
