"""pack takes a wrapper's own modules and settings along, and no package of the same name."""

import importlib
import shutil

import pytest

from generators.contract import load_generator
from pipeline.recipe import BASELINE
from submit.errors import SubmitError
from submit.imports import wrapper_files
from submit.pack import generator_files, pack
from submit.profile import load_profile
from tests.submissions import ROOT
from tests.wan_checkpoints import write_checkpoint


def wrapper(tiny_file, folder, **modules):
    """The tiny presenter as a wrapper, with modules beside it; mine begins with the text of that name."""
    folder.mkdir()
    for path in tiny_file.parent.glob("*.safetensors"):
        (folder / path.name).write_bytes(path.read_bytes())
    for name, text in modules.items():
        path = folder / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(text + (tiny_file.read_text() if name == "mine" else ""))
    return f"{folder / 'mine.py'}:Tiny"


def test_modules_beside_a_wrapper_are_packed_and_no_package_is_asked_for_their_names(
        tiny_file, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("submit.pack.choose", lambda imports, *rest: asked.extend(imports) or [])
    name = wrapper(
        tiny_file, tmp_path / "w", mine="from __future__ import annotations\nimport models\n",
        models="import pipeline\nfrom . import relative\nfrom generators.presenter import load\n",
        pipeline="def lazy():\n    from src.nets.unet import Net\n", relative="",
        src__nets__unet="import cv2\ntry:\n    import xformers\nexcept ImportError:\n    pass\n",
        unused="import never\n")
    packed = pack(BASELINE, name, load_profile("cpu"), tmp_path / "a.zip")
    files = [each for each in packed.manifest["files"] if each.startswith("generator/") and ".py" in each]
    own = ("mine", "models", "pipeline", "relative", "src/nets/unet")
    assert files == [f"generator/{each}.py" for each in own]
    assert "generators/presenter/load.py" in packed.manifest["files"]
    assert {"cv2", "torch"} <= set(asked)
    assert not {"models", "pipeline", "src", "never", "relative", "xformers", "pi_heif"} & set(asked)


def test_modules_of_a_folder_that_sources_name_are_packed_too(tiny_file, tmp_path, monkeypatch):
    mine = ("from __future__ import annotations\nimport sys\nfrom pathlib import Path\n"
            "sys.path.insert(0, str(Path(__file__).parent / 'base'))\nimport models\n")
    monkeypatch.setattr("submit.pack.choose", lambda *arguments: [])
    name = wrapper(tiny_file, tmp_path / "w", mine=mine, base__models="import inner\n", base__inner="")
    path = tmp_path / "w" / "mine.py"
    with pytest.raises(SubmitError, match="generator/mine.py imports models, which is no installed package: "
                                          ".*beside mine.py or name its file in fingerprint_files"):
        pack(BASELINE, name, load_profile("cpu"), tmp_path / "a.zip")
    path.write_text(path.read_text() + "        self.fingerprint_files = (*self.fingerprint_files, "
                    "Path(__file__).parent / 'base' / 'models.py')\n")
    packed = pack(BASELINE, name, load_profile("cpu"), tmp_path / "a.zip")
    files = [each for each in packed.manifest["files"] if each.startswith("generator/")]
    assert [each for each in files if each.endswith(".py")] == [
        "generator/base/inner.py", "generator/base/models.py", "generator/mine.py"]


def test_a_generator_made_from_a_folder_is_refused_with_the_way_out(tmp_path):
    with pytest.raises(SubmitError, match="wan-animate=w has its folder here and not there; write a file"):
        pack(BASELINE, "wan-animate=w", load_profile("cpu"), tmp_path / "a.zip")


@pytest.mark.parametrize(("content", "reason"), [
    (b"print 'two'\n", "models.py: Python cannot read this"),
    (b"x = '\xc4\xe3'\n", "models.py: Python cannot read this"),
    (b"# coding: gbk\nx = '\xc4\xe3'\n", None)])
def test_a_module_that_python_cannot_read_is_named(tiny_file, tmp_path, content, reason):
    mine = "from __future__ import annotations\ndef lazy():\n    import models\n"
    wrapper(tiny_file, tmp_path / "w", mine=mine)
    (tmp_path / "w" / "models.py").write_bytes(content)
    start = tmp_path / "w" / "mine.py"
    if reason:
        with pytest.raises(SubmitError, match=reason):
            wrapper_files(ROOT, start, [])
    else:
        assert start.with_name("models.py") in wrapper_files(ROOT, start, [])[0]


@pytest.mark.parametrize(("kind", "home"), [
    ("wan-fun-control", "generators.wan.fun_control:FunControl"),
    ("mimicmotion", "generators.mimicmotion.generator:MimicMotion"),
    ("refnet", "generators.refnet.generator:RefNet")])
def test_a_folders_settings_are_packed_and_its_generator_is_the_same_without_weights(tmp_path, kind, home):
    """Where engines bring the networks, an archive has no weights; sizes and steps came from the defaults."""
    folder, (module, _, name) = tmp_path / "here" / "w", home.partition(":")
    if kind == "wan-fun-control":
        write_checkpoint(folder, kind)
    else:
        importlib.import_module(f"generators.{kind}.random_weights").write_folder(folder, "tiny")
    (folder / "vivace.toml").write_text("width = 64\nheight = 128\nsteps = 3\n")
    mine = tmp_path / "here" / "mine.py"
    mine.write_text(f"from pathlib import Path\n\nfrom {module} import {name}\n\n\nclass Mine({name}):\n"
                    "    def __init__(self):\n        super().__init__(Path(__file__).parent / 'w')\n")
    generator = load_generator(f"{mine}:Mine")
    packed, files = generator_files(f"{mine}:Mine", generator, weights=False)
    assert packed == "generator/mine.py:Mine" and not [each for each in files if "safetensors" in each]
    for archived, source in files.items():
        if archived.startswith("generator/"):
            (tmp_path / "there" / archived).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, tmp_path / "there" / archived)
    there = load_generator(f"{tmp_path / 'there' / packed}")
    for other in ("size", "guidance", "components"):
        assert getattr(there, other) == getattr(generator, other)
    assert there.scheduler.steps == 3 and there.size == (64, 128)
