"""Target machines: profiles, exact packages for another Python, engines for another GPU."""

import json

import pytest
from packaging import markers
from packaging.requirements import Requirement

from pipeline.recipe import Recipe
from submit.check import ALL
from submit.checks import FAIL, PASS, Submission, evaluate
from submit.errors import SubmitError
from submit.imports import needed_packages
from submit.packages import Pin, _reach, choose, parse_pins, resolve
from submit.profile import HERE, PROFILES, Profile, load_profile
from tests.submissions import contents, only_wheels, pack_tiny, repacked, write_wheel

A800 = load_profile("a800-py310-cu124")
OLD, NEW = Profile("old", python="3.10", glibc="2.31"), Profile("new", python="3.12", glibc="2.31")


def test_the_profiles_load_and_say_what_they_are():
    assert {path.stem for path in PROFILES.glob("*.toml")} == {"cpu", "a800-py310-cu124", "h200-cu130"}
    for path in PROFILES.glob("*.toml"):
        profile = load_profile(path.stem)
        assert profile.about and profile.name == path.stem and profile.max_mb > 0
    assert load_profile("cpu").python == HERE and load_profile("cpu").why_not_here() is None
    assert (A800.version, A800.gpu["sm"]) == ((3, 10), "sm_80") and "2_31" in A800.platforms[0]


