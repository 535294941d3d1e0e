"""A graph for each set of shapes: which are kept, and what makes them void; on a fake GPU."""

import pytest

from engines.errors import EngineError
from engines.tensorrt.engine import RUNS
from tests.fake_tensorrt import VideoRunner, calls_of, check


@pytest.fixture
def make(tmp_path):
    """A function that starts an engine on a fake GPU."""
    return VideoRunner(tmp_path)


def test_shapes_that_alternate_keep_a_graph_each(make):
    engine = make()
    for n in (8, 2, 8, 2):
        check(engine, n)
    for n in (8, 2, 2, 8):
        told = set(calls_of(engine, n, seed=n))
        assert "launch" in told and told <= {"copy_in", "launch", "copy_out", "synchronize"}
    assert len(engine.trt.contexts) == 2


def test_of_many_shapes_those_used_last_keep_their_graphs_and_contexts_are_no_more(make):
    engine = make()
    for n in (8, 1, 2, 3, 8, 1, 2, 3):
        check(engine, n)
    assert "free_graph" in calls_of(engine, 4)  # that of 8, which was not used for longest
    for n in (1, 2, 3):
        assert "launch" in calls_of(engine, n)
    assert "launch" not in calls_of(engine, 8)
    assert len(engine.trt.contexts) == RUNS == 4


def test_without_a_second_context_shapes_take_turns_in_one(make):
    engine = make()
    engine.trt.engine.create_execution_context = lambda how: None
    for n in (2, 8, 8, 2, 2):
        check(engine, n)
    assert len(engine.trt.contexts) == 1 and "launch" in calls_of(engine, 2)


def test_memory_that_grew_is_bound_anew(make, monkeypatch):
    monkeypatch.setattr("engines.cuda.context.ALIGNED", 16)  # as large as the fake one's arrays
    engine = make()
    for n in (2, 2):
        check(engine, n)
    old = dict(engine.trt.contexts[0].addresses)
    calls = calls_of(engine, 8)
    assert calls.count("set_tensor_address") == 4
    assert not set(old.values()) & set(engine.trt.contexts[1].addresses.values())
    assert not set(old.values()) & set(engine.driver.alive)
    calls = calls_of(engine, 2)  # whose graph reads what was freed
    assert calls.count("set_tensor_address") == 4 and "free_graph" in calls and "launch" not in calls


def test_memory_of_activations_is_set_again_for_other_shapes_of_a_context(make):
    engine = make(rtx=True)  # which has one context
    for n in (8, 2):
        assert "set_device_memory" in calls_of(engine, n)
    assert "set_device_memory" not in calls_of(engine, 2)


def test_where_tensorrt_does_not_tell_what_memory_shapes_take_it_gets_what_all_take(make):
    engine = make()
    engine.trt.activations, engine.trt.engine.device_memory_size_v2 = 0, 3000
    check(engine, 2)
    assert engine._gpu.activations.size == 3000


def test_memory_that_is_refused_in_the_log_alone_is_an_error(make):
    engine = make()
    engine.trt.logger.log(type("Level", (), {"name": "ERROR"}), "of an earlier call")
    check(engine, 2)
    before = calls_of(make(), 8)
    engine = make(error=EngineError)
    engine.driver.faults.at = len(engine.driver.faults.calls) + before.index("set_device_memory")
    said = "^mix: the memory of activations was refused: set_device_memory was told to fail$"
    with pytest.raises(EngineError, match=said):
        check(engine, 8)
    for n in (8, 8, 8):
        check(engine, n)
