"""A wrapper's own modules come first in its code, and stay apart from ours of the same names."""

import importlib
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from generators import wrapper_file
from generators.contract import GeneratorError, load_generator
from generators.wrapper_file import load_file
from pipeline.runner import files_of
from pipeline.video.reader import read

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples"


def write(folder, **files):
    """Files by name, in which __ stands for a slash."""
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(text)
    return folder / "mine.py"


@pytest.fixture(scope="module")
def baseline(tmp_path_factory):
    """The example, as a wrapper in the baseline's own folder, whose modules are called as ours are."""
    folder = tmp_path_factory.mktemp("baseline")
    text = (EXAMPLE / "my_generator.py").read_text()
    text = text.replace("import runpy\n", "import pipeline\n").replace(
        'runpy.run_path(str(CODE))["Model"]()', "pipeline.models.Model()").replace(
        'Path(__file__).parent / "baseline" / name', "Path(__file__).parent / name").replace(
        '"model.py", "weights.safetensors"', '"models.py", "weights.safetensors"')
    assert "runpy" not in text and "pipeline.models.Model" in text
    write(folder, mine=text, models=(EXAMPLE / "baseline" / "model.py").read_text(),
          pipeline="import bench\nimport models\nassert bench.OWN\n", bench="OWN = True\n")
    (folder / "weights.safetensors").write_bytes((EXAMPLE / "baseline" / "weights.safetensors").read_bytes())
    return folder / "mine.py"


