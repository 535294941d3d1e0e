"""A report of two runs, a headless Chromium to look at it with, and timing by a stand-in for infer.py."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from bench import timing
from bench.judge import Folders, Judge, judge_folder
from bench.report import write_report
from bench.similarity import Cosine
from bench.timed_run import Job
from bench.verdict import Question, make_report, run_entry
from tests.clips import write
from tests.timing_runner import Runner

FRAMES, BITS = 40, 6
TIMING = {"contest_seconds": 4.0, "seconds_per_video": {"p50": 3.0, "p90": 3.5}, "cold_start": 1.0,
          "repeat_ratio": 1.0, "repeat_saved": 0.0, "peak_memory_mb": 800, "build_seconds": 12.5,
          "stages": {"read": 0.1, "denoise": 2.5, "other": 0.4}}


def numbered(frames):
    """Frames of 96x64 with their number in six blocks, black for 0 and white for 1."""
    video = np.full((frames, 64, 96, 3), 90, np.uint8)
    for number in range(frames):
        for bit in range(BITS):
            video[number, :16, 16 * bit:16 * bit + 16] = 255 * (number >> bit & 1)
    return video


class Alike:
    """An extractor that finds everything alike, more so from frame to frame."""

    name = "alike"

    def pair(self):
        cosine = Cosine(0.99, list(np.linspace(0.98, 1, FRAMES)))
        return SimpleNamespace(update=lambda *pair: None, summary=lambda: cosine)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A report on two runs, one of a hostile name, with a video each that plays and one that failed."""
    folder = tmp_path_factory.mktemp("report")
    frames = numbered(FRAMES)
    for name in ("reference", "one", "two"):
        (folder / name).mkdir()
        changed = np.where(frames < 200, frames + 5, frames)
        write(folder / name / "a.mp4", frames if name == "reference" else changed)
    write(folder / "reference" / "<img src=x onerror=alert(1)>.mp4", frames[:2])
    question = Question(folder, folder / "reference", ["alike"], 10.0, 3, (0.5, 1.0, 9.25))
    runs = []
    for name in ("one", "two"):
        folders = Folders(folder / "reference", folder / name, {})
        comparisons = judge_folder(Judge([Alike()]), folders, lambda text: None)
        comparisons[1]["metrics"]["vmaf"] = 81.2
        comparisons[1]["per_frame"]["psnr"][3] = None
        comparisons[1]["per_frame"]["temporal_error"] = [None] * FRAMES
        shown = name if name == "one" else "</script><script>alert(2)</script>"
        failed = {"b<i>": "is damaged"} if name == "one" else {}
        recipe = {"precision": "fp32", "note": f"of {name}"}
        measured = {"timing": TIMING, "speed_ratio": 1.5, "recipe": recipe, "failed": failed}
        runs.append(run_entry(shown, folder / name, comparisons, question, measured))
    return make_report(runs, question, "one", 0.01)


@pytest.fixture(scope="module")
def index(report, tmp_path_factory):
    """The report's page, with its videos in it."""
    return write_report(report, tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def browser():
    """Debian's Chromium; without it, or without playwright, the tests are skipped."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("there is no chromium; run: apt-get install chromium")
    api = pytest.importorskip("playwright.sync_api", reason="run: pip install playwright")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(browser):
    """A function that opens a page; what left it and what the console said are checked at the end."""
    context = browser.new_context(viewport={"width": 1100, "height": 900})
    page, left, said = context.new_page(), [], []
    page.on("request", lambda request: left.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))

    def visit(index):
        page.goto(index.as_uri())
        return page

    yield visit
    context.close()
    assert [url for url in left if not url.startswith(("file:", "blob:", "data:"))] == [] and said == []


@pytest.fixture
def page(visit, index):
    """The report, opened."""
    return visit(index)


@pytest.fixture
def runner():
    return Runner()


@pytest.fixture
def timed(runner, make_data, tmp_path, monkeypatch):
    """A function that times recipes on two pairs with the runner, into its out: runs by name."""
    monkeypatch.setattr(timing.os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    data, said = make_data({"a": 1, "b": 1}), []

    def run(*recipes, rounds=3, start=runner, data=data, **options):
        job = Job(data, tmp_path / "out", rounds=rounds, **options)
        return {each["name"]: each for each in timing.time_recipes(recipes, job, said.append, start)}
    run.said, run.out, run.data = said, tmp_path / "out", data
    return run
