"""python -m optimize show: what a recipe leaves to compute, and what is wrong with one."""

import json

import pytest

from optimize import __main__ as script


@pytest.fixture
def shown(run_main, tmp_path):
    """A function that shows a recipe of that text."""
    def show(text, *arguments):
        path = tmp_path / "fast.toml"
        path.write_text(text)
        return run_main(script, "show", path, *arguments)
    return show


def test_evaluations_are_counted_beside_the_baselines(shown):
    """40 frames: 3 windows of 16 that share 4 frames, 2 that share none and one moved back."""
    plan = '[steps]\nactions = "FSSSSSSSCSSSSSSSSFSSSSSSS"\n'
    answer = shown(plan, "--frames", 40, "--json")
    found = json.loads(answer.out)
    assert answer.status == 0 and found["baseline"]["evaluations"] == 25 * 2 * 3
    assert found["work"] == {"evaluated steps": 3, "windows": 9, "evaluations": 5 * 3}
    fewer = json.loads(shown(plan + "overlaps = [0, 0]", "--frames", 32, "--json").out)["work"]
    assert fewer == {"evaluated steps": 3, "windows": 2 + 2 + 3, "evaluations": 2 * 2 + 2 + 2 * 3}
    text = shown("overlap = 12\n" + plan, "--frames", 40).out
    assert "windows                          21   of the baseline's     75 (28.0%)" in text
    assert 'actions = "FSSSSSSSCSSSSSSSSFSSSSSSS"' in text and "overlap = 12" in text


def test_the_empty_recipe_is_said_to_be_the_baseline(shown):
    assert shown("").out.startswith("nothing is changed: the base model's run\n")


@pytest.mark.parametrize(("text", "arguments", "reason"), [
    ('[steps]\nactions = "FS"', (), "actions: 2 letters for a schedule of 25 steps"),
    ("overlap = 99", (), "windows need 0 <= overlap < length"),
    ("", ("--generator", "nothing"), "no generator 'nothing'"),
])
def test_a_recipe_that_does_not_fit_is_status_2(shown, text, arguments, reason):
    answer = shown(text, *arguments)
    assert answer.status == 2 and reason in answer.err
