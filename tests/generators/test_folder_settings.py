"""Which graphs of a generator of a folder an edit of its vivace.toml makes stale: those that it changes."""

import importlib

import pytest

from engines.artifact import fingerprint_of
from generators.contract import load_generator
from pipeline.runner import VideoRunner

SIZE = "width = 64\nheight = 128\nsteps = 4\n"


@pytest.mark.parametrize(("kind", "sampling", "networks", "changed"), [
    ("mimicmotion", "overlap = 7\ngpu = 108\nlast_guidance = 2.5\n", ["fps = 8\n", "motion_bucket = 12\n"],
     {"embed"}),
    ("refnet", "overlap = 6\nguidance = 3.0\nswap_red_blue = true\n", ["half = false\n"], {"decode"})])
def test_only_graphs_that_a_setting_changes_are_stale(tmp_path, kind, sampling, networks, changed):
    importlib.import_module(f"generators.{kind}.random_weights").write_folder(tmp_path, "tiny")

    def found(more):
        (tmp_path / "vivace.toml").write_text(SIZE + more)
        generator = load_generator(f"{kind}={tmp_path}")
        prints = {name: (fingerprint_of(generator, name), spec.described())
                  for name, spec in generator.components.items()}
        return prints, VideoRunner(generator, {}).identity["generator_sha256"]

    def stale(more):
        prints, run = found(more)
        assert run != whole and prints.keys() == was.keys()
        return {name for name in was if was[name] != prints[name]}

    was, whole = found("")
    assert stale(sampling) <= changed
    for edit in networks:
        assert stale(edit) == changed
