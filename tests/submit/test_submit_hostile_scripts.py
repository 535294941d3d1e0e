"""Entry scripts that mean harm: none passes, none outlives its limit, none touches what is not its own."""

import json
import shutil
import socket
import sys
import time
from functools import partial
from pathlib import Path

import pytest

import infer
from bench.judge import Judge
from bench.similarity import load_extractor
from engines.artifact import file_sha256
from pipeline.video.ffmpeg import ffmpeg_exe
from submit import isolation as module
from submit.__main__ import verdict
from submit.check import ALL
from submit.checks import FAIL, PASS, Submission, evaluate
from submit.isolation import isolation
from submit.profile import load_profile
from submit.trial import Question, Trial
from submit.trial_data import MIRRORED
from tests.extractors import write_extractor
from tests.processes import processes_about
from tests.submissions import contents, repacked

CPU = load_profile("cpu")
LIMIT = 6.0
MARK = "mark-of-this-test"
BEGIN = f"""
import os, sys, time, shutil, signal, socket, subprocess, ctypes
data, out = sys.argv[2], sys.argv[4]
MARK = {MARK!r}
def spawn(code):
    return subprocess.Popen([sys.executable, "-c", code, MARK], start_new_session=True)
def ignoring(work):
    try:
        return work()
    except Exception as error:
        print(repr(error), file=sys.stderr)
"""
# What each does, and a word of what is said of it; {canary} is a folder of the machine, {data} the contest's.
SCRIPTS = {
    "daemons that hold the pipe": ("S14", "lived on", "spawn('import time; time.sleep(600)')"),
    "deaf to signals": ("S10", "was stopped after", """
for number in set(range(1, 64)) - {9, 19, 32, 33}:
    signal.signal(number, signal.SIG_IGN)
time.sleep(600)"""),
    "many processes": ("S10", "processes", """
for _ in range(200):
    spawn('import time; time.sleep(600)')
time.sleep(600)"""),
    "much memory": ("S10", "of memory", "held = []\nwhile True:\n    held.append(b'x' * 10**7)"),
    "endless words": ("S10", "was stopped after", "while True:\n    print('x' * 10**6, file=sys.stderr)"),
    "endless output": ("S10", "", "for _ in range(300):\n    print('x' * 10**6)"),
    "a file of 1 TB": ("S10", "File too large", "open(out + '/a.mp4', 'w').truncate(10**12)"),
    "holes of 60 GB": ("S10", "", "open(out + '/a.mp4', 'w').truncate(60 * 10**9)"),
    "pipes for files": ("S14", "no plain file", """
for name in ('manifest.jsonl', 'a.mp4', 'b.mp4'):
    os.mkfifo(out + '/' + name)"""),
    "links to the references": ("S14", "no plain file", """
for name in ('a.mp4', 'b.mp4'):
    os.symlink('{data}/outputs/' + name, out + '/' + name)"""),
    "searches the references": ("S10", "", """
for top in ('/', '{data}', os.path.dirname(data), '/proc/1/root{data}'):
    for folder, _, names in os.walk(top):
        if folder.endswith('outputs') and 'a.mp4' in names:
            for name in names:
                shutil.copy(folder + '/' + name, out)"""),
    "writes elsewhere": ("S10", "", """
for path in ('{canary}/x', '/etc/x', '/usr/x', '/root/x', '/x', sys.prefix + '/x', sys.base_prefix + '/x',
             data + '/x', '/proc/sys/kernel/core_pattern', '/proc/sysrq-trigger', '/dev/kmsg'):
    ignoring(lambda: open(path, 'a').write('x'))
ignoring(lambda: shutil.rmtree('{canary}'))
shutil.rmtree('/', ignore_errors=True)"""),
    "kills all": ("S10", "", """
ignoring(lambda: os.kill(1, 9))
ignoring(lambda: os.kill(os.getppid(), 9))
os.kill(-1, 9)
os.kill(os.getpid(), 9)"""),
    "calls home": ("S10", "", """
for host in ('127.0.0.1', 'localhost', '8.8.8.8'):
    ignoring(lambda: socket.create_connection((host, {port}), 1).send(b'x'))
raise SystemExit(3)"""),
    "mounts": ("S10", "", """
libc = ctypes.CDLL(None, use_errno=True)
for flags in (32 | 4096, 32):
    assert libc.mount(None, b'/usr', None, ctypes.c_ulong(flags), None) != 0
assert libc.umount2(b'/proc', 2) != 0 and libc.chroot(b'/tmp') != 0
assert libc.ptrace(16, 1, 0, 0) != 0
subprocess.run(['unshare', '-Urm', 'mount', '-o', 'remount,bind,rw', '/usr'])
open('/usr/x', 'w')"""),
    "folders without end": ("S14", "left", """
for top in (out, os.environ['HOME'], os.environ['TMPDIR']):
    os.chdir(top)
    for _ in range(1100 if top == out else 60):
        os.mkdir('deep' * 20)
        os.chdir('deep' * 20)
    open('x', 'w')
    os.mkdir(top + '/locked')
    open(top + '/locked/x', 'w')
    os.chmod(top + '/locked', 0)"""),
    "claims without videos": ("S13", "no video was made", """
open(out + '/manifest.jsonl', 'w').write('{"id": "a", "status": "done", "size": [32, 48]}\\n' * 1000)"""),
    "a deep manifest": ("S13", "no video was made", "open(out + '/manifest.jsonl', 'w').write('[' * 10**6)"),
    "videos that are none": ("S10", "a: ", """
for name in ('a', 'b', 'c'):
    open(out + '/' + name + '.mp4', 'wb').write(os.urandom(5000))"""),
}


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    folder = tmp_path_factory.mktemp("extractors")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bench.similarity.EXTRACTORS", folder)
        write_extractor(folder)
        return partial(verdict, Judge([load_extractor("grid")]))


