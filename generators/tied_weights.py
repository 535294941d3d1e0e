"""Tie weights that a network has by several names, of which files may have only one, as safetensors does."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def lacking_twins(network: nn.Module, known: Collection[str]) -> dict[str, str]:
    """Find the names of a network's state that are not known, of weights that have a known one, given too."""
    several: dict[int, list[str]] = {}
    for listed in (network.named_parameters, network.named_buffers):
        for name, weight in listed(remove_duplicate=False):
            several.setdefault(id(weight), []).append(name)
    state, twins = network.state_dict(), {}
    for names in several.values():
        twin = next((name for name in names if name in known), None)
        if twin is not None:
            twins |= dict.fromkeys((name for name in names if name in state and name not in known), twin)
    return twins


def tie(network: nn.Module, twins: Mapping[str, str]) -> None:
    """Make each name's weight that of its twin again, after both were set."""
    for name, twin in twins.items():
        folder, _, last = name.rpartition(".")
        other, _, its = twin.rpartition(".")
        setattr(network.get_submodule(folder), last, getattr(network.get_submodule(other), its))
