"""The presenter as a generator: its components, its sampling rules and the arrays between them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engines.spec import Cadence, ComponentSpec, DimRange, Engine, TensorSpec
from generators.adapters import Lora, take_on
from generators.contract import Constants, Engines
from generators.pieces import gathered, in_chunks
from generators.presenter import AUTOENCODER_FILE, DENOISER_FILE
from generators.resize import cover
from generators.samplers import FlowMatchEuler
from generators.windows import OverlapWindows

if TYPE_CHECKING:
    import torch

WEIGHTS = Path(__file__).parent / "weights"
CHANNELS, VAE_STRIDE_HW = 16, 8
NOISE_FRAMES = 64  # drawn at a time


class Presenter:
    """A latent video diffusion transformer driven by a skeleton video and a reference image.

    Skeleton latents join the noisy latents by channel, the reference is an extra clean frame, the text is one
    constant token; flow matching, classifier-free guidance, windows of 16 frames that overlap by 4, blended.
    weights: the folder of its two safetensors files. loras: what is merged into its transformer.
    """

    name = "presenter"
    scheduler = FlowMatchEuler(steps=25, shift=3.0)
    guidance = 1.5
    windows = OverlapWindows(length=16, overlap=4)
    frame_axis = 2
    size = (128, 192)
    chunk = 8
    per_frame = frozenset({"pose"})
    resident = True

    def __init__(self, weights: Path = WEIGHTS, loras: Sequence[Lora] = ()) -> None:
        self.weights, self._loras = weights, loras
        # Named, not looked for: where weights are missing, as in a submission, that must show.
        files = weights / AUTOENCODER_FILE, weights / DENOISER_FILE
        self.fingerprint_files = (*files, Path(__file__).with_name("model.py"))
        width, height = self.size
        h, w, window = height // VAE_STRIDE_HW, width // VAE_STRIDE_HW, self.windows.length
        frames = {"n": DimRange(1, self.chunk, self.chunk)}
        batch = {"b": DimRange(1, 1, 2)}
        pixels = TensorSpec("pixels", ("n", height, width, 3), "uint8")
        latents = TensorSpec("latents", ("n", CHANNELS, h, w))
        windowed = ("b", CHANNELS, window, h, w)
        denoise = ComponentSpec(
            "denoise",
            Cadence.STEP,
            (
                TensorSpec("latents", windowed),
                TensorSpec("time", ("b",)),
                TensorSpec("pose", windowed),
                TensorSpec("reference", ("b", CHANNELS, h, w)),
                TensorSpec("conditional", ("b",)),
            ),
            (TensorSpec("flow", windowed),),
            batch,
        )
        self.components = {
            "encode": ComponentSpec("encode", Cadence.CHUNK, (pixels,), (latents,), frames),
            "denoise": denoise,
            "decode": ComponentSpec("decode", Cadence.CHUNK, (latents,), (pixels,), frames),
        }
        take_on(self, loras, ["denoise"])

    def build(self, component: str) -> torch.nn.Module:
        """Build the component with the bundled weights, in float32."""
        from generators.presenter.load import build_component

        return build_component(component, self.weights, self._loras)

    def fit(self, pixels: np.ndarray) -> np.ndarray:
        """Scale pictures to cover 128x192, and cut around the centre."""
        return cover(pixels, *self.size)

    def condition(
        self, engines: Engines, chunks: Iterable[np.ndarray], image: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Encode pose (1, 16, F, h, w) and reference (1, 16, h, w)."""
        return gathered(self.condition_pieces(engines, chunks, image), self.frame_axis)

    def condition_pieces(
        self, engines: Engines, chunks: Iterable[np.ndarray], image: np.ndarray
    ) -> Iterator[dict[str, np.ndarray]]:
        """Encode the reference, then the pose of one chunk after the other."""
        encode = engines["encode"]
        once = {"reference": encode(pixels=image)["latents"]}
        for chunk in chunks:
            yield {"pose": encode(pixels=chunk)["latents"].transpose(1, 0, 2, 3)[None], **once}
            once = {}

    def noise(self, frames: int, seed: int) -> np.ndarray:
        """Draw (1, 16, F, h, w) normal numbers of NumPy's Philox, frame by frame."""
        return np.ascontiguousarray(np.concatenate([*self.noise_pieces(frames, seed)], self.frame_axis))

    def noise_pieces(self, frames: int, seed: int) -> Iterator[np.ndarray]:
        """Draw the same, 64 frames at a time."""
        h, w = self.size[1] // VAE_STRIDE_HW, self.size[0] // VAE_STRIDE_HW
        random = np.random.Generator(np.random.Philox(seed))
        for start in range(0, frames, NOISE_FRAMES):
            shape = (min(NOISE_FRAMES, frames - start), CHANNELS, h, w)
            yield random.standard_normal(shape, np.float32).transpose(1, 0, 2, 3)[None]

    def denoise(
        self, engine: Engine, latents: np.ndarray, step: int, constants: Constants, conditional: bool
    ) -> np.ndarray:
        """Predict the flow of one window; the unconditional branch sees neither pose nor reference."""
        return self.flow(engine, latents, self.scheduler.times[step : step + 1], constants, conditional)

    def flow(
        self, engine: Engine, latents: np.ndarray, time: np.ndarray, constants: Constants, conditional: bool
    ) -> np.ndarray:
        """Run the network at a time (1,) float32 from 1 (noise) to 0."""
        keep = np.float32(conditional)
        return engine(
            latents=latents,
            time=time,
            pose=constants["pose"] * keep,
            reference=constants["reference"] * keep,
            conditional=np.array([keep]),
        )["flow"]

    def decode(self, engines: Engines, latents: np.ndarray) -> Iterator[np.ndarray]:
        """Decode to pixels (n, 192, 128, 3) uint8, eight frames at a time."""
        return self.decode_pieces(engines, [latents])

    def decode_pieces(self, engines: Engines, pieces: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Decode as soon as there are eight frames, and what is left at the end."""
        for frames in in_chunks((piece[0].transpose(1, 0, 2, 3) for piece in pieces), self.chunk):
            yield engines["decode"](latents=frames)["pixels"]
