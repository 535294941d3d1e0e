"""Uploads beside each other: who may have no job more hears it at once, and a slow one holds nobody up."""

import threading

import anyio
import httpx
import pytest

from serve import jobs
from serve.keys import add_key, load_keys
from tests.clips import TICKING, stand_in
from tests.serve.test_serve_jobs import error, post


@pytest.mark.parametrize(("limits", "told"), [
    ({"most_queued": 1}, b"The queue is full"), ({"most_per_key": 1}, b"as many videos waiting as one key")])
def test_a_full_queue_refuses_an_upload_before_it_is_read(open_service, inputs, limits, told):
    service, sent = open_service(**limits), []
    post(service, inputs())
    scope = {"type": "http", "method": "POST", "path": "/v1/videos", "query_string": b"",
             "headers": [(b"host", b"testserver"), (b"content-type", b"multipart/form-data; boundary=a")]}

    async def receive():
        raise AssertionError("nothing of the body is read")

    async def send(message):
        sent.append(message)

    anyio.run(service.client.app, scope, receive, send)
    assert sent[0]["status"] == 429 and told in sent[1]["body"]


def test_a_full_queue_still_gives_the_job_of_a_known_key(open_service, inputs):
    service, key = open_service(most_queued=1), {"Idempotency-Key": "order-1"}
    first, again = (post(service, inputs(), headers=key) for _ in range(2))
    assert again.status_code == 200 and again.json()["id"] == first.json()["id"]
    error(post(service, inputs(), headers={"Idempotency-Key": "order-2"}), 429, "queue_full")


def test_a_video_that_takes_long_to_look_at_is_refused(open_service, inputs, tmp_path, monkeypatch):
    service, files = open_service(check_seconds=0.3), inputs()
    stand_in(tmp_path, monkeypatch, TICKING)
    assert error(post(service, files), 400, "invalid_input").startswith("video: took more than 0.3 s")
    assert list(service.settings.videos.iterdir()) == []


def test_slow_uploads_of_one_key_hold_up_no_other_and_no_stream(
        open_service, inputs, work, tmp_path, monkeypatch):
    keys = {name: add_key(tmp_path / "keys", name) for name in ("ada", "ben")}
    mine, other = ({"Authorization": f"Bearer {keys[name]}"} for name in ("ada", "ben"))
    service, files = open_service(keys=load_keys(tmp_path / "keys")), inputs()
    made = post(service, files, headers=mine).json()["id"]
    work(service)
    check, going, looked = jobs.check, threading.Event(), []

    def slow(folder, settings):
        looked.append(folder)
        if len(looked) == 1:
            going.wait(60)
        return check(folder, settings)

    monkeypatch.setattr(jobs, "check", slow)

    async def all_at_once():
        transport = httpx.ASGITransport(service.client.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:
            done = []

            async def upload():
                done.append((await client.post("/v1/videos", files=files, headers=mine)).status_code)

            async with anyio.create_task_group() as group:
                for _ in range(3):
                    group.start_soon(upload)
                while not looked:
                    await anyio.sleep(0.01)
                with anyio.fail_after(30):
                    answer = await client.post("/v1/videos", files=files, headers=other)
                    stream = await client.get(f"/v1/videos/{made}/stream", headers=mine)
                assert answer.status_code == 202 and stream.content.count(b"moof") == 3 and done == []
                going.set()
            assert done == [202] * 3

    anyio.run(all_at_once)
