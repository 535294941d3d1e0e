"""The torch engine: names in, names out, and clear refusals."""

import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from engines.backends.torch_backend import TorchEngine, start, start_compiled, why_not
from engines.errors import EngineError
from engines.load import open_attention
from engines.spec import Cadence, ComponentSpec, DimRange, TensorSpec

SPEC = ComponentSpec("mix", Cadence.STEP, (TensorSpec("a", ("n",)), TensorSpec("b", ("n",))),
                     (TensorSpec("difference", ("n",)), TensorSpec("sum", ("n",))), {"n": DimRange(1, 2, 4)})
A, B = np.array([5, 7], np.float32), np.array([1, 2], np.float32)


class Mix(torch.nn.Module):
    def forward(self, a, b):
        return a - b, a + b


class Weighted(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(2.0))
        self.dropout = torch.nn.Dropout(0.5)

    def forward(self, a, b):
        return self.dropout(a * self.weight), b


def test_inputs_go_by_name_in_the_specs_order_and_outputs_keep_their_names():
    outputs = TorchEngine(SPEC, Mix())(b=B, a=A)
    assert list(outputs) == ["difference", "sum"]
    np.testing.assert_array_equal(outputs["difference"], [4, 5])
    np.testing.assert_array_equal(outputs["sum"], [6, 9])


def test_running_out_of_device_memory_is_a_memory_error_that_names_the_component():
    class Greedy(torch.nn.Module):
        def forward(self, a, b):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nMore lines")

    with pytest.raises(MemoryError, match=r"^mix: CUDA out of memory. Tried to allocate 2 GiB.$"):
        TorchEngine(SPEC, Greedy())(a=A, b=B)


def test_running_out_of_main_memory_is_a_memory_error_too_and_other_failures_are_not():
    class Greedy(torch.nn.Module):
        def forward(self, a, b):
            return torch.empty(1 << 55)

    with pytest.raises(MemoryError, match=r"^mix: .*DefaultCPUAllocator: can't allocate memory"):
        TorchEngine(SPEC, Greedy())(a=A, b=B)

    class Wrong(torch.nn.Module):
        def forward(self, a, b):
            return a.reshape(1)

    with pytest.raises(RuntimeError, match="shape"):
        TorchEngine(SPEC, Wrong())(a=A, b=B)


