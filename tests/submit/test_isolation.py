"""What a program in a jail sees, reaches and takes, whichever tool makes the jail."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from engines.cli import printable
from submit import isolation as module
from submit.checks import NotEvaluated
from submit.isolation import TIMED_OUT, View
from submit.sandbox import Environment, make_environment, read_only, remove

PYTHON = os.path.realpath(sys.executable)
LOOK = """
import os, sys
seen = {top: sorted(os.listdir(top)) for top in sys.argv[1:]}
status = dict(line.split(':\\t') for line in open('/proc/self/status') if ':\\t' in line)
networks = [line.split(':')[0].strip() for line in open('/proc/net/dev')][2:]
print(seen, int(status['CapEff'], 16), int(status['NoNewPrivs']), os.getpid(), networks,
      sorted(os.environ), sorted(int(each) for each in os.listdir('/proc/self/fd')), file=sys.stderr)
"""
WRITE = """
import sys
for path in sys.argv[1:]:
    try:
        open(path, 'w')
    except OSError as error:
        print(error.errno, path, file=sys.stderr)
"""


@pytest.fixture(params=["bwrap", "unshare"])
def jailed(request, tmp_path):
    """A function that runs Python code in a jail."""
    def run(code, *arguments, seconds=20.0, folder=Path("/"), variables=None, **view):
        view["readable"] = [Path(sys.base_prefix), *view.get("readable", ())]
        command = [PYTHON, "-I", "-S", "-c", code, *map(str, arguments)]
        root = tmp_path / "root"
        root.mkdir(exist_ok=True)
        return module._run(request.param, command, variables or {}, folder, View(**view), root, seconds)
    if not shutil.which(request.param) or run("pass").status:
        pytest.skip(f"{request.param} makes no namespaces here")
    return run


def test_a_jail_shows_what_it_is_told_to_and_no_more(jailed, tmp_path, monkeypatch):
    shown, home, temporary = (tmp_path / name for name in ("shown", "home", "temporary"))
    for folder in (shown / "outputs", home, temporary):
        folder.mkdir(parents=True)
    (shown / "outputs" / "reference").touch()
    (temporary / "t").touch()
    (tmp_path / "secret").touch()
    monkeypatch.setenv("VIVACE_SECRET", "x")
    ended = jailed(LOOK, "/tmp", shown, shown / "outputs", tmp_path, folder=home,
                   variables={"A": "1"}, readable=[shown], writable=[home], temporary=temporary,
                   hidden=[shown / "outputs"])
    assert ended.status == 0, ended.said
    assert f"'{shown}': ['outputs'], '{shown}/outputs': []" in ended.said
    assert "secret" not in ended.said and "['lo'] ['A'" in ended.said and "[0, 1, 2, 3]" in ended.said
    assert "} 0 1 " in ended.said and "'t'" in ended.said


def test_a_jail_keeps_what_may_be_written_and_nothing_else(jailed, tmp_path):
    free, fixed = tmp_path / "free", tmp_path / "fixed"
    free.mkdir()
    fixed.mkdir()
    wanted = [fixed / "x", "/x", "/usr/x", "/etc/passwd", "/proc/sys/kernel/core_pattern", "/sys/devices/x"]
    ended = jailed(WRITE, free / "x", *wanted, readable=[fixed], writable=[free])
    assert [path.name for path in free.iterdir()] == ["x"] and not list(fixed.iterdir())
    assert len(ended.said.splitlines()) == len(wanted), ended.said


def test_a_jail_ends_in_time_with_its_status_or_with_all_that_it_started(jailed):
    assert jailed("raise SystemExit(7)").status == 7
    assert jailed("import os; os.kill(os.getpid(), 9)").status == 128 + 9
    ended = jailed("import os, time\nfor _ in range(3):\n    os.fork()\ntime.sleep(99)", seconds=2.0)
    assert ended.status == TIMED_OUT and ended.seconds < 8


def test_an_environment_is_not_started_to_find_what_it_consists_of(tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").write_text(f"#!/bin/sh\ntouch {tmp_path}/canary\n")
    (tmp_path / "bin" / "python").chmod(0o755)
    assert Environment(tmp_path / "bin" / "python").seen == [Path(sys.base_prefix), tmp_path]
    assert not (tmp_path / "canary").exists()


def test_why_an_environment_cannot_be_made_is_said_with_its_cause(tmp_path):
    """As venv itself does not: it says that ensurepip "returned non-zero exit status 1", and no more."""
    made = "import os, sys; print('no room for pip', file=sys.stderr); sys.exit(1)"
    (tmp_path / "python").write_text(f"""#!/bin/sh
mkdir -p "{tmp_path}/new/bin"
printf '#!{sys.executable}\\n%s' "{made}" > "{tmp_path}/new/bin/python"
chmod +x "{tmp_path}/new/bin/python"
""")
    (tmp_path / "python").chmod(0o755)
    with pytest.raises(NotEvaluated, match="(?s)ensurepip .* ended with status 1 here:.no room for"):
        make_environment(tmp_path / "new", str(tmp_path / "python"), tmp_path, [], lambda: 60.0)


def test_removing_a_folder_leaves_what_links_in_it_lead_to_as_it_was(tmp_path):
    (tmp_path / "other").mkdir(0o500)
    (tmp_path / "work" / "deep").mkdir(parents=True)
    for name in ("link", "deep/link"):
        (tmp_path / "work" / name).symlink_to(tmp_path / "other")
    read_only(tmp_path / "work")
    remove(tmp_path / "work")
    assert [each.name for each in tmp_path.iterdir()] == ["other"]
    assert (tmp_path / "other").stat().st_mode & 0o777 == 0o500


def test_control_characters_are_written_out_and_words_of_any_script_are_not():
    assert printable("\x1b[2J\x07 a\rb \x9b \x7f \u202e") == (
        "\\u001b[2J\\u0007 a\\u000db \\u009b \\u007f \\u202e")
    assert printable("提交 ü\tпривет\n") == "提交 ü\tпривет\n"
