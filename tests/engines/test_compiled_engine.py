"""What torch compiles: for which shapes, and for which of several networks."""

import torch

from engines.backends.torch_backend import SHAPES, TorchEngine, compiled
from tests.engines.test_torch_engine import SPEC, Mix


def test_compiled_modules_are_compiled_for_more_shapes_than_torchs_eight():
    engine = TorchEngine(SPEC, Mix())
    engine.compile()
    assert torch._dynamo.config.recompile_limit >= SHAPES > 8
    engine.device = "cuda"
    engine.compile()
    assert not engine.capturable  # to graphs of its own


def test_a_networks_like_is_compiled_apart_as_it_may_compute_attention_in_another_way():
    graphs = []
    networks = [compiled(torch.nn.Linear(4, 4), backend=lambda graph, _: graphs.append(graph) or graph)
                for _ in range(2)]
    for network in networks * 2:
        network(torch.ones(1, 4))
    assert len(graphs) == 2
