"""Make networks of full size without a checkpoint: random weights, drawn where they are used."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from engines.spec import ComponentSpec, TensorSpec
from generators.checkpoint import fill, weightless

SCALES = ("gamma", "scale")  # what weights that multiply are called, where they have more than one dim
SMALL = 1 << 20  # numbers up to which a tensor is drawn on the processor


def random_init(make: Callable[[], nn.Module], device: str, dtype: torch.dtype) -> nn.Module:
    """Make the network of `make` on the device, its parameters random in dtype; on "meta" without numbers.

    The numbers are the same every time, but for rounding to dtype. Rows of matrices and kernels have length
    1, so that what comes out is about as large as what goes in, and fp16 can hold it. Modules that the
    network's class names in _keep_in_fp32_modules are in float32, as upstream.
    """
    with weightless():
        network = make()
    torch.manual_seed(0)
    exact = set(getattr(network, "_keep_in_fp32_modules", None) or ())
    tensors = {}
    for name, tensor in network.state_dict().items():
        own = torch.float32 if exact.intersection(name.split(".")) else dtype
        tensors[name] = random_parameter(name, tensor, device, own) if tensor.is_meta else tensor.to(device)
    return fill(network, tensors, "random weights").to(device)


def random_parameter(name: str, like: Tensor, device: str, dtype: torch.dtype) -> Tensor:
    """Draw random numbers for a parameter of that name, shaped like one."""
    if like.ndim < 2 or name.endswith(SCALES):
        make = torch.zeros if name.endswith("bias") else torch.ones
        return make(like.shape, device=device, dtype=dtype)
    return (normal(like.shape, device) / like[0].numel() ** 0.5).to(dtype)


def normal(shape: torch.Size | tuple[int, ...], device: str) -> Tensor:
    """Draw normal numbers on the device; small tensors are the same on every device, large ones are fast."""
    small = torch.Size(shape).numel() <= SMALL and device != "meta"
    return torch.randn(shape, device="cpu" if small else device).to(device)


def inputs_of(spec: ComponentSpec, sizes: Mapping[str, int], device: str) -> list[Tensor]:
    """Draw random inputs in the spec's order and dtypes: pixels of all levels, times and flags in [0, 1)."""
    torch.manual_seed(1)
    return [_input(tensor, sizes, device) for tensor in spec.inputs]


def _input(tensor: TensorSpec, sizes: Mapping[str, int], device: str) -> Tensor:
    shape = [dim if isinstance(dim, int) else sizes[dim] for dim in tensor.dims]
    if tensor.dtype == "uint8":
        return torch.randint(0, 256, shape, dtype=torch.uint8).to(device)
    return torch.rand(shape).to(device) if len(shape) == 1 else normal(shape, device)
