"""Networks of full size without a checkpoint: random weights, drawn where they are used."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from engines.spec import ComponentSpec, TensorSpec
from generators.checkpoint import fill, weightless

SCALES = ("gamma", "scale")  # what weights that multiply are called, where they have more than one dim


def filled(make: Callable[[], nn.Module], device: str, dtype: torch.dtype) -> nn.Module:
    """The network that `make` makes, on the device, its parameters random in dtype; on "meta" without any.

    On one device the numbers are the same every time, but for rounding to dtype. Rows of matrices and kernels
    have length 1, so that what comes out is about as large as what goes in, and fp16 can hold it. Modules
    that the network's class names in _keep_in_fp32_modules are in float32, as upstream.
    """
    with weightless():
        network = make()
    torch.manual_seed(0)
    exact = set(getattr(network, "_keep_in_fp32_modules", None) or ())
    tensors = {}
    for name, tensor in network.state_dict().items():
        own = torch.float32 if exact.intersection(name.split(".")) else dtype
        tensors[name] = drawn(name, tensor, device, own) if tensor.is_meta else tensor.to(device)
    return fill(network, tensors, "random weights").to(device)


def drawn(name: str, like: Tensor, device: str, dtype: torch.dtype) -> Tensor:
    """Random numbers for a parameter of that name, shaped like one."""
    if like.ndim < 2 or name.endswith(SCALES):
        make = torch.zeros if name.endswith("bias") else torch.ones
        return make(like.shape, device=device, dtype=dtype)
    width = like[0].numel() ** 0.5
    return (torch.randn(like.shape, device=device) / width).to(dtype)


def inputs_of(spec: ComponentSpec, sizes: dict[str, int], device: str) -> list[Tensor]:
    """Random inputs in the spec's order and dtypes: pixels of all levels, times and flags in [0, 1).

    As engines.parity.draw, but made on the device: those of a long window are 0.9 GB.
    """
    return [_input(tensor, sizes, device) for tensor in spec.inputs]


def _input(tensor: TensorSpec, sizes: dict[str, int], device: str) -> Tensor:
    shape = [dim if isinstance(dim, int) else sizes[dim] for dim in tensor.dims]
    if tensor.dtype == "uint8":
        return torch.randint(0, 256, shape, device=device, dtype=torch.uint8)
    return (torch.rand if len(shape) == 1 else torch.randn)(shape, device=device)
