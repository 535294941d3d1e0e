"""Artifacts: whole or absent, found only when everything they were built from still holds."""

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from engines.artifact import (
    Label,
    StaleArtifact,
    built_files,
    built_folder,
    differences,
    file_sha256,
    find,
    fingerprint,
    key,
    writing,
)
from engines.errors import EngineError

LABEL = Label("denoise", "fp16", ".onnx")
FROM = {"weights": "aa", "spec": {"inputs": {"x": [[1, "n"], "float32"]}}, "toolchain": {"torch": "2.13"}}
COMMAND = "python export_onnx.py"


def build(folder, built_from=FROM, content=b"graph", label=LABEL, **others):
    with writing(folder, label, built_from) as draft:
        draft.path.write_bytes(content)
        for name, data in others.items():
            (draft.path.parent / name).write_bytes(data)
        draft.facts["seconds"] = 2.5
    return folder / draft.path.name


def refusal(folder, expected=FROM):
    with pytest.raises(StaleArtifact) as error:
        find(folder, LABEL, expected, COMMAND)
    return str(error.value)


def test_a_finished_artifact_is_found_by_any_part_of_what_it_was_built_from(tmp_path):
    path = build(tmp_path)
    assert path.name == f"denoise-fp16-{key(FROM)}.onnx" and path.read_bytes() == b"graph"
    for expected in (FROM, {}, {"weights": "aa"}, {"toolchain": {"torch": "2.13"}}):
        artifact = find(tmp_path, LABEL, expected, COMMAND)
        assert artifact.path == path and artifact.manifest["facts"] == {"bytes": 5, "seconds": 2.5}
    assert sorted(os.listdir(tmp_path)) == [path.name, f"{path.name}.json"]


@pytest.mark.parametrize(("expected", "sentence"), [
    ({"weights": "bb"}, 'weights was "aa" when it was built, is "bb" here'),
    ({"spec": {"inputs": {"x": [[2, "n"], "float32"]}}},
     'spec.inputs.x was [[1, "n"], "float32"] when it was built, is [[2, "n"], "float32"] here'),
    ({"toolchain": {"torch": "2.14"}}, 'toolchain.torch was "2.13" when it was built, is "2.14" here'),
    ({"gpu": "H200"}, 'gpu was null when it was built, is "H200" here'),
])
def test_each_field_that_differs_is_named(tmp_path, expected, sentence):
    path = build(tmp_path)
    assert refusal(tmp_path, expected) == f"{path.name} does not fit: {sentence}\nrun: {COMMAND}"


def manifest_of(path):
    return path.with_name(f"{path.name}.json")


@pytest.mark.parametrize("files", [{}, {"other.onnx": "0" * 64}])
def test_a_file_that_its_manifest_has_no_hash_of_is_not_loaded(tmp_path, files):
    path = build(tmp_path)
    manifest_of(path).write_text(json.dumps({**json.loads(manifest_of(path).read_text()), "files": files}))
    assert f"{path.name} does not fit: its manifest has no hash of {path.name}" in refusal(tmp_path)


@pytest.mark.parametrize("changed", [
    {"files": [1]}, {"facts": None}, {"built_at": 3}, {"built_from": "x"}, {"file": 7},
    {"files": {"": "0" * 64}}, {"files": {"/": "0" * 64}}])
def test_a_manifest_of_other_types_is_refused_by_name(tmp_path, changed):
    path = build(tmp_path)
    manifest_of(path).write_text(json.dumps({**json.loads(manifest_of(path).read_text()), **changed}))
    assert f"{manifest_of(path)} is no manifest of ours" in refusal(tmp_path)


def test_a_manifest_nested_without_end_or_no_file_is_refused(tmp_path):
    path = manifest_of(build(tmp_path))
    path.write_text("[" * 100_000)
    assert "is no manifest of ours (RecursionError" in refusal(tmp_path)
    path.unlink()
    path.mkdir()
    assert "is no manifest of ours (IsADirectoryError" in refusal(tmp_path)


def test_a_changed_byte_is_noticed_also_in_external_data(tmp_path):
    path = build(tmp_path, **{"weights.data": b"12"})
    (tmp_path / "weights.data").write_bytes(b"13")
    assert "the bytes of weights.data changed since it was built" in refusal(tmp_path)
    (tmp_path / "weights.data").unlink()
    assert "weights.data is missing" in refusal(tmp_path)
    (tmp_path / "weights.data").write_bytes(b"12")
    assert find(tmp_path, LABEL, FROM, COMMAND).path == path
    path.write_bytes(b"Graph")
    assert f"the bytes of {path.name} changed" in refusal(tmp_path)


def test_the_content_hash_covers_every_file(tmp_path):
    def content(data):
        build(tmp_path, **{"weights.data": data})
        return find(tmp_path, LABEL, FROM, COMMAND).content

    assert content(b"1") == content(b"1") != content(b"2")


def test_none_at_all_is_an_error_that_says_how_to_build_it(tmp_path):
    build(tmp_path, label=Label("denoise", "fp32", ".onnx"))
    build(tmp_path, label=Label("denoise", "fp16", ".engine"))
    with pytest.raises(EngineError, match=f"no denoise-fp16.onnx in {tmp_path}; run: {COMMAND}"):
        find(tmp_path, LABEL, FROM, COMMAND)


