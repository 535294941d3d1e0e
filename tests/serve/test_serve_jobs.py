"""Jobs over HTTP: what is accepted, in which order it is made, how it ends, and what is refused."""

import io
import json
import time
from dataclasses import replace
from fractions import Fraction

import anyio
import pytest

from engines.errors import Exit
from engines.progress import Progress
from pipeline.batch.dataset import Request
from pipeline.video.live_writer import LiveVideo
from pipeline.video.reader import read
from serve import worker
from serve.__main__ import go_on
from serve.app import Service, look_after
from serve.jobs import JobRoutes
from serve.keys import add_key, load_keys
from serve.store import TRIES, new_id
from serve.streams import want
from serve.uploads import Upload, save


def post(service, files, **options):
    return service.client.post("/v1/videos", files=files, **options)


def error(answer, status, code):
    assert answer.status_code == status, answer.text
    told = answer.json()["error"]
    assert told["code"] == code and set(told) == {"code", "message"}
    return told["message"]


def test_a_job_is_the_video_of_infer_and_its_stream_shows_its_frames(service, work, inputs, runner, tmp_path):
    answer = post(service, inputs(20), data={"seed": "7", "generator": "tiny"})
    name = answer.json()["id"]
    assert answer.status_code == 202 and answer.headers["location"] == f"/v1/videos/{name}"
    assert answer.json()["status"] == "queued" and answer.json()["frames"] == 20
    folder = service.settings.videos / name
    assert sorted(path.name for path in folder.iterdir()) == ["image", "video"]
    work(service)
    job = service.client.get(f"/v1/videos/{name}").json()
    assert job["status"] == "completed" and job["progress"] == 100 and job["frames_made"] == 20
    assert job["first_frame_seconds"] > 0 and job["error"] is None
    assert job["real_time_factor"] == pytest.approx(24 / job["frames_per_second"])

    runner.options = replace(runner.options, watch=None, sampling=None)
    request = Request("a", folder / "video", folder / "image", 7)
    line, reason = runner(request, tmp_path, lambda total: Progress("a", total))
    assert reason is Exit.OK
    content = service.client.get(f"/v1/videos/{name}/content")
    assert content.content == (tmp_path / "a.mp4").read_bytes()
    assert content.headers["content-type"] == "video/mp4"
    part = service.client.get(f"/v1/videos/{name}/content", headers={"Range": "bytes=4-7"})
    assert part.status_code == 206 and part.content == b"ftyp"
    assert not [*folder.glob("live-*")]  # nobody watched, so the stream is written now
    streamed = tmp_path / "streamed.mp4"
    streamed.write_bytes(service.client.get(f"/v1/videos/{name}/stream").content)
    live, final = read(streamed), read(tmp_path / "a.mp4")
    assert live.fps == final.fps == Fraction(24) and live.frames.shape == final.frames.shape
    assert abs(live.frames.astype(int) - final.frames).mean() < 6  # both are lossy


def test_who_asks_while_a_job_is_made_has_its_growing_file_begun(service, work, inputs):
    name = post(service, inputs(20)).json()["id"]
    folder = service.settings.videos / name
    want(service.store.get(name), folder)
    work(service)
    written = (folder / "live-0001-0001.mp4").read_bytes()
    assert written.count(b"moof") == 20
    assert service.client.get(f"/v1/videos/{name}/stream").content == written


def test_a_stream_that_breaks_off_costs_its_viewer_and_not_the_video(service, work, inputs, monkeypatch):
    name = post(service, inputs(40)).json()["id"]
    want(service.store.get(name), service.settings.videos / name)
    write = LiveVideo.write

    def breaking(live, chunk):
        live._child.process.kill()
        live._child.process.wait()
        write(live, chunk)

    monkeypatch.setattr(LiveVideo, "write", breaking)
    job = work(service)
    assert job.state == "completed" and job.made == 40
    told = json.loads(job.result)["notes"][-1]
    assert told.startswith("the video is whole, its stream broke off: live-0001-0001.mp4: writing failed")


def test_the_next_jobs_inputs_are_read_while_one_is_made(service, work, inputs, runner):
    first, second, third = (post(service, inputs(frames)).json()["id"] for frames in (9, 8, 7))
    assert service.store.upcoming(3).id == third and service.store.upcoming(4) is None
    assert work(service).id == first
    request, reading = runner._inputs._ahead
    assert request.id == second
    source = reading.result()
    assert work(service).state == "completed"
    assert source.frames == 8  # that job took it
    assert work(service).id == third and runner._inputs._ahead is None


