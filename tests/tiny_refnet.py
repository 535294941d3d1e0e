"""AnimateAnyone's kind in small: a folder with random weights in its layout, and inputs for it."""

import numpy as np

from engines.backends.torch_backend import TorchEngine
from generators.contract import load_generator
from generators.refnet.random_weights import write_folder

SIZE = (64, 72)  # latents of 8 x 9, which are 4 x 5, 2 x 3 and 1 x 2 further down


def with_settings(folder, **settings):
    """A generator of a folder: windows of 8 that share 2, four steps, 64x72 pixels, fp32, unless told."""
    width, height = SIZE
    plain = {"width": width, "height": height, "steps": 4, "window": 8, "overlap": 2, "half": False}
    text = "".join(f"{name} = {str(value).lower()}\n" for name, value in {**plain, **settings}.items())
    (folder / "vivace.toml").write_text(text)
    return load_generator(f"refnet={folder}")


def write_tiny(folder, **settings):
    """The same of a new folder."""
    return with_settings(write_folder(folder, "tiny"), **settings)


def engines_of(generator):
    return {name: TorchEngine(spec, generator.build(name)) for name, spec in generator.components.items()}


def folder_of(generator):
    return generator.fingerprint_files[0].parent


def clip(frames):
    """Skeletons (frames, 90, 80, 3) and a picture (125, 70, 3), as they were when upstream's code ran."""
    random = np.random.default_rng(3)
    skeletons = random.integers(0, 256, (frames, 18, 16, 3), np.uint8).repeat(5, 1).repeat(5, 2)
    return skeletons, random.integers(0, 256, (25, 14, 3), np.uint8).repeat(5, 0).repeat(5, 1)


def apart(found, wanted):
    """The largest difference, in shares of the largest number."""
    return np.abs(np.asarray(found) - wanted).max() / np.abs(wanted).max()
