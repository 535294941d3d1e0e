"""How far a TensorRT build has come, and how Ctrl-C ends one."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from threading import Event
from types import ModuleType
from typing import TypeVar

Answer = TypeVar("Answer")
Report = Callable[[float], None]


def progress_monitor(trt: ModuleType, report: Report) -> object:
    """Make an IProgressMonitor that reports the share done, up to 1; it must outlive the build.

    Once its `cancelled` is set, the build ends at its next step.
    """

    class Monitor(trt.IProgressMonitor):
        """The monitor, which TensorRT calls from any thread as phases begin, step and end."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.cancelled = False
            self._phases = Phases()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            """Begin a phase."""
            self._phases.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            """Count a step, and report the share; False cancels the build."""
            self._phases.step(phase_name, step)
            report(self._phases.share)
            return not self.cancelled

        def phase_finish(self, phase_name: str) -> None:
            """End a phase, and report the share."""
            self._phases.finish(phase_name)
            if not self.cancelled:  # phases end then, too
                report(self._phases.share)

    return Monitor()


def interruptible(work: Callable[[], Answer], monitor: object) -> Answer:
    """Do work in a thread of its own, so that Ctrl-C and SIGTERM arrive in this one.

    In a callback they would be swallowed by TensorRT. They cancel the build, and go on when it has ended,
    however early or often they come: what it works on is freed next, and that crashes a build still running.
    """
    known = Event()

    def begin() -> Answer | None:
        known.wait()  # an interrupted submit gives no future by which to wait for the end
        return None if monitor.cancelled else work()

    future = None
    with ThreadPoolExecutor(1) as pool:
        try:
            future = pool.submit(begin)
            known.set()
            return future.result()
        except (KeyboardInterrupt, SystemExit):
            monitor.cancelled = True
            known.set()
            while future and not future.done():  # an interrupted join would not wait again (Python 3.11)
                with suppress(KeyboardInterrupt, SystemExit):
                    wait([future])
            raise


class Phases:
    """The phases within phases of a build; share is that of the outermost done so far, and never falls."""

    def __init__(self) -> None:
        self.share = 0.0
        self._open: dict[str, tuple[str | None, int, int]] = {}  # parent, steps, steps done

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """Begin a phase of that many steps, within its parent if it has one."""
        self._open[name] = (parent, max(1, steps), 0)

    def step(self, name: str, step: int) -> None:
        """Count step number `step`, from 0, as done."""
        if name in self._open:
            parent, steps, _ = self._open[name]
            self._open[name] = (parent, steps, min(step + 1, steps))
            self.share = max(self.share, min(1.0, self._share_with(name)))

    def finish(self, name: str) -> None:
        """End a phase; the share is 1 when the outermost one ends."""
        parent = self._open.pop(name, (None, 1, 1))[0]
        if not self._open and not parent:
            self.share = 1.0

    def _share_with(self, name: str) -> float:
        """Compute the share done of the outermost phase from this one and those around it."""
        share: float = 0.0
        inner: str | None = name
        while inner in self._open:
            inner, steps, done = self._open[inner]
            share = (done + min(share, 1.0 if done < steps else 0.0)) / steps
        return share