def test_of_several_that_fit_the_newest_is_taken(tmp_path, monkeypatch):
    old = build(tmp_path, {**FROM, "toolchain": {"torch": "2.12"}})
    manifest = json.loads((tmp_path / f"{old.name}.json").read_text())
    manifest["built_at"] = "2020-01-01T00:00:00+00:00"
    (tmp_path / f"{old.name}.json").write_text(json.dumps(manifest))
    new = build(tmp_path)
    assert find(tmp_path, LABEL, {"weights": "aa"}, COMMAND).path == new
    assert find(tmp_path, LABEL, {"toolchain": {"torch": "2.12"}}, COMMAND).path == old


class Killed(BaseException):
    pass


@pytest.mark.parametrize("error", [ValueError, OSError(28, "No space left on device"), Killed])
def test_a_build_that_fails_or_is_interrupted_leaves_what_was_there(tmp_path, error):
    path = build(tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)}
    with pytest.raises(type(error) if isinstance(error, Exception) else error), \
            writing(tmp_path, LABEL, FROM) as draft:
        draft.path.write_bytes(b"half")
        raise error
    assert {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)} == before
    assert find(tmp_path, LABEL, FROM, COMMAND).path == path


def test_a_file_without_its_manifest_was_never_finished(tmp_path):
    path = build(tmp_path)
    (tmp_path / f"{path.name}.json").unlink()
    with pytest.raises(EngineError, match="no denoise-fp16.onnx"):
        find(tmp_path, LABEL, FROM, COMMAND)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"file": "x"}', '{"built_from": 1, "built_at": 2}'])
def test_a_foreign_manifest_is_named(tmp_path, text):
    path = build(tmp_path)
    (tmp_path / f"{path.name}.json").write_text(text)
    with pytest.raises(StaleArtifact, match=rf"{path.name}.json is no manifest of ours .*delete it"):
        find(tmp_path, LABEL, FROM, COMMAND)


def test_a_manifest_cannot_point_out_of_its_folder(tmp_path):
    folder = tmp_path / "built"
    path = build(folder)
    (tmp_path / "secret").write_bytes(b"key")
    manifest = json.loads((folder / f"{path.name}.json").read_text())
    manifest.update(file="../secret", files={"../secret": file_sha256(tmp_path / "secret")})
    (folder / f"{path.name}.json").write_text(json.dumps(manifest))
    with pytest.raises(StaleArtifact, match="secret is missing"):
        find(folder, LABEL, FROM, COMMAND)


def test_two_builds_at_once_do_not_see_each_other(tmp_path):
    with writing(tmp_path, LABEL, FROM) as first, writing(tmp_path, LABEL, FROM) as second:
        first.path.write_bytes(b"first")
        second.path.write_bytes(b"second")
    assert find(tmp_path, LABEL, FROM, COMMAND).path.read_bytes() == b"first"  # the last to finish


def test_who_looks_while_it_is_built_anew_waits_for_its_end(tmp_path, monkeypatch):
    build(tmp_path)
    found, replace = [], os.replace

    def slow(draft, path):
        if str(path).endswith(".json"):  # its manifest is gone, the new one not yet there
            found.append(pool.submit(find, tmp_path, LABEL, FROM, COMMAND))
            time.sleep(0.2)
        replace(draft, path)
    monkeypatch.setattr(os, "replace", slow)
    with ThreadPoolExecutor(1) as pool:
        build(tmp_path, content=b"new")
        assert found[0].result().path.read_bytes() == b"new"


def test_what_killed_builds_left_goes_after_a_day_and_not_before(tmp_path):
    for name, age in (("old", 90_000), ("young", 3_600)):
        (tmp_path / f".new-{name}").mkdir()
        os.utime(tmp_path / f".new-{name}", (time.time() - age,) * 2)
    build(tmp_path)
    assert [path.name for path in tmp_path.glob(".new-*")] == [".new-young"]


def test_a_fingerprint_is_the_same_wherever_the_files_lie(tmp_path):
    found = []
    for first, second in (("one", "two"), ("two", "one")):  # whose order by path is another
        for folder, name in ((first, "model.py"), (second, "weights")):
            (tmp_path / folder).mkdir(exist_ok=True)
            (tmp_path / folder / name).write_text(name)
        found.append(fingerprint([tmp_path / first / "model.py", tmp_path / second / "weights"]))
    assert found[0] == found[1]


def test_a_fingerprint_changes_with_names_and_bytes_and_needs_every_file(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_bytes(b"1")
    b.write_bytes(b"2")
    first = fingerprint([a, b])
    assert first == fingerprint([b, a]) and len(first) == 64
    b.write_bytes(b"3")
    assert first != fingerprint([a, b])
    b.rename(tmp_path / "c")
    assert fingerprint([a, b]) is None


def test_built_files_are_told_with_their_own_seconds_and_engines_without_one_left_out(tmp_path):
    engines = {"denoise": SimpleNamespace(path=build(tmp_path)), "decode": SimpleNamespace(path=None)}
    assert built_files(engines) == {"denoise": {"file": f"denoise-fp16-{key(FROM)}.onnx", "seconds": 2.5}}


def test_differences_speak_of_expected_fields_only_and_shorten_long_values():
    assert differences({"a": (1, 2)}, {"a": [1, 2], "b": 3}) == []
    (sentence,) = differences({"a": "x" * 100}, {"a": None})
    assert sentence == f'a was null when it was built, is "{"x" * 56}... here'


def test_an_environment_variable_moves_the_built_files(monkeypatch, tmp_path):
    monkeypatch.setenv("VIVACE_BUILT", str(tmp_path))
    assert built_folder("presenter") == tmp_path / "presenter"
    monkeypatch.delenv("VIVACE_BUILT")
    assert built_folder("presenter").parts[-3:] == ("engines", "built", "presenter")
