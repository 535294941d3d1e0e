"""A service within this process, whose worker is called by hand, and one that runs as users run it."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

pytest.importorskip("starlette")
pytest.importorskip("prometheus_client")
pytest.importorskip("multipart")
httpx = pytest.importorskip("httpx")

from starlette.testclient import TestClient  # noqa: E402

from pipeline.recipe import BASELINE  # noqa: E402
from pipeline.request import Limits  # noqa: E402
from pipeline.runner import start_runner  # noqa: E402
from serve.app import Service, make_app  # noqa: E402
from serve.metrics import Metrics  # noqa: E402
from serve.settings import ServeSettings  # noqa: E402
from serve.store import Store  # noqa: E402
from serve.supervisor import Supervisor  # noqa: E402
from serve.worker import make  # noqa: E402
from tests.conftest import ROOT  # noqa: E402


@pytest.fixture(scope="session")
def runner(tiny_file):
    """The tiny generator on its engines, as a worker keeps it."""
    settings = ServeSettings(None, f"{tiny_file}:Tiny", {"baseline": BASELINE})
    return start_runner(settings.run_settings("baseline", "cpu"), lambda text: None)


@pytest.fixture
def open_service(tmp_path, tiny_file):
    """A function that opens a service without workers: client, store, settings."""
    opened = []

    def start(**changed):
        home = tmp_path / "home"
        (home / "videos").mkdir(parents=True, exist_ok=True)
        plain = ServeSettings(home, f"{tiny_file}:Tiny", {"baseline": BASELINE}, limits=Limits(64, 64 * 96),
                              hosts=("testserver",))
        settings = replace(plain, **changed)
        store = Store(settings.database)
        opened.append(store)
        metrics = Metrics(store)
        supervisor = Supervisor(settings, store, metrics, lambda text: None, lambda: None)
        app = make_app(Service(settings, store, metrics, supervisor), lambda text: None)
        client = TestClient(app, raise_server_exceptions=False)
        return SimpleNamespace(client=client, store=store, settings=settings, metrics=metrics,
                               supervisor=supervisor)

    yield start
    for store in opened:
        store.close()


@pytest.fixture
def service(open_service):
    """A service without workers, and without keys."""
    return open_service()


@pytest.fixture
def work(runner):
    """A function that does what a worker does with the next job of a service; the job, or None."""
    def step(service):
        job = service.store.claim(0)
        if job:
            service.metrics.ended(*vars(make(job, service.store, runner, service.settings)).values())
        return job and service.store.get(job.id)
    return step


@pytest.fixture
def inputs(tmp_path, make_video_file, make_image_file):
    """A function that gives the files of a request with so many frames."""
    def made(frames=3, size=(64, 96)):
        video = make_video_file(tmp_path / f"{frames}-{size[0]}.mp4", frames, size)
        image = make_image_file(tmp_path / "person.png")
        return {"video": ("v.mp4", video.read_bytes()), "image": ("i.png", image.read_bytes())}
    return made


class Running:
    """A service as users run it: `python -m serve`, restarted on the same folder after a kill.

    built: the folder of graphs for one recipe on ONNX Runtime; None: the base model's, and a quicker one, on
    torch, which takes long to import.
    """

    def __init__(self, home, tiny_file, built=None):
        quick = home.with_name("quick.toml")
        quick.write_text('preset = "ultrafast"\n' + 'backend = "onnxruntime"\n' * bool(built))
        recipes = [quick] if built else [ROOT / "optimize/recipes/baseline.toml", quick]
        self.command = [sys.executable, "-m", "serve", "--home", str(home), "--port", "0",
                        "--generator", f"{tiny_file}:Tiny"]
        self.command += [text for recipe in recipes for text in ("--recipe", str(recipe))]
        self.built = {"VIVACE_BUILT": str(built)} if built else {}
        self.home, self.log = home, home.with_suffix(".log")
        self.start()

    def start(self):
        """Start it; return when its workers are ready."""
        with self.log.open("wb") as log:
            environment = {**os.environ, "OMP_NUM_THREADS": "1", **self.built}
            self.process = subprocess.Popen(self.command, cwd=ROOT, stderr=log, stdout=log, env=environment)
        until = time.monotonic() + 120
        while "is ready" not in (text := self.log.read_text()):
            assert self.process.poll() is None and time.monotonic() < until, text
            time.sleep(0.05)
        self.url = text[text.index("http://"):].split("/  ")[0]
        self.client = httpx.Client(base_url=self.url, timeout=60)

    def kill(self):
        """Kill it as the system does, without a word."""
        self.stop(signal.SIGKILL)

    def stop(self, number=signal.SIGTERM):
        """End it by a signal; return its exit status."""
        self.client.close()
        self.process.send_signal(number)
        return self.process.wait(30)

    def workers(self):
        """The process ids of its workers."""
        lines = subprocess.run(["ps", "-eo", "pid,ppid"], capture_output=True, text=True, check=True).stdout
        pairs = [tuple(map(int, line.split())) for line in lines.splitlines()[1:]]
        return [pid for pid, parent in pairs if parent == self.process.pid]

    def ended(self, name, within=120):
        """The job when it has ended."""
        until = time.monotonic() + within
        while (job := self.client.get(f"/v1/videos/{name}").json())["status"] in ("queued", "in_progress"):
            assert time.monotonic() < until, job
            time.sleep(0.05)
        return job


@pytest.fixture(scope="session")
def running(tmp_path_factory, tiny_file):
    """A running service with one worker."""
    service = Running(tmp_path_factory.mktemp("running") / "home", tiny_file)
    yield service
    if service.process.poll() is None:
        service.stop()
