"""The two loop nests: steps outside and windows inside, blended; or windows outside, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from engines.spec import Engine, EngineError
from generators.contract import FULL, SHALLOW, Constants, Engines, Generator
from generators.windows import Blend, Carry, WindowRule, cut
from optimize.step_plan import StepPlan, Walk
from pipeline.evaluate import Clip, Part
from pipeline.ladder import without_first
from pipeline.shallow import Features, Pair, ShallowClip, denoiser
from pipeline.split import SplitEngine
from pipeline.walking import More, base_plan, guarded

Tick = Callable[[], None]
Cut = tuple[WindowRule | Carry, Sequence[np.ndarray]]


@dataclass(frozen=True)
class Piece:
    """A stretch of a clip that was sampled at once: its walk, and its pixels, decoded when asked for."""

    walk: Walk
    pixels: Iterator[np.ndarray]


class Predictor:
    """What the denoiser predicts for all latent frames: each window is evaluated, then they are blended.

    sources: as the window rule has them. cuts: for each step of the grid the rule by which it is cut, and the
    windows' places. tick is called after every evaluated window.
    """

    def __init__(
        self,
        generator: Generator,
        engine: Engine | Pair,
        constants: Constants,
        sources: np.ndarray,
        cuts: Sequence[Cut],
        tick: Tick = lambda: None,
    ) -> None:
        self.frames = len(sources)
        self._generator, self._cuts, self._tick = generator, cuts, tick
        self._sources = sources
        if isinstance(engine, SplitEngine):
            self._evaluate = engine.clip(constants, sources)
        elif isinstance(engine, Pair):
            self._evaluate = ShallowClip(generator, engine, constants, sources)
        else:
            self._evaluate = Clip(generator, engine, constants, sources)

    @classmethod
    def of_clip(
        cls,
        generator: Generator,
        engine: Engine | Pair,
        constants: Constants,
        frames: int,
        tick: Tick = lambda: None,
        plan: StepPlan | None = None,
    ) -> Predictor:
        """For a whole clip whose windows are blended, and overlap as the plan says."""
        own, plan = generator.windows, plan or base_plan(generator)
        plan.check_steps(generator.grid.steps)
        rules = [plan.windows(step, own) for step in range(generator.grid.steps)]
        cuts = [(rule, rule.places(frames)) for rule in rules]
        return cls(generator, engine, constants, own.sources(frames), cuts, tick)

    def __call__(self, latents: np.ndarray, step: int, action: str) -> tuple[np.ndarray, ...]:
        """The conditional prediction, and at F and H the unconditional one too; none at S.

        At guidance 1 the unconditional branch cancels and is not evaluated. EngineError: H, and there is no
        engine for it.
        """
        generator = self._generator
        both = action in "FH" and generator.guidance != 1.0
        branches = () if action == "S" else (True, False) if both else (True,)
        windows, places = self._cuts[step]
        blends = [Blend(windows, latents, generator.frame_axis) for _ in branches]
        parts = [(place, branch) for place in places for branch in branches]
        predictions = self._answers(latents, step, parts, action)
        for place in places if branches else ():
            for blend in blends:
                blend.add(place, next(predictions))
            self._tick()
        return tuple(blend.result() for blend in blends)

    def count(self, plan: StepPlan, steps: int | None = None) -> int:
        """How many windows that plan has evaluated, in its first steps or in all."""
        return sum(len(self._cuts[step][1]) for step in plan.evaluated if steps is None or step < steps)

    @property
    def features(self) -> Features:
        """What its last full step has kept for shallow ones; what is set takes its place."""
        return self._evaluate.features

    @features.setter
    def features(self, features: Features) -> None:
        self._evaluate.features = features

    def _answers(
        self, latents: np.ndarray, step: int, parts: Sequence[Part], action: str
    ) -> Iterator[np.ndarray]:
        if isinstance(self._evaluate, ShallowClip):
            return self._evaluate(latents, step, parts, action)
        if action == "H":
            raise EngineError(
                f"step {step}: the action H runs on engines of {FULL} and {SHALLOW}, in one process; "
                "here is one of denoise"
            )
        return self._evaluate(latents, step, parts)

    @property
    def guidance(self) -> float | np.ndarray:
        """The generator's guidance, or where it changes over a clip that of each latent frame."""
        generator = self._generator
        if not isinstance(generator.guidance, tuple):
            return generator.guidance
        own = np.linspace(*generator.guidance, self._sources.max() + 1, dtype=np.float32)
        shape = [1] * 5
        shape[generator.frame_axis] = -1
        return own[self._sources].reshape(shape)


