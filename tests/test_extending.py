"""docs/extending.md: each extension is one file and one line, which work in a copy of the repository."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.graphs import copy_built

ROOT = Path(__file__).parents[1]
ROOMS = ("engines", "generators", "pipeline", "optimize", "bench", "submit")
FILE = re.compile(r"^File `(\S+)`:\n\n```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINE = re.compile(r"^Line in `(\S+)`, in `(\w+)`:\n\n```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def python(root, *arguments):
    answer = subprocess.run([sys.executable, *arguments], cwd=root, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """A copy of the code with all files and lines of the page."""
    root, text = tmp_path_factory.mktemp("extended"), (ROOT / "docs" / "extending.md").read_text()
    for path in (each for room in ROOMS for each in (ROOT / room).rglob("*.py")):
        copy = root / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    shutil.copy(ROOT / "infer.py", root)
    assert text.count("```python") == len(FILE.findall(text)) + len(LINE.findall(text)) == 7
    for path, code in FILE.findall(text):
        assert not (root / path).exists()
        (root / path).write_text(code)
    for path, table, line in LINE.findall(text):
        assert line.count("\n") == 1
        before = (root / path).read_text()
        start = re.search(rf"^{table} = {{", before, re.MULTILINE).end()
        (root / path).write_text(f"{before[:start]}\n{line}{before[start:]}")
    return root


def test_the_code_of_the_page_is_as_tidy_as_the_rest(extended):
    files = [path for path, _ in FILE.findall((ROOT / "docs" / "extending.md").read_text())]
    python(extended, "-m", "ruff", "check", "--config", str(ROOT / "pyproject.toml"), *files)


def test_the_doctor_knows_the_new_backend(extended):
    found = json.loads(python(extended, "-m", "engines", "doctor", "--json"))
    assert found["backends"]["numpy"] == {"cpu": None, "cuda": "numpy runs on cpu, not on cuda"}


CHECK = """
import sys
import pipeline.__main__ as script

sys.argv = ["check", "check", "blocks"]
script.main()
"""


def test_the_new_generator_keeps_the_contract_by_its_name(said):
    assert "keeps the contract" in said["check"]


RUN = """
from pathlib import Path
import numpy as np
from engines.artifact import built_folder
from engines.load import Choice, start_engines
from engines.onnx.export import Target, export_onnx
from engines.precision import choose_precisions
from generators.contract import load_generator
from pipeline.sampler import generate

generator, folder = load_generator("blocks"), Path(FOLDER, "blocks")
for name in generator.components:
    export_onnx(generator, name, Target(folder, lambda text: None))
draws = np.random.default_rng(0)
skeletons = draws.integers(0, 256, (11, 48, 32, 3), np.uint8)
videos = {}
for backend in ("torch", "numpy"):
    choice = Choice(backend, choose_precisions("fp32", generator.components), "cpu", folder)
    _, engines = start_engines(generator, choice, print)
    videos[backend] = generate(generator, engines, skeletons, skeletons[0], 42).astype(int)
print(videos["numpy"].shape, abs(videos["numpy"] - videos["torch"]).max())
"""


def test_the_new_backend_makes_the_frames_that_torch_makes_of_the_new_generator(said):
    assert said["run"].strip() in ("(11, 48, 32, 3) 0", "(11, 48, 32, 3) 1")


SUBMIT = """
from pathlib import Path
from submit.imports import needed_files, needed_packages
print(*needed_packages(Path("."), ["infer.py"], "numpy", None, (3, 11)))
files = needed_files(Path("."), ["infer.py"])
print(*[path for path in files if path.endswith(("numpy_backend.py", "/blocks.py"))])
"""


def test_a_submission_has_the_packages_and_files_of_the_new_backend_and_generator(said):
    packages, files = said["submit"].splitlines()
    assert "onnx" in packages.split() and "torch" not in packages.split()
    assert files == "engines/backends/numpy_backend.py generators/blocks.py"


CONVERT = """
from pathlib import Path
import onnx
from engines.backends.onnxruntime_backend import SUPPORTED
from engines.errors import EngineError
from engines.onnx.export import Target, export_onnx
from engines.onnx.parity import draw
from engines.precision import choose_precisions
from engines.tensorrt.targets import Targets, check_precision
from generators.contract import load_generator
from optimize.exact_rewrites import EXACT
from optimize.precision.convert import Calibration, convert

