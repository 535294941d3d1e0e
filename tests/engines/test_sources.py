"""What of a wrapper decides its networks: the code that `build` reaches, and files by component."""

import sys
from importlib.util import module_from_spec, spec_from_file_location

import pytest

from engines.artifact import fingerprint_of
from engines.sources import reached_code

WRAPPER = '''"""A wrapper."""
import math
from pathlib import Path

WIDTH = 8
STEPS = 4
WEIGHTS = Path(__file__).with_name("weights")


def network(component):
    return Vae() if component == "decode" else [WIDTH]


def double(value):
    return 2 * value


class Vae:
    def forward(self, x):
        return self.vae.decode(double(x))


class Wrapper:
    """A generator."""

    guidance, size = 2.0, (64, 96)
    components = {"denoise": None, "decode": None}

    def __init__(self):
        self.depth = self.layers() + 1
        self.fingerprint_files = (Path(__file__), WEIGHTS)

    def layers(self):
        return 3

    def build(self, component):
        return network(component), self.depth

    def decode(self, latents):
        return math.sqrt(STEPS)
'''
SAMPLING = {  # edits that change no network
    "guidance": ("2.0", "7.5"), "a method": ("sqrt(STEPS)", "sqrt(STEPS + 1)"), "a constant": ("= 4", "= 5"),
    "docstrings and comments between": ('"""A wrapper."""', '"""Another."""\n# more'),
    "a function that nothing of it calls": ("def double", "def half(x):\n    return x\n\n\ndef double")}
NETWORK = {
    "its function": ("[WIDTH]", "[WIDTH, 1]"), "a constant": ("WIDTH = 8", "WIDTH = 16"),
    "a class": ("double(x)", "double(x) + 1"), "a function of a class": ("2 * value", "3 * value"),
    "what __init__ sets": ("+ 1", "+ 2"), "a method that it calls": ("return 3", "return 4"),
    "build": ("network(component),", "network(component) or"),
    "settings of a library": ("import math\n", "import math\nmath.tau\n"),
    "what may be any name": ("import math\n", "import math\nfrom os.path import *\n")}


@pytest.fixture
def load(tmp_path):
    """A function that writes the wrapper with an edit, and gives its generator."""
    (tmp_path / "weights").write_bytes(b"1")

    def load(old="", new=""):
        assert old in WRAPPER
        path = tmp_path / "wrapper.py"
        path.write_text(WRAPPER.replace(old, new) if old else WRAPPER)
        sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
        spec = spec_from_file_location("edited_wrapper", path)
        module = sys.modules["edited_wrapper"] = module_from_spec(spec)
        spec.loader.exec_module(module)
        sys.dont_write_bytecode = before
        return module.Wrapper()
    yield load
    sys.modules.pop("edited_wrapper", None)


@pytest.mark.parametrize("edit", SAMPLING)
def test_an_edit_of_how_a_wrapper_samples_makes_no_network_stale(load, edit):
    was = fingerprint_of(load(), "denoise")
    assert fingerprint_of(load(*SAMPLING[edit]), "denoise") == was


@pytest.mark.parametrize("edit", NETWORK)
def test_an_edit_of_what_build_reaches_makes_its_networks_stale(load, edit):
    was = fingerprint_of(load(), "denoise")
    assert fingerprint_of(load(*NETWORK[edit]), "denoise") != was


@pytest.mark.parametrize("dynamic", [
    "getattr(self, component)", "globals()[component]", "vars(self)", "self.__dict__", "eval(component)",
    "self.__class__.depth", "type(self).depth"])
def test_where_names_cannot_be_read_the_whole_file_counts(load, dynamic):
    edit = ("network(component),", f"{dynamic},")
    load(*edit)
    path = load(*edit).fingerprint_files[0]
    assert reached_code(path, "build", "Wrapper") == path.read_text()


@pytest.mark.parametrize("setting", [
    "object.__setattr__(self, 'depth', 3)", "setattr(self, 'depth', 3)", "self.__dict__.update(depth=3)",
    "vars(self)['depth'] = 3"])
def test_where_a_method_sets_what_is_not_named_the_whole_file_counts(load, setting):
    path = load("self.depth = self.layers() + 1", setting).fingerprint_files[0]
    assert reached_code(path, "build", "Wrapper") == path.read_text()


@pytest.mark.parametrize(("before", "after"), [("size = 16", "size = 32"), ("return 1", "return 2")])
def test_of_a_class_that_inherits_build_in_the_same_file_all_of_it_counts(load, before, after):
    heir = ("        return math.sqrt(STEPS)\n", "        return math.sqrt(STEPS)\n\n\nclass Heir(Wrapper):\n"
            "    size = 16\n\n    def decode(self):\n        return 1\n")

    def print_of(old, new):
        load(heir[0], heir[1].replace(old, new))
        return fingerprint_of(sys.modules["edited_wrapper"].Heir(), "denoise")

    assert print_of(before, before) == print_of(before, before) != print_of(before, after)


def test_attributes_of_what_self_is_handed_to_count(load):
    generator = load("network(component),", "network(self.depth and self),")
    code = reached_code(generator.fingerprint_files[0], "build", "Wrapper")
    assert "def decode" in code  # Vae.forward has self.vae.decode, and may have been given the wrapper


def test_a_component_may_name_its_own_files_and_functions(load, tmp_path):
    def prints(generator):
        module = sys.modules["edited_wrapper"]
        generator.component_files = {"decode": (module.Vae, tmp_path / "weights")}
        return [fingerprint_of(generator, name) for name in ("denoise", "decode")]

    denoise, decode = prints(load())
    changed = prints(load("[WIDTH]", "[WIDTH, 1]"))
    assert changed[0] != denoise and changed[1] == decode
    assert prints(load("2 * value", "3 * value"))[1] != decode
    (tmp_path / "weights").write_bytes(b"2")
    both = prints(load())
    assert both[0] != denoise and both[1] != decode
    (tmp_path / "weights").unlink()
    assert prints(load()) == [None, None]  # as in a submission
