"""The TensorRT engine on a fake GPU: outputs, graphs, buffers, refusals, and what is RTX's own."""


import numpy as np
import pytest

from engines.errors import EngineError
from engines.spec import Cadence, ComponentSpec, TensorSpec
from tests.fake_device import DriverPlace
from tests.fake_tensorrt import FakeTensorRT, VideoRunner, calls_of, check, inputs, mix

FLOATS = ComponentSpec("halve", Cadence.STEP, (TensorSpec("a", (3,)),), (TensorSpec("half", (3,)),))


@pytest.fixture
def make(tmp_path):
    """A function that starts an engine on a fake GPU."""
    return VideoRunner(tmp_path)


def test_outputs_are_the_networks_by_name_for_every_size_of_the_spec(make):
    engine = make()
    for n in (2, 1, 8, 8, 8, 2, 2, 2):
        check(engine, n, seed=n)


def test_outputs_stay_as_they_are_when_the_engine_runs_again(make):
    engine = make()
    first = engine(**inputs(2, seed=1))
    kept = {name: array.copy() for name, array in first.items()}
    check(engine, 2, seed=2)
    for name, array in kept.items():
        np.testing.assert_array_equal(first[name], array)


def test_the_first_call_runs_plain_the_second_is_captured_and_later_ones_only_launch(make):
    engine = make()
    work = [[call for call in calls_of(engine, 2, seed) if call in ("execute", "begin_capture", "launch")]
            for seed in range(4)]
    assert work == [["execute"], ["begin_capture", "execute", "launch"], ["launch"], ["launch"]]


def test_a_later_call_of_the_same_shape_allocates_nothing_and_tells_tensorrt_nothing(make):
    engine = make()
    check(engine, 8)
    again = {"allocate", "pin", "free", "set_input_shape", "set_tensor_address", "infer_shapes"}
    assert again.isdisjoint([*calls_of(engine, 8, 1), *calls_of(engine, 8, 2)])


def test_a_smaller_call_uses_the_memory_that_is_there(make):
    engine = make()
    check(engine, 8)
    assert {"allocate", "pin", "free"}.isdisjoint([*calls_of(engine, 2), *calls_of(engine, 8)])


def test_arrays_of_a_place_stay_on_the_gpu_and_graphs_go_on(make):
    engine = make()
    place = engine.place = DriverPlace(engine.driver, engine.context)
    kept = []
    for seed in range(4):
        given = inputs(8, seed)
        before = len(engine.driver.faults.calls)
        outputs = engine(a=place.asarray(np.asfortranarray(given["a"])), b=given["b"])
        calls = engine.driver.faults.calls[before:]
        kept.append((outputs["sum"], mix(**given)["sum"]))
        np.testing.assert_array_equal(outputs["twice"], mix(**given)["twice"])
        assert "copy_in" not in calls and calls.count("copy_out") == 1  # of bytes, which come to the host
    assert "launch" in calls and "execute" not in calls
    for found, expected in kept:
        np.testing.assert_array_equal(found.get(), expected)
    assert place.up == {"float32": 4 * 96, "uint8": 4 * 8}
    assert engine.stream == engine.context.stream


def test_outputs_that_stay_are_not_waited_for(make):
    engine = make(spec=FLOATS, function=lambda a: {"half": a / 2})
    place = engine.place = DriverPlace(engine.driver, engine.context)
    first = engine(a=np.ones(3, np.float32))["half"]
    before = len(engine.driver.faults.calls)
    second = engine(a=first)["half"]  # made of what is not there yet
    assert "synchronize" not in engine.driver.faults.calls[before:]
    place.wait()
    assert second.get().tolist() == [0.25] * 3


def test_engines_of_one_context_share_the_memory_of_their_tensors(make):
    one = make()
    check(one, 8)
    other = make(context=one.context)
    before = len(other.driver.faults.calls)
    check(other, 8)
    assert {"allocate", "pin"}.isdisjoint(other.driver.faults.calls[before:])
    check(one, 8, seed=1)
    one.close()
    check(other, 2)
    other.close()
    assert not other.driver.alive


def test_a_graph_that_cannot_be_captured_leaves_runs_plain_and_is_not_tried_again(make):
    engine = make(capturable=False)
    work = [[call for call in calls_of(engine, 2, seed) if call in ("execute", "begin_capture", "launch")]
            for seed in range(3)]
    assert work == [["execute"], ["begin_capture", "execute", "execute"], ["execute"]]


def test_a_closed_engine_refuses_to_run_and_closing_twice_is_harmless(make):
    engine = make()
    check(engine, 2)
    engine.close()
    engine.close()
    with pytest.raises(ValueError, match="mix: this engine is closed; build another"):
        engine(**inputs(2))


def test_the_spec_is_checked_before_the_gpu_sees_anything(make):
    engine = make()
    before = len(engine.driver.faults.calls)
    with pytest.raises(ValueError, match="n of a must lie in 1..8, got 9"):
        engine(**inputs(9))
    assert len(engine.driver.faults.calls) == before


def test_shapes_that_tensorrt_cannot_bring_together_are_an_engine_error(make):
    with pytest.raises(EngineError, match=r"mix: .*\(2, 3\).* give no output shapes"):
        make(inconsistent=True)(**inputs(2))


def test_a_shape_that_the_engine_was_not_built_for_names_the_way_out(make):
    engine = make(fixed=True)
    check(engine, 2)
    with pytest.raises(EngineError, match=r"built for a of \[2, 3\] to \[2, 3\], got \[1, 3\]; .*dynamic"):
        engine(**inputs(1))


def test_rtx_keeps_its_kernels_beside_the_engine_and_captures_by_itself(make):
    engine = make(rtx=True)
    config = engine.trt.runtime_config
    assert config.cuda_graph_strategy is engine.trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
    specialization = engine.trt.DynamicShapesKernelSpecializationStrategy
    assert config.dynamic_shapes_kernel_specialization_strategy is specialization.EAGER
    assert "begin_capture" not in [*calls_of(engine, 2), *calls_of(engine, 2), *calls_of(engine, 2)]
    engine.close()
    cache = engine.file.with_name(engine.file.name + ".runtime-cache")
    assert cache.read_bytes() == b"kernels"
    again = make(rtx=True)
    assert again.trt.runtime_config.cache.read == b"kernels"
    cache.unlink()
    again.close()
    assert not cache.exists()  # nothing new was compiled


def test_a_header_that_does_not_fit_says_why_before_loading(make):
    refused = (FakeTensorRT.EngineValidity.INVALID, 3)
    with pytest.raises(EngineError, match="cannot run on this machine: version mismatch, unsupported cc"):
        make(rtx=True, validity=refused)
    assert not make.driver.alive


def test_an_engine_file_of_another_network_is_refused(make, monkeypatch):
    dtype = "tests.fake_tensorrt.FakeEngine.get_tensor_dtype"
    monkeypatch.setattr(dtype, lambda *_: FakeTensorRT.DataType.FLOAT)
    with pytest.raises(EngineError, match="is not a mix: its inputs are"):
        make()
    assert not make.driver.alive
