"""How a job's end meets its viewers: who cancels keeps what was made, and a stream that broke off says so."""

import anyio
import pytest
from test_serve_jobs import error, post

from pipeline.video.live_writer import LiveVideo
from serve.keys import add_key, load_keys
from serve.streams import LOOK, Growing, Streams, want


def ends_before(service, monkeypatch, name):
    """Have a job completed by its worker just before the service cancels it."""
    cancel = service.store.cancel

    def late(asked):
        service.store.end(service.store.claim(0), "completed")
        return cancel(asked)

    (service.settings.videos / name / f"{name}.mp4").write_bytes(b"made")
    monkeypatch.setattr(service.store, "cancel", late)


@pytest.mark.parametrize(("method", "path"), [("DELETE", ""), ("POST", "/cancel")])
def test_a_cancel_that_comes_as_the_job_ends_keeps_the_video(service, inputs, monkeypatch, method, path):
    name = post(service, inputs()).json()["id"]
    ends_before(service, monkeypatch, name)
    answer = service.client.request(method, f"/v1/videos/{name}{path}")
    assert (answer.status_code, answer.json()["status"]) == (200, "completed")
    assert service.client.get(f"/v1/videos/{name}/content").content == b"made"


def test_cancel_cancels_and_never_removes(open_service, inputs, work, tmp_path):
    keys = {name: add_key(tmp_path / "keys", name) for name in ("ada", "ben")}
    mine, other = ({"Authorization": f"Bearer {keys[name]}"} for name in ("ada", "ben"))
    service = open_service(keys=load_keys(tmp_path / "keys"))
    made, waiting = (post(service, inputs(), headers=mine).json()["id"] for _ in range(2))
    work(service)
    error(service.client.post(f"/v1/videos/{made}/cancel"), 401, "unauthorized")
    error(service.client.post(f"/v1/videos/{made}/cancel", headers=other), 404, "not_found")
    for name, state in ((made, "completed"), (waiting, "cancelled")) * 2:
        answer = service.client.post(f"/v1/videos/{name}/cancel", headers=mine)
        assert (answer.status_code, answer.json()["status"]) == (200, state)
    assert [path.name for path in service.settings.videos.iterdir()] == [made]


def streamed(service, name):
    """What a server gets of the app for a stream: its bytes, and whether they have an end."""
    sent, headers = [], [(b"host", b"testserver")]
    scope = {"type": "http", "method": "GET", "path": f"/v1/videos/{name}/stream", "query_string": b"",
             "headers": headers, "asgi": {"spec_version": "2.4"}}

    async def receive():
        await anyio.sleep_forever()

    async def send(message):
        sent.append(message)

    anyio.run(service.client.app, scope, receive, send)
    assert sent[0]["status"] == 200
    return b"".join(each["body"] for each in sent[1:]), not sent[-1].get("more_body", False)


def test_a_broken_off_stream_is_replaced_by_one_of_the_finished_video(service, work, inputs, monkeypatch):
    name = post(service, inputs(40)).json()["id"]
    folder = service.settings.videos / name
    want(service.store.get(name), folder)
    write = LiveVideo.write

    def breaking(live, chunk):
        write(live, chunk)
        while live._child.process.poll() is None:
            if live._path.exists() and live._path.stat().st_size:  # a beginning is there
                live._child.process.kill()
                live._child.process.wait()

    monkeypatch.setattr(LiveVideo, "write", breaking)
    assert work(service).state == "completed" and not [*folder.glob("live-*")]
    for _ in range(2):
        data, whole = streamed(service, name)
        assert whole and data.count(b"moof") == 40


def test_who_watched_a_stream_that_broke_off_sees_no_clean_end(service, inputs, monkeypatch):
    name = post(service, inputs(9)).json()["id"]
    job = service.store.claim(0)
    growing = service.settings.videos / name / "live-0001-0001.mp4"
    growing.write_bytes(b"the beginning")
    more, seen = Growing.more, []

    def ended(reader):
        data = more(reader)
        if data and not seen:
            seen.append(data)
            growing.unlink()
            (growing.parent / f"{name}.mp4").write_bytes(inputs(9)["video"][1])
            service.store.end(job, "completed")
        return data

    monkeypatch.setattr(Growing, "more", ended)
    assert streamed(service, name) == (b"the beginning", False)


@pytest.mark.parametrize("how", ["cancelled", "failed", "deleted", "stopped"])
def test_a_stream_whose_video_does_not_come_to_its_end_breaks(service, inputs, monkeypatch, how):
    name = post(service, inputs(9)).json()["id"]
    job = service.store.claim(0)
    (service.settings.videos / name / "live-0001-0001.mp4").write_bytes(b"the beginning")
    ends = {
        "cancelled": lambda: service.client.post(f"/v1/videos/{name}/cancel"),
        "failed": lambda: service.store.end(job, "failed", error="why"),
        "deleted": lambda: service.store.remove(name),
        "stopped": lambda: setattr(service.client.app.state.streams, "stopping", True),
    }
    more = Growing.more

    def ended(reader):
        data = more(reader)
        if data:
            ends[how]()
        return data

    monkeypatch.setattr(Growing, "more", ended)
    assert streamed(service, name) == (b"the beginning", False)


def test_many_viewers_of_a_job_share_its_looks(service, inputs, monkeypatch):
    name = post(service, inputs(9)).json()["id"]
    job = service.store.claim(0)
    streams, looks = Streams(service.store, service.settings.videos), []
    found = streams._found
    monkeypatch.setattr(streams, "_found", lambda asked: looks.append(asked) or found(asked))

    async def view():
        return [text async for text in streams.events(job, lambda job: {"id": job.id})]

    async def views():
        async with anyio.create_task_group() as group:
            for _ in range(50):
                group.start_soon(view)
            await anyio.sleep(10 * LOOK)
            streams.stopping = True

    anyio.run(views)
    assert 2 <= len(looks) <= 12 and set(looks) == {name}
