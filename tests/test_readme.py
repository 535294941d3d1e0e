"""README tells the truth: its commands run, its targets and links exist, and CI runs what it says."""

import importlib
import io
import json
import os
import re
import shlex
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest

from bench.frame_metrics import psnr
from bench.report import markdown
from pipeline.video.reader import read

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
SAMPLE = ROOT / "data" / "sample"
CHINESE = ROOT / "README.zh-CN.md"
RESULTS = ROOT / "docs" / "results.md"
PAGES = [README, CHINESE, *sorted((ROOT / "docs").rglob("*.md"))]
OPERATORS = re.compile(r"^[|&;<>()]+$")


def blocks(text):
    """What stands in the fenced bash blocks, in order."""
    return re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def prose(text):
    """The text without its fenced blocks."""
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def commands(text):
    """Words of every shell command in bash blocks, and of make and python in inline code."""
    lines = [line for block in blocks(text) for line in block.replace("\\\n", " ").splitlines()]
    lines += re.findall(r"`((?:make|\S*python[\d.]*) [^`\n]+)`", prose(text))
    found = []
    for line in lines:
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words = []
        for word in (*lexer, ";"):
            if OPERATORS.match(word):
                found, words = [*found, words], []
            elif words or not re.fullmatch(r"\w+=.*", word):  # a variable set for the command
                words.append(word)
    return [words for words in found if words]


def named_targets(text):
    """Targets that the text's make commands name."""
    return {word for program, *words in commands(text) if program == "make"
            for word in words if "=" not in word and not word.startswith("-")}


def makefile_targets(makefile):
    return set(re.findall(r"^([a-z][\w-]*):(?!=)", makefile, re.MULTILINE))


def own_python(text):
    """Arguments of python commands that run a script of the root or a module of ours."""
    for program, *words in commands(text):
        if re.fullmatch(r"python[\d.]*", Path(program).name) and words:
            script = words[0].endswith(".py") and (ROOT / words[0]).parent == ROOT
            module = words[0] == "-m" and len(words) > 1 and (ROOT / words[1].partition(".")[0]).is_dir()
            if script or module:
                yield words


def broken_help(words):
    """Why a command line cannot be right, asked for --help instead of run; nothing if it can.

    It is asked in this process: one of its own would take longer to start than to answer.
    """
    module, given = (f"{words[1]}.__main__", words[2:]) if words[0] == "-m" else (words[0][:-3], words[1:])
    told, said = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(told), redirect_stderr(said):
        patch.setattr(sys, "argv", [module, *given, "--help"])
        try:
            status = importlib.import_module(module).main()
        except ModuleNotFoundError as error:
            return str(error)
        except SystemExit as stop:
            status = stop.code
    if status:
        return said.getvalue().splitlines()[-1]
    flags = [word.partition("=")[0] for word in words if word.startswith("--")]
    return ", ".join(f"no {flag}" for flag in flags if not re.search(rf"{flag}\b", told.getvalue()))


def broken_links(page):
    """Links and pictures of a Markdown page whose files do not exist."""
    text = re.sub(r"`[^`\n]+`", "", prose(page.read_text(encoding="utf-8")))
    targets = re.findall(r"\]\(\s*<?([^)\s>]+)", text) + re.findall(r"\b(?:src|href)=\"([^\"]+)\"", text)
    targets += re.findall(r"^\[[^\]]+\]:\s*(\S+)", text, re.MULTILINE)
    files = [target.partition("#")[0] for target in targets if not re.match(r"[a-z]+:", target)]
    return [file for file in files if not (page.parent / file).exists()]


def run(*words):
    """Run in the root, free of what a make that runs these tests has set."""
    environment = {name: value for name, value in os.environ.items() if "MAKE" not in name}
    return subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900)


def base_command():
    """The words with which `make base` starts infer.py."""
    plan = run("make", "--dry-run", "base")
    lines = [line for line in plan.stdout.splitlines() if "infer.py" in line]
    assert len(lines) == 1, plan.stdout + plan.stderr
    return shlex.split(lines[0])


def test_the_first_two_blocks_are_the_demo_and_the_tests():
    demo, tests = blocks(README.read_text(encoding="utf-8"))[:2]
    assert "make demo" in demo.splitlines()
    assert "make test" in tests.splitlines()


def test_ci_runs_exactly_the_test_command_of_the_readme():
    tests = blocks(README.read_text(encoding="utf-8"))[1].splitlines()
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert [script[-1]] == tests == [line for line in script if re.match(r"make (?!--)|.*pytest", line)]


