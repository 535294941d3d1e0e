"""Recipes: what a file says, what is refused and how that is explained, those that are shipped."""

import re
import subprocess
import sys
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest

import infer
from engines.precision import choose_precisions
from generators.contract import load_generator
from pipeline.guard import Guard
from pipeline.recipe import BASELINE, Recipe, RecipeError, load_recipe
from pipeline.step_plan import StepPlan

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = sorted((ROOT / "optimize" / "recipes").glob("*.toml"))
BIG = "1" * 400


@pytest.fixture
def load(tmp_path):
    """A function that loads a recipe from its text, in a file fast.toml."""
    def load(text: str | bytes) -> Recipe:
        path = tmp_path / "fast.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load_recipe(path)
    return load


def chosen(monkeypatch, *arguments):
    """The recipe that infer.py runs with these arguments."""
    monkeypatch.setattr(sys, "argv", ["infer.py", *map(str, arguments)])
    return infer.chosen_recipe(infer.parse())


FULL = """backend = "openvino"
precision = "bf16,denoise=int8"
overlap = 2
preset = "veryfast"
[steps]
actions = "FSC"
corrections = [[1.0, -0.5, 0.25, 0], [0.5, -1e-7, 0, 1]]
[guard]
videos = 3
changes = [0, 0.125]
[about]
note = "for AMX – \\"fast\\""
"""


def test_the_empty_recipe_is_what_infer_does_without_arguments(load, monkeypatch, tmp_path):
    recipe = load("")
    assert recipe == Recipe("fast", "torch", "fp32", "") and recipe.is_baseline
    assert chosen(monkeypatch) == BASELINE == replace(recipe, name="baseline")
    assert chosen(monkeypatch, "--recipe", tmp_path / "fast.toml") == recipe


def test_what_a_file_says_is_what_infer_runs_unless_it_is_told_otherwise(load, monkeypatch, tmp_path):
    recipe = load(FULL)
    plan = StepPlan("FSC", ((1, -0.5, 0.25, 0), (0.5, -1e-7, 0, 1)), guard=Guard(3, (0, 0.125)))
    assert recipe == Recipe("fast", "openvino", "bf16,denoise=int8", 'for AMX – "fast"', plan, 2, "veryfast")
    assert not recipe.is_baseline
    other = ("--backend", "torch", "--precision", "bf16")
    asked = chosen(monkeypatch, "--recipe", tmp_path / "fast.toml", *other)
    assert asked == replace(recipe, backend="torch", precision="bf16")


@pytest.mark.parametrize("text", ["", FULL, '[steps]\nactions = "FSF"', 'overlap = 0\n[about]\nnote = "ä"'])
def test_a_recipe_is_read_back_as_it_was_written(load, text):
    recipe = load(text)
    assert load(recipe.to_toml()) == recipe


def test_a_generator_is_adapted_and_itself_left_as_it_was(load, plain):
    generator = plain(steps=3)
    adapted = load(FULL).adapt(generator)
    assert (adapted.windows.overlap, generator.windows.overlap) == (2, 4)
    assert adapted.windows.length == generator.windows.length
    assert BASELINE.adapt(generator).windows == generator.windows


@pytest.mark.parametrize(("text", "reason"), [
    ('[steps]\nactions = "FSFS"', "recipe fast: steps.actions: 4 letters for a schedule of 3 steps; tune"),
    ('[steps]\nactions = "FSS"\ncorrections = [[1, 0, 0, 0]]\nlevel_corrections = [[1, 0, 0, 0, 1, 1]]',
     "recipe fast: steps.level_corrections: are for 2 channels, not 1; tune for this generator"),
    ('[steps]\nactions = "FSF"\noverlaps = [0, 16]',
     "recipe fast: overlap: windows need 0 <= overlap < length, got overlap 16 of 16"),
    ("overlap = 16", "recipe fast: overlap: windows need 0 <= overlap < length, got overlap 16 of 16"),
])
def test_a_recipe_for_another_generator_is_refused_before_it_runs(load, plain, text, reason):
    with pytest.raises(RecipeError, match=f"^{re.escape(reason)}"):
        load(text).adapt(plain(steps=3))


