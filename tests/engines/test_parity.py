"""How differences are measured, what is out of tolerance, and what random inputs look like."""

import numpy as np
import pytest

from engines.onnx.parity import Parity, ParityError, draw, extreme_sizes, rms_error
from engines.precision import PRECISIONS
from engines.spec import Cadence, ComponentSpec, DimRange, TensorSpec

FLOATS = ComponentSpec("denoise", Cadence.STEP, (TensorSpec("x", ("b", 2)), TensorSpec("time", ("b",))),
                       (TensorSpec("flow", ("b", 2)),), {"b": DimRange(1, 1, 2)})
PIXELS = ComponentSpec("decode", Cadence.CHUNK, (TensorSpec("n", (2,), "int64"),),
                       (TensorSpec("pixels", (2, 2), "uint8"),))


def parity_of(spec, *calls):
    parity = Parity(spec)
    for reference, found in calls:
        parity.add({spec.outputs[0].name: reference}, {spec.outputs[0].name: found})
    return parity


def test_errors_are_the_largest_and_the_mean_of_all_calls_and_the_cosine_is_the_worst():
    first = np.array([[3, 4]], np.float32), np.array([[3, 4]], np.float32)
    second = np.array([[1, 0]], np.float32), np.array([[1, 1]], np.float32)
    found = parity_of(FLOATS, first, second).result()["flow"]
    assert (found.max_error, found.mean_error) == (1.0, 0.25)
    assert found.cosine == pytest.approx(0.5 ** 0.5)


def test_pixels_differ_in_levels_without_wrapping_around():
    dark, bright = np.zeros((2, 2), np.uint8), np.full((2, 2), 255, np.uint8)
    found = parity_of(PIXELS, (dark, bright)).result()["pixels"]
    assert (found.max_error, found.unit) == (255.0, 255.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_number_that_is_not_finite_is_an_error_that_names_component_and_output(bad):
    good, wrong = np.ones((1, 2), np.float32), np.array([[1, bad]], np.float32)
    with pytest.raises(ParityError, match="denoise: flow of the graph: 1 of 2 numbers are not finite"):
        parity_of(FLOATS, (good, wrong))
    with pytest.raises(ParityError, match="flow of the reference"):
        parity_of(FLOATS, (wrong, wrong))


@pytest.mark.parametrize("found", [np.ones((2, 2), np.float32), np.ones((1, 2), np.float16)])
def test_another_shape_or_dtype_is_an_error_even_where_numpy_would_broadcast(found):
    with pytest.raises(ParityError, match=r"denoise: flow is .* expected \(1, 2\) float32"):
        parity_of(FLOATS, (np.ones((1, 2), np.float32), found))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_each_precision_lets_its_own_rounding_pass_and_not_ten_times_its_tolerance(precision):
    allowed = PRECISIONS[precision].tolerance.mean
    reference = np.random.default_rng(0).standard_normal((1, 2000)).astype(np.float32)
    noise = np.random.default_rng(1).standard_normal((1, 2000)).astype(np.float32)
    parity_of(FLOATS, (reference, reference + 0.3 * allowed * noise)).require(precision)
    with pytest.raises(ParityError, match=f"denoise: flow in {precision} is too far"):
        parity_of(FLOATS, (reference, reference + 10 * allowed * noise)).require(precision)


def test_outputs_that_are_zero_on_both_sides_are_equal():
    zeros = np.zeros((1, 2), np.float32)
    assert parity_of(FLOATS, (zeros, zeros)).require("fp32")["flow"]["cosine"] == 1.0


def test_random_inputs_fit_the_spec_and_one_dim_floats_lie_between_0_and_1():
    for spec in (FLOATS, PIXELS):
        spec.check(draw(spec, {"b": 2}, seed=1))
    inputs = TensorSpec("time", (1000,)), TensorSpec("p", (9, 999), "uint8")
    drawn = draw(ComponentSpec("wide", Cadence.STEP, inputs, ()), {}, seed=1)
    assert 0 <= drawn["time"].min() < 0.1 and 0.9 < drawn["time"].max() < 1
    assert (drawn["p"].min(), drawn["p"].max()) == (0, 255)


def test_the_extreme_sizes_are_every_least_and_every_most():
    assert extreme_sizes(FLOATS) == [{"b": 1}, {"b": 2}]
    assert extreme_sizes(PIXELS) == [{}]


def test_rms_error_is_in_parts_of_the_reference_and_the_worst_output_counts():
    reference = [np.full(4, 2.0), np.full(4, 2.0)]
    assert rms_error(reference, [np.full(4, 2.2), np.full(4, 1.0)]) == pytest.approx(0.5)
