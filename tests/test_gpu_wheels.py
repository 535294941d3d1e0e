"""Wheels for a machine without network: cut into loads, joined and checked there, installed."""

import json
import zipfile

import numpy as np
import pytest

from bench.gpu.install import install
from bench.gpu.wheels import LIST, collect, lay_out
from engines.spec import EngineError


@pytest.fixture
def wheels(tmp_path):
    """A small wheel that can be installed, and a large file that stands for another."""
    small, large = (tmp_path / f"{name}-1.0-py3-none-any.whl" for name in ("small_thing", "large_thing"))
    for path, ballast in ((small, 0), (large, 50_000)):
        name = path.name.partition("-")[0]
        with zipfile.ZipFile(path, "w") as wheel:
            wheel.writestr(f"{name}.py", "ANSWER = 42\n")
            wheel.writestr(f"{name}_ballast.bin", np.random.default_rng(0).bytes(ballast))
            about = f"{name}-1.0.dist-info"
            wheel.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
            wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{about}/RECORD", "")
    return [small, large]


def test_no_load_is_larger_than_asked_and_all_of_them_together_are_the_wheels(wheels, tmp_path):
    loads = lay_out(wheels, tmp_path / "out", 20_000)
    folders = sorted((tmp_path / "out").iterdir())
    sizes = [sum(path.stat().st_size for path in folder.iterdir() if path.name != LIST) for folder in folders]
    assert len(folders) == loads == -(-sum(sizes) // 20_000)
    assert max(sizes) <= 20_000 and sum(sizes) == sum(wheel.stat().st_size for wheel in wheels)


def test_loads_may_come_one_by_one_and_the_same_twice_and_what_lacks_is_named(wheels, tmp_path):
    lay_out(wheels, tmp_path / "out", 20_000)
    first, *others = sorted((tmp_path / "out").iterdir())
    kept = tmp_path / "kept"
    for _ in range(2):
        lacking = collect(first, kept)
        assert not lacking[wheels[0].name]
        assert "2 of 3 parts, as large_thing-1.0-py3-none-any.whl.001" in lacking[wheels[1].name]
    for folder in others:
        lacking = collect(folder, kept)
    assert set(lacking.values()) == {""}
    assert set(collect(first, kept).values()) == {""}  # brought once more after all was joined
    for wheel in wheels:
        assert (kept / wheel.name).read_bytes() == wheel.read_bytes()
    assert sorted(path.name for path in kept.iterdir()) == sorted([LIST, *(wheel.name for wheel in wheels)])


def test_a_damaged_part_is_named_and_can_be_brought_again(wheels, tmp_path):
    lay_out(wheels, tmp_path / "out", 20_000)
    part = next((tmp_path / "out").rglob("large_thing*.001"))
    kept, content = tmp_path / "kept", part.read_bytes()
    part.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(EngineError, match=r"large_thing.*\.001 is damaged .*bring it again"):
        collect(tmp_path / "out", kept)
    part.write_bytes(content)
    assert set(collect(tmp_path / "out", kept).values()) == {""}


def test_without_the_list_the_command_that_makes_it_is_named(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(EngineError, match="has no wheels.json; make it with: python -m bench gpu wheels"):
        collect(tmp_path / "empty", tmp_path / "kept")


def test_whole_wheels_are_installed_in_a_folder_of_their_own_and_only_once(wheels, tmp_path):
    lay_out(wheels, tmp_path / "out", 20_000)
    said, folder = [], tmp_path / "work"
    folder.mkdir()
    first = tmp_path / "out" / "load-01"
    assert install(first, folder, said.append)[wheels[0].name] == "installed"
    assert (folder / "site" / "small_thing.py").is_file()
    assert not (folder / "site" / "large_thing.py").is_file()
    found = install(tmp_path / "out", folder, said.append)
    assert set(found.values()) == {"installed"} and (folder / "site" / "large_thing.py").is_file()
    assert said == [f"installed {wheel.name}" for wheel in wheels]
    assert json.loads((folder / "installed.json").read_text()) == sorted(wheel.name for wheel in wheels)


def test_a_wheel_that_pip_refuses_is_named_with_pips_reason(tmp_path):
    wrong = tmp_path / "wrong-1.0-cp27-cp27m-win32.whl"
    wrong.write_bytes(b"no wheel")
    lay_out([wrong], tmp_path / "out", 100)
    (tmp_path / "work").mkdir()
    with pytest.raises(EngineError, match="pip refuses wrong-1.0-cp27-.*: .*not a supported wheel"):
        install(tmp_path / "out", tmp_path / "work", lambda text: None)
