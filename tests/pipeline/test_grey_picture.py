"""Grey pictures of more than 8 bits: their range is what the file means, or a note says that it is black."""

import numpy as np
import pytest
from PIL import Image

from pipeline.video.image import read_image


def grey(path, values, kind):
    """Read a grey picture of one row with these values: its row, and the notes."""
    Image.fromarray(np.array([values], kind)).save(path)
    notes = []
    pixels = read_image(path, notes=notes)
    assert (pixels == pixels[..., :1]).all()
    return pixels[0, :, 0].tolist(), notes


def test_8_bits_that_were_saved_as_32_are_taken_as_8_with_a_note(tmp_path):
    pixels, notes = grey(tmp_path / "in.tif", [0, 1, 128, 255], np.int32)
    assert pixels == [0, 1, 128, 255] and notes == [
        f"{tmp_path / 'in.tif'}: has 32-bit pixels, none above 255; they were taken as 8 bits"]


def test_32_bits_with_values_above_255_are_taken_as_16(tmp_path):
    assert grey(tmp_path / "in.tif", [0, 257, 32896, 65535], np.int32) == ([0, 1, 128, 255], [])


@pytest.mark.parametrize("suffix", ["tif", "png"])
def test_16_bits_with_no_value_above_255_are_black_and_said_to_be(tmp_path, suffix):
    pixels, notes = grey(tmp_path / f"in.{suffix}", [0, 1, 128, 255], np.uint16)
    assert pixels == [0, 0, 0, 1] and "16-bit pixels, none above 255 of 65535, so it is black" in notes[0]
    assert grey(tmp_path / f"in.{suffix}", [0, 257, 32896, 65535], np.uint16) == ([0, 1, 128, 255], [])
