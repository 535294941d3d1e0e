"""Finding a generator: by name, by file, and what the refusals say; the example is complete."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from engines.cli import GENERATORS
from generators.contract import BUNDLED, FROM_FOLDER, REQUIRED, Generator, GeneratorError, load_generator

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "my_generator.py"


def write(path, text):
    path.write_text(text)
    return path


def members(generator):
    return [name for name in REQUIRED if not hasattr(generator, name)]


def test_the_contract_requires_every_member_it_documents():
    expected = {"name", "components", "fingerprint_files", "scheduler", "guidance", "windows", "frame_axis",
                "size", "chunk",
                "per_frame", "build", "fit", "condition", "noise", "denoise", "decode"}
    assert set(REQUIRED) == expected


@pytest.mark.parametrize("name", BUNDLED)
def test_every_bundled_generator_is_found_by_name_and_answers_the_contract(name):
    generator = load_generator(name)
    assert generator.name == name and members(generator) == []


def test_a_generator_is_loaded_from_a_file_without_torch(tiny_file):
    code = ("import sys; from generators.contract import load_generator as load; "
            f"load({f'{tiny_file}:Tiny'!r}); load({f'{EXAMPLE}:MyGenerator'!r}); "
            "assert 'torch' not in sys.modules")
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize("name", ["nope", "presenter.py", "file.txt:Tiny", "file.py:", "", ":"])
def test_a_name_that_is_neither_bundled_nor_a_file_and_class_is_refused(name):
    with pytest.raises(GeneratorError, match=r"no generator .*; use .*presenter.* or path/to/file.py"):
        load_generator(name)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(GeneratorError, match=f"generator file {tmp_path / 'mine.py'} does not exist"):
        load_generator(f"{tmp_path / 'mine.py'}:Mine")


def test_a_missing_class_is_refused_with_the_classes_that_are_there(tmp_path):
    path = write(tmp_path / "mine.py", "class First: ...\nclass Second: ...\nThird = 3\n")
    for name in ("Mine", "Third"):
        with pytest.raises(GeneratorError, match=rf"no class '{name}'; it has \['First', 'Second'\]"):
            load_generator(f"{path}:{name}")


def test_only_the_files_own_classes_are_offered(tmp_path):
    path = write(tmp_path / "mine.py", "from pathlib import Path\nclass First: ...\n")
    with pytest.raises(GeneratorError, match=r"it has \['First'\]"):
        load_generator(f"{path}:Mine")


def test_a_file_that_python_cannot_read_is_refused_with_its_line(tmp_path):
    path = write(tmp_path / "mine.py", "x = 1\nclass Mine(:\n")
    with pytest.raises(GeneratorError, match=f"^{path}, line 2: invalid syntax; .* correct it$"):
        load_generator(f"{path}:Mine")


def test_a_package_that_a_file_needs_is_named(tmp_path):
    path = write(tmp_path / "mine.py", "import no_such_package\n")
    with pytest.raises(GeneratorError, match=f"{path} needs what is not installed: .*'no_such_package'"):
        load_generator(f"{path}:Mine")


def test_a_class_that_lacks_members_is_refused_with_their_names(tmp_path, tiny_file):
    path = write(tmp_path / "mine.py", "class Mine:\n    name = 'mine'\n    chunk = 8\n")
    lacking = [name for name in REQUIRED if name not in ("name", "chunk")]
    with pytest.raises(GeneratorError) as error:
        load_generator(f"{path}:Mine")
    assert str(error.value) == f"Mine in {path} lacks {lacking}; generators/contract.py says what each is for"


def test_members_may_be_set_when_the_class_is_made(tmp_path):
    values = [name for name in Generator.__annotations__]
    body = "\n".join(f"        self.{name} = None" for name in values)
    methods = "\n".join(f"    def {name}(self): ..." for name in REQUIRED if name not in values)
    path = write(tmp_path / "mine.py", f"class Mine:\n    def __init__(self):\n{body}\n{methods}\n")
    assert type(load_generator(f"{path}:Mine")).__name__ == "Mine"


def test_a_dataclass_in_a_generator_file_finds_its_module(tmp_path):
    text = ("from __future__ import annotations\nfrom dataclasses import dataclass\n"
            "@dataclass\nclass Mine:\n    x: int = 1\n")
    with pytest.raises(GeneratorError, match="Mine in .* lacks"):
        load_generator(f"{write(tmp_path / 'mine.py', text)}:Mine")


def test_two_files_of_the_same_name_are_two_generators(tmp_path, tiny_file):
    text = tiny_file.read_text()
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "tiny.py", text.replace('name = "tiny"', f'name = "{folder}"'))
    names = [load_generator(f"{tmp_path / folder / 'tiny.py'}:Tiny").name for folder in ("one", "two")]
    assert names == ["one", "two"]


def test_the_example_is_one_file_of_fewer_than_100_lines_and_stands_alone():
    text = EXAMPLE.read_text()
    assert len(text.splitlines()) < 100
    assert "presenter" not in text
    assert members(load_generator(f"{EXAMPLE}:MyGenerator")) == []


def test_the_examples_networks_fit_their_specs():
    from engines.backends.torch_backend import TorchEngine

    mine = load_generator(f"{EXAMPLE}:MyGenerator")
    for name, spec in mine.components.items():
        sizes = {dim: limits.opt for dim, limits in spec.ranges.items()}
        tensors = (*spec.inputs, *spec.outputs)
        shape = {tensor.name: [sizes.get(dim, dim) for dim in tensor.dims] for tensor in tensors}
        arrays = {tensor.name: np.ones(shape[tensor.name], tensor.dtype) for tensor in spec.inputs}
        first, again = (TorchEngine(spec, mine.build(name))(**arrays) for _ in range(2))
        for tensor in spec.outputs:
            assert list(first[tensor.name].shape) == shape[tensor.name]
            assert first[tensor.name].dtype == tensor.dtype
            np.testing.assert_array_equal(first[tensor.name], again[tensor.name])  # seeded weights


def test_help_names_every_kind_of_generator():
    assert all(f"{kind}=FOLDER" in GENERATORS for kind in FROM_FOLDER)
