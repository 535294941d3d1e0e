"""What pipeline.video.image promises, on real files of many kinds."""

import io
import struct
import sys
import warnings
import zlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, features

from pipeline.video import image as picture_module
from pipeline.video.image import FORMATS, PICTURE_SUFFIXES, InputError, picture_format, read_image
from tests.clips import run

SHARED = Path(__file__).parents[3] / "shared"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the files that failed are not here")
P3 = ((0.51512, 0.2412, -0.00105), (0.29198, 0.69225, 0.04189), (0.1571, 0.06657, 0.78407))  # as XYZ of D50
P3_TO_SRGB = np.array([[1.2249, -0.2247, 0], [-0.0420, 1.0419, 0], [-0.0197, -0.0786, 1.0979]])
COLOURS = np.array([[[200, 120, 90], [60, 130, 60], [128, 128, 128], [90, 80, 170]]], np.uint8)


def profile(primaries=None, space=b"RGB "):
    """An ICC profile with sRGB's curve; primaries: XYZ of red, green and blue, sRGB's by default."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    data[16:20] = space
    for tag, xyz in zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries or (), strict=primaries is not None):
        start = struct.unpack_from("!I", data, data.index(tag, 128) + 4)[0]
        struct.pack_into("!3i", data, start + 8, *(round(value * 65536) for value in xyz))
    return bytes(data)


def png(rows, size, interlaced=0):
    """An 8-bit grey PNG file with that data for its pixels."""
    def chunk(kind, data):
        return struct.pack("!I", len(data)) + kind + data + struct.pack("!I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack("!2I5B", *size, 8, 0, 0, 0, interlaced))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


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


def test_a_limit_above_pillows_own_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    Image.new("RGB", (6, 4)).save(tmp_path / "in.png")
    assert read_image(tmp_path / "in.png", notes=(notes := [])).shape == (4, 6, 3) and notes == []
    assert Image.MAX_IMAGE_PIXELS == 10


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "AVIF", "TIFF", "BMP", "GIF", "MPO"])
def test_the_content_decides_not_the_suffix(tmp_path, kind):
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow cannot read AVIF")
    Image.new("RGB", (16, 8), "red").save(tmp_path / "in.txt", kind)
    assert picture_format(tmp_path / "in.txt") == ("JPEG" if kind == "MPO" else kind)
    pixels = read_image(tmp_path / "in.txt", notes=(notes := []))
    assert pixels.shape == (8, 16, 3) and np.abs(pixels - np.float32([255, 0, 0])).max() < 4 and not notes


def test_suffixes_are_those_of_the_formats():
    assert {".png", ".jpg", ".jfif", ".avif", ".heic", ".tiff", ".gif", ".webp"} <= set(PICTURE_SUFFIXES)
    assert len(PICTURE_SUFFIXES) == len(set(PICTURE_SUFFIXES)) == sum(map(len, FORMATS.values()))


def test_other_formats_of_pillow_are_not_opened(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "open", lambda *a, **k: pytest.fail("opens it"))
    for kind in ("EPS", "DDS", "ICO", "PPM", "TGA", "PDF"):
        Image.new("RGB", (16, 8)).save(tmp_path / "in.png", kind)
        with pytest.raises(InputError, match="in.png: is not a picture. Expected one of PNG, JPEG"):
            read_image(tmp_path / "in.png")


def test_colours_are_converted_from_display_p3_to_srgb(tmp_path):
    Image.fromarray(COLOURS).save(tmp_path / "in.png", icc_profile=profile(P3))
    shown = COLOURS / 255
    light = np.where(shown <= 0.04045, shown / 12.92, ((shown + 0.055) / 1.055) ** 2.4) @ P3_TO_SRGB.T
    wanted = 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light.clip(0) ** (1 / 2.4) - 0.055)
    pixels = read_image(tmp_path / "in.png", notes=(notes := []))
    assert np.abs(wanted - COLOURS).max() > 10
    assert np.abs(pixels - wanted).max() <= 1.5
    assert "colours were converted from its profile" in notes[0] and len(notes) == 1


def test_transparent_and_palette_pictures_are_converted_too(tmp_path):
    Image.fromarray(COLOURS).save(tmp_path / "plain.png", icc_profile=profile(P3))
    plain = read_image(tmp_path / "plain.png")
    image = Image.fromarray(np.concatenate([COLOURS, np.full((1, 4, 1), 255, np.uint8)], -1), "RGBA")
    image.putpixel((3, 0), (0, 0, 0, 0))
    image.save(tmp_path / "in.png", icc_profile=profile(P3))
    assert read_image(tmp_path / "in.png").tolist() == [[*plain[0, :3].tolist(), [255] * 3]]
    Image.fromarray(COLOURS).quantize(4).save(tmp_path / "in.png", icc_profile=profile(P3))
    assert np.abs(read_image(tmp_path / "in.png").astype(int) - plain).max() <= 1


def test_srgb_s_own_profile_changes_no_byte(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "in.png", icc_profile=profile())
    assert np.array_equal(read_image(tmp_path / "in.png", notes=(notes := [])), pixels) and notes == []


@pytest.mark.parametrize("broken", [b"nonsense", profile(space=b"CMYK"), profile(space=b"Lab ")])
def test_a_profile_that_cannot_be_used_is_a_note(tmp_path, broken):
    Image.fromarray(COLOURS).save(tmp_path / "in.png", icc_profile=broken)
    assert np.array_equal(read_image(tmp_path / "in.png", notes=(notes := [])), COLOURS)
    assert "colour profile cannot be used" in notes[0] and "taken as sRGB" in notes[0]


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_several_pictures_the_first_is_taken_with_a_note(tmp_path, kind):
    more = [Image.new("RGB", (8, 8), "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    Image.new("RGB", (8, 8), "red").save(tmp_path / "in", kind, save_all=True, append_images=more, **options)
    assert (read_image(tmp_path / "in", notes=(notes := [])) == (255, 0, 0)).all()
    assert "holds several pictures; the first one" in notes[0]


@pytest.mark.parametrize(("interlaced", "needed"), [(0, 5 * 10), (1, 3 + 2 + 4 + 6 + 6 + 15 + 20)])
def test_a_png_with_too_few_rows_is_damaged(tmp_path, interlaced, needed):
    for count in (needed, needed + 7):
        (tmp_path / "in.png").write_bytes(png(bytes(count), (9, 5), interlaced))
        assert read_image(tmp_path / "in.png").shape == (5, 9, 3)
    (tmp_path / "in.png").write_bytes(png(bytes(needed - 10), (9, 5), interlaced))
    with pytest.raises(InputError, match=f"in.png: is damaged .*{needed - 10} of {needed} bytes of pixels"):
        read_image(tmp_path / "in.png")


def test_a_jpeg_that_ends_in_the_grey_of_missing_data_gets_a_note(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "in.jpg")
    data = (tmp_path / "in.jpg").read_bytes()
    read_image(tmp_path / "in.jpg", notes=(notes := []))
    assert notes == []
    (tmp_path / "in.jpg").write_bytes(data[:len(data) // 2] + b"\xff\xd9")
    read_image(tmp_path / "in.jpg", notes=notes)
    assert "as where a JPEG's data is missing" in notes[0]


def test_what_pillow_warns_of_is_a_note(tmp_path):
    Image.new("RGB", (4, 3)).save(tmp_path / "in.jpg", exif=b"Exif\0\0II*\0\x08\0\0\0\x05\0")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(tmp_path / "in.jpg", notes=(notes := [])).shape == (3, 4, 3)
    assert "was read, but Pillow said: Corrupt EXIF data" in notes[0]


def test_what_others_warn_of_meanwhile_is_no_note_and_not_lost(tmp_path, monkeypatch):
    """A thread reads the next picture ahead, and warnings are caught of all threads."""
    Image.new("RGB", (4, 3)).save(tmp_path / "in.png")
    loaded = picture_module._rgb

    def warning(*given):
        warnings.warn("overflow encountered in multiply", RuntimeWarning, stacklevel=1)
        return loaded(*given)

    monkeypatch.setattr(picture_module, "_rgb", warning)
    with pytest.warns(RuntimeWarning, match="overflow encountered"):
        read_image(tmp_path / "in.png", notes=(notes := []))
    assert notes == []


def test_formats_whose_package_is_missing_say_which(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    monkeypatch.setattr(features, "check", lambda name: name != "avif")
    for brand, how in (("heic", "is HEIC, .*pip install pi-heif"), ("avif", "is AVIF. .*pillow>=11.3")):
        (tmp_path / "in.jpg").write_bytes(struct.pack("!I4s4s4x4s", 20, b"ftyp", b"mif1", brand.encode()))
        with pytest.raises(InputError, match=f"in.jpg: {how}"):
            read_image(tmp_path / "in.jpg")


@needs_shared
def test_pictures_as_phones_write_them_look_alike():
    made = SHARED / "real" / "made"
    wanted = read_image(made / "woman.avif").astype(int)
    read = {path.name: read_image(path) for path in (made / "woman-display-p3.jpg",)}
    if find_spec("pi_heif"):
        read["woman.heic"] = read_image(made / "woman.heic")
    for name, pixels in read.items():
        assert np.abs(pixels - wanted).mean() < 1.5, name


@pytest.mark.parametrize(("name", "why"), [
    ("avif_damaged.png", "is damaged .*AVIF"), ("dds_damaged.png", "is not a picture"),
    ("eps_named.png", "is not a picture"), ("png_short_idat.png", "is damaged .*1930 of 18528 bytes"),
])
@needs_shared
def test_files_that_ended_a_run_are_errors_of_that_file(name, why):
    with pytest.raises(InputError, match=f"{name}: {why}"):
        read_image(SHARED / "cases" / "media" / name)


def test_no_damage_to_a_picture_gets_through_as_another_error(tmp_path):
    draws, path, read = np.random.default_rng(1), tmp_path / "in", 0
    image = Image.fromarray(draws.integers(0, 256, (16, 16, 3), np.uint8))
    for kind in ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", *(["AVIF"] if features.check("avif") else [])):
        image.save(stored := io.BytesIO(), kind, icc_profile=profile(P3))
        for _ in range(12):
            data = bytearray(stored.getvalue())
            start = draws.integers(len(data))
            if draws.random() < 0.5:
                data[start:start + draws.integers(1, 9)] = draws.bytes(draws.integers(0, 9))
            else:
                data[start:] = b""
            path.write_bytes(bytes(data) or b"x")
            try:
                read += read_image(path).shape[2] == 3
            except InputError as error:
                assert str(path) in str(error)
    assert read
