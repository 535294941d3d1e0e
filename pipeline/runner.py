"""Make one video after another, with a manifest line for each, in this process or in a worker's.

Settings are plain values that can be pickled; engines start in the process that makes the videos.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from engines.artifact import built_files, fingerprint
from engines.deferred_engines import defer_steps
from engines.device_arrays import Place, place_for
from engines.errors import Exit, InputError, OutputError, ProgramKilled, UsageError, exit_of
from engines.load import precisions_on, start_engines
from engines.start_times import start_seconds
from generators.adapters import MARK, split_name
from generators.contract import FROM_FOLDER, Engines, Generator, GeneratorError, load_generator
from generators.resize import Fit
from generators.wrapper_file import files_beside
from pipeline.batch.dataset import Request
from pipeline.recipe import BASELINE, Recipe
from pipeline.request import Options, StartProgress, make_video
from pipeline.source import Inputs, Limits
from pipeline.stopwatch import Seconds
from pipeline.streamed_request import sampling_of
from pipeline.video.writer import check_place

# These errors fail one video, and the run goes on with the next; any other error ends the run.
VIDEO_FAILURES = (InputError, OutputError, MemoryError, FloatingPointError)
TRIES = 2  # of a video whose ffmpeg process was killed from outside


@dataclass(frozen=True)
class Settings:
    """The settings of a run, which can be pickled. generator: a name or path for load_generator.

    lossless: files keep every RGB value. fit: the rule of FITS that brings inputs to the generator's size;
    None: its own rule. stream: sample piece by piece. UsageError: that does not go with the recipe.
    """

    generator: str
    recipe: Recipe = BASELINE
    device: str = "cpu"
    lossless: bool = False
    limits: Limits = Limits()
    fit: str | None = None
    stream: bool = False

    def __post_init__(self) -> None:
        if self.stream and self.recipe.technique:
            raise UsageError(
                "--stream: a technique keeps what all windows of a step have, and here they are not "
                "evaluated together; leave --stream or the technique out"
            )

    @property
    def options(self) -> Options:
        """The options of each video."""
        return Options(self.recipe, self.lossless, self.limits, sampling=sampling_of if self.stream else None)

    def load(self) -> Generator:
        """Load the generator and adapt it to the recipe and the fit. GeneratorError, RecipeError."""
        generator = self.recipe.adapt(load_generator(self.generator))
        width, height = generator.size
        if not self.lossless and (width % 2 or height % 2):
            how = "give the generator an even size, or use --lossless"
            raise GeneratorError(f"{generator.name} makes videos of {width} x {height}, which is odd; {how}")
        if self.fit:
            generator.fit = Fit(self.fit, generator.size)
        return generator

    def absolute(self) -> Settings:
        """Return the settings with absolute paths of the user's generator, or its folder, and of adapters."""
        base, loras = split_name(self.generator)
        kind, _, folder = base.partition("=")
        path, _, name = base.rpartition(":")
        if folder and kind in FROM_FOLDER:
            base = f"{kind}={Path(folder).absolute()}"
        elif path:
            base = f"{Path(path).absolute()}:{name}"
        found = MARK.join([base, *(f"{lora.path.absolute()}:{lora.scale!r}" for lora in loras)])
        return replace(self, generator=found)


