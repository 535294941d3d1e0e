"""The three networks of MTCNN, a detector of faces, as what engines are built from.

Zhang et al., 2016 (https://arxiv.org/abs/1604.02878). The weights are those that the package facenet-pytorch
carries (MIT); its code is not used, and it need not be installed: its wheel will do.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from engines.errors import EngineError
from engines.spec import Cadence, ComponentSpec, DimRange, TensorSpec

if TYPE_CHECKING:
    import torch

PACKAGE = "facenet_pytorch"
INSTALL = "pip install --no-deps facenet-pytorch==2.6.0 (MIT, 2 MB; its old torch is not needed)"
MOST = 64  # windows that the second and third network take at once
SIDES = DimRange(12, 96, 512)  # of a picture in the pyramid
# The file of each network's weights, and its SHA-256.
FILES = {
    "propose": ("pnet.pt", "a2a71925e0b9996a42f63e47efc1ca19043e69558b5c523b978d611dfae49c8f"),
    "refine": ("rnet.pt", "bbb937de72efc9ef83b186c49f5f558467a1d7e3453a8ece0d71a886633f6a86"),
    "settle": ("onet.pt", "165bfbe42940416ccfb977545cf0e976d5bf321f67083ae2aaaa5c764280118d"),
}


class Mtcnn:
    """The cascade: each network gives how surely a window is a face, and how its edges are to move."""

    name = "mtcnn"

    def __init__(self, weights: Path | None = None) -> None:
        """weights: a wheel of facenet-pytorch; left out, the installed package."""
        spec = None if weights else find_spec(PACKAGE)
        places = spec.submodule_search_locations if spec else None
        self._source = weights or (Path(places[0]) / "data" if places else None)
        self.fingerprint_files = (Path(__file__), Path(__file__).with_name("cascade.py"))
        windows = {"n": DimRange(1, 8, MOST)}
        given = TensorSpec("sure", ("n",)), TensorSpec("moves", ("n", 4))
        grid = TensorSpec("sure", (1, "rows", "columns")), TensorSpec("moves", (1, 4, "rows", "columns"))
        self.components = {
            "propose": _spec("propose", (1, "h", "w", 3), grid, {"h": SIDES, "w": SIDES}),
            "refine": _spec("refine", ("n", 24, 24, 3), given, windows),
            "settle": _spec("settle", ("n", 48, 48, 3), given, windows),
        }

    def build(self, component: str) -> torch.nn.Module:
        """One of the networks with its weights; EngineError without them."""
        import torch

        from finish.cascade import CASCADE

        network, (name, sha256) = CASCADE[component](), FILES[component]
        try:
            data = self._read(name)
        except (OSError, KeyError, zipfile.BadZipFile) as error:
            raise EngineError(f"no weights of MTCNN: {error}; run: {INSTALL}") from error
        if hashlib.sha256(data).hexdigest() != sha256:
            raise EngineError(
                f"{self._source}: its {name} is not that of facenet-pytorch 2.6.0; run: {INSTALL}"
            )
        tensors = torch.load(io.BytesIO(data), weights_only=True)
        network.load_state_dict({key: tensors[key] for key in network.state_dict()})
        return network.eval()

    @property
    def weights(self) -> list[Path]:
        """The files of an installed package."""
        return [self._source / name for name, _ in FILES.values()] if self._source else []

    def _read(self, name: str) -> bytes:
        if self._source is None:
            raise OSError(f"{PACKAGE} is not installed")
        if self._source.is_dir():
            return (self._source / name).read_bytes()
        with zipfile.ZipFile(self._source) as wheel:
            return wheel.read(f"{PACKAGE}/data/{name}")


def _spec(name: str, dims: tuple, outputs: tuple, ranges: dict[str, DimRange]) -> ComponentSpec:
    return ComponentSpec(name, Cadence.CHUNK, (TensorSpec("pixels", dims, "uint8"),), outputs, ranges)
