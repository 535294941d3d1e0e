"""A Ray cluster of two machines makes the bytes of a local run, also when one machine is lost in mid-run."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from engines.errors import EngineError, Exit
from generators.contract import GeneratorError
from lab.scaling.null_workers import measure
from lab.scaling.simulation import Costs, Machines
from pipeline.batch.batch import Jobs, run_here
from pipeline.batch.dataset import Request, find_requests
from pipeline.batch.run_folder import RunFolder
from pipeline.parallel.ray_cluster import connect, cores_each, gpus_each, run_cluster
from pipeline.recipe import BASELINE
from pipeline.runner import Settings, start_runner
from tests.clips import told

pytest.importorskip("ray")
ROOT = Path(__file__).resolve().parents[2]
STORE = 80 * 2**20  # bytes, for machines with little shared memory


@pytest.fixture(scope="module")
def settings(tiny_file, tiny_built):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIVACE_BUILT", str(tiny_built))
        yield Settings(f"{tiny_file}:Tiny", replace(BASELINE, backend="onnxruntime"))


def test_a_generators_folder_is_found_from_other_working_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for given, wanted in (("wan-fun-control=ckpt/wan", f"wan-fun-control={tmp_path}/ckpt/wan"),
                          ("mine.py:Mine", f"{tmp_path}/mine.py:Mine"), ("presenter", "presenter")):
        assert Settings(given).absolute().generator == wanted
    request = Request("a", Path("a.mp4"), Path("a.png"), 1, {"image2": Path("b.png")}).absolute()
    assert (request.video, request.pictures) == (tmp_path / "a.mp4", {"image2": tmp_path / "b.png"})


@pytest.fixture(scope="module")
def cluster(settings):
    """Two machines with two cores each, as far as Ray knows; the second is the one to lose."""
    # Not pytest's folder: a path of a socket has 107 characters at most.
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(dir="/tmp") as folder:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_TMPDIR", folder)  # for its notes of the machine as well
        from ray.cluster_utils import Cluster

        watched = {"initial_delay_ms": 0, "period_ms": 500, "failure_threshold": 4}
        quick = {f"health_check_{name}": value for name, value in watched.items()}
        sizes = {"num_cpus": 2, "object_store_memory": STORE}
        head = {**sizes, "include_dashboard": False, "_system_config": quick}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        cluster.second = cluster.add_node(**sizes)
        yield cluster
        cluster.shutdown()


def run(data, out, make, emit=None):
    """The lines by id, the status, what was said."""
    said = []
    with RunFolder(out) as folder:
        jobs = make(partial(Jobs, find_requests(data), folder, say=said.append, emit=emit), said.append)
    return {line["id"]: line for line in jobs.lines}, jobs.status, said


def here(settings, open_jobs, say):
    maker = start_runner(settings, say)
    jobs = open_jobs(maker.identity)
    run_here(jobs, maker)
    return jobs


def hashes(lines):
    return {name: (line["frames_sha256"], line["output_sha256"]) for name, line in lines.items()}


def on(cluster, settings, open_jobs, say):
    return run_cluster(settings, cluster.address, None, open_jobs, say)


def unused(identity):
    raise AssertionError("no worker opened")


@pytest.mark.parametrize(("machines", "count", "cores"), [
    ([2, 2], 2, 2), ([2, 2], 3, 1), ([4, 2], 2, 2), ([8], 1, 8), ([8, 8], 4, 4), ([1], 3, 1)])
def test_workers_on_processors_share_all_the_cores_that_fit(machines, count, cores):
    assert cores_each(machines, count) == cores


@pytest.mark.parametrize(("gpus", "count", "part"), [(8, 3, 1), (2, 4, 0.5), (2, 3, 0.5), (1, 2, 0.5)])
def test_more_workers_than_gpus_share_them_in_equal_parts(gpus, count, part):
    assert gpus_each(gpus, count) == part


def test_an_address_where_no_cluster_is_ends_the_run_at_once(settings):
    with pytest.raises(EngineError, match="--ray 127.0.0.1:1: .*refused; give a cluster's HOST:PORT"):
        run_cluster(settings, "127.0.0.1:1", None, unused, print)


def test_a_cluster_without_gpus_is_refused_where_gpus_are_asked_for(settings, cluster):
    with pytest.raises(EngineError, match="the cluster has no GPU; give --device cpu"):
        on(cluster, replace(settings, device="cuda"), unused, print)


def test_an_engine_that_no_worker_can_start_ends_the_run_with_its_reason(settings, cluster):
    recipe = replace(settings.recipe, precision="int8")
    with pytest.raises(EngineError, match="run: python export_onnx.py"):
        on(cluster, replace(settings, recipe=recipe), unused, print)


REFUSING = """

class Refusing(Tiny):
    name = "tiny"

    def condition(self, *inputs):
        with (Path(__file__).parent / "tries").open("a") as tries:
            tries.write("one\\n")
        raise GeneratorError("no column for the prompt; add one to pairs.csv")
