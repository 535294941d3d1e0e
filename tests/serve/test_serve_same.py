"""Which videos are the same: inputs, generator and the recipe's settings decide, over restarts."""

import shutil
from dataclasses import replace

import pytest

from pipeline.recipe import BASELINE, Recipe
from tests.serve.test_serve_jobs import error, post

RECIPES = {"quick": Recipe("quick", preset="ultrafast"), "baseline": BASELINE}
KEY = {"Idempotency-Key": "order-1"}


@pytest.fixture
def other_file(tiny_file, tmp_path):
    """The tiny generator's folder again, with a second class in the same file."""
    folder = tmp_path / "other"
    shutil.copytree(tiny_file.parent, folder)
    path = folder / tiny_file.name
    path.write_text(path.read_text() + "\n\nclass Other(Tiny):\n    pass\n")
    return path


def test_a_key_gives_no_video_of_another_generator_or_recipe(open_service, inputs, other_file):
    generator, files = f"{other_file}:Tiny", inputs()
    service = open_service(recipes=RECIPES, generator=generator)
    name = post(service, files, headers=KEY).json()["id"]
    again = open_service(recipes=RECIPES, generator=generator)
    answer = post(again, files, headers=KEY)
    assert (answer.status_code, answer.json()["id"]) == (200, name)
    edited = {**RECIPES, "quick": replace(RECIPES["quick"], preset="slow")}
    for changed in ({"generator": f"{other_file}:Other"}, {"recipes": edited}):
        started = open_service(**{"recipes": RECIPES, "generator": generator, **changed})
        assert "another generator" in error(post(started, files, headers=KEY), 409, "key_reused")
    noted = {**RECIPES, "quick": replace(RECIPES["quick"], note="for phones")}  # which changes no frame
    assert post(open_service(recipes=noted, generator=generator), files, headers=KEY).status_code == 200
    weights = next(other_file.parent.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes() + b"x")
    error(post(open_service(recipes=RECIPES, generator=generator), files, headers=KEY), 409, "key_reused")


def test_a_base_run_of_another_generator_is_none(open_service, inputs, other_file):
    service = open_service(recipes=RECIPES, generator=f"{other_file}:Tiny")
    base = post(service, inputs(), data={"recipe": "baseline"}).json()["id"]
    old = f"/v1/videos/{post(service, inputs()).json()['id']}/comparison"
    assert service.client.get(old).json()["base"]["id"] == base
    other = open_service(recipes=RECIPES, generator=f"{other_file}:Other")
    new = f"/v1/videos/{post(other, inputs()).json()['id']}/comparison"
    for path in (old, new):
        assert other.client.get(path).json()["base"] is None
    assert "Make it again" in error(other.client.post(old), 409, "other_generator")
    assert other.client.post(new).json()["base"]["id"] not in (base, None)


def test_a_job_of_an_earlier_version_of_the_service_is_of_no_known_generator(open_service, inputs):
    service = open_service(recipes=RECIPES)
    name = post(service, inputs()).json()["id"]
    post(service, inputs(), data={"recipe": "baseline"})
    assert service.client.get(f"/v1/videos/{name}/comparison").json()["base"]
    job = service.store.get(name)
    service.store.remove(name)
    service.store.add(replace(job, inputs=f"{job.inputs.split(' ')[0]} 42 baseline"), 9, 9)
    assert service.client.get(f"/v1/videos/{name}/comparison").json()["base"] is None
