"""Manifest lines as bench reads them, from a folder and from what infer.py prints."""

import json

import pytest

from bench.timed_run import _manifest_lines
from pipeline.batch.run_folder import RunFolder, manifest_lines
from pipeline.recipe import Recipe


@pytest.mark.parametrize("odd", ["\u2028", "\u2029", "\x85", "\x0b", "\x1c"])
def test_a_line_ends_at_a_line_feed_alone_whatever_names_and_prompts_hold(tmp_path, odd):
    with RunFolder(tmp_path) as folder:
        folder.record({"id": f"a{odd}b", "status": "failed", "error": f"x{odd}"})
    line, = manifest_lines(tmp_path)
    assert line["id"] == f"a{odd}b"
    assert _manifest_lines(Recipe("plain"), json.dumps(line, ensure_ascii=False) + "\n") == [line]
