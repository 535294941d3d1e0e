"""How a job's end meets its viewers: who cancels keeps what was made, and a stream that broke off says so."""

import pytest
from test_serve_jobs import error, post

from serve.keys import add_key, load_keys


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
