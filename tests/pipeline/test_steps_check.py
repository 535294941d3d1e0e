"""The check of schedulers and noise over all steps: what goes wrong between steps and between videos."""

import re

import pytest

from generators.contract import load_generator
from pipeline.check_generator import check_generator
from tests.pipeline.test_contract_check import PLUGIN

OWN = """class Own:
    stochastic = True

    def __init__(self, steps):
        self.steps, self.times = steps, np.linspace(1, 0, steps + 1).astype(np.float32)

    def solver(self, draw):
        return Solver(self, draw)


class Solver:
    old = None

    def __init__(self, grid, draw):
        self.grid, self.draw = grid, draw

    def advance(self, latents, prediction, step):
        self.old, old = prediction, prediction if self.old is None else self.old
        moved = 1.5 * prediction - 0.5 * old
        # solver end
        return latents + moved * (self.grid.times[step + 1] - self.grid.times[step]) + 0.1 * self.draw(step)


"""
DRAWS = """
    def step_noise(self, frames, seed, step):
        draws = np.random.default_rng((seed, step))
        return draws.standard_normal(size=(1, 3, frames, 6, 4), dtype=np.float32)

"""
OWN_SCHEDULER = {"class Mine:": OWN + "class Mine:", "FlowMatchEuler(2)": "Own(3)",
                 "    def decode(": DRAWS + "    def decode("}
# What is changed in OWN and DRAWS; the member that is named, and what is wrong.
WRONG_STEPS = {
    "history that lives as long as the scheduler": (
        "return Solver(self, draw)", "self.kept = getattr(self, 'kept', None) or Solver(self, draw)\n"
        "        return self.kept",
        "scheduler", "of 4 .*same clip gives other latents the second time, from step 1 on"),
    "latents in float64": (
        "0.1 * self.draw", "np.float64(0.1) * self.draw",
        "scheduler", "at step 1 of 3 it gives .* float64 for"),
    "latents of another dtype at the end": (
        "# solver end", "latents = latents.astype(np.float64 if step == 2 else np.float32)",
        "scheduler", "at step 3 of 3 it gives"),
    "latents that are not finite": (
        "# solver end", "moved = moved * np.float32(np.nan if step == 2 else 1)",
        "scheduler", "at step 3 of 3 .* not finite"),
    "latents changed in place": (
        "# solver end", "latents *= 2", "scheduler", "at step 1 .* writes into"),
    "a prediction changed in place": (
        "# solver end", "prediction *= 2", "scheduler", "at step 1 .* writes into"),
    "a step that the grid lacks": (
        "self.grid.times[step + 1]", "self.grid.times[step + 2]", "scheduler", r"IndexError.*mine\.py"),
    "noise of steps without a seed": (
        "default_rng((seed, step))", "default_rng()", "step_noise", "same seed and step give other numbers"),
    "noise of steps of one seed": (
        "default_rng((seed, step))", "default_rng(step)", "step_noise", "another seed gives the same"),
    "noise of steps in float64": (
        ", dtype=np.float32", "", "step_noise", "of 4 .* float64 for"),
    "noise of steps for a window": (
        "size=(1, 3, frames, 6, 4)", "size=(1, 3, 4, 6, 4)", "step_noise",
        r"of 9 latent frames: it gives \(1, 3, 4, 6, 4\) float32 for latents \(1, 3, 9, 6, 4\)"),
    "noise for a window": (
        "normal((1, 3, frames, 6, 4)", "normal((1, 3, 4, 6, 4)", "noise", "of 9 latent frames"),
}


def findings(folder, changes):
    """What is found of the plug-in with changes, by check."""
    text = PLUGIN
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    (folder / "mine.py").write_text(text)
    found = check_generator(load_generator(f"{folder / 'mine.py'}:Mine"))
    assert "steps" in found
    return {check: each for check, each in found.items() if each}


def test_a_sound_scheduler_with_noise_of_its_own_passes(tmp_path):
    assert findings(tmp_path, OWN_SCHEDULER) == {}


@pytest.mark.parametrize("name", WRONG_STEPS)
def test_what_goes_wrong_between_steps_or_videos_is_found_at_its_member(tmp_path, name):
    old, new, member, wrong = WRONG_STEPS[name]
    found = findings(tmp_path, {**OWN_SCHEDULER, old: new})
    assert list(found) == ["steps"]
    [finding] = found["steps"]
    assert finding.where == member and re.search(wrong, finding.wrong), str(finding)