def sample(
    generator: Generator,
    engine: Engine | Pair,
    constants: Constants,
    frames: int,
    seed: int,
    plan: StepPlan | None = None,
    tick: Tick = lambda: None,
    more: More = lambda count: None,
) -> Walk:
    """A walk whose latents are the clean ones of a clip of `frames` frames, windows blended.

    At each step both branches are predicted, or what the plan says, and guided; then the step is taken. tick
    is called after every evaluated window, more with how many there are beyond the plan's where its guard
    fires. StepPlanError: the plan is for another grid.
    """

    def predictor(plan: StepPlan) -> Predictor:
        return Predictor.of_clip(generator, engine, constants, frames, tick, plan)

    noise = generator.noise(len(generator.windows.sources(frames)), seed)
    walk = guarded(generator, predictor, constants, noise, plan or base_plan(generator), more)
    walk.latents = own_latents(generator, walk.latents, frames)
    return walk


def pieces(
    generator: Generator,
    engines: Engines,
    constants: Constants,
    frames: int,
    seed: int,
    plan: StepPlan | None = None,
    tick: Tick = lambda: None,
    more: More = lambda count: None,
) -> Iterator[Piece]:
    """A clip of `frames` frames, by the generator's window rule: one piece, or a piece for each window.

    A piece's pixels must have been taken before the next piece is asked for. tick, more: see sample().
    """
    if isinstance(generator.windows, Carry):
        yield from _carried(generator, engines, constants, frames, seed, plan, tick, more)
    else:
        walk = sample(generator, denoiser(engines, plan), constants, frames, seed, plan, tick, more)
        yield Piece(walk, first_frames(generator.decode(engines, walk.latents), frames))


def _carried(
    generator: Generator,
    engines: Engines,
    constants: Constants,
    frames: int,
    seed: int,
    plan: StepPlan | None,
    tick: Tick,
    more: More,
) -> Iterator[Piece]:
    windows, axis = generator.windows, generator.frame_axis
    count, every = windows.count(frames), np.arange(windows.length)
    noise, tail = generator.noise(windows.length * count, seed), Tail(windows.keep)
    cuts = [(windows, [every])] * generator.grid.steps
    for number in range(count):
        seen = generator.carry(engines, constants, number, tail.pixels if number else None)
        predict = Predictor(generator, denoiser(engines, plan), seen, every, cuts, tick)
        own = cut(noise.ndim, axis, number * windows.length, windows.length)
        begun = seen, noise[own], plan or base_plan(generator)
        walk = guarded(generator, lambda plan: predict, *begun, more)  # noqa: B023
        known = windows.keep if number else 0  # frames that the window before has shown
        begin = number * (windows.frames - windows.keep) + known
        pixels = without_first(tail.watching(generator.decode(engines, walk.latents)), known)
        yield Piece(walk, first_frames(pixels, frames - begin))


class Tail:
    """The last frames of what passes by."""

    def __init__(self, length: int) -> None:
        self._length, self.pixels = length, None

    def watching(self, chunks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """The chunks; pixels are the last frames of those that were taken."""
        self.pixels = None
        for chunk in chunks:
            seen = chunk if self.pixels is None else np.concatenate([self.pixels, chunk])
            self.pixels = seen[-self._length :]
            yield chunk


def generate(
    generator: Generator,
    engines: Engines,
    skeletons: np.ndarray,
    image: np.ndarray,
    seed: int,
    plan: StepPlan | None = None,
) -> np.ndarray:
    """Frames (F, H, W, 3) uint8 of a clip that is held in memory.

    skeletons (F, H, W, 3) and image (H, W, 3) are at the generator's size already.
    """
    chunks = np.split(skeletons, range(generator.chunk, len(skeletons), generator.chunk))
    constants = generator.condition(engines, chunks, image[None])
    made = pieces(generator, engines, constants, len(skeletons), seed, plan)
    return np.concatenate([chunk for piece in made for chunk in piece.pixels])


def evaluations(generator: Generator, frames: int, plan: StepPlan | None = None) -> int:
    """How many windows are evaluated for a clip: the ticks of sample(), unless a guard asks for more."""
    plan = plan or base_plan(generator)
    return sum(plan.windows(step, generator.windows).count(frames) for step in plan.evaluated)


def own_latents(generator: Generator, latents: np.ndarray, frames: int) -> np.ndarray:
    """Those of the clip itself, without what was sampled to fill windows."""
    own = generator.windows.latent_frames(frames)
    return latents[cut(latents.ndim, generator.frame_axis, 0, own)]


def first_frames(chunks: Iterable[np.ndarray], frames: int) -> Iterator[np.ndarray]:
    """Chunks up to that many frames: the last group of a clip's latents may stand for more than it has."""
    for chunk in chunks:
        yield chunk[:frames]
        frames -= len(chunk)
        if frames <= 0:
            return