def test_a_profile_of_ones_own_gives_only_what_differs(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('like = "a800-py310-cu124"\npython = "3.11"\nmax_mb = 100\n')
    mine = load_profile(str(path))
    assert (mine.name, mine.python, mine.max_mb, mine.gpu) == ("mine", "3.11", 100, A800.gpu)


@pytest.mark.parametrize(("text", "why"), [
    ("pythn = '3.10'\n", "did you mean 'python'"), ("python = 3.10\n", "must be text"),
    ("x", "is not a TOML file"),
    ("python = '3'\n", "must be as '3.10'"), ("max_mb = 0\n", "must be a number above 0"),
    ("device = 'cuda'\n", "needs \\[gpu\\]"), ("max_mb = inf\n", "must be a number above 0"),
    (f"max_mb = {'1' * 400}\n", "max_mb: an integer must have at most 64 bits"),
    (f"glibc = '2.{'1' * 400}'\n", "glibc must be as '3.10'"), ("glibc = 'new'\n", "glibc must be as"),
    ("index = 1\n", "index must be text"), ("tensorrt = 10.13\n", "tensorrt must be text"),
    ("packages = ['x']\n", "packages must have a list of texts"),
    ("preinstalled = [1]\n", "preinstalled must be a list of texts"),
    ("like = 7\n", "like must be a profile's name in quotes, is 7"), ("like = ['cpu']\n", "in quotes"),
    ("like = 'cpuu'\n", "did you mean 'cpu'"), ('like = "a\\u0000"\n', "is the name of no profile"),
    (f"like = '{'n' * 5000}'\n", "'n{60}' is the name of no profile")])
def test_a_profile_with_a_mistake_is_refused(tmp_path, text, why):
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(SubmitError, match=why):
        load_profile(str(tmp_path / "mine.toml"))


def test_profiles_that_are_like_each_other_are_refused(tmp_path):
    first, second = tmp_path / "first.toml", tmp_path / "second.toml"
    first.write_text(f"like = '{first}'\n")
    with pytest.raises(SubmitError, match="first.toml: like leads back to this file; name a profile"):
        load_profile(str(first))
    first.write_text(f"like = '{second}'\n"), second.write_text(f"like = '{first}'\n")
    with pytest.raises(SubmitError, match="like leads back"):
        load_profile(str(first))


def test_a_target_that_is_not_this_machine_says_what_is_missing(monkeypatch):
    monkeypatch.setattr("submit.profile.shutil.which", lambda name: None)
    assert A800.why_not_here() == "a800-py310-cu124 needs a GPU, and there is none here"
    reason = Profile("x", python="3.99").why_not_here()
    assert reason == "x needs Python 3.99, and there is no python3.99 here"


# Packages


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder of wheels that pip takes packages from, with markers in them."""
    folder = tmp_path / "index"
    only_wheels(monkeypatch, folder)
    write_wheel(folder, "top", "1.5", ['old>=1; python_version < "3.11"', 'new; python_version >= "3.12"',
                                       'more; extra == "all"', "Both_Named>=2"])
    for name in ("old", "new", "more", "top"):
        write_wheel(folder, name, "1.0")
    write_wheel(folder, "both-named", "2.1")
    return folder


def test_markers_count_as_they_hold_on_the_target_not_here(index):
    def names(profile):
        return [pin.name.lower() for pin in resolve(["top>=1"], profile, [], {})]

    assert names(OLD) == ["both-named", "old", "top"]
    assert names(NEW) == ["both-named", "new", "top"]


def test_markers_of_the_machine_are_the_targets_too(tmp_path, monkeypatch):
    here = {**markers.default_environment(), "platform_machine": "aarch64", "sys_platform": "darwin",
            "platform_system": "Darwin"}
    monkeypatch.setattr(markers, "default_environment", lambda: here)
    on = 'blas; platform_system == "Linux" and platform_machine == "x86_64"'
    found = {"top": {"requires_dist": [on, 'metal; sys_platform == "darwin"']}, "blas": {}}
    assert _reach([Requirement("top")], found, OLD) == ({"top", "blas"}, [])


def test_extras_lead_to_packages_too_and_are_asked_for_again_where_pip_left_them_out(index):
    write_wheel(index, "far", "1.0", ['top[all]; python_version < "3.11"'])
    names = [pin.name.lower() for pin in resolve(["far"], OLD, [], {})]
    assert names == ["both-named", "far", "more", "old", "top"]
    found = {"far": {"requires_dist": ["top[all]>=1"]}}
    assert _reach([Requirement("far")], found, OLD) == ({"far"}, ["top[all]>=1"])


def test_constraints_decide_versions_and_impossible_ones_are_an_error(index):
    versions = {pin.name: pin.version for pin in resolve(["top"], OLD, ["top==1.0"], {})}
    assert versions == {"top": "1.0"}
    with pytest.raises(SubmitError, match="pip finds no packages for Python 3.10 and glibc 2.31\n  ERROR"):
        resolve(["top==9"], OLD, [], {})


def test_pins_are_told_from_other_lines():
    hashed = "b-c==2.0 \\\n  --hash=sha256:" + "0" * 64
    other = ["d>=1", "-e .", "./x", "https://example.org/x.whl", "e", "--trusted-host x", "f==1.*"]
    pins, wrong = parse_pins("\n".join(["a==1.0 # why", "--find-links wheels", hashed, "", *other]))
    found = [(pin.name, pin.version, len(pin.hashes)) for pin in pins]
    assert found == [("a", "1.0", 0), ("b-c", "2.0", 1)] and wrong == other


def test_what_a_profile_gives_or_has_is_not_looked_up(tmp_path, index):
    lines = "top>=1  # MIT: x\ntensorrt>=10  # NVIDIA proprietary (run)\n"
    (tmp_path / "requirements-gpu.txt").write_text(lines)
    profile = Profile("x", device="cuda", gpu={"sm": "sm_80", "name": "A"}, python="3.10", glibc="2.31",
                      as_given={"tensorrt": ["tensorrt-cu12==10.1"]}, preinstalled=("torch",))
    pins = choose(["tensorrt", "top", "torch"], profile, tmp_path)
    assert [f"{pin} {pin.licence}" for pin in pins] == [
        "both-named==2.1 MIT", "old==1.0 MIT", "tensorrt-cu12==10.1 NVIDIA proprietary", "top==1.5 MIT"]
    with pytest.raises(SubmitError, match="scipy is imported and requirements-gpu.txt does not name scipy"):
        choose(["scipy"], profile, tmp_path)


def test_imports_are_followed_where_the_run_goes(tmp_path):
    files = {
        "infer.py": "from __future__ import annotations\nimport json\nfrom engines import load\nimport a.b\n",
        "engines/__init__.py": "", "a/__init__.py": "",
        "engines/backends/openvino_backend.py": "def f():\n    import openvino\n",
        "a/b.py": "import sys\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\n"
                  "if sys.version_info >= (3, 11):\n    import tomllib\nelse:\n    import tomli\n"
                  "def f():\n    from a import c\n    from PIL import Image\n",
        "a/c.py": "import diffusers\n", "engines/load.py": "X = 'engines.backends.torch_backend'\n",
        "engines/backends/torch_backend.py": "import torch\n", "generators/contract.py": "",
        "mine.py": "import cv2\ndef build():\n    import torch\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)

    def needed(backend, own, python):
        return list(needed_packages(tmp_path, ["infer.py"], backend, own, python))

    assert needed("openvino", None, (3, 11)) == ["PIL", "openvino"]
    assert needed("openvino", "mine.py", (3, 10)) == ["PIL", "cv2", "openvino", "tomli"]
    assert needed("torch", "mine.py", (3, 11)) == ["PIL", "cv2", "torch"]


# Engines


@pytest.fixture
def for_a800(tiny_file, tiny_built, tmp_path, monkeypatch):
    """The tiny presenter's archive for the A800: graphs, and engines to be built."""
    monkeypatch.setenv("VIVACE_BUILT", str(tiny_built))
    monkeypatch.setattr("submit.pack.choose", lambda *arguments: [Pin("numpy", "2.0", "BSD")])
    return pack_tiny(tiny_file, tmp_path / "a800.zip", Recipe("gpu", backend="tensorrt"), A800.name).path


def judged(path, profile=A800):
    with Submission(path, profile) as submission:
        return evaluate(ALL["S08"], submission)


def test_graphs_and_a_build_step_pass_for_another_gpu(for_a800):
    result = judged(for_a800)
    assert result.status == PASS and result.notes == ["engines are built at the first run: 180 s at a guess"]


def engine(component, sm="sm_80", name="NVIDIA A800-SXM4-80GB", version="10.13.3.9"):
    """An engine of that component with a manifest, as files of an archive."""
    path = f"engines/built/tiny/{component}-fp32-01234567.engine"
    built_from = {"targets": {sm: name}, "toolchain": {"flavour": "tensorrt", "version": version},
                  "os": "Linux-x86_64", "builder": {"activations": "resized"}}
    return {path: b"engine", f"{path}.json": json.dumps({"built_from": built_from}).encode()}


@pytest.mark.parametrize(("changed", "text"), [
    (engine("denoise", "sm_90", "NVIDIA H200"), "targets.sm_80 was null when it was built"),
    (engine("denoise", version="10.9.0"), 'toolchain.version was "10.9.0" when it was built'),
    ({"engines/built/tiny/denoise-fp32-01234567.engine": b"x"}, "has no manifest that says what it is for"),
])
def test_a_foreign_engine_is_rejected_and_the_field_named(for_a800, tmp_path, changed, text):
    result = judged(repacked(for_a800, tmp_path / "bad.zip", changed))
    assert result.status == FAIL and text in result.problems[0]


def test_engines_for_the_target_need_no_build(for_a800, tmp_path):
    changed = engine("encode") | engine("denoise") | engine("decode")
    result = judged(repacked(for_a800, tmp_path / "good.zip", changed))
    assert result.status == PASS and result.notes == []


def test_missing_engines_that_nobody_builds_or_not_in_time_are_rejected(for_a800, tmp_path):
    idle = {"submission.json": lambda content: content.replace(b'"build": true', b'"build": false')}
    bad = repacked(for_a800, tmp_path / "bad.zip", idle, listed=False)
    assert "does not have infer.py build them" in judged(bad).problems[0]
    slow = Profile("slow", device="cuda", gpu=A800.gpu, tensorrt=A800.tensorrt, environment_seconds=100)
    assert judged(for_a800, slow).problems == ["building takes 180 s, allowed are 100"]
    graph = next(name for name in contents(for_a800) if "denoise" in name and name.endswith(".onnx"))
    assert "is missing" in judged(repacked(for_a800, tmp_path / "bad.zip", {graph: None})).problems[0]
