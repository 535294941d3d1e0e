"""Denoisers in small whose base runs are known: two channels that bend with time, and mixtures of points."""

from functools import cache

import numpy as np

from generators.diffusion_grids import DdimScheduler, DpmSolverMultistep
from generators.samplers import FlowMatchEuler, KarrasEuler, UniPcMultistep
from pipeline.sampler import denoise_loop
from pipeline.step_plan import StepPlan

GUIDANCE = 1.5
GRID = FlowMatchEuler(8, 3.0)
SHAPE = (1, 2, 50, 2, 2)


class Clip:
    """Two channels of 2x2 latents whose flow bends with time, and with what the clip is of."""

    scheduler, guidance = GRID, GUIDANCE

    def __init__(self, seed, frames=50):
        rng = np.random.default_rng(seed)
        self.noise, self.clean = rng.standard_normal((2, 1, 2, frames, 2, 2)).astype(np.float32)
        self.asked, self._base = [], None

    @property
    def denoise(self):
        return self

    def __call__(self, latents, step, action):
        return () if action == "S" else self.predict(latents, step, action)

    def predict(self, latents, step, action):
        self.asked.append((step, action))
        t = float(self.scheduler.times[step])
        conditional = np.tanh(latents - self.clean) * (1 + t) + (0 if t else latents * 0 + 2)
        return (conditional, conditional - 0.3 * np.cos(3 * t) - 0.1 * latents)[:2 if action == "F" else 1]

    def run(self, plan):
        return denoise_loop(self, self.scheduler, self.noise, plan)

    def base(self, step):
        if self._base is None:
            plan = StepPlan("F" * self.scheduler.steps)
            self._base = [self.noise, *(state.latents for state in self.run(plan))]
        return self._base[step]

    def end(self, plan):
        """The plan's result."""
        *_, state = self.run(plan)
        return state.latents

    def distance(self, plan):
        """Of the plan's result from the base run's."""
        return float(np.abs(self.end(plan) - self.base(self.scheduler.steps)).mean())

    def decibels(self, end):
        """Of a result, relative to the base run's."""
        wanted = self.base(self.scheduler.steps)
        return -10 * np.log10(np.mean((end - wanted) ** 2) / np.mean(wanted**2))


NOISING = {"betas": "linear", "zero_snr": True}
KINDS = {"flow": FlowMatchEuler(20, 3.0), "ddim": DdimScheduler(20, "v", "trailing", **NOISING),
         "dpm": DpmSolverMultistep(20, "v", "trailing", **NOISING), "unipc": UniPcMultistep(20, 5.0),
         "karras": KarrasEuler(20, half=False)}


class Mixture(Clip):
    """A trained model of a kind in small: the exact denoiser of a mixture of points in eight channels.

    Which of four points a place is near to depends on the places beside it; conditions say where they lie.
    """

    guidance = 2.0

    def __init__(self, kind, seed):
        rng = np.random.default_rng(seed)
        super().__init__(seed)
        self.kind, self.scheduler = kind, KINDS[kind]
        points = np.random.default_rng(99).standard_normal((4, 8)).astype(np.float32).T * 0.6
        self.points = points.reshape(1, 8, 1, 1, 1, 4)
        self.moved = self.smooth(rng.standard_normal((1, 8, 3, 8, 6)).astype(np.float32))
        self.likely = self.smooth(rng.standard_normal((4, 3, 8, 6)).astype(np.float32)) * 8
        self.noise = rng.standard_normal((1, 8, 3, 8, 6)).astype(np.float32)
        if kind == "karras":
            self.noise = self.scheduler.begin(self.noise)

    @staticmethod
    def smooth(array):
        return sum(np.roll(array, by, axis) for axis in (-1, -2) for by in (-1, 0, 1)) / 6

    def shares(self, step):
        """Of signal and noise, and the size of latents that these make up."""
        if self.kind == "karras":
            return 1.0, float(self.scheduler.sigmas[step])
        if hasattr(self.scheduler, "kept"):
            kept = float(self.scheduler.kept[step])
            return kept**0.5, (1 - kept) ** 0.5
        noise = float(self.scheduler.times[step] if self.kind == "flow" else self.scheduler.sigmas[step])
        return 1 - noise, noise

    def clean_of(self, latents, step, conditional):
        a, s = self.shares(step)
        width = 0.35 if conditional else 0.6
        spread = (a * width) ** 2 + s**2
        points = self.points + (self.moved[..., None] if conditional else 0)
        away = latents[..., None] - np.float32(a) * points
        logs = -0.5 * self.smooth(np.moveaxis((away**2).sum(1), -1, 1)) / (spread + 0.02)
        logs = logs + (self.likely if conditional else 0)
        weights = np.exp(logs - logs.max(1, keepdims=True))
        weights = np.moveaxis(weights / weights.sum(1, keepdims=True), 1, -1)[:, None]
        return (weights * (points + np.float32(a * width**2 / spread) * away)).sum(-1).astype(np.float32)

    def predict(self, latents, step, action):
        a, s = self.shares(step)
        found = []
        for conditional in (True, False)[:2 if action == "F" else 1]:
            clean = self.clean_of(latents, step, conditional)
            noise = (latents - np.float32(a) * clean) / np.float32(s)
            if self.kind in ("flow", "unipc"):
                found.append(noise - clean)
            else:
                size = np.float32((a**2 + s**2) ** 0.5)
                found.append((np.float32(a) * noise - np.float32(s) * clean) / size)
        return tuple(found)


@cache
def mixtures(kind, count=5):
    return [Mixture(kind, seed) for seed in range(count)]