def test_events_end_with_how_the_job_ended(service, work, inputs):
    name = post(service, inputs()).json()["id"]
    work(service)
    text = service.client.get(f"/v1/videos/{name}/events").text
    kinds = [line[7:] for line in text.splitlines() if line.startswith("event: ")]
    assert kinds == ["first_frame", "completed"]
    assert json.loads(text.split("data: ")[-1])["id"] == name


def test_a_video_that_cannot_be_made_fails_with_its_reason_and_the_next_is_made(service, work, inputs):
    first, second = (post(service, inputs()).json()["id"] for _ in range(2))
    (service.settings.videos / first / "video").write_bytes(b"rotten")
    assert work(service).state == "failed" and work(service).state == "completed"
    told = service.client.get(f"/v1/videos/{first}").json()["error"]
    assert told["code"] == "input" and told["message"].startswith("video: is not a video")
    error(service.client.get(f"/v1/videos/{first}/stream"), 409, "failed")
    error(service.client.get(f"/v1/videos/{first}/content"), 409, "not_ready")


def test_the_same_idempotency_key_gives_the_same_job_and_other_inputs_are_refused(service, inputs):
    key, files = {"Idempotency-Key": "order-1"}, inputs()
    first, again = (post(service, files, headers=key) for _ in range(2))
    assert (first.status_code, again.status_code) == (202, 200) and first.json()["id"] == again.json()["id"]
    assert len(list(service.settings.videos.iterdir())) == 1
    error(post(service, files, headers=key, data={"seed": "9"}), 409, "key_reused")
    error(post(service, files, headers={"Idempotency-Key": "a b"}), 400, "invalid_key")


def test_a_full_queue_says_when_to_come_again_and_keeps_nothing(open_service, inputs):
    service = open_service(most_queued=2)
    assert [post(service, inputs()).status_code for _ in range(3)] == [202, 202, 429]
    answer = post(service, inputs())
    assert "queue is full" in error(answer, 429, "queue_full") and answer.headers["retry-after"] == "10"
    assert len(list(service.settings.videos.iterdir())) == 2


def test_a_cancelled_job_is_not_made_and_a_second_delete_forgets_it(service, work, inputs):
    name = post(service, inputs()).json()["id"]
    assert service.client.delete(f"/v1/videos/{name}").json()["status"] == "cancelled"
    assert work(service) is None and not (service.settings.videos / name).exists()
    assert service.client.delete(f"/v1/videos/{name}").json() == {
        "id": name, "object": "video.deleted", "deleted": True}
    error(service.client.get(f"/v1/videos/{name}"), 404, "not_found")


def test_a_job_that_is_cancelled_while_it_is_made_leaves_no_file(service, inputs, runner, monkeypatch):
    monkeypatch.setattr(worker, "TICK", 0.0)
    name = post(service, inputs(40)).json()["id"]
    job = service.store.claim(0)
    seen = service.store.progress

    def progress(*told):
        if told[3]:  # a frame has come
            service.client.delete(f"/v1/videos/{name}")
        return seen(*told)

    monkeypatch.setattr(service.store, "progress", progress)
    assert worker.make(job, service.store, runner, service.settings).reason is Exit.INTERRUPTED
    assert service.store.get(name).state == "cancelled" and not (service.settings.videos / name).exists()


def test_a_recipe_that_is_not_offered_any_more_fails_its_jobs(service, inputs):
    name = post(service, inputs()).json()["id"]
    worker.make(service.store.claim(0), service.store, None, service.settings)
    told = service.client.get(f"/v1/videos/{name}").json()["error"]
    assert told == {"code": "unknown_recipe", "message": "Recipe baseline is not offered any more."}


def test_what_an_earlier_attempt_says_changes_nothing(service, inputs):
    post(service, inputs())
    stale = service.store.claim(0)
    service.store.release(0)
    now = service.store.claim(0)
    assert now.attempt == 2 and not service.store.progress(stale, 1, 2, 0, None)
    assert not service.store.end(stale, "completed") and service.store.get(now.id).state == "in_progress"
    assert service.store.end(now, "completed") and not service.store.end(now, "failed")


