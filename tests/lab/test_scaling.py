"""The simulated cluster: rates where arithmetic gives them, what bounds them, costs of a report, a plot."""

from dataclasses import replace

import pytest

from engines.errors import InputError
from lab.scaling.__main__ import costs_of
from lab.scaling.plot import draw, grown, shortest
from lab.scaling.simulation import Costs, Machines, simulate

ONE = Machines(1, networks=1, files=1)
FREE = Costs(0.0, 1.0, 0.0, 0.0)


def test_one_worker_makes_one_video_in_the_time_it_takes():
    assert simulate(FREE, ONE, 100).rate == pytest.approx(1.0, rel=0.02)


@pytest.mark.parametrize("count", [1, 2, 8])
def test_where_nothing_else_takes_time_throughput_grows_with_workers(count):
    machines = Machines(count, networks=8, files=8)
    assert simulate(FREE, machines, 40 * 8 * count).rate == pytest.approx(8 * count, rel=0.03)


def test_one_driver_bounds_the_rate_by_its_seconds_a_stage():
    found = simulate(replace(FREE, dispatch=0.1), Machines(4, networks=8, files=8), 2000)
    assert found.rate == pytest.approx(1 / 0.3, rel=0.03) and shortest(found) == "driver"


def test_workers_of_files_bound_the_rate_by_reading_and_writing():
    found = simulate(Costs(1.0, 0.1, 3.0, 0.0), Machines(2, networks=4, files=2), 300)
    assert found.rate == pytest.approx(4 / 4, rel=0.03) and shortest(found) == "files"


def test_frames_that_lie_on_the_machine_of_the_worker_do_not_pass_the_network():
    near = Costs(0.1, 1.0, 0.1, 0.0, read_bytes=1.0, made_bytes=1.0)
    machines = Machines(4, networks=4, files=4, bandwidth=1.0)
    found = simulate(near, machines, 600)
    crossing = found.busy["machines' network"] * 4 / found.rate  # seconds a video, of a second each way
    assert crossing < 1.0  # by chance it would be 1.5


def test_a_part_of_the_time_is_at_most_all_of_it():
    found = simulate(Costs(0.2, 1.0, 0.3, 0.01), Machines(3, networks=4, files=2), 500)
    assert all(0 < part < 1.05 for part in found.busy.values())


def test_costs_are_those_of_a_timed_run():
    stages = {"read": 1.0, "condition": 2.0, "denoise": 30.0, "decode": 4.0, "write": 5.0, "other": 6.0}
    report = {"runs": [{"name": "a", "timing": None}, {"name": "b", "timing": {"stages": stages}}]}
    small = 3 * 128 * 192 * 48
    assert costs_of(report, "b") == Costs(1.0, 36.0, 5.0, 0.0, read_bytes=small, made_bytes=small)
    with pytest.raises(InputError, match="unknown timed run 'a'"):
        costs_of(report, "a")


def test_the_picture_is_a_png_of_what_was_measured_and_simulated(tmp_path):
    costs, machine = Costs(0.1, 5.0, 0.2, 0.002, 1e6, 1e6), Machines(1, networks=1, files=1, bandwidth=1e9)
    assert [count for count, _ in grown(costs, machine)] == [1, 2, 4, 8, 16]
    draw(costs, costs, machine, [{"machines": 2, "rate": 0.4}], tmp_path / "new" / "scaling.png")
    assert (tmp_path / "new" / "scaling.png").read_bytes().startswith(b"\x89PNG")
