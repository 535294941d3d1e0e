"""MimicMotion as a generator: its components, its sampling rules and the arrays between them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engines.errors import EngineError
from engines.spec import Cadence, ComponentSpec, DimRange, Engine, TensorSpec
from generators.adapters import Lora, take_on
from generators.contract import FULL, SHALLOW, Constants, Engines
from generators.mimicmotion.files import Folder
from generators.mimicmotion.preprocess import cover, fill_up, halved_levels
from generators.noise import CudaNormal, torch_normal
from generators.samplers import KarrasEuler
from generators.settings import FILE
from generators.windows import ReferenceWindows

if TYPE_CHECKING:
    import torch

CHANNELS, VAE_STRIDE_HW, MULTIPLE = 4, 8, 64
CODE = (
    "unet.py", "layers.py", "vae.py", "pose_net.py", "image_embedding.py",
    "../unet/parts.py", "../clip/vision.py",
)  # fmt: skip


class MimicMotion:
    """A video diffusion U-Net driven by skeletons, frame 0 of its latents being the reference picture.

    What is the same for all steps is computed once a request: pose features of each frame, what attention to
    the picture gives, projected times. The reference's own skeleton, which upstream draws, is no input here:
    frame 0 has the clip's first. Pictures of any size are filled up to multiples of 64, and cut in the end.
    folder: see generators.mimicmotion.files. loras: what is merged into its U-Net.
    """

    name = "mimicmotion"
    frame_axis = 1
    per_frame = frozenset({"pose"})
    resident = True
    chunked = frozenset({"condition"})  # the decoder sees along time: pixels hang on how many frames it has

    def __init__(self, folder: Path, loras: Sequence[Lora] = ()) -> None:
        self._folder, self._loras = Folder(folder), loras
        settings, here = self._folder.settings, Path(__file__).parent
        self.settings_files = self._folder.settings_files
        self.fingerprint_files = (*self._folder.files, *(here / name for name in CODE))
        self.scheduler = KarrasEuler(settings.steps, half=settings.half)
        first, last = settings.first_guidance, settings.last_guidance
        self.guidance = first if first == last else (first, last)
        self.windows = ReferenceWindows(settings.tile, settings.overlap, settings.even_windows)
        self.size, self.chunk = (settings.width, settings.height), settings.chunk
        self._padded = tuple(-(-side // MULTIPLE) * MULTIPLE for side in self.size)
        self.components = {spec.name: spec for spec in self._specs()}
        # What vivace.toml decides beside shapes, which manifests have too: fps and motion_bucket.
        rest = [path for path in self.fingerprint_files if path.name != FILE]
        self.component_files = {name: rest for name in self.components if name != "embed"}
        take_on(self, loras, {*self.components} - {"encode", "pose", "decode"})

    def _specs(self) -> Iterator[ComponentSpec]:
        folder, settings = self._folder, self._folder.settings
        width, height = self._padded
        h, w = height // VAE_STRIDE_HW, width // VAE_STRIDE_HW
        window, rows = ("b", "f", CHANNELS, h, w), TensorSpec("rows", ("s", folder.embedded))
        chunk = {"n": DimRange(1, self.chunk, self.chunk)}
        picture = TensorSpec("pixels", (1, height, width, 3), "uint8")
        pixels, latents = TensorSpec("pixels", ("n", height, width, 3), "uint8"), (CHANNELS, h, w)
        image_context = TensorSpec("image_context", (2, folder.image_context))
        yield ComponentSpec("encode", Cadence.REQUEST, (picture,), (TensorSpec("latents", (1, *latents)),))
        yield ComponentSpec("image_embed", Cadence.REQUEST, (picture,), (image_context,))
        features = TensorSpec("features", ("n", folder.channels, h, w))
        yield ComponentSpec("pose", Cadence.CHUNK, (pixels,), (features,), chunk)
        steps = {"s": DimRange(1, settings.steps, settings.steps)}
        yield ComponentSpec("embed", Cadence.REQUEST, (TensorSpec("time", ("s",)),), (rows,), steps)
        seen = (
            TensorSpec("latents", window),
            TensorSpec("image", (1, *latents)),
            TensorSpec("pose", (1, "f", folder.channels, h, w)),
            TensorSpec("conditional", ("b",)),
            TensorSpec("embedding", ("b", folder.embedded)),
            TensorSpec("image_context", ("b", folder.image_context)),
        )
        ranges = {"b": DimRange(1, 1, 2), "f": DimRange(2, settings.tile, settings.tile)}
        v, features = TensorSpec("v", window), TensorSpec("features", ("b", "f", folder.channels, h, w))
        yield ComponentSpec("denoise", Cadence.STEP, seen, (v,), ranges)
        if settings.shallow:
            yield ComponentSpec(FULL, Cadence.STEP, seen, (v, features), ranges)
            yield ComponentSpec(SHALLOW, Cadence.STEP, (*seen, features), (v,), ranges)
        sizes = TensorSpec("sizes", ("n",))
        yield ComponentSpec(
            "decode", Cadence.CHUNK, (TensorSpec("latents", ("n", *latents)),), (pixels, sizes), chunk
        )

    def build(self, component: str) -> torch.nn.Module:
        """Build the component with the folder's weights."""
        from generators.mimicmotion.load import build_component

        return build_component(component, self._folder, *self._padded, self._loras)

    def fit(self, pixels: np.ndarray) -> np.ndarray:
        """Scale pictures to cover the output's size, and cut around the centre, as upstream does."""
        return cover(pixels, *self.size)

    def output_fps(self, fps: Fraction) -> Fraction:
        """Leave frames out as upstream does if asked to: every one of `stride`, of more at 48 frames/s."""
        stride = self._folder.settings.stride
        return fps / (stride * max(1, int(fps / 24))) if stride else fps

    def condition(
        self, engines: Engines, chunks: Iterable[np.ndarray], image: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Give image (1, 4, h, w), image_context (2, M), embedding (steps, N), pose (1, 1 + F, C, h, w)."""
        image = halved_levels(self.scheduler.half)[fill_up(image, *self._padded, "edge")]
        pose = [engines["pose"](pixels=self._skeletons(chunk))["features"] for chunk in chunks]
        return {
            "image": engines["encode"](pixels=image)["latents"],
            "image_context": engines["image_embed"](pixels=image)["image_context"],
            "embedding": engines["embed"](time=self.scheduler.times[:-1])["rows"],
            "pose": np.concatenate([pose[0][:1], *pose])[None],
        }

    def noise(self, frames: int, seed: int) -> np.ndarray:
        """Draw (1, F, 4, h, w) as upstream draws it for one window, repeated with that period.

        The numbers before it are those that upstream adds to the picture with strength 0.
        """
        width, height = self._padded
        picture = (1, 3, height, width)
        shape = (1, self.windows.length, CHANNELS, height // VAE_STRIDE_HW, width // VAE_STRIDE_HW)
        if self._folder.settings.gpu:
            draw = CudaNormal(seed, self._folder.settings.gpu)
            draw(picture)
            period = draw(shape)
        else:
            period = torch_normal(shape, seed, skip=int(np.prod(picture)))
        return self.scheduler.begin(period[:, np.arange(frames) % self.windows.length])

    def denoise(
        self, engine: Engine, latents: np.ndarray, step: int, constants: Constants, conditional: bool
    ) -> np.ndarray:
        """Predict v of one window; the unconditional branch sees neither picture nor pose."""
        return engine(**self._seen(latents, step, constants, conditional))["v"]

    def denoise_full(
        self, engine: Engine, latents: np.ndarray, step: int, constants: Constants, conditional: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """Predict v of one window, and give the features that denoise_shallow takes at later steps."""
        made = engine(**self._seen(latents, step, constants, conditional))
        return made["v"], made["features"]

    def denoise_shallow(
        self,
        engine: Engine,
        latents: np.ndarray,
        step: int,
        constants: Constants,
        conditional: bool,
        features: np.ndarray,
    ) -> np.ndarray:
        """Predict v of one window by the features of an earlier step."""
        return engine(**self._seen(latents, step, constants, conditional), features=features)["v"]

    def _seen(
        self, latents: np.ndarray, step: int, constants: Constants, conditional: bool
    ) -> dict[str, np.ndarray]:
        row = slice(int(conditional), int(conditional) + 1)
        return {
            "latents": self.scheduler.scaled(latents, step),
            "image": constants["image"],
            "pose": constants["pose"],
            "conditional": np.array([conditional], np.float32),
            "embedding": constants["embedding"][step : step + 1],
            "image_context": constants["image_context"][row],
        }

    def decode(self, engines: Engines, latents: np.ndarray) -> Iterator[np.ndarray]:
        """Decode to pixels (n, H, W, 3) uint8; the reference frame at the start is left out.

        EngineError: a number overflowed on the way.
        """
        width, height = self.size
        chunk = self._folder.settings.chunk  # self.chunk may be less for want of memory
        for start in range(0, latents.shape[1], chunk):
            made = engines["decode"](latents=latents[0, start : start + chunk])
            if not np.isfinite(made["sizes"]).all():
                last = start + len(made["sizes"]) - 1
                raise EngineError(
                    f"decode: frames {start} to {last} are not finite, a number has left its precision's "
                    "range; run with --precision ...,decode=fp32"
                )
            shown = made["pixels"][0 if start else 1 :, :height, :width]
            if len(shown):
                yield shown

    def _skeletons(self, chunk: np.ndarray) -> np.ndarray:
        chunk = chunk[..., ::-1] if self._folder.settings.swap_red_blue else chunk
        return fill_up(chunk, *self._padded, "constant")