@pytest.mark.parametrize("page", [README, CHINESE, RESULTS], ids=lambda page: page.name)
def test_the_table_of_speeds_is_the_report_s(page):
    report = json.loads((ROOT / "bench" / "results" / "levels-cpu.json").read_text(encoding="utf-8"))
    _, _, *rows = markdown(report).partition("\n\n")[0].splitlines()
    names = [row.split("|")[1] for row in rows]
    shown = [line for line in page.read_text(encoding="utf-8").splitlines()
             if line.startswith("|") and line.split("|")[1] in names]
    assert shown == [row for row in rows if row in shown]
    assert len(shown) == (len(rows) if page == RESULTS else 5)


@pytest.mark.parametrize("page", [README, CHINESE], ids=lambda page: page.name)
def test_a_readme_is_read_in_minutes(page):
    assert len(page.read_text(encoding="utf-8").splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_make_target_that_a_page_names_exists(page):
    targets = makefile_targets((ROOT / "Makefile").read_text(encoding="utf-8"))
    assert named_targets(page.read_text(encoding="utf-8")) <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_and_picture_of_a_page_exists(page):
    assert broken_links(page) == []


def test_every_python_command_of_the_readme_answers_help_and_has_its_flags():
    text = README.read_text(encoding="utf-8")
    broken = {" ".join(words): broken_help(words) for words in own_python(text)}
    assert {command: why for command, why in broken.items() if why} == {}


@pytest.mark.slow
def test_make_base_makes_the_base_demo_again(tmp_path):
    program, script, *options = base_command()
    assert (program, script, options) == (
        ".venv/bin/python", "infer.py", ["--data", "data/sample", "--out", "out/base"])
    video = min((SAMPLE / "videos").glob("*.mp4"), key=lambda path: (path.stat().st_size, path.name))
    image = SAMPLE / "images" / f"{video.stem}.png"
    (tmp_path / "pairs.csv").write_text(f"id,video,image\n{video.stem},{video},{image}\n")
    answer = run(sys.executable, script, "--data", str(tmp_path), "--out", str(tmp_path / "out"))
    assert answer.returncode == 0, answer.stderr
    made, base = read(tmp_path / "out" / video.name), read(SAMPLE / "outputs" / video.name)
    assert len(made.frames) == len(read(video).frames)
    assert (made.frames.shape, made.fps) == (base.frames.shape, base.fps)
    # The network's float32 sums differ a little from processor to processor, and with them the frames.
    assert psnr(made.frames.astype(np.float32) - base.frames) > 40


def test_commands_are_found_in_blocks_and_in_inline_code():
    block = "# make sure\nA=1 python a.py \\\n  --b 'c d' my.py:My | tee log && make test  # it's\n"
    page = f"Run `make demo`, `make clean PYTHON=x` or `it's`.\n```bash\n{block}```\n```text\nmake x\n```\n"
    python, *others = commands(page)
    assert python == ["python", "a.py", "--b", "c d", "my.py:My"]
    assert others[:2] == [["tee", "log"], ["make", "test"]]
    assert named_targets(page) == {"demo", "clean", "test"}
    assert makefile_targets("A := 1\ndemo: setup  ## x\n\techo b: c\n.venv/installed: d\n") == {"demo"}


def test_only_commands_of_ours_are_asked_for_help():
    lines = ["python -m venv x", ".venv/bin/python infer.py --seed 1", "python3 -m lab.presenter show"]
    page = "\n".join(["```bash", *lines, "```"])
    assert list(own_python(page)) == [["infer.py", "--seed", "1"], ["-m", "lab.presenter", "show"]]


def test_a_wrong_command_is_noticed():
    assert broken_help(["infer.py", "--seed", "1"]) == ""
    assert broken_help(["infer.py", "--sed", "1"]) == "no --sed"
    assert "argument --backend: invalid choice: 'none'" in broken_help(["infer.py", "--backend", "none"])
    assert broken_help(["infers.py"]) == "No module named 'infers'"


def test_a_broken_link_is_noticed(tmp_path):
    page = tmp_path / "page.md"
    page.write_text('[a](lost.md) ![b](lost.png) <img src="lost.gif"> [c]\n\n[c]: lost.txt\n'
                    "[d](page.md#x) [e](https://example.org) [f](#x) `[g](no.md)`\n")
    assert broken_links(page) == ["lost.md", "lost.png", "lost.gif", "lost.txt"]


def test_help_of_make_names_every_target():
    targets = makefile_targets((ROOT / "Makefile").read_text(encoding="utf-8"))
    assert {"setup", "demo", "base", "test", "test-faults", "check", "help"} <= targets
    assert targets == set(re.findall(r"^  make ([\w-]+)", run("make", "help").stdout, re.MULTILINE))