tiny, target = load_generator(TINY), Target(Path(FOLDER, "tiny"), lambda text: None)
spec = tiny.components["denoise"]
inputs = [draw(spec, {"b": 1, "n": 2}, seed) for seed in range(2)]
calibration = Calibration({"inputs": "random"}, lambda: inputs)
source = export_onnx(tiny, "denoise", target, rewriting=EXACT)  # there already, from the same sources
artifact = convert(source, spec, "int8-bf16", calibration, target)
kinds = {weight.data_type for weight in onnx.load(artifact.path).graph.initializer}
assert {onnx.TensorProto.INT8, onnx.TensorProto.BFLOAT16} <= kinds
assert "int8-bf16" in SUPPORTED["cuda"] and "int8-bf16" not in SUPPORTED["cpu"]
assert choose_precisions("int8-bf16", ["a"]) == {"a": "int8-bf16"}
try:
    check_precision(Targets(None, {"sm_75": "x"}), "int8-bf16")
except EngineError as error:
    print(error)
"""


def test_the_new_precision_is_made_and_goes_where_its_arithmetic_is(said):
    assert said["convert"].startswith("int8-bf16 needs compute capability 8.0 or newer")


TECHNIQUE = """
from types import SimpleNamespace
import numpy as np
from generators.contract import load_generator
from pipeline.recipe import parse_recipe
from pipeline.sampler import Sampler
from tests.conftest import Plain

def run(every):
    recipe = parse_recipe(f'[technique]\\nname = "linear"\\nevery = {every}', "linear")
    generator = Plain(6)
    generator.flow = lambda conditional, latents, pose: latents * 0 + len(generator.calls)  # grows evenly
    adapted = recipe.adapt(generator)
    constants = {"pose": np.zeros((1, 16, 12, 8), np.float32), "reference": np.zeros((1, 12, 8), np.float32)}
    sampler = Sampler(adapted, generator.engines(), None, recipe.open_denoiser)
    return sampler.sample(constants, 16, 1).latents, len(generator.calls)

(base, all_calls), (found, calls) = run(1), run(2)
print(all_calls, calls, np.isfinite(found).all(), bool(np.abs(found - base).max() > 0))
"""


def test_the_new_technique_is_run_by_a_recipe_that_names_it(said):
    assert said["technique"].strip() == "12 6 True True"


ALL = """
import io, json, sys, traceback
from contextlib import redirect_stdout

parts, said, sys.argv = json.loads(sys.argv[1]), {}, sys.argv[:1]
for name, code in parts.items():
    with redirect_stdout(io.StringIO()) as told:
        try:
            exec(code, {"__name__": name})
        except Exception:
            traceback.print_exc(file=told)
    said[name] = told.getvalue()
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def said(extended, tiny_file, tiny_built, tmp_path_factory):
    """What each of the programs above says, by name; one process, as each would load torch for seconds."""
    folder = copy_built(tiny_built, tmp_path_factory.mktemp("built"))
    (extended / "tests").mkdir()
    shutil.copy(ROOT / "tests" / "conftest.py", extended / "tests")
    given = f"FOLDER, TINY = {str(folder)!r}, '{tiny_file}:Tiny'\n"
    parts = {"check": CHECK, "run": RUN, "submit": SUBMIT, "convert": CONVERT, "technique": TECHNIQUE}
    answer = python(extended, "-c", ALL, json.dumps({name: given + code for name, code in parts.items()}))
    return json.loads(answer.splitlines()[-1])
