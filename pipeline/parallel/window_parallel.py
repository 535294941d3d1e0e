"""Split the evaluations of one video over processes, each with an engine of its own.

Within a step, windows and branches of guidance do not depend on each other. Constants are sent once per clip;
latents go out and predictions come back once per step. This process evaluates a share too, and blends all in
the order of an unsplit run, so equal engines give equal bytes.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain, groupby
from multiprocessing.connection import Connection

import numpy as np

from engines.errors import EngineError
from engines.spare_memory import release
from engines.spec import Engine
from generators.contract import Constants, Engines, Generator, GeneratorError
from pipeline.parallel.shared_memory import Channel
from pipeline.window_denoiser import SerialDenoiser, WindowBranch, WindowDenoiser

START_SECONDS = 1800.0  # for a worker to load its engine
STALL_SECONDS = 600.0  # of waiting, after this process's own share; a first call may compile a graph
Start = Callable[[], tuple[Generator, Engine]]  # must be picklable: new processes call it


class WindowWorkers:
    """A group of processes that evaluate a share of a clip's windows and branches.

    workers: for each process to start, a function that gives its generator and its engine of `denoise`. The
    generator must keep no state of windows. If a worker is lost, say gets a sentence, and its share is
    evaluated in this process from then on; one that is out of memory rests for the clip.
    EngineError: a worker cannot start; MemoryError: for lack of memory.
    """

    def __init__(
        self, workers: Sequence[Start], say: Callable[[str], None], stall_seconds: float = STALL_SECONDS
    ) -> None:
        self._say, self._stall_seconds = say, stall_seconds
        self._resting: list[Worker] = []  # out of memory in this clip
        with contextlib.ExitStack() as closing:  # if one cannot start, the others are ended
            self._workers = [Worker(number, how) for number, how in enumerate(workers, 2)]
            for worker in self._workers:
                closing.callback(worker.end)
            for worker in self._workers:
                worker.wait_until_ready()
            closing.pop_all()

    def open(
        self, generator: Generator, engines: Engines, constants: Constants, condition_indices: np.ndarray
    ) -> WindowDenoiser:
        """Begin a clip, which ends the one before; return its denoiser. engines: this process's."""
        self._resting = []
        for worker in self._workers:
            worker.send(list(constants), [*constants.values(), condition_indices])
        for worker in list(self._workers):
            self._answer(worker)
        return partial(self.evaluate, SerialDenoiser(generator, engines, constants, condition_indices))

    def close(self) -> None:
        """End the processes."""
        for worker in self._workers:
            worker.end()
        self._workers = []

    def evaluate(
        self, own: SerialDenoiser, latents: np.ndarray, step: int, action: str, wanted: Sequence[WindowBranch]
    ) -> Iterator[np.ndarray]:
        """Give the wanted predictions in order, a share of them from each process. own: this one's."""
        units = [[place] for place in range(len(wanted))]
        if own.batches:  # a window's branches stay together, for the bytes of an unsplit run
            by_window = groupby(range(len(wanted)), lambda place: wanted[place].window)
            units = [list(places) for _, places in by_window]
        able = [worker for worker in self._workers if worker not in self._resting]
        asked = able[: max(len(units) - 1, 0)]
        count = 1 + len(asked)
        places = [list(chain.from_iterable(units[number::count])) for number in range(count)]
        shares = [[wanted[place] for place in share] for share in places]
        for worker, share in zip(asked, shares[1:], strict=True):
            worker.send((step, action, share), [latents])
        predictions: list[np.ndarray] = [None] * len(wanted)
        for number, share in enumerate(shares):
            answer = self._answer(asked[number - 1]) if number else None
            if answer is None:
                answer = own(latents, step, action, share)
            for place, prediction in zip(places[number], answer, strict=True):
                predictions[place] = prediction
        return iter(predictions)

    def _answer(self, worker: Worker) -> list[np.ndarray] | None:
        """Return a worker's arrays, valid until its next order; None: it is lost or out of memory."""
        try:
            refusal, arrays = worker.receive(self._stall_seconds)
        except WorkerLost as lost:
            self._say(f"{lost}; its share is evaluated in this process from now on")
            self._workers.remove(worker)
            return None
        if refusal is not None:
            self._say(f"split worker {worker.number} is out of memory ({refusal}); it rests for this video")
            self._resting.append(worker)
            return None
        return arrays


class WorkerLost(RuntimeError):
    """Raised when a process ended or stopped answering; the text says which and how."""


class Worker:
    """A process with an engine of its own. number: for messages; this process is 1, workers begin at 2."""

    def __init__(self, number: int, how: Start) -> None:
        """Start the process, which opens its engine in the background."""
        spawn = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
        self.number = number
        ours, theirs = spawn.Pipe()
        self._channel = Channel(ours)
        self._process = spawn.Process(target=_serve, args=(theirs, how), daemon=True)
        self._process.start()
        theirs.close()  # so that the pipe ends when the process does

    def wait_until_ready(self) -> None:
        """Wait until its engine is ready. EngineError: it cannot start; MemoryError: for lack of memory."""
        try:
            refusal, _ = self.receive(START_SECONDS)
        except WorkerLost as lost:
            raise EngineError(f"{lost} while it started; what it said is above") from lost
        if refusal is not None:
            kind = MemoryError if isinstance(refusal, MemoryError) else EngineError
            raise kind(f"split worker {self.number}: {refusal}")

    def send(self, order: object, arrays: Sequence[np.ndarray]) -> None:
        """Send an order; that a worker is lost is noticed when its answer is received."""
        with contextlib.suppress(OSError):
            self._channel.send(order, arrays)

    def receive(self, seconds: float) -> tuple[object, list[np.ndarray]]:
        """Return the next answer, or end the process and raise WorkerLost if none comes within `seconds`."""
        how = f"did not answer for {seconds:g} s"
        try:
            if self._channel.connection.poll(seconds):
                return self._channel.receive()
        except (EOFError, OSError):
            self._process.join(1)  # its pipe closes a moment before it ends
            code = self._process.exitcode
            how = f"ended by {signal.Signals(-code).name}" if code and code < 0 else f"ended with {code}"
        self.end()
        raise WorkerLost(f"split worker {self.number} {how}")

    def end(self) -> None:
        """End the process; does nothing if it has ended already."""
        self._channel.connection.close()
        self._process.kill()
        self._process.join()


def _serve(pipe: Connection, how: Start) -> None:
    """Run a worker: report that it is ready or why not, then answer orders until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the first process ends the others
    channel = Channel(pipe)
    try:
        generator, engine = how()
    except (EngineError, GeneratorError) as error:
        channel.send(str(error), [])
        return
    except MemoryError as error:
        channel.send(MemoryError(str(error)), [])
        return
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the first process is gone
        channel.send(None, [])
        denoise = None
        while True:
            order, arrays = channel.receive()
            if isinstance(order, list):
                # Copies, because the next order overwrites the received arrays.
                *constants, indices = (array.copy() for array in arrays)
                named = dict(zip(order, constants, strict=True))
                denoise = SerialDenoiser(generator, {"denoise": engine}, named, indices)
                channel.send(None, [])
                continue
            try:
                refusal, predictions = None, list(denoise(arrays[0], *order))
            except MemoryError as error:
                refusal, predictions = str(error), []
            if refusal is not None:
                release()  # out of the handler, for the error holds what the failed work had in memory
            channel.send(refusal, predictions)
