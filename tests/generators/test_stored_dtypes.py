"""Wan checkpoints in 8 bits or of several dtypes run and are exported as the same weights in float32."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from engines.backends.torch_backend import TorchEngine
from engines.onnx.attention_form import opset_for
from engines.onnx.export import OPSET, Target
from engines.onnx.export_streamed import export_streamed
from engines.onnx.parity import draw
from generators.contract import GeneratorError, load_generator
from generators.wan.transformer import in_float32
from tests.wan_checkpoints import SIZES, write_checkpoint

FP8 = torch.float8_e4m3fn


def is_matrix(name, tensor):
    return tensor.ndim == 2 and name.startswith("blocks.")


# As files in the wild have them: what is stored how, and what the network's own rounding costs the flow.
STORED = {
    "all in 8 bits": lambda name, tensor: tensor.to(FP8),
    "blocks in 8 bits, the rest in bf16": lambda name, tensor: tensor.to(
        FP8 if is_matrix(name, tensor) else torch.bfloat16),
    "blocks in bf16, the rest in fp32": lambda name, tensor: tensor.bfloat16()
    if is_matrix(name, tensor) else tensor,
    "text embedder in fp32, the rest in fp16": lambda name, tensor: tensor
    if "text_embedder" in name else tensor.half(),
}


@pytest.fixture(scope="module", params=SIZES)
def written(request, tmp_path_factory):
    """A family, its checkpoint, and the tensors of its transformer."""
    torch.set_num_threads(1)
    folder = write_checkpoint(tmp_path_factory.mktemp("w"), request.param, guidance=2.0)
    path = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    return request.param, folder, path, load_file(path)


def of(written, stored):
    name, folder, path, whole = written
    save_file({key: stored(key, tensor).contiguous() for key, tensor in whole.items()}, path)
    return load_generator(f"{name}={folder}")


def outputs(generator, component):
    spec = generator.components[component]
    engine = TorchEngine(spec, generator.build(component))
    return engine(**draw(spec, {name: limits.min for name, limits in spec.ranges.items()}, seed=1))


@pytest.mark.parametrize(("written", "how"), [
    *(("wan-animate", how) for how in STORED), ("wan-fun-control", "all in 8 bits"),
    ("wan-unianimate", "blocks in 8 bits, the rest in bf16")], indirect=["written"])
def test_they_compute_what_the_same_weights_do_in_float32(written, how):
    stored = STORED[how]
    low = of(written, stored)
    found = {component: outputs(low, component) for component in ("image_kv", "denoise")}
    exact = of(written, lambda name, tensor: stored(name, tensor).float())
    for component, made in found.items():
        for name, wanted in outputs(exact, component).items():
            # The prompt's keys and values are kept in half precision, 8 bits of it in bf16.
            largest = 1e-2 * float(np.abs(wanted).max())
            np.testing.assert_allclose(made[name], wanted, rtol=0, atol=largest)


@pytest.mark.parametrize("written", ["wan-animate"], indirect=True)
@pytest.mark.parametrize("how", ["all in 8 bits", "blocks in bf16, the rest in fp32"])
def test_they_are_exported_and_agree_with_torch(written, tmp_path, how):
    model = of(written, STORED[how])
    for component, precision in (("image_kv", "fp32"), ("denoise", "fp16")):
        facts = export_streamed(
            model, component, precision, Target(tmp_path, lambda text: None), OPSET).manifest["facts"]
        assert all(each["cosine"] > 0.999 for each in facts["parity"].values()), facts["parity"]


@pytest.mark.parametrize("written", ["wan-animate"], indirect=True)
@pytest.mark.parametrize(("component", "precision"), [
    ("image_kv", "fp16"), ("image_kv", "bf16")])
def test_a_float32_checkpoint_is_exported_in_halves(written, tmp_path, component, precision):
    facts = export_streamed(of(written, lambda name, tensor: tensor), component, precision,
                            Target(tmp_path, lambda text: None), opset_for(precision)).manifest["facts"]
    if precision == "fp16":  # no processor's runtime computes in bf16
        assert all(each["cosine"] > 0.999 for each in facts["parity"].values()), facts["parity"]


@pytest.mark.parametrize("written", ["wan-fun-control"], indirect=True)
def test_eight_bits_with_scales_are_refused_by_their_name(written):
    name, folder, path, whole = written
    scales = {f"{key.removesuffix('weight')}scale_weight": torch.ones(1)
              for key, tensor in whole.items() if is_matrix(key, tensor)}
    save_file({key: tensor.to(FP8) for key, tensor in whole.items()} | scales
              | {"scaled_fp8": torch.zeros(0, dtype=FP8)}, path)
    with pytest.raises(GeneratorError, match="8 bits with scales, not read here: take one in bf16"):
        load_generator(f"{name}={folder}").build("denoise")


def test_a_network_computed_in_float32_stays_as_it_is_stored():
    layer = torch.nn.Linear(4, 4).bfloat16()
    x = torch.randn(2, 4)
    wanted = torch.nn.functional.linear(x, layer.weight.float(), layer.bias.float())
    assert torch.equal(in_float32(layer, x), wanted) and layer.weight.dtype == torch.bfloat16
