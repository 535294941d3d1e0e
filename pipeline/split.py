"""Split the evaluations of one video over processes, each with an engine of its own.

Within a step, windows and branches of guidance do not depend on each other. Constants are sent once a clip,
then latents go out and predictions come back once a step. This process evaluates a share too and blends all
in the order of an unsplit run, so engines that compute alike give the same bytes.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection

import numpy as np

from engines.spec import Engine, EngineError
from generators.contract import Constants, Generator, GeneratorError
from pipeline.channel import Channel
from pipeline.evaluate import Clip, Part

START_SECONDS = 1800.0  # for a worker to load its engine
STALL_SECONDS = 600.0  # beyond what this process took for its own share; a first call may compile a graph
Evaluate = Callable[[np.ndarray, int, Sequence[Part]], Iterator[np.ndarray]]
Open = Callable[[], tuple[Generator, Engine]]  # can be pickled: new processes call it


class SplitEngine:
    """The engine of `denoise`, for generators whose answer depends on nothing but what they are given.

    generator and engine are this process's; called as an engine it is that one. workers: for each process to
    start, what opens its generator and its engine. A worker that is lost is named through say, and its share
    is evaluated here from then on. EngineError: a worker cannot start.
    """

    def __init__(
        self,
        generator: Generator,
        engine: Engine,
        workers: Sequence[Open],
        say: Callable[[str], None],
        stall_seconds: float = STALL_SECONDS,
    ) -> None:
        self.spec, self.path = engine.spec, engine.path
        self._generator, self._engine, self._say = generator, engine, say
        self._stall_seconds = stall_seconds
        with contextlib.ExitStack() as closing:  # whatever stops one, those before it are ended
            self._workers = [Worker(number, how) for number, how in enumerate(workers, 2)]
            for worker in self._workers:
                closing.callback(worker.end)
            for worker in self._workers:
                worker.wait_until_ready()
            closing.pop_all()

    def __call__(self, **arrays: np.ndarray) -> dict[str, np.ndarray]:
        """The first engine's outputs."""
        return self._engine(**arrays)

    def clip(self, constants: Constants, sources: np.ndarray) -> Evaluate:
        """Begin a clip, which ends the one before: a function that answers as pipeline.evaluate.Clip does."""
        for worker in self._workers:
            worker.send(list(constants), [*constants.values(), sources])
        for worker in list(self._workers):
            self._answer(worker)
        return functools.partial(self._evaluate, Clip(self._generator, self._engine, constants, sources))

    def close(self) -> None:
        """End the processes and close the first engine."""
        for worker in self._workers:
            worker.end()
        self._workers = []
        self._engine.close()

    def _evaluate(
        self, own: Clip, latents: np.ndarray, step: int, parts: Sequence[Part]
    ) -> Iterator[np.ndarray]:
        asked = self._workers[: max(len(parts) - 1, 0)]
        count = 1 + len(asked)
        shares = [parts[number::count] for number in range(count)]
        for worker, share in zip(asked, shares[1:], strict=True):
            worker.send((step, share), [latents])
        predictions: list[np.ndarray] = [None] * len(parts)
        predictions[::count] = own(latents, step, shares[0])
        for number, worker in enumerate(asked, 1):
            answer = self._answer(worker)
            predictions[number::count] = own(latents, step, shares[number]) if answer is None else answer
        return iter(predictions)

    def _answer(self, worker: Worker) -> list[np.ndarray] | None:
        """What the worker sends, to be used before its next order; None: it is lost, and is asked no more."""
        try:
            return worker.receive(self._stall_seconds)[1]
        except WorkerLost as lost:
            self._say(f"{lost}; its share is evaluated in this process from now on")
            self._workers.remove(worker)
            return None


class WorkerLost(RuntimeError):
    """A process ended or stopped answering; the text says which and how."""


class Worker:
    """One process with an engine; number: which of the split's, from 2 on, for messages."""

    def __init__(self, number: int, how: Open) -> None:
        """Start it; it opens its engine while the caller does other things."""
        spawn = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
        self._number = number
        ours, theirs = spawn.Pipe()
        self._channel = Channel(ours)
        self._process = spawn.Process(target=_serve, args=(theirs, how), daemon=True)
        self._process.start()
        theirs.close()  # so that its end is the pipe's end

    def wait_until_ready(self) -> None:
        """Return when its engine is there; else EngineError."""
        try:
            refusal, _ = self.receive(START_SECONDS)
        except WorkerLost as lost:
            raise EngineError(f"{lost} while it started; what it said is above") from lost
        if refusal:
            raise EngineError(f"split worker {self._number}: {refusal}")

    def send(self, order: object, arrays: Sequence[np.ndarray]) -> None:
        """Give it an order; a lost worker shows in what it answers."""
        with contextlib.suppress(OSError):
            self._channel.send(order, arrays)

    def receive(self, seconds: float) -> tuple[object, list[np.ndarray]]:
        """Its next answer, within so many seconds. WorkerLost: there is none; the process has been ended."""
        how = f"did not answer for {seconds:g} s"
        try:
            if self._channel.connection.poll(seconds):
                return self._channel.receive()
        except (EOFError, OSError):
            self._process.join(1)  # its pipe closes a moment before it ends
            code = self._process.exitcode
            how = f"ended by {signal.Signals(-code).name}" if code and code < 0 else f"ended with {code}"
        self.end()
        raise WorkerLost(f"split worker {self._number} {how}")

    def end(self) -> None:
        """End the process; harmless when it has ended."""
        self._channel.connection.close()
        self._process.kill()
        self._process.join()


def _serve(pipe: Connection, how: Open) -> None:
    """A worker's life: say that it is ready or why not, then answer orders until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the first process ends the others
    channel = Channel(pipe)
    try:
        generator, engine = how()
    except (EngineError, GeneratorError) as error:
        channel.send(str(error), [])
        return
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the first process is gone
        channel.send("", [])
        clip = None
        while True:
            order, arrays = channel.receive()
            if isinstance(order, list):
                # Copies, for the next order's arrays take their place.
                *constants, sources = (array.copy() for array in arrays)
                clip = Clip(generator, engine, dict(zip(order, constants, strict=True)), sources)
                channel.send(None, [])
            else:
                channel.send(None, list(clip(arrays[0], *order)))
