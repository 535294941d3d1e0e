"""Files that only save time: never half a file, never another GPU's timings, none lost between two builds."""

import threading
from types import SimpleNamespace

import pytest

from engines.cuda.driver import Gpu
from engines.errors import EngineError
from engines.files import locked, read_cache
from engines.tensorrt.api import TensorRT
from engines.tensorrt.timing_cache import TimingCache, timing_cache_name

GPU = Gpu("NVIDIA RTX 6000 Ada", (8, 9), 13010)


class Config:
    """A builder configuration whose caches are sets of letters; those with a ? are another GPU's."""

    def create_timing_cache(self, data):
        return Cache(set(data.decode()))

    def set_timing_cache(self, cache, ignore_mismatch):
        self.cache = cache
        return ignore_mismatch or "?" not in cache.timings


class Cache:
    def __init__(self, timings):
        self.timings = timings

    def combine(self, other, ignore_mismatch):
        if ignore_mismatch or "?" not in other.timings:
            self.timings |= other.timings

    def serialize(self):
        return "".join(sorted(self.timings)).encode()


@pytest.fixture
def api():
    """A classic TensorRT."""
    logger = type("ILogger", (), {})
    return TensorRT(SimpleNamespace(__name__="tensorrt", __version__="10.16.1.11", ILogger=logger))


def test_the_name_has_all_that_timings_depend_on(api):
    assert timing_cache_name(api, GPU) == "timing-NVIDIA_RTX_6000_Ada-sm_89-10.16.1.11-cuda13.cache"


def test_timings_are_read_before_a_build_and_kept_after_it(api, tmp_path):
    first = TimingCache(api, Config(), tmp_path, GPU)
    first._cache.timings |= {"a"}
    first.keep()
    again = TimingCache(api, Config(), tmp_path, GPU)
    assert again._cache.timings == {"a"} and again.path.read_bytes() == b"a"


def test_two_builds_at_once_keep_both_their_timings(api, tmp_path):
    builds = [TimingCache(api, Config(), tmp_path, GPU) for _ in range(8)]
    for build, letter in zip(builds, "abcdefgh", strict=True):
        build._cache.timings |= {letter}
    threads = [threading.Thread(target=build.keep) for build in builds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert builds[0].path.read_bytes() == b"abcdefgh"


def test_timings_of_another_gpu_are_not_used_and_are_replaced(api, tmp_path):
    path = tmp_path / timing_cache_name(api, GPU)
    path.write_bytes(b"x?")
    cache = TimingCache(api, Config(), tmp_path, GPU)
    assert cache._config.cache.timings == set()
    cache._cache.timings |= {"a"}
    cache.keep()
    assert path.read_bytes() == b"a"


def test_a_configuration_that_takes_no_cache_is_an_error(api, tmp_path):
    config = Config()
    config.set_timing_cache = lambda cache, ignore_mismatch: False
    with pytest.raises(EngineError, match="an empty timing cache was refused"):
        TimingCache(api, config, tmp_path, GPU)


def test_a_file_that_is_not_there_is_an_empty_cache(tmp_path):
    assert read_cache(tmp_path / "none") == b""


def test_only_one_holds_a_lock(tmp_path):
    inside, most = [], []

    def work():
        with locked(tmp_path):
            inside.append(1)
            most.append(len(inside))
            threading.Event().wait(0.01)
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
