"""What pipeline.video.image promises, on real files of many kinds."""

import warnings

import numpy as np
import pytest
from PIL import Image

from pipeline.video.image import InputError, read_image
from tests.clips import run


def test_plain_picture_is_read_exactly(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "in.png")
    notes = []
    assert np.array_equal(read_image(tmp_path / "in.png", notes=notes), pixels)
    assert notes == []


def test_16_bit_grey_is_scaled_not_clipped(tmp_path):
    Image.fromarray(np.array([[0, 257, 32896, 65535]], np.uint16)).save(tmp_path / "in.png")
    assert read_image(tmp_path / "in.png")[0].tolist() == [[0] * 3, [1] * 3, [128] * 3, [255] * 3]


def test_16_bit_rgb_is_scaled(tmp_path):
    np.array([0, 257, 32896, 65535, 128, 65535 - 256], ">u2").tofile(tmp_path / "raw")
    raw = ("-f", "rawvideo", "-pix_fmt", "rgb48be", "-s", "2x1")
    run(*raw, "-i", tmp_path / "raw", "-pix_fmt", "rgb48be", tmp_path / "in.png")
    assert read_image(tmp_path / "in.png")[0].tolist() == [[0, 1, 128], [255, 0, 254]]


def test_transparency_becomes_white_with_a_note(tmp_path):
    pixels = np.array([[[255, 0, 0, 255], [0, 255, 0, 0], [0, 0, 0, 51]]], np.uint8)
    Image.fromarray(pixels, "RGBA").save(tmp_path / "in.png")
    notes = []
    assert read_image(tmp_path / "in.png", notes=notes)[0].tolist() == [[255, 0, 0], [255] * 3, [204] * 3]
    assert "transparent" in notes[0]


def test_palette_with_transparency_becomes_white(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putdata([0, 1])
    image.save(tmp_path / "in.png", transparency=1)
    assert read_image(tmp_path / "in.png")[0].tolist() == [[255, 0, 0], [255, 255, 255]]


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "LA"])
def test_other_modes_become_rgb(tmp_path, mode):
    suffix = "tif" if mode == "CMYK" else "png"
    Image.new("RGB", (4, 3), "white").convert(mode).save(tmp_path / f"in.{suffix}")
    assert (read_image(tmp_path / f"in.{suffix}") == np.full((3, 4, 3), 255)).all()


def test_photo_is_turned_upright(tmp_path):
    image, exif = Image.new("RGB", (40, 20), "blue"), Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it 90 degrees clockwise
    image.paste("red", (0, 0, 20, 20))
    image.save(tmp_path / "in.jpg", exif=exif, quality=95)
    pixels = read_image(tmp_path / "in.jpg")
    assert pixels.shape == (40, 20, 3)
    assert pixels[5, 10, 0] > 200 > 50 > pixels[35, 10, 0]


def test_bad_pictures_are_input_errors(tmp_path, monkeypatch):
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "empty.png").touch()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "cut.png")
    data = (tmp_path / "cut.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(data[: len(data) // 2])
    Image.fromarray(np.ones((2, 2), np.float32)).save(tmp_path / "float.tif")
    for name, reason in {
        "text.png": "not a picture",
        "empty.png": "empty",
        "cut.png": "damaged.*truncated",
        "float.tif": "32-bit",
        "none.png": "no such file",
    }.items():
        with pytest.raises(InputError, match=f"{name}.*{reason}.*; "):
            read_image(tmp_path / name)


def test_giant_picture_is_refused_before_it_is_decoded(tmp_path):
    Image.new("1", (12000, 8000)).save(tmp_path / "in.png")
    with warnings.catch_warnings(), pytest.raises(InputError, match="too large"):
        warnings.simplefilter("error")
        read_image(tmp_path / "in.png")
    Image.new("RGB", (4, 3)).save(tmp_path / "in.png")
    with pytest.raises(InputError, match="4 x 3 pixels.*limit is 11"):
        read_image(tmp_path / "in.png", max_pixels=11)
