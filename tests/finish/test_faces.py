"""The cascade finds what its networks take for a face, once, where it is; known weights alone are loaded."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

import finish.faces
from engines.backends.torch_backend import TorchEngine
from engines.errors import EngineError
from finish.cascade import CASCADE
from finish.faces import Faces, find_faces
from finish.mtcnn import PACKAGE, Mtcnn


class Bright(torch.nn.Module):
    """Takes a window for a face if its middle is bright and its corners are dark."""

    def forward(self, pixels):
        x = pixels.float().mean(3)[:, None] / 255
        size = pixels.shape[1]
        side = 12 if size not in (24, 48) else size
        whole = torch.nn.functional.avg_pool2d(x, side, 2)
        middle = slice(side // 4, -(side // 4))
        inner = torch.nn.functional.avg_pool2d(x[..., middle, middle], side // 2, 2)
        sure = (inner - 4 * (whole - inner / 4).clamp(min=0) / 3 * 1.2).clamp(0, 1)
        moves = torch.zeros(len(x), 4, *sure.shape[2:])
        if side == 12:
            return sure[:, 0], moves
        return sure[:, 0, 0, 0], moves[..., 0, 0]


@pytest.fixture(scope="module")
def faces():
    specs = Mtcnn().components
    return Faces({name: TorchEngine(spec, Bright()) for name, spec in specs.items()})


def test_two_faces_are_found_once_each_where_they_are(faces):
    picture = np.zeros((180, 320, 3), np.uint8)
    picture[30:70, 40:80] = 255
    picture[90:150, 200:260] = 255
    found = faces(picture)
    assert len(found) == 2
    for left, top, right, bottom, sure in found * (320, 180, 320, 180, 1):
        assert sure > 0.7
        wanted = (40, 30, 80, 70) if left < 150 else (200, 90, 260, 150)
        assert np.abs(np.array([left + right, top + bottom]) / 2 - [(wanted[0] + wanted[2]) / 2,
                                                                   (wanted[1] + wanted[3]) / 2]).max() < 8


def test_a_picture_without_a_face_and_a_tiny_one_have_none(faces):
    assert faces(np.zeros((180, 320, 3), np.uint8)).shape == (0, 5)
    assert faces(np.full((2, 300, 3), 90, np.uint8)).shape == (0, 5)


def test_the_networks_take_the_packages_tensors_by_name_and_shape():
    shapes = {name: {key: tuple(value.shape) for key, value in make().state_dict().items()}
              for name, make in CASCADE.items()}
    assert shapes["propose"]["conv4_2.weight"] == (4, 32, 1, 1)
    assert shapes["refine"]["dense4.weight"] == (128, 576) and shapes["refine"]["dense5_1.bias"] == (2,)
    assert shapes["settle"]["conv4.weight"] == (128, 64, 2, 2) and shapes["settle"]["prelu5.weight"] == (256,)
    assert shapes["settle"]["dense6_2.weight"] == (4, 256)
    for name, side in (("refine", 24), ("settle", 48)):
        sure, moves = CASCADE[name]()(torch.zeros(2, side, side, 3, dtype=torch.uint8))
        assert sure.shape == (2,) and moves.shape == (2, 4)


def test_other_weights_than_the_known_ones_are_refused_before_they_are_unpickled(tmp_path):
    wheel = tmp_path / "facenet_pytorch.whl"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr(f"{PACKAGE}/data/pnet.pt", b"something else")
    with pytest.raises(EngineError, match="pnet.pt is not that of facenet-pytorch 2.6.0"):
        Mtcnn(wheel).build("propose")
    with pytest.raises(EngineError, match="no weights of MTCNN"):
        Mtcnn(wheel).build("refine")
    with pytest.raises(EngineError, match="pip install --no-deps facenet-pytorch"):
        Mtcnn(tmp_path / "lost.whl").build("refine")


def test_without_weights_the_run_says_so_and_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(finish.faces, "Mtcnn", lambda: Mtcnn(Path(tmp_path / "none")))
    said = []
    assert find_faces(tmp_path, said.append) is None
    assert said[0].endswith("so what moves is followed instead") and "--no-deps facenet-pytorch" in said[0]
