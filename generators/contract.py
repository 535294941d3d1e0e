"""The contract of every generator, and finding one by `NAME`, `NAME=FOLDER` or `path/to/file.py:Class`."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from engines.errors import BROKEN, VivaceError, describe_error
from engines.spec import ComponentSpec, Engine
from generators.adapters import split_name, taken
from generators.generator_error import GeneratorError
from generators.samplers import Scheduler
from generators.windows import ContinuationWindows, WindowRule
from generators.wrapper_file import load_file, plain

if TYPE_CHECKING:
    import torch

BUNDLED = {"presenter": "generators.presenter.generator:Presenter"}
# Made from a folder of weights that is yours; its own documentation says what lies there.
FROM_FOLDER = {
    "mimicmotion": "generators.mimicmotion.generator:MimicMotion",
    "refnet": "generators.refnet.generator:RefNet",
    "wan-animate": "generators.wan.animate:Animate",
    "wan-fun-control": "generators.wan.fun_control:FunControl",
    "wan-unianimate": "generators.wan.unianimate:UniAnimate",
}
# Components of a generator that offers the action H of step plans: `denoise` that gives features of the
# window beside its prediction, and a small one that makes a prediction of such features of an earlier step.
FULL, SHALLOW = "denoise_full", "denoise_shallow"
Engines = Mapping[str, Engine]
Constants = Mapping[str, np.ndarray]
Branch = bool | str  # of guidance: whether it is the conditional one, or a name where guidance has names
Guidance = float | Sequence[float] | Mapping[str, float]


class Generator(Protocol):
    """A pose-driven video generator: its components, and the rules that make its sampling what it is.

    Pixels are (F, H, W, 3) uint8 RGB. Latents are (1, C, F, H, W), or (1, F, C, H, W): the frames lie along
    `frame_axis`. Everything here but `build` works on NumPy arrays and must not import torch.
    """

    name: str
    components: Mapping[str, ComponentSpec]
    fingerprint_files: Sequence[Path]  # files that decide what build gives: weights and the networks' code
    # May be left out: files with settings that the class reads when it is made, such as its steps; they are
    # part of what a video is made from, and of a submission, which has no weights where engines need none.
    # settings_files: Sequence[Path]
    # May be left out: by component, those of its network alone, so that no other is built anew when one
    # changes; functions or classes too, for the code of their file that they reach.
    # component_files: Mapping[str, Sequence[Path | Callable]]
    # May be left out: by component, the adapters merged into its weights, as in "style.safetensors:0.8";
    # with them all their files, in that order. Both are set by generators.adapters.take_on.
    # loras: Mapping[str, Sequence[str]]
    # lora_files: Sequence[Path]
    scheduler: Scheduler
    # One number; or a pair, for the first and the last frame, evenly between; or the weight of each branch by
    # name, the full condition's first, together 1: as many branches as there are names.
    guidance: Guidance
    windows: WindowRule | ContinuationWindows
    frame_axis: int
    # May be left out, then False: whether all here but `noise` takes a device's arrays for NumPy's, and makes
    # new ones by functions of those given (np.zeros_like), so that nothing passes through the host.
    # resident: bool
    size: tuple[int, int]  # width, height of the output, if output_size does not say another
    chunk: int  # frames encoded or decoded at a time; less after memory ran out, with the same result
    # May be left out, then both: which of "condition" and "decode" take less memory with a smaller chunk.
    # chunked: frozenset[str]

    def build(self, component: str) -> torch.nn.Module:
        """Build the component as a torch module with weights; only export and the torch engine call this."""
        ...

    def fit(self, pixels: np.ndarray) -> np.ndarray:
        """Bring pictures (F, any, any, 3) to this generator's size (F, H, W, 3), by its own rule.

        A thread calls it for the next request, and output_size and output_fps, while a video is made.
        """
        ...

    def condition(
        self, engines: Engines, chunks: Iterable[np.ndarray], image: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Compute the denoiser's other inputs from fitted skeletons and the fitted image (1, H, W, 3).

        Entries that change over time have their frames along `frame_axis`, and are named in `per_frame`.
        Keyword-only parameters, as in (..., image, *, prompt="", image2=None), are columns of pairs.csv:
        image2, image3 and so on are given as fitted pictures, others as text, or numbers if their default is
        one. Where a request has no such cell the default counts; without a default it is refused. `original`
        (default None) is no column but the picture as it was read, (1, any, any, 3).
        """
        ...

    per_frame: frozenset[str]

    def noise(self, frames: int, seed: int) -> np.ndarray:
        """Draw initial latents for that many latent frames, float32, as the base model draws them."""
        ...

    # May be left out: width and height of a video, by those of its skeleton video and its picture; and its
    # frames per second, by the skeleton video's. Keyword-only parameters are columns, as condition's are. A
    # request's generator is a copy with that size, so that fit, noise and the like go by self.size.
    # def output_size(self, video: tuple[int, int], picture: tuple[int, int]) -> tuple[int, int]
    # def output_fps(self, fps: Fraction) -> Fraction | float

    # May be left out: the noise, like latents, that a stochastic scheduler adds after a step.
    # def step_noise(self, frames: int, seed: int, step: int) -> np.ndarray

    def denoise(
        self, engine: Engine, latents: np.ndarray, step: int, constants: Constants, conditional: Branch
    ) -> np.ndarray:
        """Predict one window and branch at a step; constants are already cut to the window.

        One that has denoise_branches, see Batching, needs no denoise.
        """
        ...

    def decode(self, engines: Engines, latents: np.ndarray) -> Iterator[np.ndarray]:
        """Decode latents to chunks of pixels; frames beyond the clip's end are cut off by the caller."""
        ...


