"""A component's specification: what it accepts, and what its refusals say."""

import re

import numpy as np
import pytest

from engines.errors import EngineError
from engines.spec import Cadence, ComponentSpec, DimRange, TensorSpec

PAIR = ComponentSpec(
    "pair", Cadence.STEP,
    (TensorSpec("pixels", ("n", 4, "w", 3), "uint8"), TensorSpec("weights", ("n", "w"))),
    (TensorSpec("sum", ("n",)),), {"n": DimRange(1, 2, 3), "w": DimRange(2, 2, 8)})


def call(n=2, w=5, **changed):
    return {"pixels": np.zeros((n, 4, w, 3), np.uint8), "weights": np.zeros((n, w), np.float32), **changed}


def refusal(arrays):
    with pytest.raises(ValueError) as error:
        PAIR.check(arrays)
    return str(error.value)


def test_a_call_that_fits_gives_the_sizes_of_its_named_dims():
    assert PAIR.check(call()) == {"n": 2, "w": 5}


@pytest.mark.parametrize(("n", "w"), [(1, 2), (3, 8)])
def test_both_ends_of_a_range_fit(n, w):
    assert PAIR.check(call(n, w)) == {"n": n, "w": w}


def test_a_missing_input_is_named_with_what_is_expected():
    arrays = call()
    del arrays["weights"]
    assert refusal(arrays) == "pair takes ['pixels', 'weights'], got ['pixels']"


def test_an_unknown_input_is_refused():
    text = refusal(call(mask=np.zeros(1)))
    assert text == "pair takes ['pixels', 'weights'], got ['mask', 'pixels', 'weights']"


def test_another_dtype_is_refused_not_cast():
    text = refusal(call(weights=np.zeros((2, 5), np.float64)))
    assert text == "pair: expected weights (n, w) float32, got (2, 5) float64"


def test_another_rank_is_refused():
    text = refusal(call(weights=np.zeros((2, 5, 1), np.float32)))
    assert text == "pair: expected weights (n, w) float32, got (2, 5, 1) float32"


def test_another_fixed_dim_is_refused():
    text = refusal(call(pixels=np.zeros((2, 6, 5, 3), np.uint8)))
    assert text == "pair: pixels needs a dim of 4, got 6; expected pixels (n, 4, w, 3) uint8"


@pytest.mark.parametrize(("n", "w", "dim", "limits"), [(0, 5, "n", "1..3"), (4, 5, "n", "1..3"),
                                                       (2, 1, "w", "2..8"), (2, 9, "w", "2..8")])
def test_a_size_outside_its_range_is_refused(n, w, dim, limits):
    text = refusal(call(n, w))
    assert re.fullmatch(rf"pair: {dim} of pixels must lie in {re.escape(limits)}, got \d", text)


def test_one_name_means_one_size():
    text = refusal(call(weights=np.zeros((3, 5), np.float32)))
    assert text == "pair: n is 2 in one input and 3 in weights"


def test_a_named_dim_without_a_range_is_refused():
    with pytest.raises(ValueError, match=r"odd: ranges are given for \[\], but .* name the dims \['n'\]"):
        ComponentSpec("odd", Cadence.CHUNK, (TensorSpec("x", ("n",)),), ())


@pytest.mark.parametrize(("make", "reason"), [
    (lambda: TensorSpec("time", ("batch")), r"time: dims are a tuple, as \('n', 3\), not 'batch'"),
    (lambda: ComponentSpec("odd", Cadence.CHUNK, (TensorSpec("x", (1,))), ()), "odd: inputs are a tuple of"),
    (lambda: ComponentSpec("odd", Cadence.CHUNK, (), TensorSpec("x", (1,))), "odd: outputs are a tuple of"),
    (lambda: ComponentSpec("odd", Cadence.CHUNK, (), (), 8), "odd: ranges are {dim: DimRange}, not 8")])
def test_a_comma_that_was_lost_is_told(make, reason):
    with pytest.raises(ValueError, match=reason):
        make()


def test_a_range_for_no_dim_is_refused():
    with pytest.raises(ValueError, match=r"given for \['m'\], but its inputs name the dims \[\]"):
        ComponentSpec("odd", Cadence.CHUNK, (TensorSpec("x", (1,)),), (), {"m": DimRange(1, 1, 1)})


@pytest.mark.parametrize("sizes", [(0, 1, 1), (2, 1, 3), (1, 4, 3), (-1, 0, 1)])
def test_a_range_out_of_order_is_refused(sizes):
    with pytest.raises(ValueError, match=f"0 < min <= opt <= max, got {', '.join(map(str, sizes))}"):
        DimRange(*sizes)


def test_specs_are_frozen():
    with pytest.raises(AttributeError):
        PAIR.name = "other"


def test_outputs_that_fit_pass_and_empty_ones_are_out_of_memory():
    PAIR.check_outputs({"sum": np.zeros(2, np.float32)}, {"n": 2, "w": 5})
    with pytest.raises(MemoryError, match=r"pair: sum came empty, \(0,\): no memory for sum \(n\) float32"):
        PAIR.check_outputs({"sum": np.zeros(0, np.float32)}, {"n": 2, "w": 5})


@pytest.mark.parametrize("shape", [(3,), (2, 1), ()])
def test_outputs_of_another_shape_are_an_engine_s_error(shape):
    with pytest.raises(EngineError, match=rf"pair: sum came as {re.escape(str(shape))}, expected sum \(n\)"):
        PAIR.check_outputs({"sum": np.zeros(shape, np.float32)}, {"n": 2, "w": 5})
