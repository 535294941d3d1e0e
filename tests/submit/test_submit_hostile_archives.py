"""Archives that mean harm: each is refused by the check that should, in time, and nothing outside changes."""

import io
import json
import pickle
import stat
import struct
import time
import zipfile

import numpy as np
import pytest

from engines.cli import printable
from submit.check import STATIC, told
from submit.checks import FAIL, Submission, evaluate
from submit.profile import load_profile
from tests.submissions import entry, raw, repacked

CPU = load_profile("cpu")
LINK = stat.S_IFLNK | 0o777
DEEP = 100_000


def of_system(number, mode=LINK):
    """An entry that says another system wrote it; unzip heeds its mode all the same."""
    found = entry("x.txt", mode)
    found.create_system = number
    return found


def header(text, content=b"\0" * 4, length=None):
    """A safetensors file with that header."""
    return struct.pack("<Q", len(text) if length is None else length) + text + content


class Evil:
    def __reduce__(self):
        return print, ("run",)


def of_numpy(save, value):
    file = io.BytesIO()
    save(file, value)
    return file.getvalue()


OBJECTS = np.array([Evil()], dtype=object)
OFFSETS = b'{"x":{"dtype":"F32","shape":[1],"data_offsets":[%s]}}'
# What is written behind the archive, as it is.
RAW = {
    "slip": ("S01", lambda zip: zip.writestr(entry("../../canary"), b"x")),
    "absolute": ("S01", lambda zip: zip.writestr(entry("/tmp/canary"), b"x")),
    "drive": ("S01", lambda zip: zip.writestr(entry("C:/canary"), b"x")),
    "backslashes": ("S01", lambda zip: zip.writestr(entry("..\\canary"), b"x")),
    "link": ("S01", lambda zip: zip.writestr(entry("x", LINK), b"/etc")),
    "link by DOS": ("S01", lambda zip: zip.writestr(of_system(0), b"/etc/passwd")),
    "link by NTFS": ("S01", lambda zip: zip.writestr(of_system(10), b"/etc/passwd")),
    "link by macOS": ("S01", lambda zip: zip.writestr(of_system(19), b"/etc/passwd")),
    "pipe": ("S01", lambda zip: zip.writestr(entry("x", stat.S_IFIFO | 0o644), b"")),
    "device": ("S01", lambda zip: zip.writestr(entry("x", stat.S_IFCHR | 0o644), b"")),
    "escapes": ("S01", lambda zip: zip.writestr(entry("\x1b]0;title\x07\x1b[2J.py"), b"")),
    "a file and a folder": ("S01", lambda zip: [zip.writestr(entry(each), b"") for each in ("x", "x/y")]),
    "bomb": ("S03", lambda zip: zip.writestr(entry("zeros"), bytes(30_000_000))),
    "lzma": ("S01", lambda zip: zip.writestr(entry("x", method=zipfile.ZIP_LZMA), b"x")),
}
# In a manifest that fits.
CONTENT = {
    "GBK script": ("S07", {"infer.py": "# 中文\n".encode("gbk")}),
    "UTF-16 script": ("S07", {"infer.py": "print(1)\n".encode("utf-16")}),
    "NUL in a script": ("S07", {"infer.py": b"x = 1\0\n"}),
    "deep script": ("S07", {"infer.py": b"(" * DEEP}),
    "deep chain": ("S07", {"infer.py": b"x" + b".x" * DEEP}),
    "large script": ("S07", {"infer.py": b"x = 1\n" * 400_000}),
    "GBK requirements": ("S06", {"requirements.txt": "numpy==1.0 中文\n".encode("gbk")}),
    "UTF-16 requirements": ("S06", {"requirements.txt": "numpy==1.0\n".encode("utf-16")}),
    "a package of its own": ("S06", {"requirements.txt": b"./evil\n", "evil/setup.py": b"exit()\n"}),
    "a source by file": ("S06", {"requirements.txt": b"evil @ file:evil-1.tar.gz\n"}),
    "another index": ("S06", {"requirements.txt": b"--extra-index-url http://127.0.0.1:9\nnumpy==1.0\n"}),
    "other wheels": ("S06", {"requirements.txt": b"--find-links http://127.0.0.1:9\nnumpy==1.0\n"}),
    "sources permitted": ("S06", {"requirements.txt": b"--only-binary :none:\nnumpy==1.0\n"}),
    "more requirements": ("S06", {"requirements.txt": b"-r /etc/passwd\n"}),
    "a requirement behind a comment": ("S06", {
        "requirements.txt": b"numpy==1.0\n# x \\\nevil @ https://example.org/evil.zip\n"}),
    "requirements in UTF-7": ("S06", {"requirements.txt": b"# coding: utf-7\n# x+AAo-evil==6.6\n"}),
    "a requirement with a mark": ("S06", {"requirements.txt": b"numpy==2.0#x\n"}),
    "deep recipe": ("S07", {"recipe.toml": b"x = " + b"[" * DEEP}),
    "digits in a recipe": ("S07", {"recipe.toml": b"step_plan = " + b"9" * 5000}),
    "binary recipe": ("S07", {"recipe.toml": bytes(range(256))}),
    "long header": ("S09", {"a.safetensors": header(b"{}", length=2**63)}),
    "deep header": ("S09", {"a.safetensors": header(b'{"a":' * DEEP)}),
    "header of a list": ("S09", {"a.safetensors": header(b"[1]")}),
    "offset of text": ("S09", {"a.safetensors": header(OFFSETS % b'0,"4"')}),
    "offset below 0": ("S09", {"a.safetensors": header(OFFSETS % b"-4,0")}),
    "offset beyond": ("S09", {"a.safetensors": header(OFFSETS % b"0,4000000000000")}),
    "no bytes": ("S09", {"a.safetensors": b""}),
    **{f"pickle {i}": ("S09", {"weights.dat": pickle.dumps(Evil(), i)}) for i in range(6)},
    "array of objects": ("S09", {"noise.npy": of_numpy(np.save, OBJECTS)}),
    "arrays of objects": ("S04", {"noise.dat": of_numpy(np.savez, OBJECTS)}),
    "references": ("S04", {"outputs.dat": b"\0\0\0\x20ftypisom" + bytes(20)}),
    "pictures": ("S04", {"table.dat": b"\x89PNG\r\n\x1a\n" + bytes(20)}),
    "a compressed one": ("S04", {"table.dat": b"\x1f\x8b\x08" + bytes(20)}),
    "a secret in the midst": ("S04", {"a.txt": b"x " * 2_000_000 + b"hf_" + b"a1" * 20}),
}


