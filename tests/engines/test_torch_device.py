"""The torch engine on a GPU, without one: what it queues and what it waits for."""

import torch

from engines.backends.torch_backend import TorchEngine
from tests.engines.test_torch_engine import SPEC, A, Mix


def test_small_host_inputs_of_a_gpu_are_not_waited_for(monkeypatch):
    log, engine = [], TorchEngine(SPEC, Mix())
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: log.append("pinned") or self)
    monkeypatch.setattr(torch.Tensor, "to", lambda self, *to, **how: log.append((to, how)) or self)
    engine._given(A)
    engine.device = "cuda:1"
    engine._given(A)
    monkeypatch.setattr("engines.backends.torch_backend.PINNED", 4)
    engine._given(A)  # which torch would keep as much pinned memory for
    assert log == [(("cpu",), {}), "pinned", (("cuda:1",), {"non_blocking": True}), (("cuda:1",), {})]


def test_weights_are_there_before_another_stream_reads_them(monkeypatch):
    class Moving(Mix):
        def to(self, device):
            log.append(f"to {device}")
            return self
    log = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: log.append(f"wait for {device}"))
    TorchEngine(SPEC, Moving(), "cuda:1")
    TorchEngine(SPEC, Moving(), "cpu")
    assert log == ["to cuda:1", "wait for cuda:1", "to cpu"]
