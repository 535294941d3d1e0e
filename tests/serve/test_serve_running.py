"""The service as users run it: killed at any moment, watched while it makes, stopped, started again."""

import os
import signal
import subprocess
import threading
import time

import httpx
import pytest

import serve.__main__
from pipeline.video.reader import read
from tests.conftest import ROOT
from tests.serve.conftest import Running

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def running(tmp_path_factory, tiny_file, tiny_built):
    """A running service with one worker, which starts as fast as may be: it is killed and started often."""
    service = Running(tmp_path_factory.mktemp("killed") / "home", tiny_file, tiny_built)
    yield service
    service.stop()


def post(running, files, **headers):
    return running.client.post("/v1/videos", files=files, headers=headers).json()


def test_jobs_survive_kills_of_worker_and_service_and_end_once(running, inputs):
    short, long = inputs(5), inputs(120)
    names = [post(running, files)["id"] for files in (short, long, short)]
    while running.client.get(f"/v1/videos/{names[1]}").json()["frames_made"] == 0:
        time.sleep(0.02)
    os.kill(running.workers()[0], signal.SIGKILL)
    while running.client.get("/readyz").json()["workers_ready"]:
        time.sleep(0.02)
    names.append(post(running, short)["id"])
    while running.client.get(f"/v1/videos/{names[1]}").json()["frames_made"] == 0:
        time.sleep(0.02)
    running.kill()
    running.start()
    jobs = [running.ended(name) for name in names]
    assert [job["status"] for job in jobs] == ["completed"] * 4
    content = [running.client.get(f"/v1/videos/{name}/content").content for name in names]
    assert content[0] == content[2] == content[3]
    assert jobs[0]["result"]["frames_sha256"] == jobs[2]["result"]["frames_sha256"]
    listed = [job["id"] for job in running.client.get("/v1/videos?limit=100").json()["data"]]
    assert [listed.count(name) for name in names] == [1] * 4
    assert list(running.home.rglob("*.tmp-*")) == []


def test_a_stream_plays_before_the_end_and_goes_on_over_the_death_of_a_worker(running, inputs, tmp_path):
    name, parts = post(running, inputs(120))["id"], []
    with running.client.stream("GET", f"/v1/videos/{name}/stream") as answer:
        chunks = answer.iter_raw()
        while b"moof" not in b"".join(parts):
            parts.append(next(chunks))
        job = running.client.get(f"/v1/videos/{name}").json()
        assert job["status"] == "in_progress"
        os.kill(running.workers()[0], signal.SIGKILL)
        parts += chunks
    running.ended(name)
    whole = b"".join(parts)
    assert whole == running.client.get(f"/v1/videos/{name}/stream").content
    (tmp_path / "a.mp4").write_bytes(whole)
    assert len(read(tmp_path / "a.mp4").frames) == 120


def test_a_client_that_goes_away_ends_its_stream_and_not_its_job(running, inputs):
    name = post(running, inputs(60))["id"]
    with running.client.stream("GET", f"/v1/videos/{name}/stream") as answer:
        next(answer.iter_raw())
    assert running.ended(name)["status"] == "completed"


def test_a_job_is_cancelled_while_it_is_made(running, inputs):
    name = post(running, inputs(400))["id"]
    while running.client.get(f"/v1/videos/{name}").json()["status"] == "queued":
        time.sleep(0.02)
    assert running.client.delete(f"/v1/videos/{name}").json()["status"] == "cancelled"
    assert running.ended(post(running, inputs(5))["id"])["status"] == "completed"


def test_posts_at_once_with_one_key_make_one_job(running, inputs):
    files, names = inputs(), []

    def one():
        names.append(post(running, files, **{"Idempotency-Key": "k"})["id"])

    threads = [threading.Thread(target=one) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(names) == 6 and len(set(names)) == 1


def test_streams_end_without_a_word_when_it_stops(running, inputs):
    name, broken = post(running, inputs(400))["id"], []

    def view(path):
        with httpx.Client(base_url=running.url, timeout=60) as client:
            try:
                client.get(f"/v1/videos/{name}/{path}")
            except httpx.RemoteProtocolError:
                broken.append(path)

    viewers = [threading.Thread(target=view, args=(path,)) for path in ("stream", "events", "stream")]
    for viewer in viewers:
        viewer.start()
    while running.client.get(f"/v1/videos/{name}").json()["frames_made"] == 0:
        time.sleep(0.02)
    assert running.stop() == 143
    for viewer in viewers:
        viewer.join()
    assert broken == ["stream", "stream"] and "Traceback" not in running.log.read_text()
    assert "without completing" not in running.log.read_text()
    running.start()
    running.client.delete(f"/v1/videos/{name}")


def test_sigterm_stops_it_with_its_workers_and_a_second_service_cannot_have_its_folder(running):
    again = subprocess.run(running.command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert again.returncode == 2 and "is in use by process" in again.stderr
    workers = running.workers()
    assert running.stop() == 143
    for worker in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(worker, 0)
    running.start()


@pytest.mark.parametrize(("arguments", "status", "words"), [
    (["--host", "0.0.0.0"], 2, "needs --keys FILE"),
    (["--keys", "nowhere.txt"], 2, "cannot be read"),
    (["--add-key", "ada"], 2, "--add-key needs --keys"),
    (["--generator", "nobody"], 2, "nobody"),
])
def test_what_cannot_be_served_ends_with_its_exit_code(run_main, tmp_path, arguments, status, words):
    ended = run_main(serve.__main__, "--home", tmp_path / "home", "--port", "0", *arguments)
    assert ended.status == status and words in ended.err
