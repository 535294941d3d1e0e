"""Every name that our code takes from TensorRT is in 10.16, 11.4 and RTX 1.7, or known to be RTX's own.

The lists are in trt_names/; listing.py there says how they were made.
"""

import ast
import importlib
from pathlib import Path

import pytest
from trt_names.listing import listing, read_names

ROOT = Path(__file__).parents[2]
LISTS = {path.stem: read_names(path) for path in sorted((ROOT / "tests/trt_names").glob("*.txt"))}
# Which variables hold which of TensorRT's objects, by file; a leading underscore does not matter.
OBJECTS = {
    "engine.py": {
        "engine": "ICudaEngine", "context": "IExecutionContext", "runtime": "Runtime"},
    "shape_run.py": {"context": "IExecutionContext", "engine": "ICudaEngine"},
    "rtx_runtime.py": {
        "engine": "ICudaEngine", "runtime": "Runtime", "runtime_config": "IRuntimeConfig",
        "cache": "IRuntimeCache"},
    "network.py": {
        "builder": "Builder", "network": "INetworkDefinition", "parser": "OnnxParser", "layer": "ILayer",
        "attending": "IAttentionInputLayer", "attention": "IAttention",
        "config": "IBuilderConfig", "profile": "IOptimizationProfile", "tensor": "ITensor"},
    "build.py": {"builder": "Builder", "config": "IBuilderConfig", "runtime": "Runtime"},
    "timing_cache.py": {"config": "IBuilderConfig", "cache": "ITimingCache"},
}
# TensorRT-RTX's own; whoever uses one has asked is_rtx, or takes it by name through TensorRT.maybe.
RTX_ONLY = {
    "ComputeCapability", "IBuilderConfig.num_compute_capabilities", "IBuilderConfig.set_compute_capability",
    "CudaGraphStrategy.WHOLE_GRAPH_CAPTURE", "DynamicShapesKernelSpecializationStrategy.EAGER",
    "EngineInvalidityDiagnostics", "EngineValidity.INVALID", "Runtime.engine_header_size",
    "Runtime.get_engine_validity", "IRuntimeConfig.create_runtime_cache",
    "IRuntimeConfig.cuda_graph_strategy", "IRuntimeConfig.dynamic_shapes_kernel_specialization_strategy",
    "IRuntimeConfig.set_runtime_cache", "IRuntimeCache.deserialize", "IRuntimeCache.serialize",
}


def sources():
    return [*sorted((ROOT / "engines").rglob("*.py")), ROOT / "build_trt.py"]


def dotted(node):
    """The parts of a.b.c, outermost first; a call or subscript begins anew."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.insert(0, node.attr)
        node = node.value
    return [node.id, *parts] if isinstance(node, ast.Name) else parts


def names_used(code, file):
    """TensorRT's names in a piece of code: after `trt.`, of its objects, and those asked for by name."""
    used, objects = set(), OBJECTS.get(file, {})
    inner = {node.value for node in ast.walk(code) if isinstance(node, ast.Attribute)}
    for node in ast.walk(code):
        if isinstance(node, ast.Attribute):
            parts = dotted(node)
            if "trt" in parts[:-1] and node not in inner:
                after = parts[parts.index("trt") + 1:][:2]
                used.add(".".join(part for part in after if not part.startswith("__")))
            elif len(parts) > 1 and parts[-2].strip("_") in objects and not parts[-1].startswith("__"):
                used.add(f"{objects[parts[-2].strip('_')]}.{parts[-1]}")
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "maybe":
            used.add(asked_for(node.args[0]))
    return used


def asked_for(argument):
    """The name in TensorRT.maybe("name"), or its beginning up to the dot if the rest is computed."""
    if isinstance(argument, ast.JoinedStr):
        return argument.values[0].value.partition(".")[0]
    return argument.value


def wrong_names(code, file):
    """Sentences on the names in a piece of code that a TensorRT lacks."""
    wrong = []
    for name in sorted(names_used(code, file)):
        lacking = [version for version, names in LISTS.items() if name not in names]
        if lacking and not (name in RTX_ONLY and "rtx-1.7" not in lacking):
            wrong.append(f"{file}: {name} is not in {', '.join(lacking)}")
    return wrong


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.name)
def test_every_name_taken_from_tensorrt_is_in_all_versions_or_known_to_be_rtxs(path):
    assert wrong_names(ast.parse(path.read_text()), path.name) == []


@pytest.mark.parametrize(("file", "code", "name"), [
    ("a.py", "trt.BuilderFlag.FP16", "BuilderFlag.FP16"),
    ("a.py", "api.trt.IInt8Calibrator()", "IInt8Calibrator"),
    ("a.py", "self._api.trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH", "EXPLICIT_BATCH"),
    ("engine.py", "self._engine.device_memory_size", "ICudaEngine.device_memory_size"),
    ("engine.py", "engine.create_execution_context_without_device_memory()", "without_device"),
    ("network.py", "layer.precision = 1", "ILayer.precision"),
    ("build.py", "network.builder.platform_has_fast_fp16", "platform_has_fast_fp16"),
    ("timing_cache.py", "self._config.int8_calibrator", "int8_calibrator"),
    ("a.py", "api.maybe('BuilderFlag.WEIGHTLESS')", "WEIGHTLESS"),
])
def test_a_name_that_a_version_lacks_is_noticed(file, code, name):
    wrong = wrong_names(ast.parse(code), file)
    assert len(wrong) == 1 and name in wrong[0]


def test_the_walk_finds_what_the_code_uses():
    used = set().union(*(names_used(ast.parse(path.read_text()), path.name) for path in sources()))
    assert {"Runtime", "BuilderFlag.TF32", "IExecutionContext.execute_async_v3", "ComputeCapability"} <= used
    assert used >= RTX_ONLY, "a name is listed as RTX's own and not used"


def test_what_is_called_rtxs_own_is_in_no_classic_list():
    assert RTX_ONLY & (LISTS["classic-10.16"] | LISTS["classic-11.4"]) == set()


def test_the_lists_are_of_the_versions_they_are_named_for():
    first_lines = [(path.stem, path.read_text().splitlines()[0])
                   for path in sorted((ROOT / "tests/trt_names").glob("*.txt"))]
    assert first_lines == [("classic-10.16", "# tensorrt_bindings 10.16.1.11"),
                           ("classic-11.4", "# tensorrt_bindings 11.4.0.106"),
                           ("rtx-1.7", "# tensorrt_rtx 1.7.1.116")]


def test_the_rtx_list_is_what_the_installed_package_has(tmp_path):
    fresh = tmp_path / "fresh.txt"
    fresh.write_text(listing(importlib.import_module("tensorrt_rtx")))
    assert read_names(fresh) ^ LISTS["rtx-1.7"] == set(), "make it anew: tests/trt_names/listing.py"
