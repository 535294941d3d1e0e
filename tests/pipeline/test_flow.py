"""Who does what next on a cluster: order, back-pressure, nearness, and what is lost begins anew."""

from types import SimpleNamespace

import pytest

from pipeline.parallel.stage_scheduler import Flow, Pool, Stage


def worker(pool, node="a"):
    return SimpleNamespace(pool=pool, node=node)


def flow_of(requests, files=1, networks=1):
    """A flow whose workers are all free, on one node."""
    flow = Flow(requests, {Pool.FILES: files, Pool.NETWORKS: networks})
    for pool, count in ((Pool.FILES, files), (Pool.NETWORKS, networks)):
        for _ in range(count):
            flow.free(worker(pool))
    return flow


def begun(flow):
    """All that can begin now: workers and videos."""
    return list(iter(flow.begin, None))


def finish(flow, pair, node="a"):
    flow.passed(pair[1], node)
    flow.free(pair[0])


def shown(pairs):
    return [(video.request, video.stage.value) for _, video in pairs]


def test_a_video_is_read_then_made_then_written(): 
    flow, seen = flow_of([7]), []
    while flow:
        (pair,) = begun(flow)
        seen += shown([pair])
        finish(flow, pair)
    assert seen == [(7, "read"), (7, "make"), (7, "write")]


def test_every_video_of_many_passes_every_stage_once():
    flow, seen = flow_of(range(20), files=2, networks=3), []
    running = begun(flow)
    while running:
        seen += shown([running[0]])
        finish(flow, running.pop(0))
        running += begun(flow)
    assert not flow
    assert sorted(seen) == sorted((number, stage.value) for number in range(20) for stage in Stage)


def test_no_more_is_read_ahead_than_networks_have_workers():
    flow = flow_of(range(9), files=4, networks=2)
    pairs = begun(flow)
    assert shown(pairs) == [(0, "read"), (1, "read")]
    for pair in pairs:
        finish(flow, pair)
    assert shown(begun(flow)) == [(0, "make"), (1, "make"), (2, "read"), (3, "read")]


def test_nothing_is_made_while_finished_videos_wait_for_a_writer():
    flow = flow_of(range(9), files=1, networks=3)
    most, running = 0, begun(flow)
    for _ in range(60):  # networks finish first, so that writing lags
        running.sort(key=lambda pair: pair[1].stage is not Stage.MAKE)
        if not running:
            break
        finish(flow, running.pop(0))
        running += begun(flow)
        most = max(most, len(flow._waiting[Stage.WRITE]))
    assert not flow and most <= 1 + 3  # writers, and those who were at work when the last place was taken


def test_writing_comes_before_reading():
    flow = flow_of(range(3))
    finish(flow, begun(flow)[0])
    making, reading = begun(flow)
    finish(flow, reading)
    finish(flow, making)
    assert (0, "write") in shown(begun(flow))


def test_a_worker_takes_what_lies_on_its_own_machine_first():
    flow = Flow(range(2), {Pool.FILES: 2, Pool.NETWORKS: 2})
    for node in "ab":
        flow.free(worker(Pool.FILES, node))
    for pair in begun(flow):
        finish(flow, pair, pair[0].node)
    flow.free(worker(Pool.NETWORKS, "b"))
    near = flow.begin()
    assert near[0].node == near[1].node == "b" and near[1].request == 1
    flow.free(worker(Pool.NETWORKS, "c"))
    assert flow.begin()[1].request == 0  # better from afar than not at all


@pytest.mark.parametrize("stage", Stage)
def test_what_is_lost_at_any_stage_begins_anew_before_others(stage):
    flow = flow_of(range(3))
    (pair,) = running = begun(flow)
    while pair[1].stage is not stage:
        for each in running:
            finish(flow, each)
        running = begun(flow)
        pair = next(each for each in running if each[1].request == 0)
    running.remove(pair)
    flow.again(pair[1])
    flow.free(pair[0])
    for each in running:
        finish(flow, each)
    seen = []
    while flow:
        for each in begun(flow):
            seen += shown([each])
            finish(flow, each)
    assert [request for request, what in seen if what == "read"][0] == 0
    assert seen.count((0, "write")) == 1


def test_a_video_that_failed_is_passed_over():
    flow = flow_of([1])
    ((_, video),) = begun(flow)
    flow.dropped(video)
    assert not flow and flow.begin() is None