def test_a_byte_order_mark_as_windows_writes_it_is_no_part_of_the_text(load):
    assert load("\ufeffprecision = 'bf16'").precision == "bf16"


def test_a_note_and_a_name_change_nothing_in_the_run(load):
    assert load('[about]\nnote = "as it is"').is_baseline
    assert not load('precision = "bf16"').is_baseline and not load('backend = "auto"').is_baseline


def test_a_recipe_cannot_be_changed(load):
    with pytest.raises(FrozenInstanceError):
        load("").backend = "openvino"


@pytest.mark.parametrize(("text", "reason"), [
    ('bakend = "torch"', "bakend: unknown setting 'bakend'; did you mean 'backend'?"),
    ('name = "x"', "name: unknown setting 'name'; known: backend, precision, attention, overlap, "),
    ('note = "x"', "note: unknown setting 'note'; known: backend, precision, attention, overlap, "),
    ('[about]\nnotes = "x"', "about.notes: unknown setting 'notes'; did you mean 'note'?"),
    ('backend = "opnvino"', "backend: unknown backend 'opnvino'; did you mean 'openvino'?"),
    ('backend = ""', "backend: unknown backend ''; known: auto, tensorrt, "),
    ("backend = 3", "backend: must be text in quotes, is 3"),
    ('backend = ["torch"]', "backend: must be text in quotes, is ['torch']"),
    ("precision = 16", "precision: must be text in quotes, is 16"),
    ('precision = "fp61"', "precision: unknown precision 'fp61'; did you mean 'fp16'?"),
    ('precision = "fp16,denoise=int9"', "precision: unknown precision 'int9'; did you mean 'int8'?"),
    ('precision = ""', "precision: unknown precision ''; known: fp32, "),
    ("[about]\nnote = 1979-05-27", "note: must be text in quotes, is datetime.date(1979, 5, 27)"),
    ('overlap = "2"', "overlap: must be a number of frames, 0 or more, is '2'"),
    ("overlap = -1", "overlap: must be a number of frames, 0 or more, is -1"),
    ("overlap = true", "overlap: must be a number of frames, 0 or more, is True"),
    ('[steps]\nactions = "FS"\noverlaps = [0, 0]',
     "steps.overlaps: must be numbers of frames, 0 or more, for at most the 1 evaluated steps"),
    ('[steps]\nactions = "FF"\noverlaps = [0.5]', "steps.overlaps: must be numbers of frames"),
    ('preset = "quick"', "preset: unknown preset 'quick'; known: ultrafast, "),
    ('steps = "FS"', "steps: must be a table, [steps], is 'FS'"),
    ('[steps]\naction = "FS"', "steps.action: unknown setting 'action'; did you mean 'actions'?"),
    ("[steps]", "steps.actions: is missing; a letter for each step"),
    ("[steps]\nactions = 3", "steps.actions: must be text in quotes, is 3"),
    ('[steps]\nactions = "SF"', "steps.actions: the first step must be F"),
    ('[steps]\nactions = "FX"', "steps.actions: step 1 has the unknown action 'X'; known: F, C, H, S"),
    ('[steps]\nactions = "FS"\ncorrections = [1, 2]', "steps.corrections: must be a list of rows of"),
    ('[steps]\nactions = "FS"\ncorrections = [[1, 0, "a", 0]]', "steps.corrections: must be a list of rows"),
    ('[steps]\nactions = "FC"\ncorrections = [[1, 0, 0, 0]]', "steps.corrections: must be 2 rows of 4"),
    ('[steps]\nactions = "FS"\ncorrections = [[1, 0, nan, 0]]', "steps.corrections"),
    ('[steps]\nactions = "FS"\njumps = [[1, 0, 0, 0]]', "steps.jumps: an earlier version fitted this, and "),
    ('[steps]\nactions = "FS"\nlevels = []', "steps.levels: an earlier version fitted this"),
    ('about = "x"', "about: must be a table, [about], is 'x'"),
    ("backend = torch", "is not a TOML file (Invalid value (at line 1"),
    ('backend = "torch"\nbackend = "auto"', "is not a TOML file (Cannot overwrite a value"),
    (f"overlap = {BIG}", "is not a TOML file (overlap: an integer must have at most 64 bits)"),
    (f'[steps]\nactions = "FC"\ncorrections = [[0, 0, 0, 0], [{BIG}, 0, 0, 0]]',
     "is not a TOML file (steps.corrections: an integer must have at most 64 bits)"),
    (f'[steps]\nactions = "FC"\n[guard]\nvideos = -{BIG}\nchanges = [0, 1]',
     "is not a TOML file (guard.videos: an integer must have at most 64 bits)"),
    (f'[technique]\nname = "teacache"\nthreshold = 0x{BIG}', "is not a TOML file (technique.threshold"),
    ('[steps]\nactions = "FC"\ncorrections = [[0, 0, 0, 0], [1e400, 0, 0, 0]]', "steps.corrections: must be"),
    (f"overlap = {'[' * 50_000}", "is not a TOML file (it is nested too deeply)"),
    (b'note = "\xff"', "is not a TOML file ('utf-8' codec can't decode byte 0xff"),
])
def test_what_is_wrong_is_named_with_its_file_and_key(load, tmp_path, text, reason):
    with pytest.raises(RecipeError) as refusal:
        load(text)
    assert str(refusal.value).startswith(f"{tmp_path / 'fast.toml'}: {reason}")


