"""TensorRT engines on a fake GPU that share it, between threads, and while any call fails."""

import threading
from contextlib import suppress

import pytest

from engines.errors import EngineError
from tests.fake_driver import Faults
from tests.fake_tensorrt import VideoRunner, check, inputs


@pytest.fixture
def make(tmp_path):
    """A function that starts an engine on a fake GPU."""
    return VideoRunner(tmp_path)


def test_engines_of_one_lane_share_the_larger_activation_memory(make):
    small = make(activations=4000)
    context = small.context
    check(small, 2), check(small, 2)
    assert context.activations.size == 1000  # of a profile's largest shape it would be 4000
    large = make(context, activations=20_000)
    check(large, 2)
    assert context.activations.size == 5000
    for engine in (small, large, small, small, large, large):
        check(engine, 2)
        assert engine.trt.contexts[0].memory == context.activations.address
    third = make(context, activations=2000)
    check(third, 2)
    assert context.activations.size == 5000
    for engine in (large, third):
        engine.close()
        check(small, 2)
    small.close()
    assert not small.driver.alive


def test_a_failed_engine_leaves_the_others_of_its_lane_their_memory(make):
    engine = make()
    check(engine, 2)
    larger = make(engine.context, activations=20_000)
    at = len(engine.driver.faults.calls) + 7  # the larger activation memory
    engine.driver.faults.at = range(at, at + 2)  # before and after what others keep is given back
    with pytest.raises(MemoryError, match="allocate"):
        larger(**inputs(2))
    check(engine, 2), check(larger, 2)
    larger.close()
    engine.close()
    assert not engine.driver.alive


def test_another_thread_can_run_and_close_an_engine(make):
    engine, failures = make(), []

    def work():
        try:
            for seed in range(20):
                check(engine, 1 + seed % 3, seed)
        except AssertionError as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    closer = threading.Thread(target=engine.close)
    closer.start()
    closer.join()
    assert not engine.driver.alive and not any(engine.driver.threads.values())


def scenario(make, faults, **options):
    """All that can happen to an engine; what went wrong, or None."""
    engine = error = None
    try:
        engine = make(faults=faults, **options)
        for n in (2, 2, 2, 8, 8, 1):
            check(engine, n)
    except (EngineError, MemoryError) as failure:
        error = failure
    if engine:
        try:
            engine.close()
        except (EngineError, MemoryError) as failure:
            error = failure
    return error


@pytest.mark.parametrize("error", [MemoryError, EngineError])
@pytest.mark.parametrize("rtx", [False, True])
def test_whatever_call_fails_the_error_names_it_and_nothing_stays_allocated(make, rtx, error):
    whole = Faults()
    assert scenario(make, whole, rtx=rtx) is None and not make.driver.alive
    silent = set()
    for at, name in enumerate(whole.calls):
        failure = scenario(make, Faults(at), rtx=rtx, error=error)
        assert not make.driver.alive, f"{name} (call {at}) left {make.driver.alive}"
        assert not any(make.driver.threads.values())
        if failure is None:
            silent.add(name)
            continue
        assert f"{name} was told to fail" in str(failure) or name in str(failure) or name == "infer_shapes"
    again = {"allocate", "deserialize"} if error is MemoryError else set()  # which are tried once more
    # A capture, a second shape, how much memory a shape takes: it does without.
    does_without = {"execute", "create_execution_context", "update_device_memory_size_for_shapes"}
    assert silent <= does_without | again


def test_an_engine_runs_on_after_any_call_of_a_run_has_failed(make):
    whole = Faults()
    engine = make(faults=whole)
    start = len(whole.calls)
    for n in (2, 2, 8, 8):
        engine(**inputs(n))
    for at in range(start, len(whole.calls)):
        engine = make(faults=Faults(at))
        with suppress(EngineError, MemoryError):
            for n in (2, 2, 8, 8):
                engine(**inputs(n))
        for n in (2, 2, 2, 8, 8, 1):
            check(engine, n)
        engine.close()
        assert not engine.driver.alive


def test_out_of_memory_in_tensorrts_own_words_is_a_memory_error(make):
    engine = make()
    engine.trt.logger.log(type("Level", (), {"name": "ERROR"}), "Cuda Runtime (out of memory)")
    engine.driver.faults.at = len(engine.driver.faults.calls) + 1 + 2  # an answer of False
    with pytest.raises(MemoryError, match="out of memory"):
        engine(**inputs(2))
