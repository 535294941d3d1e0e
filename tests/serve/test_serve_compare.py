"""A video beside the base model's: asked for once, made like any job, judged by a worker, its owner's."""

import shutil
import time

import anyio
import pytest

from pipeline.recipe import BASELINE, Recipe
from serve import uploads
from serve.app import Service, look_after
from serve.jobs import JobRoutes
from serve.judged import compare
from serve.keys import add_key, load_keys
from serve.store import TRIES
from tests.serve.test_serve_jobs import error, post

RECIPES = {"quick": Recipe("quick", preset="ultrafast"), "baseline": BASELINE}


@pytest.fixture
def service(open_service):
    """A service that offers a recipe beside the base model's."""
    return open_service(recipes=RECIPES)


@pytest.fixture
def made(service, work, inputs):
    """The path of a comparison with a finished video of the recipe."""
    name = post(service, inputs(9)).json()["id"]
    work(service)
    return f"/v1/videos/{name}/comparison"


def judge(service):
    """Do what a worker does with the next comparison; the comparison, or None."""
    asked = service.store.comparisons.claim(0)
    if asked:
        compare(asked, service.store, service.settings)
    return asked


def test_the_base_model_makes_the_same_inputs_and_both_are_judged(service, made, work, monkeypatch):
    monkeypatch.setattr(uploads, "file_sha256", None)  # their hash stands in the row
    assert service.client.get("/v1/recipes").json()["base"] == "baseline"
    found = service.client.get(made).json()
    assert (found["status"], found["base"], found["result"]) == ("not_asked", None, None)
    answer = service.client.post(made)
    found = answer.json()
    assert answer.status_code == 202 and found["status"] == "queued"
    base = service.client.get(f"/v1/videos/{found['base']['id']}").json()
    assert (base["recipe"], base["seed"], base["frames"], base["status"]) == ("baseline", 42, 9, "queued")
    assert judge(service) is None  # its video is not made
    again = service.client.post(made)
    assert again.status_code == 200 and again.json()["base"]["id"] == base["id"]
    work(service)
    judge(service)
    found = service.client.get(made).json()
    result = found["result"]
    assert found["status"] == found["base"]["status"] == "completed" and found["error"] is None
    assert result["passes"] and result["similarity"] == pytest.approx(1) and result["level"] == "exact"
    assert (result["reference"], result["candidate"]) == (base["id"], found["video"])
    assert result["frames"] == 9 and len(result["per_frame"]["cosine"]["stfn"]) == 9
    assert str(service.settings.home) not in answer.text + str(found)
    assert work(service) is None and judge(service) is None


def test_a_base_run_that_exists_is_told_and_taken(service, made, work, inputs):
    base = post(service, inputs(9), data={"recipe": "baseline"}).json()["id"]
    other = post(service, inputs(9), data={"recipe": "baseline", "seed": "1"}).json()["id"]
    assert service.client.get(made).json()["base"]["id"] == base
    work(service), work(service)
    assert service.client.post(made).json()["base"]["id"] == base
    judge(service)
    assert service.client.get(made).json()["status"] == "completed"
    video = made.split("/")[3]
    soon = time.time() + 1
    assert {job.id for job in service.store.expired(soon)} == {video, other}  # its base run stays as long
    service.client.delete(f"/v1/videos/{video}")
    assert {job.id for job in service.store.expired(soon)} == {base, other}
    error(service.client.post(f"/v1/videos/{other}/comparison"), 409, "is_base")


def test_another_video_does_not_pass_and_a_damaged_one_is_said(service, made, work, inputs, make_video_file):
    service.client.post(made)
    work(service)
    asked = service.store.comparisons.claim(0)
    path = service.settings.videos / asked.video / f"{asked.video}.mp4"
    kept = path.read_bytes()
    shutil.copyfile(make_video_file(path.with_suffix(".other.mp4"), 9, (32, 48)), path)
    compare(asked, service.store, service.settings)
    result = service.client.get(made).json()["result"]
    assert result["passes"] is False and result["level"] is None and result["metrics"]["psnr"] < 20
    path.write_bytes(kept[:300])
    service.store.comparisons.ask(asked.video, asked.base)
    judge(service)
    found = service.client.get(made).json()
    assert found["status"] == "failed" and str(service.settings.home) not in found["error"]["message"]