def problems_of(path, seconds=30.0):
    """Problems by the ids of the checks that run nothing, but for what pip has to resolve."""
    with Submission(path, CPU, seconds) as submission:
        wrong = submission.is_safe and "requirements.txt" in submission.files
        checks = [each for each in STATIC if each.id != "S06" or not wrong or submission.text(
            "requirements.txt").count("==") < 3]
        results = [evaluate(each, submission) for each in checks]
    return {each.id: each for each in results if each.status == FAIL}


def is_refused(path, wanted, tmp_path):
    canary = tmp_path / "canary"
    canary.write_text("alive")
    began = time.monotonic()
    found = problems_of(path)
    assert time.monotonic() - began < 40
    assert wanted in found, {id: each.problems for id, each in found.items()}
    text = printable("".join(told(each) for each in found.values()))
    assert "Traceback" not in text and "\x1b" not in text
    assert canary.read_text() == "alive" and sorted(path.parent.glob("canary*")) == [canary]


@pytest.mark.parametrize("name", RAW)
def test_a_container_that_means_harm_is_refused(packed, tmp_path, name):
    wanted, add = RAW[name]
    is_refused(raw(packed / "submit.zip", tmp_path / "bad.zip", add), wanted, tmp_path)


@pytest.mark.parametrize("name", CONTENT)
def test_content_that_means_harm_is_refused(packed, tmp_path, name):
    wanted, changed = CONTENT[name]
    is_refused(repacked(packed / "submit.zip", tmp_path / "bad.zip", changed), wanted, tmp_path)


@pytest.mark.parametrize("text", ['{"files": ' + '{"a":' * DEEP, "9" * 5000, "[]", '{"files": 1}', "\ud800"])
def test_a_manifest_that_means_harm_is_told_of_and_no_traceback(packed, tmp_path, text):
    bad = repacked(packed / "submit.zip", tmp_path / "bad.zip", {
        "submission.json": text.encode("utf-8", "surrogatepass")}, listed=False)
    with Submission(bad, CPU, 30.0) as submission:
        result = evaluate(next(each for each in STATIC if each.id == "S09"), submission)
    assert result.status != "pass" and "submission.json" in " ".join(result.notes + result.problems)


def test_a_manifest_that_names_a_generator_elsewhere_is_refused(packed, tmp_path):
    def elsewhere(content):
        manifest = json.loads(content)
        manifest["entry"]["generator"] = "../../etc/x.py:X"
        return json.dumps(manifest).encode()
    bad = repacked(packed / "submit.zip", tmp_path / "bad.zip", {"submission.json": elsewhere})
    is_refused(bad, "S07", tmp_path)


def test_much_text_is_looked_through_in_time_and_above_the_limits_not_at_all(packed, tmp_path, monkeypatch):
    texts = {f"{i}.txt": b'{"a": 123, "b c": [1.5]}, "sk-x", ghp_1 ' * 60_000 for i in range(10)}
    bad = repacked(packed / "submit.zip", tmp_path / "bad.zip", texts)
    secrets = next(each for each in STATIC if each.id == "S04")
    with Submission(bad, CPU, 600.0) as submission:
        assert submission.files
        began = time.process_time()
        assert evaluate(secrets, submission).status == "pass"
        assert time.process_time() - began < 5  # 24 MB; it had taken a second for three
        monkeypatch.setattr("submit.checks.MOST_TEXT", 1_000_000)
        assert "too much to be looked through" in evaluate(secrets, submission).problems[0]
        monkeypatch.undo()
        submission.until = time.monotonic() - 10.0
        began = time.monotonic()
        assert evaluate(secrets, submission).status == "not evaluated"
        assert time.monotonic() - began < 2