"""


def test_an_error_of_the_generator_that_would_come_again_ends_the_run_at_once(
    settings, cluster, tiny_file, make_data, tmp_path):
    copy = shutil.copytree(tiny_file.parent, tmp_path / "refusing") / tiny_file.name
    copy.write_text(f"from generators.contract import GeneratorError\n{copy.read_text()}{REFUSING}")
    with pytest.raises(GeneratorError, match="^no column for the prompt; add one to pairs.csv"):
        run(make_data({"a": 8}), tmp_path / "out",
            partial(on, cluster, replace(settings, generator=f"{copy}:Refusing")))
    assert (copy.parent / "tries").read_text() == "one\n"


DYING = """

class Dying(Tiny):
    name = "tiny"

    def condition(self, *inputs):
        try:
            (Path(__file__).parent / "died").touch(exist_ok=False)
        except FileExistsError:
            return super().condition(*inputs)
        os.kill(os.getpid(), NUMBER)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_process_killed_or_stopped_over_a_video_is_replaced_and_the_video_made_again(
    settings, cluster, tiny_file, make_data, tmp_path, monkeypatch, number):
    monkeypatch.setattr("pipeline.parallel.ray_cluster.STOPPED", 1.0)
    for module in ("ray_cluster", "ray_watch"):
        monkeypatch.setattr(f"pipeline.parallel.{module}.LOOK", 0.3)
    data = make_data({f"v{number}": 16 for number in range(8)})
    copy = shutil.copytree(tiny_file.parent, tmp_path / "dying") / tiny_file.name
    copy.write_text("import os\n" + copy.read_text() + DYING.replace("NUMBER", str(int(number))))
    lines, status, said = run(
        data, tmp_path / "out", partial(on, cluster, replace(settings, generator=f"{copy}:Dying")))
    assert status is Exit.OK and len(lines) == 8
    again = [note for line in lines.values() for note in told(line["notes"])]
    assert again and all("lost; it was tried again" in note for note in again)
    assert len(again) == sum("lost; it is tried again" in text for text in said)


def test_null_workers_hand_every_video_on_and_are_timed(cluster, make_data, settings):
    data = make_data({"a": 2})
    ray = connect(cluster.address)
    try:
        costs, machines = Costs(0.01, 0.02, 0.01, 0.0), Machines(2, networks=2, files=2)
        found = measure(ray, costs, machines, 40, data / "videos" / "a.mp4", print)
    finally:
        ray.shutdown()
    assert 0 < found.rate < 4 / costs.make  # of four workers
    assert 0 < found.thread <= found.process


def test_a_machine_lost_in_mid_run_costs_no_video_and_no_byte(settings, cluster, make_data, tmp_path):
    data = make_data({f"v{number}": 16 + number for number in range(8)})
    (data / "videos" / "v3.mp4").write_text("not a video")

    def lose(line):
        if cluster.worker_nodes and line["status"] == "done":
            cluster.remove_node(cluster.second, allow_graceful=False)

    far, status, said = run(data, tmp_path / "far", partial(on, cluster, settings), lose)
    near, alike, _ = run(data, tmp_path / "near", partial(here, settings))
    assert not cluster.worker_nodes and any("lost; it is tried again" in text for text in said)
    assert status is alike is Exit.SOME_FAILED
    assert far.pop("v3")["error"] == near.pop("v3")["error"]
    assert hashes(far) == hashes(near)
    # Frames go to the worker that writes them when all are made.
    fields = {"worker"}, {"first_frame_seconds", "read_ahead_seconds"}
    near_keys = {name: line.keys() - {"start_seconds"} for name, line in near.items()}  # of one video
    assert all(far[name].keys() ^ near_keys[name] == set.union(*fields) for name in near)
    assert sorted(path.name for path in (tmp_path / "far").iterdir()) == sorted(
        path.name for path in (tmp_path / "near").iterdir())


@pytest.mark.slow  # a cluster starts, and Ray takes its time to give up
def test_a_cluster_of_ones_own_answers_no_stranger():
    """In a process of its own, for Ray reads the environment's token once."""
    stranger = "import sys, ray; ray.init(sys.argv[1], log_to_driver=False, logging_level='ERROR')"
    program = f"""
import os, subprocess, sys
from pipeline.parallel.ray_cluster import connect
ray = connect("local")
address = ray.get_runtime_context().gcs_address
for keep in (True, False):
    own = {{name: value for name, value in os.environ.items() if keep or not name.startswith("RAY_AUTH")}}
    answer = subprocess.run([sys.executable, "-c", {stranger!r}, address], env=own, capture_output=True)
    print(answer.returncode, b"ConnectionError" in answer.stderr)
"""
    command = [sys.executable, "-c", program]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert answer.stdout.splitlines() == ["0 False", "1 True"], answer.stderr
