"""The fastest settings of a rival whose videos still pass: its knobs are walked, real videos decide."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.baselines.rival import Knobs, Settings
from bench.quality_goal import Goal, Judged

Run = Callable[[Settings, str], tuple[Path, float]]  # the request's video, and seconds of the denoiser
Judge = Callable[[str, Path], Judged]
MOST = 60  # settings that are tried for a rival and a level


@dataclass(frozen=True)
class Tried:
    """Settings that were tried: videos up to the first that fails, and seconds of the denoiser on them."""

    settings: dict[str, float]
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


class _Enough(Exception):
    """The limit of settings is reached."""


class Search:
    """One rival's search on the requests of these ids, all of them or up to the first that fails.

    record: a file that gets a line for every video that was made; none is made again, for another level
    neither. most: settings to try for a level.
    """

    def __init__(
        self,
        ids: Sequence[str],
        run: Run,
        judge: Judge,
        record: Path,
        say: Callable[[str], None],
        most: int = MOST,
    ) -> None:
        self._ids, self._run, self._judge, self._say, self._most = list(ids), run, judge, say, most
        self._record, self._known = record, _read_record(record)

    def fastest(self, knobs: Knobs, goal: Goal) -> Found:
        """Walk at most two knobs: at each value of the first, find how far the last one can go.

        As if all gentler values passed and all others failed; but as thresholds do not always keep to that,
        the two next to the end are tried again and again until both fail.
        """
        self._tried: dict[str, Tried] = {}
        try:
            self._walk(dict(knobs), goal)
        except _Enough:
            complete = False
        else:
            complete = True
        tried = list(self._tried.values())
        best = min((each for each in tried if each.passes), key=lambda each: each.seconds, default=None)
        return Found(best, tried, complete)

    def _walk(self, knobs: dict, goal: Goal) -> None:
        if not knobs:
            self._passes({}, goal)
            return
        *coarse, (fine, values) = knobs.items()
        if len(coarse) > 1:
            raise ValueError(f"a rival has at most two knobs, not {', '.join(knobs)}")
        end = len(values) // 2
        for fixed in [{coarse[0][0]: value} for value in coarse[0][1]] if coarse else [{}]:

            def passes(at: int, fixed: dict = fixed) -> bool:
                return self._passes({**fixed, fine: values[at]}, goal)

            end = max(last_passing(passes, len(values), end), 0)

    def _passes(self, settings: dict, goal: Goal) -> bool:
        name = _key(settings)
        if name not in self._tried:
            if len(self._tried) >= self._most:
                raise _Enough
            self._tried[name] = self._try(settings, goal)
            self._say(_line(self._tried[name], len(self._tried)))
        return self._tried[name].passes

    def _try(self, settings: dict, goal: Goal) -> Tried:
        seconds, videos = 0.0, []
        for request in self._ids:
            spent, judged = self._video(settings, request)
            seconds += spent
            videos.append(judged)
            if goal.why_not(videos):
                self._ids.remove(request)
                self._ids.insert(0, request)  # what fails here will first fail elsewhere
                break
        return Tried(settings, seconds, videos, tuple(goal.why_not(videos)))

    def _video(self, settings: dict, request: str) -> tuple[float, Judged]:
        known = (_key(settings), request)
        if known not in self._known:
            made, seconds = self._run(settings, request)
            self._known[known] = seconds, self._judge(request, made)
            line = {"settings": settings, "seconds": round(seconds, 4)}
            line["video"] = asdict(self._known[known][1])
            self._record.parent.mkdir(parents=True, exist_ok=True)
            with self._record.open("a", encoding="utf-8") as record:
                record.write(json.dumps(line, ensure_ascii=False) + "\n")
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
    settings = " ".join(f"{name}={value}" for name, value in tried.settings.items()) or "as it is"
    worst = min(video.psnr for video in tried.videos)
    said = f"passes, {tried.seconds:.2f} s" if tried.passes else tried.reasons[0]
    return f"{number}: {settings}: PSNR {worst:.1f} dB: {said}"


def _read_record(path: Path) -> dict[tuple[str, str], tuple[float, Judged]]:
    """Seconds and judgement by settings and request; a line that was cut off in the middle is left out."""
    known = {}
    if path.is_file():
        for text in path.read_text(encoding="utf-8").splitlines():
            try:
                line = json.loads(text)
                video = Judged(**{**line["video"], "failed": tuple(line["video"]["failed"])})
                known[_key(line["settings"]), video.id] = float(line["seconds"]), video
            except (ValueError, LookupError, TypeError):
                continue
    return known
