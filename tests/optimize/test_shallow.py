"""Action H: features of the last full step, kept for each window and branch, and of one request only."""

import copy
import json

import numpy as np
import pytest
import torch
from diffusers import UNetSpatioTemporalConditionModel

from bench.quality_goal import Goal
from bench.roofline import calls
from engines.backends.torch_backend import TorchEngine
from engines.errors import EngineError
from engines.spec import Cadence, ComponentSpec
from generators.contract import FULL, SHALLOW, load_generator
from generators.mimicmotion.files import UNET
from generators.mimicmotion.random_weights import CONFIGS
from generators.mimicmotion.unet import Attend, Denoise, Embed, Shallow
from generators.windows import OverlapWindows
from optimize.calibration import record
from optimize.steps.planner import Costs, Tables, front
from optimize.steps.tune import TuningJob, tune_folder
from optimize.steps.tuning_runner import TuningRunner
from pipeline.batch.dataset import find_requests
from pipeline.recipe import BASELINE, Recipe, RecipeError
from pipeline.request import Options
from pipeline.runner import VideoRunner
from pipeline.sampler import Sampler, generate
from pipeline.step_plan import StepPlan
from pipeline.window_denoiser import SerialDenoiser
from tests.conftest import Plain
from tests.extractors import write_extractor
from tests.optimize.test_tuning import make_all
from tests.pipeline.test_sample import conditions
from tests.tiny_mimicmotion import clip, write_tiny


class Keeping(Plain):
    """A generator in NumPy whose features say what they are of; taken: those that were used."""

    components = {name: ComponentSpec(name, Cadence.STEP, (), ()) for name in ("denoise", FULL, SHALLOW)}

    def __init__(self, steps):
        super().__init__(steps)
        self.taken = []

    def engines(self):
        return {FULL: self._denoise, SHALLOW: self._denoise}

    def denoise_full(self, engine, latents, step, constants, conditional):
        features = np.array([step, conditional, constants["pose"][0, 0, 0, 0]])
        return self.denoise(engine, latents, step, constants, conditional), features

    def denoise_shallow(self, engine, latents, step, constants, conditional, features):
        kept_at, branch, frame = features.astype(int).tolist()
        assert branch == conditional and frame == constants["pose"][0, 0, 0, 0]
        self.taken.append((step, bool(conditional), frame, kept_at))
        return self.denoise(engine, latents, step, constants, conditional)


def taken(plan, frames=17, windows=None):
    generator = Keeping(len(plan.actions))
    generator.windows = windows or generator.windows
    Sampler(generator, generator.engines(), plan).sample(conditions(frames), frames, 1)
    return generator.taken


def test_shallow_steps_take_what_the_last_full_one_kept_of_their_window_and_branch():
    found = taken(StepPlan("FHSHFCHS"))
    assert {(step, kept_at) for step, _, _, kept_at in found} == {(1, 0), (3, 0), (6, 4)}  # not C's, of 5
    assert len(found) == 3 * 2 * 2  # steps, windows, branches
    assert {frame for _, _, frame, _ in found} == {0, 1}  # where the two windows begin


def test_shallow_steps_have_the_windows_of_the_full_one_before_them():
    plan = StepPlan("FHFH", overlaps=(0,))
    rule = OverlapWindows(8, 4)
    assert [plan.windows(step, rule).overlap for step in range(4)] == [0, 0, 4, 4]
    found = taken(plan, 20, rule)
    assert sorted({frame for step, _, frame, _ in found if step == 1}) == [0, 8, 12]
    assert sorted({frame for step, _, frame, _ in found if step == 3}) == [0, 4, 8, 12]


def test_a_request_knows_nothing_of_the_one_before():
    generator = Keeping(2)
    sampler = Sampler(generator, generator.engines(), StepPlan("FH"))
    for _ in range(2):
        sampler.sample(conditions(17), 17, 1)
    assert len(generator.taken) == 2 * 4
    with pytest.raises(KeyError):
        denoise = sampler.blended(conditions(17), 17)
        denoise(np.zeros((1, 17, 12, 8), np.float32), 1, "H")


def test_h_without_its_engines_is_an_error_that_names_them():
    generator = Plain(2)
    sampler = Sampler(generator, generator.engines(), StepPlan("FH"), SerialDenoiser)
    with pytest.raises(EngineError, match=f"step 1: the action H runs on engines of {FULL} and {SHALLOW}"):
        sampler.sample(conditions(4), 4, 1)


def test_a_recipe_leaves_only_the_components_that_its_plan_runs():
    generator = Keeping(2)
    names = [set(recipe.adapt(generator).components)
             for recipe in (BASELINE, Recipe("c", steps=StepPlan("FC")), Recipe("h", steps=StepPlan("FH")))]
    assert names == [{"denoise"}, {"denoise"}, {FULL, SHALLOW}]
    assert set(generator.components) == {"denoise", FULL, SHALLOW}
    with pytest.raises(RecipeError, match=f"h: steps.actions: H needs the components {FULL} and {SHALLOW}, "
                                          "which plain has not"):
        Recipe("h", steps=StepPlan("FH")).adapt(Plain(2))


def test_shallow_calls_are_counted_apart():
    generator = Keeping(5)
    generator.frame_axis = 1
    recipe = Recipe("h", steps=StepPlan("FHHCS"))
    assert calls(generator, recipe, 17) == {FULL: (2 + 1) * 2, SHALLOW: 4 * 2}
    assert recipe.steps.calls(2.0, generator.windows, 17) == 7 * 2 and recipe.steps.branches == 7


