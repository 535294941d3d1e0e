"""What tests share: a data folder's run with the NumPy generator; for techniques a small calibrated one."""

import pytest

from pipeline.batch.batch import Jobs, run_here
from pipeline.batch.dataset import find_requests
from pipeline.batch.run_folder import RunFolder
from pipeline.caches.calibration import save_calibration
from pipeline.runner import VideoRunner
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


@pytest.fixture
def run(tmp_path, plain):
    """A function that makes a folder's videos with the NumPy generator: its jobs, which were made, words."""
    def make(data, maker=None, restart=False, seed=42):
        said, generator = [], plain()
        maker = maker or VideoRunner(generator, generator.engines())
        with RunFolder(tmp_path / "out", restart) as folder:
            jobs = Jobs(find_requests(data, seed), folder, maker.identity, said.append)
            todo = [request.id for request in jobs.todo]
            run_here(jobs, maker)
        return jobs, todo, said
    return make