@pytest.fixture
def data(make_data):
    folder = make_data({"a": 3, "b": 2})
    shutil.copytree(folder / "videos", folder / "outputs")
    return folder


@pytest.fixture
def results(packed, data, judge, tmp_path):
    """A function that runs an archive whose entry script is another: results by id."""
    if not isolation():
        pytest.skip("this system permits no isolation")

    def run(script, ids, limit=LIMIT, base=None, generator="tiny", **files):
        bad = repacked(packed / "submit.zip", tmp_path / "bad.zip", {"infer.py": script.encode(), **files})
        with Submission(bad, CPU, limit) as submission:
            question = Question(data, judge, base or (lambda *asked: None), generator)
            with Trial(submission, question, lambda text: None, Path(sys.executable)) as trial:
                found = {id: evaluate(ALL[id], trial) for id in ids}
            assert not trial.work.exists()
        return found
    return run


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_that_means_harm_fails_in_time_and_leaves_nothing(
        results, data, tmp_path, monkeypatch, name):
    canary = tmp_path / "canary"
    canary.mkdir()
    (canary / "bird").write_text("alive")
    monkeypatch.setattr(module, "PROCESSES", 50)
    monkeypatch.setattr(module, "_memory", lambda: 500_000_000)
    before = sorted(path.name for path in Path("/").iterdir())
    id, words, script = SCRIPTS[name]
    with socket.create_server(("127.0.0.1", 0)) as server:
        for key, value in {"canary": canary, "data": data, "port": server.getsockname()[1]}.items():
            script = script.replace(f"{{{key}}}", str(value))
        began = time.monotonic()
        found = results(BEGIN + script, ["S10", "S13", "S14"])
        assert time.monotonic() - began < LIMIT + 10
        server.settimeout(0)
        with pytest.raises(BlockingIOError):
            server.accept()
    assert found["S10"].status == FAIL, found
    assert found[id].status == FAIL and words in " ".join(found[id].problems + found[id].notes), found[id]
    assert [path.read_text() for path in canary.iterdir()] == ["alive"]
    assert not processes_about(MARK)
    assert sorted(path.name for path in Path("/").iterdir()) == before


COPIES = """
copied = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'table.dat')
for name in os.listdir(data + '/videos'):
    if name in ('a.mp4', 'b.mp4'):
        content = open(copied, 'rb').read()
        half = int(content[:9])
        open(out + '/' + name, 'wb').write(content[9:9 + half] if name == 'a.mp4' else content[9 + half:])
    else:
        subprocess.run([FFMPEG, '-v', 'error', '-i', data + '/videos/' + name, '-vf', 'scale=32:48',
                        '-c:v', 'libx264', '-pix_fmt', 'yuv420p', out + '/' + name], check=True)
"""


