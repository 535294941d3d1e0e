"""Evaluate windows and branches of one clip: one after the other, or with features of an earlier step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple, Protocol

import numpy as np

from engines.device_arrays import contiguous, place_of, take_frames
from engines.errors import EngineError
from generators.contract import (
    FULL,
    SHALLOW,
    Branch,
    Constants,
    Engines,
    Generator,
    GeneratorError,
    OffersDeepCache,
)
from generators.windows import WindowRule
from pipeline.step_plan import Action, StepPlan

Key = tuple[int, Branch]  # a window's number, and whether the branch is the conditional one, or its name


class WindowBranch(NamedTuple):
    """What is asked of a denoiser at a step: one window in one branch of guidance.

    window: its number. indices: of its latent frames in the latents that are given. frames: their numbers in
    the clip, where the latents are those of a part of it.
    """

    window: int
    indices: np.ndarray
    conditional: Branch
    frames: np.ndarray | None = None

    @property
    def place(self) -> np.ndarray:
        """The numbers of its latent frames in the clip."""
        return self.indices if self.frames is None else self.frames

    @property
    def key(self) -> Key:
        """What is kept of it goes by this until a later step."""
        return self.window, self.conditional


class WindowDenoiser(Protocol):
    """What evaluates a clip's windows; made for one clip, and forgotten with it."""

    def __call__(
        self, latents: np.ndarray, step: int, action: str, wanted: Sequence[WindowBranch]
    ) -> Iterator[np.ndarray]:
        """Give the predictions that are wanted, in order; latents: those of the clip, or of a part of it that
        has these windows, before that step.
        """
        ...


# Of a clip's constants, and for each of its latent frames the index of the conditions it sees.
OpenDenoiser = Callable[[Generator, Engines, Constants, np.ndarray], WindowDenoiser]


class SerialDenoiser:
    """Evaluates one window and branch after the other, on one engine."""

    def __init__(
        self, generator: Generator, engines: Engines, constants: Constants, condition_indices: np.ndarray
    ) -> None:
        self._generator, self._engine = generator, engines["denoise"]
        # NumPy's take copies an array that is not contiguous as a whole, for every window.
        place = place_of(engines)
        put = place.asarray if place else contiguous
        self._constants = {
            name: put(array) if isinstance(array, np.ndarray) else array for name, array in constants.items()
        }
        self._condition_indices = condition_indices
        self._cut: tuple[bytes, dict[str, np.ndarray]] | None = None  # all branches see the same
        # One that evaluates each branch in its own way is asked for one at a time.
        self.batches = (
            hasattr(generator, "denoise_branches") and type(self).evaluate is SerialDenoiser.evaluate
        )

    def __call__(
        self, latents: np.ndarray, step: int, action: str, wanted: Sequence[WindowBranch]
    ) -> Iterator[np.ndarray]:
        """Give the predictions, as WindowDenoiser does. EngineError: H, which this cannot do."""
        if action == Action.DEEP_CACHE:
            raise EngineError(
                f"step {step}: the action H runs on engines of {FULL} and {SHALLOW}, in one process; "
                "here is one of denoise"
            )
        for _, branches in groupby(wanted, lambda branch: branch.window):
            first, *others = branches
            window = take_frames(latents, first.indices, self._generator.frame_axis)
            constants = self._window_constants(first.place)
            if self.batches:
                asked = [branch.conditional for branch in (first, *others)]
                yield from self.predict(window, step, constants, asked)
            else:
                for branch in (first, *others):
                    yield self.evaluate(branch, window, step, constants)

    def evaluate(
        self, branch: WindowBranch, window: np.ndarray, step: int, constants: Constants
    ) -> np.ndarray:
        """Predict one branch of a window, whose latents and constants are cut out already."""
        return self.predict(window, step, constants, [branch.conditional])[0]

    def predict(
        self, window: np.ndarray, step: int, constants: Constants, branches: Sequence[Branch]
    ) -> list[np.ndarray]:
        """Predict these branches of a window, in one call if the generator has that.

        GeneratorError: it gives something else.
        """
        generator, given = self._generator, (self._engine, window, step, constants)
        if not hasattr(generator, "denoise_branches"):
            return [generator.denoise(*given, branch) for branch in branches]
        made = generator.denoise_branches(*given, branches)
        wanted = (len(branches) * len(window), *window.shape[1:])
        if getattr(made, "shape", None) != wanted:
            found = getattr(made, "shape", type(made).__name__)
            raise GeneratorError(
                f"denoise_branches gives {found}, expected one array {wanted}: branches on axis 0"
            )
        return np.split(made, len(branches))

    def _window_constants(self, place: np.ndarray) -> dict[str, np.ndarray]:
        """The constants of one window."""
        generator, rule = self._generator, self._generator.windows
        seen = rule.seen(place) if hasattr(rule, "seen") else self._condition_indices[place]
        if self._cut is not None and self._cut[0] == place.tobytes():
            return self._cut[1]
        self._cut = None  # a window's constants may be large: one at a time
        axis = generator.frame_axis
        cut = {
            name: take_frames(array, seen, axis) if name in generator.per_frame else array
            for name, array in self._constants.items()
        }
        self._cut = place.tobytes(), cut
        return cut


def conditions_needed(rule: WindowRule, frames: int) -> int:
    """Count the conditions that the windows of a clip of so many frames see, in each of per_frame."""
    if hasattr(rule, "seen"):
        return rule.conditions(frames)
    return int(rule.condition_indices(frames).max()) + 1


def uncovered(generator: Generator, constants: Constants, frames: int) -> str | None:
    """Say which constant of per_frame has less than a clip of so many frames needs; None: none."""
    needed, axis = conditions_needed(generator.windows, frames), generator.frame_axis
    for name in sorted(generator.per_frame & constants.keys()):
        found = constants[name].shape
        if len(found) <= axis or found[axis] < needed:
            return f"{name} is {found} of a clip of {frames} frames, expected {needed} along axis {axis}"
    return None


Features = Mapping[Key, np.ndarray]


class DeepCacheDenoiser(SerialDenoiser):
    """Keeps deep features at full steps, and at H evaluates the shallow layers alone with them.

    features: of the last full step of each window and branch.
    """

    def __init__(
        self,
        generator: OffersDeepCache,
        engines: Engines,
        constants: Constants,
        condition_indices: np.ndarray,
    ) -> None:
        super().__init__(generator, {"denoise": engines[FULL]}, constants, condition_indices)
        self._shallow = engines[SHALLOW]
        self.features: Features = {}

    def __call__(
        self, latents: np.ndarray, step: int, action: str, wanted: Sequence[WindowBranch]
    ) -> Iterator[np.ndarray]:
        """Give the predictions; at H by what the last F kept of that window and branch."""
        generator = self._generator
        for branch in wanted:
            window = take_frames(latents, branch.indices, generator.frame_axis)
            given = window, step, self._window_constants(branch.place), branch.conditional
            if action == Action.DEEP_CACHE:
                yield generator.denoise_shallow(self._shallow, *given, self.features[branch.key])
                continue
            prediction, features = generator.denoise_full(self._engine, *given)
            if action == Action.FULL:
                self.features = {**self.features, branch.key: features}
            yield prediction


def denoiser_for(plan: StepPlan | None) -> OpenDenoiser:
    """The form of evaluation that a plan's actions need."""
    return DeepCacheDenoiser if plan and plan.deep_cache else SerialDenoiser