@pytest.mark.parametrize("text", [
    "CUDA error: out of memory", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED", "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"])
def test_what_libraries_say_of_memory_is_a_memory_error_too(text):
    class Greedy(torch.nn.Module):
        def forward(self, a, b):
            raise RuntimeError(f"{text}\nmore lines")
    with pytest.raises(MemoryError, match="^mix: (cuDNN|CUD)"):
        TorchEngine(SPEC, Greedy())(a=A, b=B)


def test_running_out_of_memory_while_a_component_is_built_is_a_memory_error(tiny, monkeypatch):
    monkeypatch.setattr(type(tiny), "build", lambda self, component: torch.empty(1 << 55))
    for begin in (start, start_compiled):
        with pytest.raises(MemoryError, match="^decode: .*can't allocate memory"):
            begin(tiny, "decode", "fp32", "cpu", None)


def test_outputs_are_numpy_without_gradient_or_dropout():
    outputs = TorchEngine(SPEC, Weighted().train())(a=A, b=B)
    assert all(type(array) is np.ndarray and array.dtype == np.float32 for array in outputs.values())
    np.testing.assert_array_equal(outputs["difference"], 2 * A)


def test_outputs_lie_in_memory_as_they_look():
    class Transpose(torch.nn.Module):
        def forward(self, x):
            return x.permute(1, 0)

    spec = ComponentSpec("flip", Cadence.STEP, (TensorSpec("x", (2, 3)),), (TensorSpec("y", (3, 2)),))
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    y = TorchEngine(spec, Transpose())(x=x)["y"]
    assert y.flags.c_contiguous
    np.testing.assert_array_equal(y, x.T)


def test_a_single_tensor_is_one_output():
    spec = ComponentSpec("one", Cadence.STEP, (TensorSpec("a", (2,)),), (TensorSpec("same", (2,)),))
    np.testing.assert_array_equal(TorchEngine(spec, torch.nn.Identity())(a=A)["same"], A)


def test_strided_inputs_are_read_as_they_look():
    outputs = TorchEngine(SPEC, Mix())(a=A[::-1], b=np.stack([B, B], 1)[:, 0])
    np.testing.assert_array_equal(outputs["sum"], [8, 7])


def test_the_spec_is_checked_before_the_module_runs():
    engine = TorchEngine(SPEC, Mix())
    with pytest.raises(ValueError, match=r"mix takes \['a', 'b'\], got \['a'\]"):
        engine(a=A)
    with pytest.raises(ValueError, match=r"mix: expected b \(n\) float32, got \(2,\) float64"):
        engine(a=A, b=B.astype(np.float64))


def test_a_module_with_another_number_of_outputs_is_refused():
    spec = ComponentSpec("mix", Cadence.STEP, SPEC.inputs, SPEC.outputs[:1], SPEC.ranges)
    with pytest.raises(ValueError, match="zip"):
        TorchEngine(spec, Mix())(a=A, b=B)


def test_a_closed_engine_refuses_to_run():
    engine = TorchEngine(SPEC, Mix())
    engine.close()
    with pytest.raises(ValueError, match="mix: this engine is closed; build another"):
        engine(a=A, b=B)


def test_the_cpu_is_a_device():
    assert why_not("cpu") is None


NO_DEVICES = ["nonsense", "", "cuda:99", "meta", "xla", "hpu", "privateuseone", "cpu:x"]


@pytest.mark.parametrize("device", NO_DEVICES)
def test_a_device_that_cannot_compute_here_is_named_with_the_reason(device):
    assert re.match(f"torch cannot use --device {device}: .{{8}}", why_not(device))


def test_without_torch_the_reason_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert why_not("cpu") == "torch is not installed; run: pip install -r requirements.txt"


class Product(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(64, 64, generator=torch.Generator().manual_seed(0)))

    def forward(self, x):
        return x @ self.weight


@pytest.mark.parametrize(("precision", "bits"), [("bf16", 8), ("fp16", 11)])
def test_half_precisions_round_as_they_should_and_give_the_specs_dtype(precision, bits):
    spec = ComponentSpec("product", Cadence.STEP, (TensorSpec("x", (4, 64)),), (TensorSpec("y", (4, 64)),))
    x = np.random.default_rng(0).standard_normal((4, 64), np.float32)
    exact = TorchEngine(spec, Product())(x=x)["y"]
    rounded = TorchEngine(spec, Product(), precision=precision)(x=x)["y"]
    error = np.abs(rounded - exact).max() / np.abs(exact).max()
    assert rounded.dtype == np.float32 and 2.0 ** -(bits + 4) < error < 2.0 ** -(bits - 3)


def test_a_precision_that_torch_lacks_is_refused():
    with pytest.raises(EngineError, match="torch has no int8; choose fp32, fp16, bf16"):
        TorchEngine(SPEC, Mix(), precision="int8")


class TooLarge(Mix):
    def to(self, device):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB.\nmore")


def test_weights_that_do_not_fit_into_a_gpus_memory_are_a_memory_error():
    with pytest.raises(MemoryError, match="^mix: CUDA out of memory. Tried to allocate 3 GiB.$"):
        TorchEngine(SPEC, TooLarge())


def test_fp32_is_fp32_in_convolutions_too(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    TorchEngine(SPEC, Mix(), precision="fp16")
    assert torch.backends.cudnn.allow_tf32
    TorchEngine(SPEC, Mix())
    assert not torch.backends.cudnn.allow_tf32


class Layers(torch.nn.Module):
    """A convolution, a norm and a projection; the last layer runs without autocast."""

    def __init__(self):
        super().__init__()
        self.convolution = torch.nn.Conv1d(1, 8, 1)
        self.norm = torch.nn.LayerNorm(8)
        self.projection = torch.nn.Linear(8, 8)
        self.exact = torch.nn.Linear(8, 1)
        self.register_buffer("shift", torch.ones(1, dtype=torch.float64))

    def forward(self, a, b):
        x = self.projection(self.norm(self.convolution(a[None, None]).mT.float()))
        with torch.autocast("cpu", enabled=False):
            return self.exact(x.float() + self.shift)[0, :, 0], b


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_weights_that_autocast_would_cast_are_stored_so_and_the_numbers_are_its_own(precision):
    torch.manual_seed(0)
    module, dtype = Layers(), {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    module.exact.weight.data = module.exact.weight.data.to(dtype).float()  # so that nothing is lost
    module.exact.bias.data.zero_()
    with torch.inference_mode(), torch.autocast("cpu", dtype):
        expected = module.float()(torch.from_numpy(A), torch.from_numpy(B))[0].numpy()
    engine = TorchEngine(SPEC, module, precision=precision)
    for _ in range(2):
        np.testing.assert_array_equal(engine(a=A, b=B)["difference"], expected)
    assert {name: each.dtype for name, each in module.state_dict().items() if "bias" not in name} == {
        "convolution.weight": dtype, "projection.weight": dtype, "norm.weight": torch.float32,
        "exact.weight": torch.float32, "shift": torch.float32}
    assert not any(layer._forward_pre_hooks for layer in module.modules())


def test_fp32_weights_stay_and_half_ones_of_a_checkpoint_become_so():
    module = Layers().half()
    TorchEngine(SPEC, module)
    assert {each.dtype for each in module.state_dict().values()} == {torch.float32}


class Attending(torch.nn.Module):
    """Attention of one head over n tokens, plain and with a mask."""

    def forward(self, a, b):
        query, key = a.reshape(1, 1, -1, 1), b.reshape(1, 1, -1, 1)
        plain = torch.nn.functional.scaled_dot_product_attention(query, key, value=key)
        mask = torch.ones(len(a), len(a), dtype=torch.bool)
        masked = torch.nn.functional.scaled_dot_product_attention(query, key, key, attn_mask=mask)
        return plain.reshape(-1), masked.reshape(-1)


@pytest.mark.parametrize(("name", "module"), [("flash", "flash_attn_interface"), ("flash", "flash_attn"),
                                              ("sage", "sageattention")])
def test_attention_is_a_packages_where_its_kernel_can_be(monkeypatch, name, module):
    calls = []

    def kernel(query, key, value, **options):
        calls.append((query.dtype, tuple(query.shape), options))
        heads_last = name == "flash"
        given = [each.transpose(1, 2) if heads_last else each for each in (query, key, value)]
        found = torch.nn.functional.scaled_dot_product_attention(*given)
        return (found.transpose(1, 2), None) if heads_last else found
    for package in ("flash_attn_interface", "flash_attn", "sageattention"):
        monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setitem(sys.modules, module, SimpleNamespace(flash_attn_func=kernel, sageattn=kernel))
    engine = TorchEngine(SPEC, Attending(), precision="bf16")
    expected = engine(a=A, b=B)
    engine.attention = open_attention(name, "cuda", "torch")
    found = engine(a=A, b=B)
    for output in expected:
        np.testing.assert_array_equal(found[output], expected[output])
    options = {"causal": False} if name == "flash" else {"tensor_layout": "HND", "is_causal": False}
    assert calls == [(torch.bfloat16, (1, 2, 1, 1) if name == "flash" else (1, 1, 2, 1), options)]
    fp32 = TorchEngine(SPEC, Attending())
    fp32.attention = engine.attention
    fp32(a=A, b=B)
    assert len(calls) == 1  # its kernels are for halves


@pytest.mark.parametrize(("name", "device", "backend", "said"), [
    ("fast", "cuda", "torch", "no 'fast'; choose default, cudnn, flash, sage"),
    ("cudnn", "cuda", "tensorrt", "cudnn is for torch and torch-compile; tensorrt has its own"),
    ("cudnn", "cpu", "torch", "cudnn runs on cuda, not on cpu"),
    ("flash", "cuda", "torch", "is not installed; FlashAttention-3 for Hopper.*pip install flash-attn"),
    ("sage", "cuda", "torch-compile", "is not installed; pip install sageattention"),
])
def test_attention_that_cannot_be_says_what_to_do(monkeypatch, name, device, backend, said):
    for package in ("flash_attn_interface", "flash_attn", "sageattention"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(EngineError, match=said):
        open_attention(name, device, backend)


def test_cudnn_comes_first_and_others_where_it_cannot():
    assert open_attention("default", "cpu", "openvino") is None
    with open_attention("cudnn", "cuda", "torch")():
        found = TorchEngine(SPEC, Attending(), precision="bf16")(a=A, b=B)
    assert np.isfinite(found["sum"]).all()
