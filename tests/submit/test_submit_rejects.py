"""Every way to spoil an archive is rejected by the check that should, and a whole one by none."""

import json
import stat
import zipfile

import pytest

from engines.errors import Exit, InputError
from submit.archive import MB
from submit.check import ALL, exit_status, told
from submit.check import STATIC as CHECKS
from submit.checks import FAIL, NOT_EVALUATED, PASS, Result, Submission, evaluate
from submit.profile import Profile, load_profile
from tests.submissions import contents, entry, only_wheels, raw, repacked

CPU = load_profile("cpu")
LINK, TOOL, TODAY = stat.S_IFLNK | 0o777, stat.S_IFREG | 0o755, (2026, 11, 21, 1, 2, 4)
STATIC = [*(f"S0{number}" for number in range(1, 10)), "S16", "S17"]


@pytest.fixture(scope="module")
def good(packed):
    """The tiny presenter's archives; pip has had a folder of wheels instead of a network."""
    return packed


def check_statically(path, profile):
    """The results of the checks that run nothing of the archive."""
    with Submission(path, profile) as submission:
        return [evaluate(each, submission) for each in CHECKS]


@pytest.fixture
def failures(good, monkeypatch):
    """A function that checks an archive: problems by the ids that failed."""
    only_wheels(monkeypatch, good / "index")

    def check(path, profile=CPU):
        return {each.id: each.problems for each in check_statically(path, profile) if each.status == FAIL}
    return check


def test_a_whole_archive_passes_every_check_that_runs_nothing(good, monkeypatch):
    only_wheels(monkeypatch, good / "index")
    for name in ("submit.zip", "wheels.zip"):
        results = check_statically(good / name, CPU)
        assert [each.id for each in results] == STATIC
        assert {each.id: each.problems for each in results if each.status != PASS} == {}


def test_a_run_whose_videos_differ_is_sent_to_the_judge_and_not_to_a_run_by_hand():
    assert "python -m bench --candidate" in ALL["S10"].fix and "by hand" not in ALL["S10"].fix


def test_each_check_has_a_reason_a_fix_and_an_exit_status():
    assert list(ALL) == [f"S{number:02}" for number in range(1, 18)]
    for each in ALL.values():
        assert each.reason and each.fix and each.find.__doc__ and each.exit in set(Exit) - {Exit.OK, Exit.BUG}


# Spoilt with no regard for the zip format's or pack's rules: what is written behind the archive, as is.
RAW = {
    "absolute path": ("S01", "is an absolute path", lambda zip: zip.writestr(entry("/tmp/x.py"), b"")),
    "parent folder": ("S01", "leads out of the folder", lambda zip: zip.writestr(entry("../x.py"), b"")),
    "backslash": ("S01", "has a backslash", lambda zip: zip.writestr(entry("a\\x.py"), b"")),
    "long name": ("S01", "is too long", lambda zip: zip.writestr(entry(f"{86 * '长'}/a"), b"")),
    "long path": ("S01", "is too long", lambda zip: zip.writestr(entry(f"{'zz/' * 1001}a"), b"")),
    "symlink": ("S01", "a symbolic link", lambda zip: zip.writestr(entry("x", LINK), b"/etc")),
    "method": ("S01", "is compressed by method 12",
               lambda zip: zip.writestr(entry("x.py", method=zipfile.ZIP_BZIP2), b"x" * 99)),
    "case": ("S01", "where case does not count", lambda zip: zip.writestr(entry("Infer.py"), b"")),
    "macOS": ("S01", "was left by a tool", lambda zip: zip.writestr(entry("__MACOSX/._infer.py"), b"")),
    "caches": ("S01", "was left by a tool",
               lambda zip: zip.writestr(entry("engines/__pycache__/load.cpython-311.pyc"), b"")),
    "bomb": ("S03", "grows", lambda zip: zip.writestr(entry("zeros.txt"), bytes(30_000_000))),
    "times": ("S16", "has the time", lambda zip: zip.writestr(entry("z.txt", stamp=TODAY), b"")),
    "modes": ("S16", "has the mode 100755", lambda zip: zip.writestr(entry("z.txt", TOOL), b"")),
    "comment": ("S16", "a comment, or bytes behind", lambda zip: setattr(zip, "comment", b"a password")),
    "order": ("S16", "not in the order", lambda zip: zip.writestr(entry("a.txt"), b"")),
}


@pytest.mark.parametrize("name", RAW)
def test_a_spoilt_container_is_rejected(good, failures, tmp_path, name):
    wanted, text, add = RAW[name]
    found = failures(raw(good / "submit.zip", tmp_path / "bad.zip", add))
    assert wanted in found and any(text in problem for problem in found[wanted]), found


