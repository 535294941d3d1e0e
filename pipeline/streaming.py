"""Sample a clip piece by piece, with the frames of a run at once: the first come before the last are read."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import numpy as np

from engines.device_arrays import place_of
from pipeline.base_windows import reach_of, watch_of
from pipeline.frame_buffer import Conditions, FrameBuffer, noise_of
from pipeline.guard_watch import GuardWatch
from pipeline.piecewise_clip import Pieces, PiecewiseClip
from pipeline.sampler import Sampler, evaluations
from pipeline.step_plan import StepPlan, base_plan
from pipeline.window_denoiser import conditions_needed


class StreamedClip:
    """A clip that is sampled piece by piece: `latents` gives its clean latents in order, as early as it can.

    They are those of Sampler.sample, bit for bit. sampler: gives generator, engines, plan and what is called.
    conditions: pieces of them, see Streaming.condition_pieces; they are asked for as windows need them. Where
    all windows share a frame, the first latents come when all are there; likewise for plans with H, whose
    features would be kept for all windows.

    taken, unlike: as in SamplerState; complete with the last latents, after which nobody need ask again.
    """

    def __init__(
        self, sampler: Sampler, conditions: Iterator[dict[str, np.ndarray]], frames: int, seed: int
    ) -> None:
        generator = sampler.generator
        plan, rule = sampler.plan or base_plan(generator), generator.windows
        self.taken, self._state = plan.actions, None
        self._sampler, self._plan, self._frames, self._seed = sampler, plan, frames, seed
        self._own, self._seen = rule.latent_frames(frames), rule.condition_indices(frames)
        watch = watch_of(generator, plan, frames)
        self._is_at_once = plan.deep_cache or bool(watch and watch.clip.tied)
        self._watch = None if self._is_at_once else watch  # Sampler.sample has one of its own
        came = self._watch.constants if self._watch else lambda constants: None
        place = place_of(sampler.engines)
        count = conditions_needed(rule, frames)
        self._conditions = Conditions(generator, conditions, count, came, place)
        self._done = 0

    @cached_property
    def _noise(self) -> FrameBuffer:
        generator, place = self._sampler.generator, place_of(self._sampler.engines)
        return noise_of(generator, len(self._seen), self._seed, place)

    @cached_property
    def _reach(self) -> np.ndarray:
        return reach_of(self._sampler.generator, self._frames)

    def latents(self) -> Iterator[np.ndarray]:
        """Give the clip's clean latents, piece by piece. FloatingPointError: numbers are not finite."""
        watch = self._watch
        if self._is_at_once:
            self._state = self._sampler.sample(self._conditions.whole(), self._frames, self._seed)
            self.taken = self._state.taken
            yield self._state.latents
        elif not watch:
            yield from self._given(Pieces(self._clip(self._plan)), self._own, self._own)
        else:
            yield from self._by_parts(Pieces(self._clip(self._plan)), watch)
            if watch.whole:
                yield from self._by_base_plan()

    @property
    def unlike(self) -> str | None:
        """Why the guard had the base model's plan run, and where."""
        if self._state:
            return self._state.unlike
        return self._watch.described() if self._watch else None

    def _by_parts(self, pieces: Pieces, watch: GuardWatch) -> Iterator[np.ndarray]:
        """Give the latents by plan and base plan; none where all of the clip is left to the base plan."""
        made = self._sampler.base_parts(self._conditions, self._frames, self._noise)
        for part in watch.parts(lambda frame: pieces.reach(frame, lambda: watch.whole)):
            if watch.whole:
                return
            needed = int(self._reach[self._reach[:, 1] >= part.begin, 0].min())
            if part.unlike:
                latents = made(part)
                pieces.drop(part.end)
                self._forget(needed)
                yield latents
            else:
                yield from self._given(pieces, part.end, needed)

    def _given(self, pieces: Pieces, end: int, needed: int) -> Iterator[np.ndarray]:
        """Give the latents up to a frame as they come; forget what is before the frames that are needed."""
        while pieces.begin < end:
            latents = pieces.take(end)
            self._forget(min(pieces.end, needed))
            yield latents

    def _forget(self, before: int) -> None:
        """Drop noise before a frame, and conditions that only windows before it see."""
        rule = self._sampler.generator.windows
        self._noise.forget(before)
        # A window may see conditions of frames that are not its own: those whose place they take.
        seen = before - rule.length
        if hasattr(rule, "seen"):
            seen = self._reach[self._reach[:, 1] >= before, 2].min(initial=self._reach[-1, 2])
        self._conditions.forget(int(seen))

    def _by_base_plan(self) -> Iterator[np.ndarray]:
        """Give all latents by the base model's plan, from the noise."""
        generator, base = self._sampler.generator, base_plan(self._sampler.generator)
        planned, all_steps = (evaluations(generator, self._frames, plan) for plan in (self._plan, base))
        self._sampler.more(all_steps - (planned - self._done))
        self.taken = base.actions
        yield from self._given(Pieces(self._clip(base)), self._own, self._own)

    def _clip(self, plan: StepPlan) -> PiecewiseClip:
        opened = self._sampler.window_denoiser(self._conditions, self._seen)
        watch, given = self._watch if plan is self._plan else None, (self._frames, self._noise)
        return PiecewiseClip(self._sampler.generator, opened, plan, *given, watch, self._tick)

    def _tick(self) -> None:
        self._done += 1
        self._sampler.tick()
