"""From torch module to ONNX file: names and sizes of the spec, equal bytes, nothing but the graph inside."""

import json
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch

import engines.onnx.export as export
from engines.artifact import built_folder
from engines.backends.onnxruntime_backend import OnnxRuntimeEngine
from engines.errors import EngineError
from engines.onnx.export import ExportError, Target, export_onnx
from engines.onnx.parity import ParityError, draw
from engines.spec import Cadence, ComponentSpec, DimRange, TensorSpec


class Model:
    """A generator of one component, `net`, which doubles x (n, 3) unless another module is given."""

    name, fingerprint_files = "one", ()

    def __init__(self, module=None, sizes=None):
        self.module, sizes = module or Scaled(), sizes or DimRange(1, 4, 4)
        x, y = TensorSpec("x", ("n", 3)), TensorSpec("y", ("n", 3))
        self.components = {"net": ComponentSpec("net", Cadence.STEP, (x,), (y,), {"n": sizes})}

    def build(self, component):
        return self.module


class Scaled(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.by = torch.nn.Parameter(torch.full((3,), 2.0))

    def forward(self, x):
        return x * self.by


class Module(torch.nn.Module):
    def __init__(self, forward):
        super().__init__()
        self.forward = forward


@pytest.fixture
def target(tmp_path):
    """A folder, and what was said, in target.told."""
    told = []
    target = Target(tmp_path / "built", told.append)
    object.__setattr__(target, "told", told)
    return target


@pytest.fixture(scope="module")
def exported(tiny, graph):
    """The tiny presenter's graphs by component, of the networks as they are."""
    return {name: graph(tiny, name, rewriting=None) for name in tiny.components}


def shapes(values):
    return {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}


def test_every_component_of_the_presenter_exports_with_the_spec_s_names_and_dims(tiny, exported):
    for name, spec in tiny.components.items():
        graph = onnx.load(exported[name].path).graph
        assert shapes(graph.input) == {tensor.name: list(tensor.dims) for tensor in spec.inputs}
        assert shapes(graph.output) == {tensor.name: list(tensor.dims) for tensor in spec.outputs}


def test_exported_twice_the_bytes_are_equal(tiny, exported, target):
    again = export_onnx(tiny, "denoise", target)
    assert again.path.read_bytes() == exported["denoise"].path.read_bytes()
    assert again.path.name == exported["denoise"].path.name
    assert [line.split(":")[0] for line in target.told] == ["denoise-fp32.onnx"]


def test_what_is_there_is_kept_and_said_so_unless_forced(target):
    first = export_onnx(Model(), "net", target)
    made = first.path.stat().st_ino
    assert export_onnx(Model(), "net", target).path.stat().st_ino == made
    assert target.told[-1] == f"net-fp32.onnx: kept {first.path.name}, built from the same before"
    forced = export_onnx(Model(), "net", Target(target.folder, target.say, force=True))
    assert forced.path.stat().st_ino != made and "kept" not in target.told[-1]


def test_a_file_whose_bytes_changed_is_made_again(target):
    artifact = export_onnx(Model(), "net", target)
    good = artifact.path.read_bytes()
    artifact.path.write_bytes(good + b"x")
    assert export_onnx(Model(), "net", target).path.read_bytes() == good


def test_the_graph_holds_no_paths_and_no_notes_and_nodes_are_named_for_their_module(exported):
    artifact = exported["denoise"]
    text, graph = artifact.path.read_bytes(), onnx.load(artifact.path).graph
    assert b"/torch/" not in text and b".py" not in text and b"stack_trace" not in text
    names = [node.name for node in graph.node]
    assert "transformer.blocks.0.ffn.net.2/MatMul" in names and len(set(names)) == len(names)


def test_the_manifest_says_what_the_graph_was_built_from_and_how_near_it_is(tiny, exported):
    artifact = exported["encode"]
    manifest = json.loads(artifact.path.with_name(f"{artifact.path.name}.json").read_text())
    built_from, facts = manifest["built_from"], manifest["facts"]
    assert set(built_from) == {"generator", "component", "precision", "opset", "spec", "weights", "recipe",
                               "rewrites", "toolchain", "loras"}
    assert built_from["opset"] == 20 and built_from["spec"] == tiny.components["encode"].described()
    assert built_from["toolchain"]["torch"] == torch.__version__ and built_from["weights"]
    assert facts["parity"]["latents"]["cosine"] > 0.99999
    assert facts["bytes"] == artifact.path.stat().st_size


def test_a_batch_of_two_computes_like_torch_and_not_only_a_batch_of_one(tiny, tiny_engines, exported):
    spec = tiny.components["denoise"]
    engine = OnnxRuntimeEngine(spec, exported["denoise"].path)
    for batch in (1, 2):
        inputs = draw(spec, {"b": batch}, seed=9)
        wanted = tiny_engines["denoise"](**inputs)["flow"]
        np.testing.assert_allclose(engine(**inputs)["flow"], wanted, atol=1e-4)


def test_a_dim_with_one_size_stays_fixed(target):
    graph = onnx.load(export_onnx(Model(sizes=DimRange(4, 4, 4)), "net", target).path).graph
    assert shapes(graph.input) == {"x": [4, 3]}


def test_weights_go_beside_the_graph_only_where_they_do_not_fit(target, monkeypatch):
    monkeypatch.setattr(export, "EXTERNAL_ABOVE", 0)
    model = Model(torch.nn.Sequential(torch.nn.Linear(3, 400), torch.nn.Linear(400, 3)))
    artifact = export_onnx(model, "net", target)
    data = f"{artifact.path.name}.data"
    assert sorted(artifact.manifest["files"]) == [artifact.path.name, data]
    x = np.ones((2, 3), np.float32)
    found = OnnxRuntimeEngine(model.components["net"], artifact.path)(x=x)["y"]
    np.testing.assert_allclose(found, model.module(torch.from_numpy(x)).detach().numpy(), atol=1e-5)


def test_a_graph_that_computes_something_else_is_refused_and_leaves_nothing(target):
    class Switching(torch.nn.Module):
        """What the exporter sees is not what runs, as with a mistake of the exporter."""

        def forward(self, x):
            return x * 1.01 if torch.compiler.is_compiling() else x

    with pytest.raises(ParityError, match="net: y in fp32 is too far from its reference: .* allowed: max"):
        export_onnx(Model(Switching()), "net", target)
    assert list(target.folder.iterdir()) == []


def test_outputs_that_are_not_finite_are_refused_and_leave_nothing(target):
    with pytest.raises(ParityError, match="net: y of the reference: .* not finite"):
        export_onnx(Model(Module(lambda x: torch.log(x - 100))), "net", target)
    assert list(target.folder.iterdir()) == []


def test_a_module_that_torch_cannot_trace_is_an_error_with_torch_s_reason(target):
    def forward(x):
        return x if x.sum() > 0 else -x

    with pytest.raises(ExportError, match="net: torch cannot export it at opset 20: .*data-dependent"):
        export_onnx(Model(Module(forward)), "net", target)
    assert list(target.folder.iterdir()) == []


def test_an_operation_without_a_translation_is_named(target):
    with pytest.raises(ExportError, match=r"does not translate torch\.ops\.prims\.bessel_j0\.default"):
        export_onnx(Model(Module(lambda x: torch.special.bessel_j0(x))), "net", target)


def test_forward_may_take_any_number_of_inputs(target):
    class Spread(Model):
        def __init__(self, module):
            super().__init__(module)
            inputs = tuple(TensorSpec(name, ("n", 3)) for name in "abc")
            outputs, ranges = (TensorSpec("y", ("n", 3)),), {"n": DimRange(1, 1, 2)}
            spec = ComponentSpec("net", Cadence.STEP, inputs, outputs, ranges)
            self.components = {"net": spec}

    class All(torch.nn.Module):
        def forward(self, *tensors):
            return sum(tensors)

    class Rest(torch.nn.Module):
        def forward(self, first, *tensors):
            return first - tensors[0] * tensors[1]

    for module in (All(), Rest()):
        path = export_onnx(Spread(module), "net", Target(target.folder, print, force=True)).path
        inputs = draw(Spread(module).components["net"], {"n": 2}, 3)
        wanted = module(*map(torch.from_numpy, inputs.values())).numpy()
        found = OnnxRuntimeEngine(Spread(module).components["net"], path)(**inputs)["y"]
        np.testing.assert_allclose(found, wanted, atol=1e-6)


class Repeated(Model):
    """A component that repeats embeddings for each frame, as diffusers' UNetMotionModel does."""

    def __init__(self, forward):
        super().__init__(Module(forward))
        inputs = TensorSpec("x", ("b", 3, "f")), TensorSpec("t", ("b", 3))
        ranges = {"b": DimRange(1, 1, 4), "f": DimRange(1, 5, 24)}
        outputs = (TensorSpec("y", ("all", 3)),)
        self.components = {"net": ComponentSpec("net", Cadence.STEP, inputs, outputs, ranges)}


@pytest.mark.parametrize("forward", [
    lambda x, t: x.permute(0, 2, 1).flatten(0, 1) + t.repeat_interleave(
        x.shape[2], dim=0, output_size=t.shape[0] * x.shape[2]),
    lambda x, t: t.repeat_interleave(x.shape[2], dim=-1).unflatten(1, (3, x.shape[2])).permute(
        0, 2, 1).flatten(0, 1),
    lambda x, t: t.repeat_interleave(2).unflatten(0, (-1, 3)) + x.repeat_interleave(x.shape[2], dim=1).mean(),
], ids=["first", "last", "all, and the middle"])
def test_repeats_of_a_free_number_are_exported_rightly_for_every_batch(target, forward):
    model = Repeated(forward)
    engine = OnnxRuntimeEngine(model.components["net"], export_onnx(model, "net", target).path)
    for b, f in ((2, 5), (1, 5), (4, 24)):
        inputs = draw(model.components["net"], {"b": b, "f": f}, 7)
        wanted = forward(*map(torch.from_numpy, inputs.values())).numpy()
        np.testing.assert_allclose(engine(**inputs)["y"], wanted, atol=1e-5)


def test_a_graph_that_fails_at_a_size_says_so_with_the_way_out_and_nothing_raw(target, monkeypatch, capfd):
    monkeypatch.setattr(export, "translations", lambda: {})
    model = Repeated(lambda x, t: t.repeat_interleave(x.shape[2], dim=1).flatten(0).unflatten(0, (-1, 3)))
    with pytest.raises(ExportError, match=r"net: .*\(b 1 to 4, f 1 to 24\) one value, as DimRange\(1"):
        export_onnx(model, "net", target)
    assert list(target.folder.iterdir()) == [] and "\x1b" not in "".join(capfd.readouterr())


def test_an_opset_that_torch_would_silently_replace_is_refused(target):
    with pytest.raises(ExportError, match="net: this torch has no opset 99"):
        export_onnx(Model(), "net", target, opset=99)


def test_a_missing_package_is_an_error_that_names_it_before_anything_is_built(target, monkeypatch):
    monkeypatch.setattr(export, "TOOLS", ("torch", "no-such-package"))
    with pytest.raises(EngineError, match="no-such-package is not installed; run: pip install"):
        export_onnx(Model(), "net", target)
    assert not target.folder.exists()


def test_a_full_disk_leaves_nothing(target, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(onnx, "save_model", full)
    with pytest.raises(OSError, match="No space left"):
        export_onnx(Model(), "net", target)
    assert list(target.folder.iterdir()) == []


def test_graphs_go_where_engines_look_for_them(tmp_path, monkeypatch):
    from engines.artifact import find_onnx

    monkeypatch.setenv("VIVACE_BUILT", str(tmp_path))
    model = Model()
    artifact = export_onnx(model, "net", Target(built_folder(model.name), print))
    assert find_onnx(built_folder("one"), model, "net", "fp32").path == artifact.path


class Inner(torch.nn.Module):
    def __init__(self, shared):
        super().__init__()
        self.shared = shared

    def forward(self, x):
        return x * self.shared["keep"]


class Sharing(torch.nn.Module):
    """Two modules that share a dict, which tracing takes apart."""

    def __init__(self):
        super().__init__()
        self.shared = {}
        self.inner = Inner(self.shared)

    def forward(self, x, keep):
        self.shared.clear()
        self.shared["keep"] = keep
        found = self.inner(x)
        self.inner.shared.clear()
        return found


def test_a_module_that_tracing_breaks_is_an_error_that_says_how(tmp_path):
    spec = ComponentSpec("scale", Cadence.REQUEST, (TensorSpec("x", (2,)), TensorSpec("keep", (1,))),
                         (TensorSpec("y", (2,)),))
    model = SimpleNamespace(name="sharing", components={"scale": spec}, fingerprint_files=(),
                            build=lambda component: Sharing())
    with pytest.raises(ExportError, match="scale: it no longer runs.*KeyError.*SimpleNamespace"):
        export_onnx(model, "scale", Target(tmp_path, lambda text: None))
    assert not list(tmp_path.glob("*.onnx"))