def test_what_was_cancelled_can_be_asked_for_again_and_goes_with_its_videos(service, made, work):
    first = service.client.post(made).json()["base"]["id"]
    service.client.delete(f"/v1/videos/{first}")
    found = service.client.get(made).json()
    assert found["status"] == "failed"
    assert found["error"]["message"] == "The base model's video was not made: it was cancelled."
    second = service.client.post(made).json()["base"]["id"]
    assert second != first
    work(service)
    judge(service)
    service.client.delete(f"/v1/videos/{second}")
    assert service.client.get(made).json()["status"] == "not_asked"
    video = made.split("/")[3]
    assert not service.store.comparisons.ask(video, second)  # which nobody would ever forget
    assert service.client.get(made).json()["status"] == "not_asked"


def test_a_worker_that_dies_while_it_judges_has_it_judged_again_and_not_for_ever(service, made, work):
    service.client.post(made)
    work(service)
    first = service.store.comparisons.claim(0)
    service.store.release()  # as a start of the service does
    assert not service.store.comparisons.end(first, "completed", {})
    for _ in range(TRIES):
        assert service.client.get(made).json()["status"] == "queued"
        assert service.store.comparisons.claim(1)
        service.store.release(0)  # of another worker
        assert service.client.get(made).json()["status"] == "in_progress"
        service.store.release(1)
    found = service.client.get(made).json()
    assert found["status"] == "failed" and f"died {TRIES} times" in found["error"]["message"]


def test_judging_that_takes_too_long_ends(open_service, inputs, work):
    service = open_service(recipes=RECIPES, job_seconds=0.05)
    path = f"/v1/videos/{post(service, inputs(2)).json()['id']}/comparison"
    work(service)
    service.client.post(path)
    work(service)
    service.supervisor.watchdog.took(0, service.store.comparisons.claim(0))
    time.sleep(0.06)
    jobs = JobRoutes(service.settings, service.store)
    facts = Service(service.settings, service.store, service.metrics, service.supervisor)

    async def rounds():
        with anyio.move_on_after(0.1):
            await look_after(facts, jobs, lambda text: None, every=0.01)

    anyio.run(rounds)
    assert service.client.get(path).json()["error"]["message"] == "Judging took too long."


def test_what_cannot_be_compared_is_refused(open_service, inputs, tmp_path):
    keys = {name: add_key(tmp_path / "keys", name) for name in ("ada", "ben")}
    mine, other = ({"Authorization": f"Bearer {keys[name]}"} for name in ("ada", "ben"))
    service = open_service(recipes=RECIPES, keys=load_keys(tmp_path / "keys"), most_per_key=2)
    first, second = (post(service, inputs(), headers=mine).json()["id"] for _ in range(2))
    path = f"/v1/videos/{first}/comparison"
    for method in (service.client.get, service.client.post):
        error(method(path), 401, "unauthorized")
        error(method(path, headers=other), 404, "not_found")
    error(service.client.post(path, headers=mine), 429, "queue_full")
    folders = sorted(each.name for each in service.settings.videos.iterdir())
    assert folders == sorted([first, second])
    service.client.delete(f"/v1/videos/{first}", headers=mine)
    error(service.client.post(path, headers=mine), 409, "cancelled")


def test_a_service_without_the_base_model_says_so(open_service, inputs, work):
    service = open_service(recipes={"quick": RECIPES["quick"]})
    path = f"/v1/videos/{post(service, inputs()).json()['id']}/comparison"
    assert service.client.get("/v1/recipes").json()["base"] is None
    assert service.client.get(path).json()["status"] == "not_asked"
    assert "--recipe baseline.toml" in error(service.client.post(path), 409, "no_base")