def test_bytes_of_no_entry_are_rejected_wherever_they_are(good, failures, tmp_path):
    whole = (good / "submit.zip").read_bytes()
    for content, said in ((b"MY SECRET" + whole, "before "), (whole + b"MY SECRET", "behind its end")):
        (tmp_path / "bad.zip").write_bytes(content)
        found = failures(tmp_path / "bad.zip")
        assert found.keys() == {"S16"} and len(found["S16"]) == 1 and said in found["S16"][0]
    start = whole.index(b"PK\1\2")  # of the list of entries, whose place is said in the last 22 bytes
    moved = start + len(b"MY SECRET")
    content = whole[:start] + b"MY SECRET" + whole[start:-6] + moved.to_bytes(4, "little") + whole[-2:]
    (tmp_path / "bad.zip").write_bytes(content)
    assert failures(tmp_path / "bad.zip") == {"S16": ["there are bytes of no entry behind the last one"]}


def first_line(text):
    """Put before the code of a file, behind what must be first."""
    mark = b"from __future__ import annotations\n"
    return lambda content: content.replace(mark, mark + text.encode(), 1)


def unpinned(content):
    return content.replace(b"==", b">=", 1)


GRAPH = "engines/built/tiny/denoise"  # begins the name of one, which has a hash in it
SPOILT = {
    "no entry script": ("S02", "infer.py is not at the root", {"infer.py": None}),
    "no manifest": ("S02", "submission.json is not at the root", {"submission.json": None}),
    "base demo": ("S04", "is a video or a picture", {"demo.mp4": b"x"}),
    "data": ("S04", "is data", {"data/pairs.csv": b"id,video,image\n"}),
    "leftover output": ("S04", "was left by a run", {"manifest.jsonl": b"{}\n"}),
    "log": ("S04", "was left by a run", {"infer.log": b"started\n"}),
    "compiled for a processor": ("S04", "was left by a run or a build", {"engines/built/a.openvino": b"x"}),
    "archive in the archive": ("S04", "is an archive", {"more.zip": b"PK"}),
    "secret file": ("S04", "may be a secret", {".env": b"X=1"}),
    "private key": ("S04", "a private key", {"a.txt": b"-----BEGIN RSA PRIVATE KEY-----\n"}),
    "token": ("S04", "a GitHub token", {"a.py": b"T = 'ghp_" + b"a1B2" * 9 + b"'\n"}),
    "password": ("S04", "a password", {"a.toml": b'password = "correcthorse"'}),
    "password in capitals": ("S04", "a password", {"CONFIG.JSON": b'{"Password": "correcthorse"}'}),
    "log in capitals": ("S04", "was left by a run", {"INFER.LOG": b"started\n"}),
    "absolute path in capitals": ("S05", "begins an absolute path", {"CONFIG.JSON": b'"/home/me/x"'}),
    "absolute path in code": ("S05", "begins an absolute path",
                              {"infer.py": first_line('WEIGHTS = "/home/me/weights.bin"\n')}),
    "drive letter": ("S05", "begins an absolute path", {
        "recipe.toml": lambda content: content + b'[about]\nnote = "C:\\\\x"\n'}),
    "working folder": ("S05", "the working folder is another", {
        "infer.py": first_line("import os\nos.getcwd()\n")}),
    "path in a graph": ("S05", "in it", {GRAPH: lambda content: content + b"/home/me/model.py"}),
    "unpinned": ("S06", "is not as name==version", {"requirements.txt": unpinned}),
    "from a repository": ("S06", "is not as name==version",
                          {"requirements.txt": lambda c: c + b"git+https://example.org/x.git\n"}),
    "a needed package left out": ("S06", "openvino-telemetry is needed too", {
        "requirements.txt": lambda c: b"\n".join(x for x in c.splitlines() if b"telemetry" not in x)}),
    "no such version": ("S06", "finds no packages", {
        "requirements.txt": lambda content: content.replace(b"==", b"==99", 1)}),
    "no requirements": ("S06", "is missing", {"requirements.txt": None}),
    "missing import": ("S07", "infer.py imports scipy", {"infer.py": first_line("import scipy\n")}),
    "missing backend": ("S07", "torch", {"recipe.toml": b'backend = "torch"\n'}),
    "syntax error": ("S07", "invalid syntax", {"infer.py": first_line("def x(:\n")}),
    "no generator": ("S07", "is not in the archive", {"generator/tiny.py": None}),
    "graph of another precision": ("S08", "no encode-fp16.onnx", {
        "recipe.toml": b'backend = "openvino"\nprecision = "fp16"\n'}),
    "no calibration": ("S08", "teacache is fitted to base runs, and engines/built/tiny has no calibration", {
        "recipe.toml": b'backend = "openvino"\n[technique]\nname = "teacache"\n'}),
    "no technique's file": ("S07", "pipeline/caches/uniform_skip.py is not in the archive", {
        "recipe.toml": b'backend = "openvino"\n[technique]\nname = "uniform-skip"\n',
        "pipeline/caches/uniform_skip.py": None}),
    "a foreign engine": ("S08", "needs a GPU, and cpu has none", {"engines/built/tiny/a.engine": b"x"}),
    "truncated graph": ("S09", "is no whole ONNX graph", {
        GRAPH: lambda content: content[:len(content) // 2]}),
    "pickle by name": ("S09", "is a pickle", {"weights.pt": b"x"}),
    "pickle by content": ("S09", "is a pickle", {"weights": b"\x80\x04x"}),
    "truncated weights": ("S09", "not fully covered", {"a.safetensors": (
        (66).to_bytes(8, "little") + b'{"x":{"dtype":"F32","shape":[1000000],"data_offsets":[0,4000000]}}')}),
    "no licence": ("S17", "LICENSE is missing", {"LICENSE": None}),
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_spoilt_content_is_rejected_although_its_manifest_fits(good, failures, tmp_path, name):
    wanted, text, changed = SPOILT[name]
    names = contents(good / "submit.zip")
    graph = next(each for each in names if each.startswith(GRAPH) and each.endswith(".onnx"))
    changed = {graph if each == GRAPH else each: new for each, new in changed.items()}
    found = failures(repacked(good / "submit.zip", tmp_path / "bad.zip", changed))
    assert wanted in found and any(text in problem for problem in found[wanted]), found


def test_a_file_changed_added_or_left_out_after_packing_is_rejected(good, failures, tmp_path):
    changed = {"infer.py": lambda c: c + b"\n", "pipeline/new.py": b"", "pipeline/batch/dataset.py": None}
    found = failures(repacked(good / "submit.zip", tmp_path / "bad.zip", changed, listed=False))["S09"]
    assert found == ["infer.py is not as submission.json lists it",
                     "pipeline/new.py is not listed in submission.json",
                     "pipeline/batch/dataset.py is listed in submission.json and missing"]


def test_everything_one_folder_down_is_rejected_with_where_it_is(good, failures, tmp_path):
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        for name, content in contents(good / "submit.zip").items():
            archive.writestr(entry(f"submit/{name}"), content)
    assert "infer.py is not at the root, but at submit/infer.py" in failures(tmp_path / "bad.zip")["S02"]


def test_an_archive_that_is_too_large_is_rejected(good, failures):
    size = (good / "submit.zip").stat().st_size / MB
    assert list(failures(good / "submit.zip", Profile("small", max_mb=size * 0.9))) == ["S03"]
    assert failures(good / "submit.zip", Profile("large", max_mb=size * 1.1)) == {}
    found = failures(good / "submit.zip", Profile("small", max_unpacked_mb=0.1))
    assert "allowed are 0.1" in found["S03"][0]


def test_a_damaged_archive_and_no_archive(good, failures, tmp_path):
    content = bytearray((good / "submit.zip").read_bytes())
    with zipfile.ZipFile(good / "submit.zip") as archive:
        longest = max(archive.infolist(), key=lambda each: each.compress_size)
    content[longest.header_offset + 30 + len(longest.filename) + longest.compress_size // 2] ^= 0xFF
    (tmp_path / "bad.zip").write_bytes(content)
    assert "cannot be unpacked" in failures(tmp_path / "bad.zip")["S01"][0]
    (tmp_path / "cut.zip").write_bytes(content[:1000])
    with pytest.raises(InputError):
        failures(tmp_path / "cut.zip")


def test_a_wheelhouse_without_a_wheel_or_with_another_is_rejected(good, failures, tmp_path):
    wheel = next(name for name in contents(good / "wheels.zip") if "numpy" in name)
    for new in (None, lambda content: content + b"x"):
        found = failures(repacked(good / "wheels.zip", tmp_path / "bad.zip", {wheel: new}))
        assert "the wheelhouse is not complete" in found["S06"][0]


def test_licences_that_are_not_named_are_rejected(good, failures, tmp_path):
    def without(content, name):
        manifest = json.loads(content)
        manifest["licences"] = {key: "MIT" for key in manifest["licences"] if key != name}
        return json.dumps(manifest).encode()

    changed = {"submission.json": lambda content: without(content, "numpy")}
    found = failures(repacked(good / "submit.zip", tmp_path / "bad.zip", changed, listed=False))["S17"]
    assert found == ["imageio-ffmpeg carries ffmpeg, and its licence, the GPL, is not named",
                     "submission.json names no licence of numpy"]


def test_an_unsafe_archive_is_not_evaluated_further_and_that_is_no_pass(good, tmp_path, monkeypatch):
    bad = raw(good / "submit.zip", tmp_path / "bad.zip", RAW["parent folder"][2])
    status = {each.id: each.status for each in check_statically(bad, CPU)}
    unsafe = {"S01", "S02", "S03", "S16"}  # these need nothing unpacked
    assert {id for id, each in status.items() if each == NOT_EVALUATED} == set(STATIC) - unsafe


def result(id, status):
    return Result(id, "x", status, "why", "how", ["bad"] if status == FAIL else [])


def test_the_exit_status_is_that_of_the_first_failure_and_not_evaluated_is_none():
    assert exit_status([result("S01", PASS), result("S10", PASS)]) == Exit.OK
    assert exit_status([result("S01", PASS), result("S10", NOT_EVALUATED)]) == Exit.ENVIRONMENT
    for id, status in (("S01", 3), ("S08", 4), ("S10", 5), ("S13", 6)):
        assert exit_status([result(id, FAIL), result("S17", FAIL)]) == status
    text = told(result("S01", FAIL))
    assert text.splitlines() == ["S01 x: fail", "  - bad", "    why: why", "    fix: how"]