def test_a_job_whose_workers_die_fails_at_last_and_restarts_of_the_service_do_not_count(service, inputs):
    name = post(service, inputs()).json()["id"]
    for _ in range(TRIES):
        service.store.claim(0)
        service.store.release()
    for _ in range(TRIES - 1):
        service.store.claim(0)
        assert service.store.release(0) == []
    service.store.claim(0)
    assert [job.id for job in service.store.release(0)] == [name]
    assert "died 3 times" in service.client.get(f"/v1/videos/{name}").json()["error"]["message"]


def test_keys_take_turns_and_each_gets_its_oldest_first(open_service, inputs, tmp_path):
    keys = {name: add_key(tmp_path / "keys", name) for name in ("ada", "ben")}
    service, files = open_service(keys=load_keys(tmp_path / "keys")), inputs()
    names = {}
    for owner in ("ada", "ada", "ada", "ben", "ben"):
        answer = post(service, files, headers={"Authorization": f"Bearer {keys[owner]}"})
        names[answer.json()["id"]] = f"{owner}{sum(each.startswith(owner) for each in names.values())}"
    order = []
    while job := service.store.claim(0):
        order.append(names[job.id])
        service.store.end(job, "completed")
    assert order == ["ada0", "ben0", "ada1", "ben1", "ada2"]


def test_an_interrupted_job_comes_first(service, inputs):
    first, second = (post(service, inputs()).json()["id"] for _ in range(2))
    assert service.store.claim(0).id == first
    service.store.release(0)
    assert service.store.claim(0).id == first and service.store.claim(0).id == second


def test_a_start_keeps_files_of_jobs_and_removes_what_was_never_accepted(service, inputs):
    name = post(service, inputs()).json()["id"]
    files = [io.BytesIO(data) for _, data in inputs().values()]
    save(Upload(*files, 1, "baseline"), service.settings.videos / new_id())  # killed before its row
    (service.settings.videos / "frames").mkdir()  # somebody's own, of a data folder that is --home too
    service.store.claim(0)
    go_on(service.settings, service.store)
    assert {path.name for path in service.settings.videos.iterdir()} == {name, "frames"}
    assert service.store.get(name).state == "queued"


def test_the_list_gives_pages_of_own_jobs(service, inputs):
    names = [post(service, inputs()).json()["id"] for _ in range(3)]
    page = service.client.get("/v1/videos?limit=2").json()
    assert [job["id"] for job in page["data"]] == names[:0:-1] and page["has_more"]
    rest = service.client.get(f"/v1/videos?limit=2&after={names[1]}").json()
    assert [job["id"] for job in rest["data"]] == names[:1] and not rest["has_more"]
    error(service.client.get("/v1/videos?limit=0"), 400, "invalid_query")


def test_metrics_count_what_happened(service, work, inputs):
    post(service, inputs(3))
    work(service)
    post(service, inputs(3))
    text = service.client.get("/metrics").text
    for line in ('vivace_jobs{state="queued"} 1.0', 'vivace_jobs_ended_total{reason="ok"} 1.0',
                 "vivace_frames_total 3.0", "vivace_workers_ready 0.0"):
        assert line in text.splitlines()
    assert service.client.get("/healthz").status_code == 200
    assert service.client.get("/readyz").status_code == 503


def test_jobs_that_run_too_long_fail_and_old_ones_are_forgotten(open_service, inputs):
    service = open_service(job_seconds=0.01, keep_seconds=0.2)
    name = post(service, inputs()).json()["id"]
    service.supervisor.watchdog.took(0, service.store.claim(0))
    jobs, said = JobRoutes(service.settings, service.store), []
    facts = Service(service.settings, service.store, service.metrics, service.supervisor)

    async def rounds(seconds):
        with anyio.move_on_after(seconds):
            await look_after(facts, jobs, said.append, every=0.01)

    time.sleep(0.02)
    anyio.run(rounds, 0.1)
    assert "longer than 0.01 s" in service.client.get(f"/v1/videos/{name}").json()["error"]["message"]
    assert len(said) == 1
    time.sleep(0.2)
    anyio.run(rounds, 0.1)
    error(service.client.get(f"/v1/videos/{name}"), 404, "not_found")
    assert list(service.settings.videos.iterdir()) == []
