"""Evaluate parts of one clip where the plan has the action H: features of the last full step are kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from engines.spec import Engine
from generators.contract import FULL, SHALLOW, Constants, Engines, OffersShallow
from optimize.step_plan import StepPlan
from pipeline.evaluate import Clip, Part

Features = Mapping[tuple[bytes, bool], np.ndarray]  # by a window's places and the branch


@dataclass(frozen=True)
class Pair:
    """The engines that take the place of the denoiser's where a plan has the action H."""

    full: Engine
    shallow: Engine


def denoiser(engines: Engines, plan: StepPlan | None) -> Engine | Pair:
    """The engine of `denoise`, or those that a plan with the action H runs on instead."""
    return Pair(engines[FULL], engines[SHALLOW]) if plan and plan.shallow else engines["denoise"]


class ShallowClip(Clip):
    """What a pair of engines answers for parts of a clip. features: of its full steps alone."""

    def __init__(
        self, generator: OffersShallow, pair: Pair, constants: Constants, sources: np.ndarray
    ) -> None:
        super().__init__(generator, pair.full, constants, sources)
        self._shallow = pair.shallow
        self.features: Features = {}

    def __call__(
        self, latents: np.ndarray, step: int, parts: Sequence[Part], action: str = "F"
    ) -> Iterator[np.ndarray]:
        """The prediction for each part, in order; at H by what the last F kept of that window and branch."""
        generator = self._generator
        for place, conditional in parts:
            given = latents.take(place, generator.frame_axis), step, self._seen(place), conditional
            whose = place.tobytes(), conditional
            if action == "H":
                yield generator.denoise_shallow(self._shallow, *given, self.features[whose])
                continue
            prediction, features = generator.denoise_full(self._engine, *given)
            if action == "F":
                self.features = {**self.features, whose: features}
            yield prediction