class Batching(Generator, Protocol):
    """A generator that predicts the branches of a window in one call of its engine."""

    def denoise_branches(
        self,
        engine: Engine,
        latents: np.ndarray,
        step: int,
        constants: Constants,
        branches: Sequence[Branch],
    ) -> np.ndarray:
        """Predict as denoise does, all these branches one behind the other along axis 0."""
        ...


class OffersDeepCache(Generator, Protocol):
    """A generator with the components FULL and SHALLOW, for the action H of step plans."""

    def denoise_full(
        self, engine: Engine, latents: np.ndarray, step: int, constants: Constants, conditional: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """Predict as denoise does, by the engine of FULL, and give the window's features too."""
        ...

    def denoise_shallow(
        self,
        engine: Engine,
        latents: np.ndarray,
        step: int,
        constants: Constants,
        conditional: bool,
        features: np.ndarray,
    ) -> np.ndarray:
        """Approximate denoise by the engine of SHALLOW and features of an earlier step, same branch."""
        ...


class Streaming(Generator, Protocol):
    """A generator whose conditions and pixels can be made piece by piece: the same numbers as all at once.

    Where it draws its noise frame by frame, it may have `noise_pieces` too, with the arguments of `noise`.
    """

    def condition_pieces(
        self, engines: Engines, chunks: Iterable[np.ndarray], image: np.ndarray
    ) -> Iterator[dict[str, np.ndarray]]:
        """Give what `condition` computes, as far as the chunks go that were taken: for each some more frames.

        The first piece has all entries, later ones have those in per_frame, with the frames that follow.
        """
        ...

    def decode_pieces(self, engines: Engines, pieces: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Give the pixels that `decode` gives for the latents which these pieces are in a row."""
        ...


class Carrying(Generator, Protocol):
    """A generator with ContinuationWindows, each of which goes on from the one before; per_frame is empty."""

    def carry(
        self, engines: Engines, constants: Constants, window: int, tail: np.ndarray | None
    ) -> dict[str, np.ndarray]:
        """Make the constants of window number `window` from the request's and the end of the one before.

        tail: its last windows.keep frames, (keep, H, W, 3) uint8; None for the first window.
        """
        ...


def load_generator(name: str) -> Generator:
    """Load a bundled generator, one of a folder, or the class at `path/to/file.py:Class`; GeneratorError.

    Behind its name may stand adapters, see generators/adapters.py; a class of yours gets them as `loras`.
    """
    name, loras = split_name(name)
    if made := BUNDLED.get(name) and _class(BUNDLED[name]):
        return made(**taken(made, loras))
    kind, _, folder = name.partition("=")
    if folder and kind in FROM_FOLDER:
        made = _class(FROM_FOLDER[kind])
        return made(Path(folder), **taken(made, loras))
    path, _, attribute = name.rpartition(":")
    if not path.endswith(".py") or not attribute:
        known = ", ".join([*sorted(BUNDLED), *(f"{kind}=FOLDER" for kind in sorted(FROM_FOLDER))])
        raise GeneratorError(f"no generator {name!r}; use one of {known} or path/to/file.py:Class")
    try:
        made = _user_class(Path(path), attribute)
        generator = made(**taken(made, loras))
    except VivaceError:
        raise
    except BROKEN as error:
        raise GeneratorError(f"{attribute} in {path} cannot be made: {describe_error(error)}") from error
    spare = {"denoise"} if hasattr(generator, "denoise_branches") else ()
    missing = [member for member in REQUIRED if not hasattr(generator, member) and member not in spare]
    if missing:
        raise GeneratorError(
            f"{attribute} in {path} lacks {missing}; generators/contract.py says what each is for"
        )
    return generator


def branches_of(guidance: Guidance) -> tuple[Branch, ...]:
    """List the branches that guidance combines, the conditional one first; at 1 the other one cancels.

    GeneratorError: weights by name that do not add up to 1, or what is no number, pair or weights.
    """
    if not isinstance(guidance, Mapping):
        is_pair = isinstance(guidance, tuple | list) and len(guidance) == 2
        if not all(isinstance(each, Real) for each in (guidance if is_pair else [guidance])):
            raise GeneratorError(
                f"guidance: a number, a pair for first and last frame, or weights by name, not {guidance!r}"
            )
        return (True,) if guidance == 1.0 else (True, False)
    if len(guidance) < 2 or abs(sum(guidance.values()) - 1) > 1e-6:
        raise GeneratorError(
            f"guidance: weights of two or more branches that add up to 1 are needed, not {dict(guidance)}"
        )
    return tuple(guidance)


def offers_deep_cache(generator: Generator) -> bool:
    """Tell whether step plans of this generator may have the action H."""
    return {FULL, SHALLOW} <= set(generator.components)


def offers_streaming(generator: Generator) -> bool:
    """Tell whether the generator makes conditions and pixels piece by piece, see Streaming."""
    return hasattr(generator, "condition_pieces") and hasattr(generator, "decode_pieces")


def needed(components: Mapping[str, ComponentSpec], shallow: bool) -> dict[str, ComponentSpec]:
    """Select the components that a run needs. shallow: its plan has the action H, which has no `denoise`."""
    spare = {"denoise"} if shallow else {FULL, SHALLOW}
    return {name: spec for name, spec in components.items() if name not in spare}


def _class(place: str) -> type[Generator]:
    module, _, attribute = place.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _user_class(path: Path, attribute: str) -> type:
    if not path.is_file():
        raise GeneratorError(f"generator file {path} does not exist")
    try:
        module = load_file(path)
    except SyntaxError as error:
        where = f"{error.filename}, line {error.lineno}"
        raise GeneratorError(f"{where}: {error.msg}; Python cannot read this, correct it") from error
    except ModuleNotFoundError as error:
        raise GeneratorError(f"{path} needs what is not installed: {plain(error)}") from error
    except ImportError as error:
        raise GeneratorError(f"{path} cannot be loaded: {plain(error)}") from error
    if not isinstance(getattr(module, attribute, None), type):
        classes = sorted(
            n
            for n, value in vars(module).items()
            if isinstance(value, type) and value.__module__ == module.__name__
        )
        raise GeneratorError(f"{path} has no class {attribute!r}; it has {classes}")
    return getattr(module, attribute)


REQUIRED = sorted(
    {
        *Generator.__annotations__,
        *(n for n, v in vars(Generator).items() if callable(v) and not n.startswith("_")),
    }
)
