"""What is made once for all processes of a run of the tests: graphs, and what else takes long."""

from __future__ import annotations

import fcntl
import os
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest

from engines.files import DRAFT


@pytest.fixture(scope="session")
def alone(tmp_path_factory):
    """A function that opens a folder of all processes of this run, for one purpose to one at a time."""
    own = tmp_path_factory.getbasetemp()
    root = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own

    @contextmanager
    def enter(purpose):
        with (root / f"{purpose}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield root
    return enter


@pytest.fixture(scope="session")
def graph(alone):
    """A function that gives a component's fp32 graph, exported once for all processes of this run.

    The graphs lie in a folder for VIVACE_BUILT; who builds more takes a copy.
    """
    from engines.onnx.export import Target, export_onnx
    from optimize.exact_rewrites import EXACT

    def make(generator, component, rewriting=EXACT):
        with alone(generator.name) as root:
            folder = root / ("rewritten" if rewriting else "plain") / generator.name
            return export_onnx(generator, component, Target(folder, lambda text: None), rewriting=rewriting)
    return make


@pytest.fixture(scope="session")
def tiny_built(tiny, graph):
    """A folder for VIVACE_BUILT with the tiny presenter's graphs in fp32; who builds more takes a copy."""
    folder = [graph(tiny, component).path.parent for component in tiny.components][0]
    graphs = set(folder.glob("*.onnx*"))  # what OpenVINO compiled is kept beside them, for everybody
    yield folder.parent
    assert set(folder.glob("*.onnx*")) == graphs, "a test wrote into the folder that all share"


def copy_built(built: Path, folder: Path) -> Path:
    """Copy the tiny presenter's graphs from a folder for VIVACE_BUILT, in which others may be at work."""
    shutil.copytree(built / "tiny", folder / "tiny", ignore=shutil.ignore_patterns(f"{DRAFT}*"))
    return folder
