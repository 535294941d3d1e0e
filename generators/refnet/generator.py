"""AnimateAnyone's kind as a generator: its components, its sampling rules and the arrays between them.

python infer.py --generator refnet=FOLDER       docs/refnet.md says what lies in FOLDER
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engines.errors import EngineError
from engines.spec import Cadence, ComponentSpec, DimRange, Engine, TensorSpec
from generators.adapters import Lora, take_on
from generators.contract import FULL, SHALLOW, Constants, Engines
from generators.diffusion_grids import DdimScheduler
from generators.noise import torch_normal
from generators.pieces import gathered, in_chunks
from generators.refnet.files import STRIDE, Folder
from generators.resize import stretch
from generators.settings import FILE
from generators.uniform_windows import HeldWindows, UniformWindows

if TYPE_CHECKING:
    import torch

CHANNELS = 4
CODE = ("unet.py", "layers.py", "pictures.py", "../unet/parts.py", "../clip/vision.py")


class RefNet:
    """Stable Diffusion 1.5 with motion modules, whose self-attention sees the tokens of a reference U-Net.

    What is the same for all steps is computed once a request: pose features of each frame, keys and values
    of the reference's tokens, what attention to CLIP's one token gives, projected times. folder: see
    generators.refnet.files. loras: what is merged into the denoising U-Net.
    """

    name = "refnet"
    frame_axis = 1
    per_frame = frozenset({"pose"})
    resident = True

    def __init__(self, folder: Path, loras: Sequence[Lora] = ()) -> None:
        self._folder, self._loras = Folder(folder), loras
        settings, here = self._folder.settings, Path(__file__).parent
        self.settings_files = self._folder.settings_files
        self.fingerprint_files = (*self._folder.files, *(here / name for name in CODE))
        self.scheduler = DdimScheduler(
            settings.steps, "v", "trailing", 1, "linear", zero_snr=True, half=settings.half
        )
        self.guidance, self.chunk = settings.guidance, settings.chunk
        kind = UniformWindows if settings.around else HeldWindows
        self.windows = kind(settings.window, settings.overlap, filled=False)
        self.size = settings.width, settings.height
        self.components = {spec.name: spec for spec in self._specs()}
        # What vivace.toml decides beside shapes, which manifests have too: half.
        rest = [path for path in self.fingerprint_files if path.name != FILE]
        self.component_files = {name: rest for name in self.components if name != "decode"}
        take_on(self, loras, {*self.components} - {"encode", "pose", "decode"})

    def _specs(self) -> Iterator[ComponentSpec]:
        folder, settings = self._folder, self._folder.settings
        width, height = self.size
        h, w = height // STRIDE, width // STRIDE
        window, rows = (1, "f", CHANNELS, h, w), TensorSpec("rows", ("s", folder.embedded))
        chunk = {"n": DimRange(1, self.chunk, self.chunk)}
        picture = TensorSpec("pixels", (1, height, width, 3), "uint8")
        pixels, latents = TensorSpec("pixels", ("n", height, width, 3), "uint8"), (CHANNELS, h, w)
        encoded = TensorSpec("latents", (1, *latents))
        yield ComponentSpec("encode", Cadence.REQUEST, (picture,), (encoded,))
        side = folder.clip.image_size
        square, embedding = (
            TensorSpec("pixels", (1, side, side, 3), "uint8"),
            TensorSpec("image_embedding", (1, folder.clip.projection_dim)),
        )
        image_context = TensorSpec("image_context", (2, folder.image_context))
        yield ComponentSpec("image_embed", Cadence.REQUEST, (square,), (embedding, image_context))
        bank = [
            TensorSpec(f"bank_{place}", (1, folder.tokens(layer.level), 2 * layer.channels))
            for place, layer in enumerate(folder.attentions)
        ]
        self._bank = tuple(tensor.name for tensor in bank)
        yield ComponentSpec("reference", Cadence.REQUEST, (encoded, embedding), tuple(bank))
        features = TensorSpec("features", ("n", folder.channels, h, w))
        yield ComponentSpec("pose", Cadence.CHUNK, (pixels,), (features,), chunk)
        steps = {"s": DimRange(1, settings.steps, settings.steps)}
        yield ComponentSpec("embed", Cadence.REQUEST, (TensorSpec("time", ("s",)),), (rows,), steps)
        seen = (
            TensorSpec("latents", window),
            TensorSpec("pose", (1, "f", folder.channels, h, w)),
            TensorSpec("embedding", (1, folder.embedded)),
            TensorSpec("image_context", (1, folder.image_context)),
            TensorSpec("keep", (1,)),
        )
        counts = {layer.level: folder.tokens(layer.level) for layer in folder.attentions}
        tokens = {f"t{level}": DimRange(1, count, count) for level, count in sorted(counts.items())}
        ranges = {"f": DimRange(1, settings.window, settings.window)}
        if settings.short_bank:
            ranges |= tokens
            bank = [
                TensorSpec(tensor.name, (1, f"t{layer.level}", tensor.dims[2]))
                for tensor, layer in zip(bank, folder.attentions, strict=True)
            ]
        v, features = TensorSpec("v", window), TensorSpec("features", (1, "f", folder.channels, h, w))
        yield ComponentSpec("denoise", Cadence.STEP, (*seen, *bank), (v,), ranges)
        if settings.shallow:
            yield ComponentSpec(FULL, Cadence.STEP, (*seen, *bank), (v, features), ranges)
            few = {name: ranges[name] for name in ("f", "t0") if name in ranges}
            yield ComponentSpec(SHALLOW, Cadence.STEP, (*seen, bank[-1], features), (v,), few)
        sizes = TensorSpec("sizes", ("n",))
        yield ComponentSpec(
            "decode", Cadence.CHUNK, (TensorSpec("latents", ("n", *latents)),), (pixels, sizes), chunk
        )

    def build(self, component: str) -> torch.nn.Module:
        """Build the component with the folder's weights."""
        from generators.refnet.load import build_component

        return build_component(component, self._folder, self._loras)

    def fit(self, pixels: np.ndarray) -> np.ndarray:
        """Stretch pictures to the output's size, as upstream does."""
        return stretch(pixels, *self.size, "lanczos")

    def condition(
        self,
        engines: Engines,
        chunks: Iterable[np.ndarray],
        image: np.ndarray,
        *,
        original: np.ndarray | None = None,
    ) -> dict[str, np.ndarray]:
        """Give pose (1, F, C, h, w), the bank, image_context (2, M), embedding (steps, N).

        CLIP sees the original picture in a square, unless another fit was asked for than the generator's own.
        """
        return gathered(self.condition_pieces(engines, chunks, image, original=original), self.frame_axis)

    def condition_pieces(
        self,
        engines: Engines,
        chunks: Iterable[np.ndarray],
        image: np.ndarray,
        *,
        original: np.ndarray | None = None,
    ) -> Iterator[dict[str, np.ndarray]]:
        """Give what `condition` gives, the pose of each chunk on its own."""
        shown = image if original is None or "fit" in vars(self) else original
        side = self._folder.clip.image_size
        seen = engines["image_embed"](pixels=stretch(shown, side, side, "bicubic"))
        latents = engines["encode"](pixels=image)["latents"]
        fixed = {
            "image_context": seen["image_context"],
            "embedding": engines["embed"](time=self.scheduler.times[:-1])["rows"],
            **engines["reference"](latents=latents, image_embedding=seen["image_embedding"]),
        }
        for chunk in chunks:
            chunk = chunk[..., ::-1] if self._folder.settings.swap_red_blue else chunk
            yield {**fixed, "pose": engines["pose"](pixels=np.ascontiguousarray(chunk))["features"][None]}
            fixed = {}

    def noise(self, frames: int, seed: int) -> np.ndarray:
        """Draw (1, F, 4, h, w) as torch.randn draws (1, 4, F, h, w)."""
        width, height = self.size
        drawn = torch_normal((1, CHANNELS, frames, height // STRIDE, width // STRIDE), seed)
        return self.scheduler.stored(np.ascontiguousarray(drawn.swapaxes(1, 2)))

    def denoise(
        self, engine: Engine, latents: np.ndarray, step: int, constants: Constants, conditional: bool
    ) -> np.ndarray:
        """Predict v of one window; the unconditional branch sees the pose, but neither bank nor picture."""
        return engine(**self._seen(latents, step, constants, conditional, self._bank))["v"]

    def denoise_full(
        self, engine: Engine, latents: np.ndarray, step: int, constants: Constants, conditional: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """Predict v of one window, and give the features that denoise_shallow takes at later steps."""
        made = engine(**self._seen(latents, step, constants, conditional, self._bank))
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
        seen = self._seen(latents, step, constants, conditional, self._bank[-1:])
        return engine(**seen, features=features)["v"]

    def _seen(
        self, latents: np.ndarray, step: int, constants: Constants, conditional: bool, bank: Sequence[str]
    ) -> dict[str, np.ndarray]:
        row = slice(int(conditional), int(conditional) + 1)
        tokens = slice(None if conditional or not self._folder.settings.short_bank else 1)
        return {
            "latents": latents,
            "pose": constants["pose"],
            "embedding": constants["embedding"][step : step + 1],
            "image_context": constants["image_context"][row],
            "keep": np.array([conditional], np.float32),
            **{name: constants[name][:, tokens] for name in bank},
        }

    def decode(self, engines: Engines, latents: np.ndarray) -> Iterator[np.ndarray]:
        """Decode to pixels (n, H, W, 3) uint8. EngineError: a number overflowed on the way."""
        return self.decode_pieces(engines, [latents])

    def decode_pieces(self, engines: Engines, pieces: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Decode latents that come in pieces; each frame is decoded for itself."""
        shown = 0
        for frames in in_chunks((piece[0] for piece in pieces), self.chunk):
            made = engines["decode"](latents=frames)
            if not np.isfinite(made["sizes"]).all():
                raise EngineError(
                    f"decode: frames {shown} to {shown + len(frames) - 1} are not finite, a number has left "
                    "its precision's range; run with --precision ...,decode=fp32"
                )
            shown += len(frames)
            yield made["pixels"]
