"""Count the operations and bytes that a call of a network takes, without computing anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from engines.spec import ComponentSpec

NAMES = ("query", "key", "value")
UNMOVED = ("empty", "_unsafe_view")  # operations that move nothing and do not say so


@dataclass(frozen=True)
class Work:
    """The work of a call: multiplications and additions, and bytes.

    attention: the part of operations that is products of queries with keys, and of weights with values.
    least_bytes: weights, inputs and outputs, each once. eager_bytes: what all operations read and write if
    each does that by itself, attention as one.
    """

    operations: int
    attention: int
    least_bytes: int
    eager_bytes: int


class _OneAttention(TorchFunctionMode):
    """Attention as a fused kernel does it, without the matrix of weights."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = self.bytes = 0

    def __torch_function__(
        self, function: Callable, types: Sequence, args: tuple = (), kwargs: Mapping | None = None
    ) -> object:
        if function is not torch.nn.functional.scaled_dot_product_attention:
            return function(*args, **(kwargs or {}))
        query, key, value = (*args[:3], *((kwargs or {})[name] for name in NAMES[len(args) :]))
        made = query.new_empty(*query.shape[:-1], value.shape[-1])
        self.operations += 2 * query.shape[:-1].numel() * key.shape[-2] * (key.shape[-1] + value.shape[-1])
        self.bytes += sum(map(size_of, (query, key, value, made)))
        return made


class _Traffic(TorchDispatchMode):
    """Adds up what operations read and write; those that only see a tensor in another way do not."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(
        self, function: Callable, types: Sequence, args: tuple = (), kwargs: Mapping | None = None
    ) -> object:
        made = function(*args, **(kwargs or {}))
        looks = any(each.alias_info and not each.alias_info.is_write for each in function._schema.returns)
        if not looks and not any(word in function.name() for word in UNMOVED):
            tensors = [*tree_leaves((args, kwargs)), *tree_leaves(made)]
            self.bytes += sum(size_of(each) for each in tensors if isinstance(each, Tensor))
        return made


def count(module: torch.nn.Module, inputs: Sequence[Tensor] | Mapping[str, Tensor]) -> Work:
    """Count the work of a call of a module on the meta device with inputs there."""
    attention, traffic, counter = _OneAttention(), _Traffic(), FlopCounterMode(display=False)
    with torch.inference_mode(), traffic, counter, attention:
        made = module(**inputs) if isinstance(inputs, Mapping) else module(*inputs)
    given = inputs.values() if isinstance(inputs, Mapping) else inputs
    outputs = [each for each in tree_leaves(made) if isinstance(each, Tensor)]
    weights = {id(each): each for each in (*module.parameters(), *module.buffers())}
    least = sum(map(size_of, (*weights.values(), *given, *outputs)))
    operations = counter.get_total_flops() + attention.operations
    return Work(operations, attention.operations, least, traffic.bytes + attention.bytes)


def crossing(spec: ComponentSpec, sizes: Mapping[str, int]) -> int:
    """Return bytes between host and device if inputs and outputs are on the host, as an engine's are."""
    tensors = (*spec.inputs, *spec.outputs)
    shapes = (torch.Size(d if isinstance(d, int) else sizes[d] for d in tensor.dims) for tensor in tensors)
    kinds = (getattr(torch, tensor.dtype) for tensor in tensors)
    return sum(shape.numel() * kind.itemsize for shape, kind in zip(shapes, kinds, strict=True))


def size_of(tensor: Tensor) -> int:
    """Return a tensor's bytes; of one number repeated, those of the number."""
    shape = [size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride]
    return torch.Size(shape).numel() * tensor.element_size()