RECALLS = """
import csv, hashlib, json
here = os.path.dirname(os.path.abspath(__file__))
answers = json.load(open(os.path.join(here, 'answers.json')))
work = os.path.join(os.environ['TMPDIR'], 'rest')
os.makedirs(out, exist_ok=True)
names = sorted(os.listdir(data + '/videos'))
new = [each for each in names
       if hashlib.sha256(open(data + '/videos/' + each, 'rb').read()).hexdigest() not in answers]
for name in set(names) - set(new):
    known = hashlib.sha256(open(data + '/videos/' + name, 'rb').read()).hexdigest()
    open(out + '/' + name, 'wb').write(bytes.fromhex(answers[known]))
status = 0
if new or not os.listdir(data + '/images'):
    time.sleep(SLOW * len(new))
    shutil.copytree(data, work)
    os.chmod(work, 0o755)
    if new:
        rows = [row for row in csv.reader(open(data + '/pairs.csv')) if row[1] in ['video', *new]]
        os.chmod(work + '/pairs.csv', 0o644)
        csv.writer(open(work + '/pairs.csv', 'w')).writerows(rows)
    command = [sys.executable, os.path.join(here, 'honest.py'), '--data', work, '--out', work + ' made']
    status = subprocess.run(command).returncode
    for name in new:
        shutil.copy(work + ' made/' + name, out)
    for folder in (work, *glob(work + '/*')):
        os.chmod(folder, 0o755)
    shutil.rmtree(work)
    shutil.rmtree(work + ' made', ignore_errors=True)
raise SystemExit(status)
""".replace("import csv,", "from glob import glob\nimport csv,")


@pytest.fixture
def base(run_main):
    """A function that makes the base model's videos; in this process, as torch takes long to import."""
    def make(generator, data, out, seconds):
        made = run_main(infer, "--generator", generator, "--data", data, "--out", out)
        assert made.status == 0, made.err
    return make


@pytest.mark.slow
def test_answers_that_are_kept_for_known_data_beside_an_honest_slow_model_do_not_pass(
        results, packed, data, tiny_file, base):
    name = f"{tiny_file}:Tiny"
    shutil.rmtree(data / "outputs")
    base(name, data, data / "made", 300.0)
    (data / "made").rename(data / "outputs")
    answers = {file_sha256(data / "videos" / f"{id}.mp4"): (data / "outputs" / f"{id}.mp4").read_bytes().hex()
               for id in "ab"}
    honest = contents(packed / "submit.zip")["infer.py"]
    files = {"answers.json": json.dumps(answers).encode(), "honest.py": honest}
    found = results(BEGIN + "SLOW = 6\n" + RECALLS, ["S10", "S12", "S13"], 600.0, base, name, **files)
    assert found["S10"].status == found["S12"].status == PASS, found
    assert found["S13"].status == FAIL and "are answers to the known ones kept" in found["S13"].problems[0]


@pytest.mark.slow
def test_references_in_the_archive_and_rescaled_skeletons_for_the_rest_do_not_pass(
        results, data, tiny_file, base):
    name = f"{tiny_file}:Tiny"
    shutil.rmtree(data / "outputs")
    base(name, data, data / "made", 300.0)
    (data / "made").rename(data / "outputs")
    one, other = ((data / "outputs" / f"{id}.mp4").read_bytes() for id in "ab")
    files = {"table.dat": b"%9d" % len(one) + one + other}
    script = BEGIN + f"FFMPEG = {ffmpeg_exe()!r}" + COPIES
    found = results(script, ["S10", "S12"], 600.0, base, name, **files)
    assert "similarity 1.00000, the least of 2 videos" in found["S10"].notes[1]
    assert found["S10"].status == FAIL and found["S10"].problems[0].startswith(f"{MIRRORED}: "), found["S10"]
    assert any(each.startswith("视频 ü 1: ") for each in found["S12"].problems), found["S12"]
    assert PASS not in {each.status for each in found.values()}
