"""Be process 1 of a jail: build what can be seen there, start a program without rights, end all with it.

submit/isolation.py starts this file in new namespaces; it is the standard library alone, as it sees no more.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import resource
import signal
import sys
import time
from pathlib import Path

NOSUID, NODEV, NOEXEC, READ_ONLY, REMOUNT, BIND, RECURSIVE = 2, 4, 8, 1, 32, 4096, 16384
FLAGS = {"nosuid": NOSUID, "nodev": NODEV, "noexec": NOEXEC, "noatime": 1024, "nodiratime": 2048,
         "relatime": 1 << 21}  # fmt: skip
DETACH = 2  # umount2
SET_DUMPABLE, DROP_FROM_BOUNDING_SET, NO_NEW_PRIVILEGES = 4, 24, 38  # prctl
EXHAUSTED = 125  # how a jail ends that takes too much
EVERY, GRACE = 0.25, 1.0  # seconds between looks; for what a program started to end after it
PAGE = resource.getpagesize()
LIBC = ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: object) -> None:
    """Call a function of libc that answers 0. OSError."""
    texts = [os.fsencode(each) if isinstance(each, str) else each for each in arguments]
    if getattr(LIBC, name)(*texts):
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}", str(arguments[:2]))


def mount(source: str | None, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    """Mount as mount(2) does."""
    call("mount", source, target, kind, ctypes.c_ulong(flags), options)


def enter(spec: dict) -> None:
    """Make a root folder of the mounts of spec, read-only but for some, and leave the machine's own."""
    root = spec["root"]
    mount("tmpfs", root, "tmpfs", NOSUID | NODEV, "mode=755")
    for target, source in spec["links"].items():
        os.symlink(source, root + target)
    for source, target, _ in spec["mounts"]:
        _bind(source, root + target)
    os.makedirs(f"{root}/proc", exist_ok=True)
    mount("proc", f"{root}/proc", "proc", NOSUID | NODEV | NOEXEC)
    for folder in ("/dev/shm", *(each for each in spec["hidden"] if os.path.isdir(root + each))):
        os.makedirs(root + folder, exist_ok=True)
        mount("tmpfs", root + folder, "tmpfs", NOSUID | NODEV)
    writable = [root + target for _, target, free in spec["mounts"] if free] + [f"{root}/dev/shm"]
    for point, options in mounts_below(root):
        if point not in writable:
            kept = sum(FLAGS.get(each, 0) for each in options.split(","))
            mount(None, point, None, REMOUNT | BIND | READ_ONLY | NOSUID | kept)
    os.chdir(root)
    call("pivot_root", ".", ".")
    call("umount2", ".", DETACH)
    os.chdir("/")


def _bind(source: str, target: str) -> None:
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    elif not os.path.exists(target):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT))
    mount(source, target, None, BIND | RECURSIVE)


def mounts_below(root: str) -> list[tuple[str, str]]:
    """Return every mount point from root down, with its options."""
    lines = [line.split(" ") for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    found = [(re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), each[4]), each[5]) for each in lines]
    return [(point, options) for point, options in found if point == root or point.startswith(f"{root}/")]


def start(command: list[str], folder: str, largest_file: int) -> int:
    """Start the program with no capabilities and none to be had; return its number."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    child = os.fork()
    if child:
        return child
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        os.setsid()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
        LIBC.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0)
        for capability in range(64):
            LIBC.prctl(DROP_FROM_BOUNDING_SET, capability, 0, 0, 0)
        os.chdir(folder)
        os.execv(command[0], command)
    except OSError as error:
        os.write(2, f"cannot be started: {error}\n".encode("utf-8", "backslashreplace"))
    finally:
        os._exit(127)


def others() -> list[str]:
    """Return the names of all other processes of the jail that live."""
    names = []
    for path in Path("/proc").glob("[1-9]*/stat"):
        try:
            name, _, rest = path.read_text(errors="replace").partition("(")[2].rpartition(") ")
        except OSError:
            continue
        if path.parent.name != "1" and rest[:1] not in "ZX":
            names.append(name)
    return names


def taken() -> int:
    """Return the bytes of memory that the jail's processes hold for themselves."""
    total = 0
    for path in Path("/proc").glob("[1-9]*/statm"):
        try:
            pages = path.read_text().split()
        except OSError:
            continue
        total += (int(pages[1]) - int(pages[2])) * PAGE
    shared = os.statvfs("/dev/shm")
    return total + (shared.f_blocks - shared.f_bfree) * shared.f_frsize


def too_much(spec: dict) -> str | None:
    """Return what the jail takes too much of, or None."""
    if len(others()) > spec["processes"]:
        return f"more than {spec['processes']} processes"
    if taken() > spec["memory"]:
        return f"more than {spec['memory'] / 1e9:.1f} GB of memory"
    for target in spec["disks"]:
        found = os.statvfs(target)
        if found.f_bavail * found.f_frsize < spec["disk"]:
            return f"the disk: less than {spec['disk'] / 1e9:.1f} GB are left of it"
    return None


def wait(child: int, spec: dict) -> int:
    """Wait for the program and return its exit status; EXHAUSTED, after saying why, if it takes too much."""
    while True:
        signal.sigtimedwait({signal.SIGCHLD}, EVERY)
        while True:
            try:
                number, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return EXHAUSTED
            if number == child:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code
            if not number:
                break
        excess = too_much(spec)
        if excess:
            os.write(2, f"stopped, as it took {excess}\n".encode())
            return EXHAUSTED


def main() -> None:
    """Build, start, wait, report: seconds, and the names of processes that outlived the program."""
    spec, command = json.loads(sys.argv[1]), sys.argv[2:]
    os.set_inheritable(spec["report"], False)
    if spec["root"]:
        enter(spec)
    LIBC.prctl(SET_DUMPABLE, 0, 0, 0, 0)  # so that no process of the jail can be this one's debugger
    os.umask(0o022)
    began = time.perf_counter()
    status = wait(start(command, spec["folder"], spec["file"]), spec)
    seconds = time.perf_counter() - began
    until = time.monotonic() + GRACE
    while status != EXHAUSTED and (left := others()) and time.monotonic() < until:
        time.sleep(0.02)
    left = [] if status == EXHAUSTED else left
    os.write(spec["report"], json.dumps({"seconds": seconds, "left": left[:20]}).encode())
    os._exit(status)


if __name__ == "__main__":
    main()