def test_the_planner_prefers_a_cheap_shallow_step_where_its_error_is_small():
    n = 4
    full = np.full((n, n, n + 1), 1.0)
    for i in range(n):
        full[i, :, i + 1] = 1e-6  # the next step is near, later ones are far
    cheap = np.repeat(full[:, :, None], n, 2) * 1.5
    tables = Tables(full, {"C": cheap * 100, "H": cheap}, np.ones(n + 1))
    plans = front(tables, Costs(2.0, {"C": 1.0, "H": 0.2}))
    assert {plan.actions for plan in plans if plan.error < 1e-3} >= {"FHHH", "FFFF"}
    assert not any("C" in plan.actions for plan in plans if plan.error < 1e-3)


@pytest.mark.parametrize("frames", [2, 6])
def test_a_shallow_network_with_a_step_s_own_features_predicts_what_the_whole_one_does(frames):
    torch.manual_seed(0)
    unet = UNetSpatioTemporalConditionModel.from_config(CONFIGS["tiny"][UNET]).eval().requires_grad_(False)
    embed, attend = Embed(unet, (6.0, 127.0, 0.0)), Attend(unet)
    shallow, full = Shallow(copy.deepcopy(unet), 6), Denoise(copy.deepcopy(unet), 6, features=True)
    plain = Denoise(unet, 6)
    inputs = [torch.randn(2, frames, 4, 8, 8), torch.randn(1, 4, 8, 8), torch.randn(1, frames, 32, 8, 8),
              torch.tensor([0.0, 1.0])]
    with torch.inference_mode():
        inputs += [embed(torch.tensor([1.0, 1.0])), attend(torch.randn(2, 16))]
        v, features = full(*inputs)
        assert torch.equal(v, plain(*inputs)) and features.shape == (2, frames, 32, 8, 8)
        assert abs(shallow(*inputs, features) - v).max() <= 1e-5
        assert abs(shallow(*inputs, features.flip(0)) - v).max() > 1e-3
    size = [sum(weight.numel() for weight in each.parameters()) for each in (shallow, full)]
    assert size[0] < 0.25 * size[1]


@pytest.fixture(scope="module")
def mimic(tmp_path_factory):
    """The tiny MimicMotion with components for H, of four steps."""
    return write_tiny(tmp_path_factory.mktemp("mimic"), shallow=True, steps=4)


def test_mimicmotion_offers_it_where_its_settings_say_so(mimic, tmp_path):
    plain = write_tiny(tmp_path)
    assert {FULL, SHALLOW} <= set(mimic.components) and SHALLOW not in plain.components
    skeletons, image = clip(9)
    frames = {}
    for actions in ("FFFF", "FHHH"):
        adapted = Recipe("h", steps=StepPlan(actions)).adapt(mimic)
        engines = {name: TorchEngine(spec, adapted.build(name)) for name, spec in adapted.components.items()}
        frames[actions] = generate(adapted, engines, skeletons, image, 1, StepPlan(actions)).astype(int)
    assert 0 < abs(frames["FHHH"] - frames["FFFF"]).mean() < 20


def test_calibration_runs_have_inputs_of_both_its_networks(mimic, make_data):
    engines = {name: TorchEngine(spec, mimic.build(name)) for name, spec in mimic.components.items()}
    found = record(mimic, engines, find_requests(make_data({"a": 5}, size=(64, 64))).requests)
    assert [len(found[name]) for name in ("denoise", FULL, SHALLOW)] == [4 * 2, 2 * 2, 2 * 2]
    assert "features" in found[SHALLOW][0]


@pytest.mark.slow
def test_the_tuner_measures_and_plans_it(mimic, make_data, tmp_path, monkeypatch):
    from bench import similarity

    monkeypatch.setattr(similarity, "EXTRACTORS", tmp_path / "extractors")
    write_extractor(tmp_path / "extractors")
    data = make_data({"a": 5, "b": 9}, size=(64, 64))
    kind = f"mimicmotion={mimic.fingerprint_files[0].parent}"
    (data / "outputs").mkdir()
    base = BASELINE.adapt(load_generator(kind))
    engines = {name: TorchEngine(spec, base.build(name)) for name, spec in base.components.items()}
    make_all(data, data / "outputs", VideoRunner(base, engines))
    measured, measure = [], TuningRunner.costs
    steady = Costs(1.0, {"C": 0.5, "H": 0.2})  # so small a network's times are the machine's other work
    monkeypatch.setattr(TuningRunner, "costs", lambda *given: measured.append(measure(*given)) or steady)
    said = []
    job = TuningJob(data, kind, extractors=("grid",), overlaps=())
    tuned = tune_folder(job, Goal(0.5), [Recipe("plain")], tmp_path / "fast.toml", said.append)
    assert tuned.best.accepted
    assert measured and all(set(each.cheap) == {"C", "H"} for each in measured)
    tried = {trial.recipe.steps.actions for trial in tuned.trials}
    assert any("H" in actions for actions in tried), tried
    shallow = next(trial.recipe for trial in tuned.trials if "H" in trial.recipe.steps.actions)
    adapted = shallow.adapt(mimic)
    engines = {name: TorchEngine(spec, adapted.build(name)) for name, spec in adapted.components.items()}
    make_all(data, tmp_path / "out", VideoRunner(adapted, engines, Options(shallow)))
    lines = (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()
    assert ["H" in json.loads(line)["actions"] for line in lines] == [True, True]
