"""The Docker files: what they copy is there, what they start is understood, and nothing runs as root."""

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from serve.__main__ import parse

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "serve" / "docker").glob("*.Dockerfile"))


def instructions(path):
    """Its instructions as (word, rest), lines that go on joined."""
    lines = re.sub(r"\\\n", " ", path.read_text()).splitlines()
    return [tuple(line.split(None, 1)) for line in lines if line.strip() and not line.startswith("#")]


def commands(path):
    """The commands of its comment, as words."""
    told = re.sub(r"\\\n#", " ", "\n".join(re.findall(r"^#.*", path.read_text(), re.MULTILINE)))
    return [shlex.split(line.lstrip("# "), comments=True) for line in told.splitlines() if "docker " in line]


@pytest.fixture(params=FILES, ids=lambda path: path.name)
def file(request):
    return request.param


def test_there_is_one_for_processors_and_one_for_gpus():
    assert [path.name for path in FILES] == ["cpu.Dockerfile", "gpu.Dockerfile"]


def test_what_is_copied_is_in_the_repository(file):
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    for word, rest in instructions(file):
        if word == "COPY":
            *sources, _ = rest.split()
            assert all(source == "." or not tracked or source in tracked for source in sources)
            assert all((ROOT / source).exists() for source in sources)


def test_what_it_starts_is_understood_and_listens_beyond_the_machine_with_keys(file, monkeypatch):
    found = dict(instructions(file))
    start, plain = json.loads(found["ENTRYPOINT"]), json.loads(found["CMD"])
    assert start[:3] == ["python", "-m", "serve"]
    runs = [words[words.index(name) + 1:] for words in commands(file) if words[:2] == ["docker", "run"]
            for name in words if name == f"vivace-{file.stem}" and "--entrypoint" not in words]
    assert len(runs) >= 1
    for options in (plain, *(run or plain for run in runs)):
        monkeypatch.setattr("sys.argv", ["serve", *start[3:], *options])
        args = parse()
        assert args.host == "0.0.0.0" and args.keys and str(args.keys).startswith("/jobs/")
        assert str(args.home) in found["VOLUME"].split()
        for recipe in args.recipe or ():
            assert (ROOT / recipe).is_file()
    assert str(parse().port) == found["EXPOSE"]


def test_it_runs_as_a_user_of_its_own_and_says_when_it_is_ready(file):
    words = [word for word, _ in instructions(file)]
    assert words.index("USER") > max(place for place, word in enumerate(words) if word == "RUN")
    assert dict(instructions(file))["USER"] != "root"
    assert "/readyz" in dict(instructions(file))["HEALTHCHECK"]