def test_a_wrapper_in_a_baselines_folder_runs_in_workers_whatever_its_modules_are_called(
        baseline, make_data, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "infer.py", "--generator", f"{baseline}:MyGenerator", "--workers", "2",
               "--data", str(make_data({"a": 16, "b": 16})), "--out", str(out)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert read(out / "a.mp4").frames.shape == read(out / "b.mp4").frames.shape == (16, 96, 64, 3)


def test_own_modules_are_not_seen_under_plain_names_by_anybody_else(baseline):
    before, paths = sys.modules["pipeline"], [*sys.path]
    mine = load_generator(f"{baseline}:MyGenerator")
    mine.build("encode")
    assert sys.modules["pipeline"] is before and "models" not in sys.modules and sys.path == paths
    assert Path(importlib.import_module("bench").__file__) == ROOT / "bench" / "__init__.py"


def test_ways_to_import_give_one_module(tmp_path):
    path = write(
        tmp_path, models="class Net: ...\n", src__nets__unet="import models\n",
        mine="import importlib, pickle\nimport models, src.nets.unet\nimport src.nets.unet as unet\n"
             "from src.nets import unet as again\nfrom . import models as relative\n"
             "def lazy():\n    from models import Net\n    return Net\n"
             "dynamic = importlib.import_module('src.nets.unet')\n"
             "pickled = pickle.loads(pickle.dumps(models.Net()))\n")
    mine = load_file(path)
    assert mine.src.nets.unet is mine.unet is mine.again is mine.dynamic
    assert mine.models is mine.relative is mine.unet.models
    assert mine.lazy() is mine.models.Net is type(mine.pickled)


def test_a_pickle_of_the_baselines_own_process_finds_its_class(tmp_path):
    mine = load_file(write(tmp_path, plain_nets="class Net: ...\n", mine="import plain_nets\n"))
    assert type(pickle.loads(b"cplain_nets\nNet\n)R.")) is mine.plain_nets.Net


def test_folders_that_a_wrapper_adds_to_the_path_are_its_own_too(tmp_path):
    path = write(tmp_path, base__pipeline="from config import SIZE\n", base__config="SIZE = 7\n",
                 mine="import sys\nfrom pathlib import Path\n"
                      "sys.path.insert(0, str(Path(__file__).parent / 'base'))\n"
                      "from pipeline import SIZE\n")
    assert load_file(path).SIZE == 7
    assert not [each for each in sys.path if each.startswith(str(tmp_path))]


def test_ours_are_found_beside_own_modules_of_the_same_name(tmp_path):
    path = write(tmp_path, generators="OWN = 1\n", engines="OWN = 2\n",
                 mine="import generators, engines\nfrom generators.samplers import FlowMatchEuler\n"
                      "from engines.spec import Cadence\n")
    mine = load_file(path)
    assert (mine.generators.OWN, mine.engines.OWN) == (1, 2)
    assert mine.FlowMatchEuler is importlib.import_module("generators.samplers").FlowMatchEuler


def test_a_folder_called_as_a_package_of_ours_has_only_what_is_in_it(tmp_path):
    path = write(tmp_path, engines__mine="OWN = 1\n",
                 mine="from engines import load\nfrom engines import mine as again\n"
                      "from engines.mine import OWN\nimport engines\n")
    mine = load_file(path)
    assert mine.load is importlib.import_module("engines.load") and mine.OWN == mine.again.OWN == 1
    assert mine.engines is sys.modules["engines"]


def test_folders_without_code_hide_no_package(tmp_path):
    path = write(tmp_path, numpy__notes="", mine="import numpy\n")
    (tmp_path / "wandb").mkdir()
    assert load_file(path).numpy is importlib.import_module("numpy")
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("wandb")


def test_packages_without_init_are_found_at_any_depth_by_every_way_to_import(tmp_path):
    ways = ("import deep.models.unet.net", "from deep.models.unet import net",
            "from deep.models.unet.net import X",
            "import importlib\nimportlib.import_module('deep.models.unet.net')",
            "import deep.models as models")
    for number, way in enumerate(ways):
        load_file(write(tmp_path / str(number), deep__models__unet__net="X = 7\n", mine=f"{way}\n"))


def test_a_folder_is_not_searched_without_end_for_code(tmp_path, monkeypatch):
    monkeypatch.setattr(wrapper_file, "MOST", 8)
    path = write(tmp_path, src__a__b__net="X = 7\n", mine="from src.a.b import net\nX = net.X\n")
    for number in range(20):
        (tmp_path / "src" / f"{number}.png").touch()
    (tmp_path / "frames" / "a").mkdir(parents=True)
    (tmp_path / "frames" / "all").symlink_to(tmp_path / "frames")
    assert load_file(path).X == 7  # the name that is asked for is looked at, nothing else
    with pytest.raises(ModuleNotFoundError):
        load_file(write(tmp_path, mine="import frames\n"))


def test_modules_of_two_folders_are_two(tmp_path):
    one, two = (load_file(write(tmp_path / name, models=f"NAME = {name!r}\n",
                                mine="import models\ndef lazy():\n    import models\n    return models\n"))
                for name in ("one", "two"))
    assert (one.models.NAME, two.models.NAME) == ("one", "two")
    assert one.lazy() is one.models and two.lazy() is two.models


def test_what_a_wrapper_imports_when_it_is_loaded_decides_what_a_run_is(tmp_path):
    path = write(tmp_path, context="X = 1\n", later="",
                 mine="import context\nclass Mine:\n    fingerprint_files = ()\n"
                      "    def build(self):\n        import later\n")
    for _ in range(2):  # the second time with `later` in memory
        mine = load_file(path).Mine()
        assert files_of(mine) == {path, tmp_path / "context.py"}
        mine.build()


def test_a_wrapper_beside_our_scripts_shares_our_modules():
    own = load_file(ROOT / "infer.py")
    assert own.load_recipe is importlib.import_module("pipeline.recipe").load_recipe


@pytest.mark.parametrize(("text", "reason"), [
    ("from models import Missing\n", "cannot be loaded: cannot import name 'Missing' from 'models'"),
    ("import models.unet\n", "needs what is not installed: No module named 'models.unet'"),
])
def test_refusals_call_modules_by_their_plain_names(tmp_path, text, reason):
    path = write(tmp_path, models="", mine=text)
    with pytest.raises(GeneratorError, match=reason):
        load_generator(f"{path}:Mine")
