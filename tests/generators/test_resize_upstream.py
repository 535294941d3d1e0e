"""Pictures and skeletons at size, beside the libraries that upstream's scripts call."""

import numpy as np
import pytest
import torch
from PIL import Image

from engines.backends.torch_backend import TorchEngine
from generators.contract import load_generator
from generators.resize import opencv, square, stretch
from pipeline.batch.dataset import Request
from pipeline.columns import columns_of, read_columns
from tests.wan_checkpoints import write_checkpoint

SIZES = [((61, 97), (32, 48)), ((40, 30), (64, 48)), ((5, 7), (60, 96)), ((64, 96), (32, 48)),
         ((300, 500), (480, 832))]


def picture(width, height):
    return np.random.default_rng(0).integers(0, 256, (1, height, width, 3), np.uint8)


@pytest.mark.parametrize(("had", "new"), SIZES)
def test_opencvs_bilinear_is_its_own_bit_for_bit(had, new):
    """VideoX-Fun, 804a425, brings skeletons to size by cv2.resize(frame, (width, height))."""
    cv2 = pytest.importorskip("cv2")
    pixels = picture(*had)
    np.testing.assert_array_equal(opencv(pixels, *new)[0], cv2.resize(pixels[0], new))


@pytest.mark.parametrize(("had", "new"), SIZES)
def test_the_squares_that_clip_sees_are_torchs_bicubic(had, new):
    """All three call F.interpolate(picture, (224, 224), mode="bicubic") on what lies in [-1, 1]."""
    pixels = picture(*had)
    wanted = torch.nn.functional.interpolate(
        torch.from_numpy(pixels).permute(0, 3, 1, 2) / 127.5 - 1, (32, 32), mode="bicubic")
    found = square(pixels, 32) / 127.5 - 1
    np.testing.assert_allclose(found, wanted.permute(0, 2, 3, 1), rtol=0, atol=5e-5)


@pytest.mark.parametrize("name", ["wan-fun-control", "wan-unianimate"])
def test_the_picture_is_brought_to_size_by_pillows_bicubic_and_funs_clip_sees_it_as_it_was(tmp_path, name):
    """Both scripts call image.resize((width, height)); VideoX-Fun's gives the original to CLIP."""
    generator = load_generator(f"{name}={write_checkpoint(tmp_path, name)}")
    original, seen = picture(61, 97), {}

    def noting(part):
        engine = TorchEngine(generator.components[part], generator.build(part))

        def call(**arrays):
            seen.setdefault(part, arrays)
            return engine(**arrays)
        return call

    engines = {part: noting(part) for part in generator.components}
    skeletons = np.repeat(picture(32, 48), 17, 0)
    fitted = np.asarray(Image.fromarray(original[0]).resize((32, 48)))[None]
    generator.condition(engines, [skeletons], generator.fit(original), original=original)
    np.testing.assert_array_equal(seen["encode_first"]["pixels"], fitted)
    shown = original if name == "wan-fun-control" else fitted
    np.testing.assert_array_equal(seen["image_kv"]["levels"], square(shown, 32))
    np.testing.assert_array_equal(stretch(original, 32, 48, "bicubic"), fitted)

    generator.fit = lambda pixels: np.zeros((len(pixels), 48, 32, 3), np.uint8)  # as --fit does
    seen.clear()
    generator.condition(engines, [skeletons], generator.fit(original), original=original)
    assert not seen["encode_first"]["pixels"].any()


def test_a_condition_gets_the_picture_as_it_was_read_and_no_column_is_called_so(tmp_path):
    generator = load_generator(f"wan-fun-control={write_checkpoint(tmp_path, 'wan-fun-control')}")
    path, original = tmp_path / "a.png", picture(61, 97)[0]
    Image.fromarray(original).save(path)
    found = read_columns(Request("a", tmp_path / "a.mp4", path, 1), generator, notes=[])
    np.testing.assert_array_equal(found["original"], original[None])
    assert columns_of(generator) == {}
