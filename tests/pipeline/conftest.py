"""What the tests of techniques share: a small generator with its calibration, on one thread."""

import pytest

from pipeline.caches.calibration import save_calibration
from tests.techniques import CALIBRATION, make_small


@pytest.fixture(scope="module")
def one_thread():
    """Networks this small gain nothing from more, and on a busy machine they would wait for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return make_small(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def calibrated(small, tmp_path_factory):
    """A folder for VIVACE_BUILT with a calibration of the small generator."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIVACE_BUILT", str(tmp_path_factory.mktemp("built")))
        save_calibration(CALIBRATION, small, ["a"])
        yield
