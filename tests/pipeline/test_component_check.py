"""What a component's check takes: weights as they are stored, outputs whose sizes follow from the inputs'."""

import pytest
import torch

from engines.spec import Cadence, ComponentSpec, DimRange, TensorSpec
from pipeline.component_check import check_module


def spec(*outputs):
    pixels = TensorSpec("x", ("n", 3, "H", 16))
    return ComponentSpec("net", Cadence.CHUNK, (pixels,), outputs,
                         {"n": DimRange(1, 2, 2), "H": DimRange(8, 16, 24)})


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float32])
def test_weights_stored_in_half_precision_are_no_fault(kind):
    module = torch.nn.Conv2d(3, 4, 2, stride=2).to(kind)
    assert check_module(spec(TensorSpec("y", ("n", 4, "h", 8))), module) == []


@pytest.mark.parametrize(("dims", "wrong"), [
    (("n", 4, "h", 8), ""), (("n", 4, "H", 8), "the spec says (1, 4, 8, 8)"),
    (("n", 4, "h"), "the spec says (1, 4, 'h')"), (("n", 5, "h", 8), "the spec says (1, 5, 'h', 8)")])
def test_a_name_that_no_input_has_takes_any_size_and_other_dims_must_be_right(dims, wrong):
    found = check_module(spec(TensorSpec("y", dims)), torch.nn.Conv2d(3, 4, 2, stride=2))
    assert (wrong in found[0].wrong) if wrong else found == []