class VideoRunner:
    """A callable that makes videos, one at a time.

    generator: the one that recipe.adapt() returned. ran_with: further facts that the videos depend on (such
    as backend and device), for their manifest lines. identity: by manifest field, everything except the
    inputs that decides how a video looks. place: of the engines' outputs; None: the host. started: what
    starting took, for the first video's line.
    """

    def __init__(
        self,
        generator: Generator,
        engines: Engines,
        options: Options = Options(),
        ran_with: Mapping[str, object] | None = None,
        place: Place | None = None,
        started: Seconds | None = None,
    ) -> None:
        self.generator, self.engines, self.options = generator, engines, options
        self._running = place.running if place else nullcontext
        self._inputs = Inputs(generator, options.limits, streamed=options.sampling is not None)
        self.started = started
        recipe = options.recipe
        settings = json.dumps(recipe.settings(), sort_keys=True)
        self.identity = {
            "generator": generator.name,
            **identity_of(generator),
            "recipe": recipe.name,
            "recipe_sha256": hashlib.sha256(settings.encode()).hexdigest(),
            "lossless": options.lossless,
            **(ran_with or {}),
        }

    def __call__(
        self,
        request: Request,
        out: Path,
        start_progress: StartProgress,
        subfolder: str = "",
        upcoming: Request | None = None,
    ) -> tuple[dict[str, object], Exit]:
        """Make out/<id>.mp4; return its manifest line, and OK or why it failed.

        subfolder: of out, where the video is written instead, to be moved later; error texts name out.
        upcoming: the request that will be made next, to read meanwhile; `close` lets go of it. Only
        VIDEO_FAILURES are caught; EngineError and bugs are raised.
        """
        self._inputs.upcoming = upcoming
        folder, name = out / subfolder, f"{request.id}.mp4"
        output = folder / name
        line, notes = {**request.described(), **self.identity}, []
        while True:
            try:
                check_place(out / name)
                with self._running():
                    made = make_video(
                        request, output, self.generator, self.engines, start_progress, self.options,
                        self._inputs,
                    )  # fmt: skip
            except VIDEO_FAILURES as error:
                text = (str(error) or type(error).__name__).replace(str(folder), str(out))
                if isinstance(error, MemoryError) and self._inputs.drop():
                    self._inputs.upcoming = None
                    continue
                if isinstance(error, ProgramKilled) and len(notes) + 1 < TRIES:
                    notes.append(f"made at the second try, because {text}")
                    continue
                return {**line, "status": "failed", "error": text}, exit_of(error)
            made["notes"] += notes
            if self.started:
                parts, self.started = self.started.rounded(), None
                made["start_seconds"] = {**parts, "components": start_seconds(self.engines)}
            return {**line, "status": "done", "output": str(output), **made}, Exit.OK

    def close(self) -> None:
        """Let go of what was read for a next video; engines go on."""
        self._inputs.drop()


def start_runner(settings: Settings, say: Callable[[str], None], resident: bool = True) -> VideoRunner:
    """Load the generator, start its engines, and return the runner. EngineError, and errors of Settings.

    resident: what engines compute may stay on their device until a video's pixels are there.
    """
    started = Seconds()
    with started("generator"):
        generator = settings.load()
        choice = settings.recipe.choice(generator, settings.device)
    with started("engines"):
        backend, engines = start_engines(generator, choice, say)
    place = None
    resident = resident and getattr(generator, "resident", False)
    if resident and not settings.recipe.technique:
        place = place_for(engines, settings.device, say)
    if settings.recipe.step_graph:
        engines, place = defer_steps(engines, place, say)
    ran_with = {"backend": backend, "precision": precisions_on(backend, choice), "device": settings.device}
    ran_with["fit"] = settings.fit
    ran_with["built"] = built_files(engines)
    with started("identity"):
        return VideoRunner(generator, engines, settings.options, ran_with, place, started)


def identity_of(generator: Generator) -> dict[str, object]:
    """Tell what decides what a generator computes, by manifest field: files, and adapters if it has any.

    Adapters make it another base model. Where their files are not here, as in a submission, names count.
    """
    in_order = [path for path in getattr(generator, "lora_files", ()) if path.is_file()]
    found = {"generator_sha256": fingerprint(files_of(generator), in_order)}
    by_component = dict.fromkeys(map(tuple, getattr(generator, "loras", {}).values()))
    named = [lora for each in by_component for lora in each]
    return {**found, "loras": named} if named else found


def files_of(generator: Generator) -> set[Path]:
    """Return the files here that decide what a generator computes, with those of its classes' modules.

    Its settings' and its technique's files are among them, and what a wrapper's file imports of its own
    folder. A submission may come without the weights, so missing files are left out.
    """
    more = (path for name in ("settings_files", "technique_files") for path in getattr(generator, name, ()))
    files = (*generator.fingerprint_files, *more)
    names = {kind.__module__ for kind in type(generator).__mro__} - sys.stdlib_module_names
    files += tuple(path for name in names for path in files_beside(name))
    modules = (getattr(sys.modules.get(name), "__file__", None) for name in names)
    return {path for path in map(Path, (*files, *filter(None, modules))) if path.is_file()}
