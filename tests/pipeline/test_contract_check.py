"""`python -m pipeline check`: what keeps the contract passes, and each way to break it is explained."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import pipeline.__main__ as generators_main
from generators.contract import GeneratorError, load_generator
from pipeline.check_generator import check_generator
from tests.wan_checkpoints import SIZES, write_checkpoint

ROOT = Path(__file__).parents[2]

PLUGIN = '''
from pathlib import Path

import numpy as np

from engines.spec import Cadence, ComponentSpec, DimRange, TensorSpec
from generators.resize import cover
from generators.samplers import FlowMatchEuler
from generators.windows import OverlapWindows


def network(component):
    import torch
    from torch import nn

    class Encode(nn.Module):
        def forward(self, pixels):
            return nn.functional.avg_pool2d(pixels.float().permute(0, 3, 1, 2), 8) / 127.5 - 1

    class Denoise(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Conv3d(9, 3, 1)
            # denoise init

        def forward(self, latents, time, pose, reference):
            times = time.view(-1, 1, 1, 1, 1)
            reference = reference.unsqueeze(2).expand_as(latents)
            out = self.net(torch.cat([latents, pose, reference], 1)) * times
            # denoise end
            return out

    class Decode(nn.Module):
        def forward(self, latents):
            pixels = nn.functional.interpolate(latents, scale_factor=8)
            return ((pixels + 1) * 127.5).clamp(0, 255).permute(0, 2, 3, 1).to(torch.uint8)

    torch.manual_seed(0)
    return {"encode": Encode, "denoise": Denoise, "decode": Decode}[component]()


class Mine:
    name, size, chunk, frame_axis = "mine", (32, 48), 4, 2
    scheduler, guidance, windows = FlowMatchEuler(2), 2.0, OverlapWindows(4, 1)
    per_frame, fingerprint_files = frozenset({"pose"}), (Path(__file__),)
    pixels, latents = TensorSpec("pixels", ("n", 48, 32, 3), "uint8"), TensorSpec("latents", ("n", 3, 6, 4))
    window, n, b = ("b", 3, 4, 6, 4), {"n": DimRange(1, 4, 4)}, {"b": DimRange(1, 1, 2)}
    seen = (TensorSpec("latents", window), TensorSpec("time", ("b",)), TensorSpec("pose", window),
            TensorSpec("reference", ("b", 3, 6, 4)))
    components = {"encode": ComponentSpec("encode", Cadence.CHUNK, (pixels,), (latents,), n),
                  "denoise": ComponentSpec("denoise", Cadence.STEP, seen, (TensorSpec("flow", window),), b),
                  "decode": ComponentSpec("decode", Cadence.CHUNK, (latents,), (pixels,), n)}

    def build(self, component):
        return network(component)

    def fit(self, pixels):
        return cover(pixels, *self.size)

    def condition(self, engines, chunks, image):
        pose = np.concatenate([engines["encode"](pixels=chunk)["latents"] for chunk in chunks])
        constants = {"pose": pose.transpose(1, 0, 2, 3)[None],
                     "reference": engines["encode"](pixels=image)["latents"]}
        # condition end
        return constants

    def noise(self, frames, seed):
        draws = np.random.Generator(np.random.Philox(seed))
        return draws.standard_normal((1, 3, frames, 6, 4), np.float32)

    def denoise(self, engine, latents, step, constants, conditional):
        # denoise call
        return engine(latents=latents, time=self.scheduler.times[step:step + 1], **constants)["flow"]

    def decode(self, engines, latents):
        frames = latents[0].transpose(1, 0, 2, 3)
        for start in range(0, len(frames), self.chunk):
            yield engines["decode"](latents=frames[start:start + self.chunk])["pixels"]
'''
ENCODE = '"encode": ComponentSpec("encode", Cadence.CHUNK, (pixels,), (latents,), n),'
BATCH = """
    def denoise_branches(self, engine, latents, step, constants, branches):
        made = [self.denoise(engine, latents * (1 + each), step, constants, each) for each in branches[::-1]]
        return np.concatenate(made)

"""
MOVING = """class Moving(OverlapWindows):
    def at(self, step):
        rule = Moving(4, 1)
        object.__setattr__(rule, "padded", lambda frames: max(4, frames - (frames > 8) * (step > 0)))
        return rule