def test_a_recipe_made_in_code_is_checked_too():
    with pytest.raises(RecipeError, match="^backend: unknown backend 'nothing'"):
        Recipe("mine", "nothing")


def test_a_file_that_is_not_there_is_an_error_of_ours(tmp_path):
    for path, reason in ((tmp_path / "no.toml", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(RecipeError, match=f"^{path}: cannot be read \\({reason}\\); give the path"):
            load_recipe(path)


@pytest.mark.parametrize("steps", [1, 4, 25, 50])
def test_the_recipe_of_the_walk_through_suits_a_schedule_of_any_length(plain, steps):
    adapted = load_recipe(ROOT / "optimize" / "recipes" / "cpu-steps.toml").adapt(plain(steps=steps))
    assert adapted.scheduler.steps == steps and adapted.open_denoiser


def test_shipped_recipes_load_and_suit_the_bundled_generator():
    recipes = {path.stem: load_recipe(path) for path in SHIPPED}
    assert {"baseline", "cpu", "gpu-fp16", "gpu-bf16"} <= recipes.keys()
    assert [name for name, recipe in recipes.items() if recipe.is_baseline] == ["baseline"]
    for recipe in recipes.values():
        choose_precisions(recipe.precision, load_generator("presenter").components)
        assert recipe.is_baseline or recipe.note


def test_python_3_10_takes_the_package_instead_of_the_standard_reader(tmp_path):
    (tmp_path / "tomli.py").write_text("from tomllib import *  # stands in for the package")
    program = ("import sys; sys.version_info = (3, 10); from engines import toml_file; "
               "from pipeline import recipe; "
               "print(toml_file.tomllib.__name__, recipe.load_recipe(recipe.Path(sys.argv[1])))")
    answer = subprocess.run([sys.executable, "-c", program, SHIPPED[0]], cwd=ROOT, capture_output=True,
                            text=True, env={"PYTHONPATH": str(tmp_path)})
    assert answer.stdout.startswith("tomli Recipe(name='baseline'"), answer.stderr
