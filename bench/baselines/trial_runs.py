"""Real runs of a rival in this process, for its search and its calibration: engines stay where they can."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.baselines.calibration import Calibration, Observed
from bench.baselines.entrant import Entrant
from bench.baselines.rival import Settings, load_rival
from engines.artifact import built_folder
from engines.load import Choice, start_engines
from engines.precision import choose_precisions
from engines.progress import Progress
from engines.spec import Engine
from generators.contract import Generator
from pipeline.batch.dataset import Request
from pipeline.request import Options, make_video

Say = Callable[[str], None]


def start(generator: Generator, entrant: Entrant, device: str, say: Say) -> tuple[str, dict[str, Engine]]:
    """Engines for a generator, as the entrant has them."""
    precisions = choose_precisions(entrant.precision, generator.components)
    choice = Choice(entrant.backend, precisions, device, built_folder(generator.name))
    return start_engines(generator, choice, say)


class TrialRuns:
    """Makes videos with any settings of an entrant's rival, as <id>.mp4 in a folder, one at a time."""

    def __init__(
        self,
        entrant: Entrant,
        generator: Generator,
        calibration: Calibration | None,
        requests: Sequence[Request],
        folder: Path,
        device: str = "cpu",
        lossless: bool = False,
    ) -> None:
        self._entrant, self._generator, self._calibration = entrant, generator, calibration
        self._requests = {request.id: request for request in requests}
        self._folder, self._device, self._rival = folder, device, load_rival(entrant.rival)
        self._lossless = lossless
        self._settings: Settings | None = None
        self._engines: dict[str, Engine] = {}

    def __call__(self, settings: Settings, request: str) -> tuple[Path, float]:
        """The video, and the seconds that its denoiser took."""
        if settings != self._settings:
            self._wrapped = self._rival.apply(self._generator, settings, self._calibration)
            if self._rival.inside or not self._engines:  # its hooks are in the denoiser
                self.close()
                self._engines = start(self._wrapped, self._entrant, self._device, lambda text: None)[1]
            self._settings = dict(settings)
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{request}.mp4"
        label = f"{self._rival.name} {request}"
        made = make_video(self._requests[request], path, self._wrapped, self._engines,
                          lambda total: Progress(label, total), Options(lossless=self._lossless))  # fmt: skip
        return path, made["seconds"]["denoise"]

    def close(self) -> None:
        """Close the engines."""
        for engine in self._engines.values():
            engine.close()
        self._engines = {}


def calibrate(generator: Generator, requests: Sequence[Request], device: str, say: Say) -> Calibration:
    """Base runs of these requests by torch in fp32, watched."""
    observed = Observed(generator)
    _, engines = start(observed, Entrant("calibration", "fewer-steps"), device, say)
    try:
        with TemporaryDirectory() as folder:
            for request in requests:
                make_video(request, Path(folder) / "video.mp4", observed, engines,
                           lambda total: Progress("base run", total))  # fmt: skip
    finally:
        for engine in engines.values():
            engine.close()
    return observed.result()
