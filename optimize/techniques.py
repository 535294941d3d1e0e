"""Find the fastest settings of a technique whose videos keep to a goal: its search space is walked.

Real videos decide. What was made and judged is kept in a record, where the same search finds it again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from bench.quality_goal import Goal, Judged
from engines.artifact import fingerprint, key
from engines.files import append_line, atomic_write
from engines.load import start_engines
from engines.progress import Progress
from engines.spec import Engine
from generators.contract import Generator, load_generator
from optimize.steps.tune import TuningJob, judge_of
from optimize.steps.tuner import TuningError
from pipeline.batch.dataset import Request, first_requests
from pipeline.batch.run_folder import check_replaced, check_writable, locked_folder
from pipeline.caches.technique import Number, SearchSpace, TechniqueChoice, load_technique
from pipeline.recipe import Recipe
from pipeline.request import Options, make_video
from pipeline.runner import identity_of
from pipeline.video.base_colours import as_base_videos

MOST = 60  # settings that are tried
Settings = Mapping[str, Number]


@dataclass(frozen=True)
class Tried:
    """Settings that were tried: videos up to the first that fails, and seconds of the denoiser on them."""

    settings: Settings
    seconds: float
    videos: list[Judged]
    reasons: tuple[str, ...]

    @property
    def passes(self) -> bool:
        """Whether all videos do."""
        return not self.reasons


@dataclass(frozen=True)
class Found:
    """best: the fastest that passes, None if nothing does. complete: not ended by the limit of settings."""

    best: Tried | None
    tried: list[Tried]
    complete: bool


def tune_technique(
    job: TuningJob, goal: Goal, recipe: Recipe, out: Path, say: Callable[[str], None], most: int = MOST
) -> Found:
    """Write the recipe with the fastest settings of its technique to out, a TOML file.

    recipe: names a technique, and engines; its settings are ignored. What was measured is kept in a folder
    beside out, and the same call goes on from there. InputError: no pairs, or a base video is missing.
    FolderError: out cannot be written. TuningError: nothing keeps to the goal. Whatever else loading
    extractors, generator and engines raises.
    """
    generator, folder = load_generator(job.generator), out.with_suffix(".tuning")
    check_replaced(out)
    requests = first_requests(job.data, say=say)
    judge = judge_of(job, requests)
    check_writable(folder)
    coded = recipe if job.lossless else as_base_videos(recipe, job.data, lambda text: None)
    with locked_folder(folder), closing(TechniqueRuns(coded, generator, job, folder / "videos")) as runs:
        tried = {"runs": runs.identity(requests), "judge": judge.identity}
        record = folder / f"technique-{key(tried)}.jsonl"
        search = Search(requests, runs, judge, record, say, most)
        found = search.fastest(load_technique(recipe.technique.name).search_space(generator), goal)
    if found.best is None:
        reasons = found.tried[-1].reasons
        failed = f"none of {len(found.tried)} settings of {recipe.technique.name} keeps to the goal"
        raise TuningError("\n".join([f"{failed}; the last one failed by:", *reasons]))
    complete = "" if found.complete else ", where the limit of settings ended the search"
    note = (
        f"The fastest of {len(found.tried)} settings for {generator.name} on {len(requests)} videos, to "
        f"similarity {goal.similarity:g} and PSNR {goal.psnr:g} dB{complete}."
    )
    chosen = TechniqueChoice(recipe.technique.name, found.best.settings)
    with atomic_write(out) as draft:
        draft.write_text(replace(recipe, technique=chosen, note=note).to_toml(), encoding="utf-8")
    return found


class TechniqueRuns:
    """Makes videos with any settings of a recipe's technique, as <id>.mp4 in a folder, one at a time.

    Engines stay, but for a technique that hooks into the network.
    """

    def __init__(self, recipe: Recipe, generator: Generator, job: TuningJob, folder: Path) -> None:
        self._recipe, self._generator, self._job, self._folder = recipe, generator, job, folder
        self._inside = load_technique(recipe.technique.name).inside
        self._settings: Settings | None = None
        self._engines: dict[str, Engine] = {}

    def __call__(self, settings: Settings, request: Request) -> tuple[Path, float]:
        """Make the video of a request; its path, and the seconds that its denoiser took."""
        recipe = self._with(settings)
        if settings != self._settings:
            self._adapted = recipe.adapt(self._generator)
            if self._inside or not self._engines:
                self.close()
                choice = recipe.choice(self._adapted, self._job.device)
                self._engines = start_engines(self._adapted, choice, lambda text: None)[1]
            self._settings = dict(settings)
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{request.id}.mp4"
        made = make_video(request, path, self._adapted, self._engines,
                          lambda total: Progress(f"{recipe.technique.name} {request.id}", total),
                          Options(recipe, self._job.lossless))  # fmt: skip
        return path, made["seconds"]["denoise"]

    def identity(self, requests: Sequence[Request]) -> str:
        """A key that changes with all that a video is made from, but for the settings. InputError."""
        adapted = self._with({}).adapt(self._generator)
        files = {each.id: [each.seed, each.hashes(), dict(each.columns)] for each in requests}
        how = {**self._with({}).settings(), "device": self._job.device, "lossless": self._job.lossless}
        code = [identity_of(self._generator), fingerprint(adapted.technique_files)]
        return key({"code": code, "files": files, "how": how})

    def close(self) -> None:
        """Close the engines."""
        for engine in self._engines.values():
            engine.close()
        self._engines = {}

    def _with(self, settings: Settings) -> Recipe:
        return replace(self._recipe, technique=TechniqueChoice(self._recipe.technique.name, settings))


class _Enough(Exception):
    """The limit of settings is reached."""


class Search:
    """One technique's search on these requests, all of them or up to the first that fails.

    record: a file that gets a line for every video that was made; none is made again, for another goal
    neither. most: settings to try for a goal.
    """

    def __init__(
        self,
        requests: Sequence[Request],
        run: Callable[[Settings, Request], tuple[Path, float]],
        judge: Callable[[Request, Path], Judged],
        record: Path,
        say: Callable[[str], None],
        most: int = MOST,
    ) -> None:
        self._requests, self._run, self._judge, self._say, self._most = list(requests), run, judge, say, most
        self._record, self._known = record, _read_record(record)

    def fastest(self, space: SearchSpace, goal: Goal) -> Found:
        """Walk at most two settings: at each value of the first, find how far the last one can go.

        As if all gentler values passed and all others failed; but as thresholds do not always keep to that,
        the two next to the end are tried again and again until both fail.
        """
        self._tried: dict[str, Tried] = {}
        try:
            self._walk(space, goal)
        except _Enough:
            complete = False
        else:
            complete = True
        tried = list(self._tried.values())
        best = min((each for each in tried if each.passes), key=lambda each: each.seconds, default=None)
        return Found(best, tried, complete)

    def _walk(self, space: SearchSpace, goal: Goal) -> None:
        *coarse, (fine, values) = space.items()
        end = len(values) // 2
        for fixed in [{coarse[0][0]: value} for value in coarse[0][1]] if coarse else [{}]:

            def passes(at: int, fixed: Settings = fixed) -> bool:
                return self._passes({**fixed, fine: values[at]}, goal)

            end = max(last_passing(passes, len(values), end), 0)

    def _passes(self, settings: Settings, goal: Goal) -> bool:
        name = _key(settings)
        if name not in self._tried:
            if len(self._tried) >= self._most:
                raise _Enough
            self._tried[name] = self._try(settings, goal)
            self._say(_line(self._tried[name], len(self._tried)))
        return self._tried[name].passes

    def _try(self, settings: Settings, goal: Goal) -> Tried:
        seconds, videos = 0.0, []
        reasons = ()
        for request in list(self._requests):
            try:
                spent, judged = self._video(settings, request)
            except FloatingPointError as error:  # as where half precisions overflow
                reasons = (f"{request.id}: {error}",)
            else:
                seconds += spent
                videos.append(judged)
                reasons = tuple(goal.why_not(videos))
            if reasons:
                self._requests.remove(request)
                self._requests.insert(0, request)  # what fails here will first fail elsewhere
                break
        return Tried(settings, seconds, videos, reasons)

    def _video(self, settings: Settings, request: Request) -> tuple[float, Judged]:
        known = (_key(settings), request.id)
        if known not in self._known:
            made, seconds = self._run(settings, request)
            self._known[known] = seconds, self._judge(request, made)
            line = {"settings": settings, "seconds": round(seconds, 4)}
            line["video"] = asdict(self._known[known][1])
            append_line(self._record, json.dumps(line, ensure_ascii=False))
        return self._known[known]


def last_passing(passes: Callable[[int], bool], count: int, start: int) -> int:
    """The last of 0..count-1 that passes, or -1; from start in growing steps, then between known ones."""
    low, high, at, step = -1, count, min(start, count - 1), 1
    while high - low > 1:
        if passes(at):
            low, at = at, at + step
        else:
            high, at = at, at - step
        step *= 2
        if not low < at < high:
            at = (low + high) // 2
    while (further := next((i for i in (low + 1, low + 2) if i < count and passes(i)), None)) is not None:
        low = further
    return low


def _key(settings: Settings) -> str:
    return json.dumps(dict(settings), sort_keys=True)


def _line(tried: Tried, number: int) -> str:
    """What is said of settings that were tried."""
    settings = " ".join(f"{name}={value}" for name, value in tried.settings.items())
    worst = min((video.psnr for video in tried.videos), default=float("nan"))
    said = f"passes, {tried.seconds:.2f} s" if tried.passes else tried.reasons[0]
    return f"{number}: {settings}: PSNR {worst:.1f} dB: {said}"


def _read_record(path: Path) -> dict[tuple[str, str], tuple[float, Judged]]:
    """Seconds and judgement by settings and request; a line that was cut off in the middle is left out."""
    known = {}
    if path.is_file():
        for text in path.read_text(encoding="utf-8", errors="replace").split("\n"):
            try:
                line = json.loads(text)
                video = Judged(**line["video"])
                known[_key(line["settings"]), video.id] = float(line["seconds"]), video
            except (ValueError, LookupError, TypeError):
                continue
    return known