"""
# What is changed in the plug-in; the check that finds it; what it says is wrong, and how to mend it.
WRONG = {
    "hidden state in a network": (
        {"# denoise init": "self.register_buffer('last', torch.zeros(()), persistent=False)",
         "# denoise end": "out = out + self.last\n            self.last = out.mean()"},
        "component denoise", "keeps a hidden state", "an input and an output of the component"),
    "hidden state in the generator": (
        {"# condition end": "self.last = constants['pose']",
         "# denoise call": "latents = latents + self.last"},
        "state", "depends on what ran before it", "keep nothing on self"),
    "wrong dims": (
        {'(TensorSpec("flow", window),)': '(TensorSpec("flow", ("b", 3, 4, 4, 6)),)'},
        "component denoise", r"shape is \(1, 3, 4, 6, 4\), the spec says \(1, 3, 4, 4, 6\)", "output's dims"),
    "wrong frames": (
        {"OverlapWindows(4, 1)": "OverlapWindows(5, 1)"},
        "denoise", "latents needs a dim of 4, got 5", "what components says"),
    "wrong size": ({"(32, 48)": "(48, 32)"}, "condition", "pixels needs a dim of 48, got 32", "components"),
    "noise that is not seeded": (
        {"np.random.Philox(seed)": "np.random.Philox()"},
        "noise", "same seed gives other numbers", r"np.random.Philox\(seed\)"),
    "noise of one seed": (
        {"Philox(seed)": "Philox(3)"}, "noise", "another seed gives the same", "use the seed"),
    "noise in float64": ({", np.float32)": ")"}, "noise", "float64, expected float32", "astype"),
    "random numbers inside": (
        {"# denoise end": "out = out + torch.randn_like(out)"},
        "component denoise", "draws random numbers inside", "make the noise an input"),
    "float64 output": (
        {"# denoise end": "out = out * torch.ones(1, dtype=torch.float64)"},
        "component denoise", "it is float64, the spec says float32", r"\.to\(torch\.float32\).*table"),
    "not finite": ({"# denoise end": "out = out / 0"}, "component denoise", "not finite", "division by zero"),
    "a missing component": (
        {ENCODE: ""}, "condition", r"engines\['encode'\] is asked for, but components has only \['decode'",
        "add a ComponentSpec"),
    "a component that build lacks": (
        {'"decode": Decode}[c': '}[c'},
        "component decode", r"KeyError: 'decode' \(.*mine\.py:\d+\)", "every name"),
    "no denoiser": (
        {'"denoise": ComponentSpec("denoise"': '"denoiser": ComponentSpec("denoiser"'},
        "components", "no 'denoise' among", "run at every step denoise"),
    "another name": ({'ComponentSpec("decode"': 'ComponentSpec("out"'}, "components", "is 'out'", "found by"),
    "an input changed in place": (
        {"# denoise end": "latents.mul_(2)"}, "component denoise", "writes into its input latents", "x = x"),
    "other inputs than the spec's": (
        {"forward(self, pixels)": "forward(self, pixels, scale)"},
        "component encode", "cannot take what its spec says: TypeError", "pixels of the spec"),
    "weights that were not loaded": (
        {"nn.Conv3d(9, 3, 1)": "nn.Conv3d(9, 3, 1, device='meta')"},
        "component denoise", "2 weights hold no numbers, net.weight first", "fill the network"),
    "a wrong name in per_frame": (
        {'frozenset({"pose"})': 'frozenset({"poses"})'}, "condition", "gives no poses", "value a frame"),
    "fingerprint files that are not there": (
        {"(Path(__file__),)": "(Path('lost.safetensors'),)"},
        "settings", "lost.safetensors cannot be read", "stale"),
    "a file of a component that is not among all": (
        {"class Mine:": "class Mine:\n    component_files = {'denoise': (Path(np.__file__),)}"},
        "settings", "of denoise, .*__init__.py is not in", "all of it in fingerprint_files"),
    "no file of a component": (
        {"class Mine:": "class Mine:\n    component_files = {'denoise': ()}"},
        "settings", "denoise has none", "name all"),
    "a component's files under a wrong name": (
        {"class Mine:": "class Mine:\n    component_files = {'denoiser': (Path(__file__),)}"},
        "settings", "unknown component 'denoiser'; did you mean 'denoise'", "names in components"),
    "half precision inside": (
        {"reference], 1)": "reference], 1).half()"},
        "component denoise", "Half", r"leave \.half\(\) and other casts out"),
    "branches in another order": (
        {"    def decode(": BATCH + "    def decode("},
        "denoise", "predicted otherwise alone than with the others", "in the order of branches"),
    "windows that leave frames out at a later step": (
        {"OverlapWindows(4, 1)": "Moving(4, 1)", "class Mine:": MOVING + "class Mine:"},
        "settings", "1 of 9 latent frames are in no window at step 1", "let window_indices"),
    "too few frames": (
        {"range(0, len(frames), self.chunk)": "range(0, 2, self.chunk)",
         "start + self.chunk": "start + 2"}, "decode", "gives 2 frames of a clip of 4", "yield all"),
}


@pytest.fixture
def write(tmp_path):
    """A function that writes the plug-in with changes: its name for --generator."""
    def write(changes):
        text = PLUGIN
        for old, new in changes.items():
            assert old in text
            text = text.replace(old, new)
        (tmp_path / "mine.py").write_text(text)
        return f"{tmp_path / 'mine.py'}:Mine"
    return write


def test_a_sound_plug_in_passes_every_check_export_too(write, tmp_path):
    found = check_generator(load_generator(write({})), tmp_path)
    assert {name: findings for name, findings in found.items() if findings} == {}
    assert ", ".join(found) == (
        "settings, components, component encode, component denoise, component decode, fit, noise, steps, "
        "condition, denoise, decode, state, longer clip, export encode, export denoise, export decode")


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_plug_in_is_explained(write, name):
    changes, check, wrong, mend = WRONG[name]
    found = check_generator(load_generator(write(changes)))
    findings = found[check]
    assert [name for name, each in found.items() if each] == [check]
    assert re.search(wrong, findings[0].wrong) and re.search(mend, findings[0].mend), str(findings[0])


def test_a_size_that_videos_cannot_have_is_found(write):
    odd = write({'"mine", (32, 48),': '"mine", (33, 48),'})
    finding = check_generator(load_generator(odd))["settings"][0]
    assert finding.wrong == "33 x 48 is odd: such videos can only be written with --lossless"


@pytest.mark.parametrize("name", SIZES)
def test_the_wan_conditioners_keep_the_contract(name, tmp_path):
    found = check_generator(load_generator(f"{name}={write_checkpoint(tmp_path, name)}"))
    assert {check: findings for check, findings in found.items() if findings} == {}


def test_a_component_that_cannot_be_exported_is_explained(write, tmp_path):
    branch = {"# denoise end": "out = out * 2 if float(out.sum()) > 0 else out"}
    found = check_generator(load_generator(write(branch)), tmp_path)
    assert [name for name, findings in found.items() if findings] == ["export denoise"]
    assert "torch cannot export it" in found["export denoise"][0].wrong


@pytest.mark.parametrize("kind", ["half", "bfloat16"])
def test_weights_in_half_precision_pass_as_they_run(write, kind):
    found = check_generator(load_generator(write({"# denoise init": f"self.{kind}()"})))
    assert {name: findings for name, findings in found.items() if findings} == {}


def test_what_export_and_tensorrt_refuse_is_found_by_tracing(write):
    changes = {"pixels.float().permute(0, 3, 1, 2)": "pixels.permute(0, 3, 1, 2).float()",
               "# denoise end": "out = out * 2 if float(out.sum()) > 0 else out",
               "clamp(0, 255)": "clamp(0, 255).to(torch.uint8)"}
    found = check_generator(load_generator(write(changes)), trace=True)
    findings = {name: str(each[0]) for name, each in found.items() if each}
    assert list(findings) == ["graph encode", "graph denoise", "graph decode"]
    for name, node in (("graph encode", "Transpose"), ("graph decode", "Cast")):
        assert f"{node} is done with uint8" in findings[name] and "pixels.float()" in findings[name]
    assert "torch cannot export it" in findings["graph denoise"] and "mine.py" in findings["graph denoise"]


@pytest.mark.parametrize(("change", "wrong"), [
    ({"class Mine:": "class Mine:\n    def __init__(self):\n        {}['weights']\n"},
     r"KeyError: 'weights' \(.*mine\.py:\d+\)"),
    ({"class Mine:": "{}['weights']\n\n\nclass Mine:"}, r"KeyError: 'weights' \(.*mine\.py:\d+\)"),
    ({"class Mine:": "open('lost.json')\n\n\nclass Mine:"}, "FileNotFoundError: .*lost.json"),
])
def test_what_a_wrapper_raises_when_it_is_made_is_told_with_its_line(write, run_main, change, wrong):
    name = write(change)
    with pytest.raises(GeneratorError, match=f"Mine in .*mine.py cannot be made: {wrong}"):
        load_generator(name)
    answer = run_main(generators_main, "check", name)
    assert answer.status == 2 and "mend: correct this first" in answer.out and "infer.py" not in answer.out


def test_the_command_says_it_on_stdout_and_by_its_status(write, run_main):
    good = run_main(generators_main, "check", write({}))
    assert good.status == 0 and good.out.endswith("mine.py:Mine: keeps the contract\n")
    bad = run_main(generators_main, "check", write(WRONG["float64 output"][0]))
    assert bad.status == 2
    assert "WRONG component denoise\n      denoise.flow: it is float64, the spec says float32\n" in bad.out
    assert bad.out.endswith(": 1 to mend\n")


def test_the_command_gives_the_same_as_json(write, run_main):
    answer = run_main(generators_main, "check", write(WRONG["wrong dims"][0]), "--json")
    told = json.loads(answer.out)
    assert answer.status == 2 and not told["ok"] and told["checks"]["settings"] == []
    assert set(told["checks"]["component denoise"][0]) == {"where", "wrong", "mend"}


def test_a_generator_that_cannot_be_loaded_is_explained(run_main):
    answer = run_main(generators_main, "check", "nope.py:Mine")
    assert answer.status == 2 and "generator file nope.py does not exist" in answer.out


def test_a_file_that_imports_torch_when_it_is_loaded_is_told(write):
    name = write({"import numpy as np": "import numpy as np\nimport torch"})
    command = [sys.executable, "-m", "pipeline", "check", name]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode == 2 and "loading the file imports torch" in answer.stdout, answer.stderr
    assert answer.stdout.count("WRONG") == 1


def test_what_is_printed_cannot_command_a_terminal(run_main):
    said = run_main(generators_main, "check", "a\x1b[2J.py:Mine").out
    assert "\x1b" not in said and said.count("a\\u001b[2J.py") == 2
