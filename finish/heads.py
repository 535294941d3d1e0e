"""Heads on features of whole videos: numbers by ridge, classes by logistic regression, and the nearest ones.

A head is plain numbers in a file; only fitting needs scikit-learn.
"""

from __future__ import annotations

import io
import unicodedata
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np

from bench.similarity import Extractor
from engines.errors import EngineError, InputError, check_file
from finish.cover import ahead, write_whole
from finish.fit import fitted
from finish.predictions import id_of, is_number, read_lines
from pipeline.video.reader import VideoReader

PARTS, RATE = 4, 8.0  # parts of a video's time; pictures a second that are looked at
LOOKED = 16  # pictures in a row that stand for a part
# Parts of the picture: all of it, its middle, its upper and its lower half; left, top, right, bottom.
PLACES = ((0, 0, 1, 1), (0.2, 0.1, 0.8, 0.9), (0, 0, 1, 0.6), (0, 0.4, 1, 1))
KINDS = ("number", "class", "like")
FOLDS, LEAST, DRAWS = 5, 10, 1000  # of cross-validation; videos with a label; samples for the intervals
WEAK = 0.1  # scikit-learn's C: there are fewer videos than features


@dataclass(frozen=True)
class Table:
    """Features (N, C) of videos by their ids, and the extractor they come from."""

    ids: list[str]
    features: np.ndarray
    extractor: str


def describe(path: Path, extractor: Extractor) -> np.ndarray:
    """Feature of a video: of its clips' vectors, then of its frames', which say what is where.

    Clips' are fused over places by their mean, and over parts of its time by mean and deviation; frames'
    are fused over time only, and stand place by place.
    """
    with VideoReader(path, square=True) as reader:
        begins = reader.info.begins - reader.info.begins[0]
        length = begins[-1] / PARTS
        span = min(length, LOOKED / RATE)
        starts = length * np.arange(PARTS) + (length - span) / 2
        moments = (starts[:, None] + span * np.arange(LOOKED) / LOOKED).ravel()
        wanted = np.minimum(np.searchsorted(begins, moments, "right") - 1, len(begins) - 2)
        seen: dict[int, list[np.ndarray]] = {}
        for number, frame in enumerate(ahead(reader)):
            if number in wanted:
                seen[number] = [_cut(frame, place, extractor.spec.size) for place in PLACES]
    rows, looks = [], []
    for part in wanted.reshape(PARTS, LOOKED):
        found = [extractor.features([seen[n][k] for n in part]) for k in range(len(PLACES))]
        # An extractor of frames has no vector of a clip; one of clips may have none of frames.
        whole = [frames.mean(0) if clip is None else clip for clip, frames in found]
        rows.append(_unit(np.stack(whole)).mean(0))
        looks.append(np.concatenate([frames.mean(0) for _, frames in found if len(frames)] or [np.zeros(0)]))
    return np.concatenate([np.mean(rows, 0), np.std(rows, 0), np.mean(looks, 0)]).astype(np.float32)


def write_table(table: Table, out: Path) -> None:
    """Write features as .npz. OutputError."""
    _save(out, ids=np.array(table.ids), features=table.features, extractor=np.array(table.extractor))


def read_table(path: Path) -> Table:
    """Read what write_table wrote. InputError."""
    found = _load(path, {"ids", "features", "extractor"}, "python -m finish features")
    ids = [unicodedata.normalize("NFC", str(each)) for each in found["ids"]]
    return Table(ids, found["features"], str(found["extractor"]))


def read_labels(path: Path, target: str) -> dict[str, object]:
    """What a JSONL file says of each video_id under a name. InputError: it says nothing, or things twice."""
    found: dict[str, object] = {}
    for number, line in read_lines(path):
        name = unicodedata.normalize("NFC", (isinstance(line, Mapping) and id_of(line)) or "")
        if not name or name in found:
            raise InputError(f"{path}, line {number}: expected an object with a video_id of its own")
        if target in line:
            found[name] = line[target]
    return found


def fit(
    table: Table,
    labels: Mapping[str, object],
    kind: str,
    target: str,
    out: Path,
    groups: Mapping[str, object] = MappingProxyType({}),
) -> dict:
    """Write a head that is fitted to all videos with a label; returns its figures on videos left out.

    groups: what videos have in common, as a person or a brand; those of one are left out together.
    InputError: too few labels, or not such as the kind needs. EngineError: scikit-learn is missing.
    """
    named = {"kind": np.array(kind), "target": np.array(target), "extractor": np.array(table.extractor)}
    if kind == "like":
        _save(out, ids=np.array(table.ids), features=table.features, **named)
        return {"videos": len(table.ids)}
    rows = [n for n, name in enumerate(table.ids) if name in labels]
    values = [labels[table.ids[n]] for n in rows]
    if len(rows) < LEAST:
        raise InputError(
            f"{len(rows)} of {len(table.ids)} videos have a {target}; at least {LEAST} are needed"
        )
    if kind == "number" and not all(map(is_number, values)):
        raise InputError(f"a {target} is no number; for classes give --kind class")
    if kind == "class" and len(set(map(str, values))) < 2:
        raise InputError(f"all have the same {target}; a head needs two classes")
    x = table.features[rows]
    y = np.array(values, float) if kind == "number" else np.array([str(v) for v in values])
    named_groups = [str(groups.get(table.ids[n], f"of no group: {n}")) for n in rows]
    group = np.unique(named_groups if groups else rows, return_inverse=True)[1]
    if group.max() < 1:
        raise InputError("all videos are of one group; figures on groups left out need two")
    mean, scale, head = _fitted(x, y, kind)
    coef, intercept = np.atleast_2d(head.coef_), np.atleast_1d(head.intercept_)
    if kind == "class" and len(coef) == 1:  # of two classes, the second's only
        coef, intercept = np.concatenate([-coef, coef]) / 2, np.concatenate([-intercept, intercept]) / 2
    classes = np.array([]) if kind == "number" else head.classes_
    _save(out, mean=mean, scale=scale, coef=coef, intercept=intercept, classes=classes, **named)
    return {"videos": len(rows), **_held_out(x, y, kind, group)}


def predict(head: Path, table: Table, nearest: int = 5) -> list[dict]:
    """What a head says of each video. InputError: it is none, or for features of another extractor."""
    found = _load(head, {"kind", "target", "extractor"}, "python -m finish fit")
    kind, target, x = str(found["kind"]), str(found["target"]), table.features
    if str(found["extractor"]) != table.extractor:
        raise InputError(f"{head} is for features of {found['extractor']}; these are of {table.extractor}")
    wide = len(found["mean"]) if "mean" in found else found["features"].shape[1]
    if wide != x.shape[1]:
        raise InputError(
            f"{head} is for {wide} numbers a video, these features have {x.shape[1]}; write both anew: "
            "python -m finish features, then fit"
        )
    if kind == "like":
        cosine, ids, lines = _unit(x) @ _unit(found["features"]).T, found["ids"].tolist(), []
        for name, row in zip(table.ids, cosine, strict=True):
            order = [n for n in np.argsort(-row) if ids[n] != name][:nearest]
            lines.append(
                {"video_id": name, "like": [{"video_id": ids[n], "cosine": float(row[n])} for n in order]}
            )
        return lines
    total = (x - found["mean"]) / found["scale"] @ found["coef"].T + found["intercept"]
    if kind == "number":
        return [{"video_id": n, target: float(v)} for n, v in zip(table.ids, total[:, 0], strict=True)]
    chance = np.exp(total - total.max(1, keepdims=True))
    chance /= chance.sum(1, keepdims=True)
    return [{"video_id": n, target: str(found["classes"][row.argmax()]), "chance": float(row.max())}
            for n, row in zip(table.ids, chance, strict=True)]  # fmt: skip


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's, and 0 where all are equal; equal numbers share their mean rank."""

    def ranks(values: np.ndarray) -> np.ndarray:
        _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
        return (np.cumsum(counts) - (counts + 1) / 2)[places]

    if not np.ptp(a) or not np.ptp(b):
        return 0.0
    return float(np.corrcoef(ranks(a), ranks(b))[0, 1])


def _held_out(x: np.ndarray, y: np.ndarray, kind: str, group: np.ndarray) -> dict:
    """Figures on folds of groups (N,) that a head was not fitted to, with intervals over samples of them."""
    from sklearn.metrics import accuracy_score, precision_recall_fscore_support

    random, guess = np.random.default_rng(0), np.empty(len(y), y.dtype)
    members = [np.flatnonzero(group == each) for each in range(group.max() + 1)]
    for part in np.array_split(random.permutation(len(members)), min(FOLDS, len(members))):
        fold = np.concatenate([members[each] for each in part])
        rest = np.setdiff1d(np.arange(len(y)), fold)
        if kind == "class" and len(set(y[rest])) < 2:
            guess[fold] = y[rest][0]
        else:
            mean, scale, head = _fitted(x[rest], y[rest], kind)
            guess[fold] = head.predict((x[fold] - mean) / scale)

    def figures(rows: np.ndarray) -> dict[str, float]:
        a, b = y[rows], guess[rows]
        if kind == "number":
            return {"rank correlation": rank_correlation(a, b), "mean error": float(np.abs(a - b).mean())}
        parts = precision_recall_fscore_support(a, b, average="macro", zero_division=0)[:3]
        return {
            "accuracy": float(accuracy_score(a, b)),
            **dict(zip(("precision", "recall", "F1"), map(float, parts), strict=True)),
        }

    draws = (random.integers(0, len(members), len(members)) for _ in range(DRAWS))
    drawn = [figures(np.concatenate([members[each] for each in draw])) for draw in draws]
    return {
        name: {"value": value, "95 %": np.nanpercentile([each[name] for each in drawn], [2.5, 97.5]).tolist()}
        for name, value in figures(np.arange(len(y))).items()
    }


def _fitted(x: np.ndarray, y: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray, object]:
    """Means and scales of features, and a model that is fitted to features of mean 0 and deviation 1."""
    mean, scale = x.mean(0), np.maximum(x.std(0), 1e-6)
    return mean, scale, _model(kind).fit((x - mean) / scale, y)


def _unit(vectors: np.ndarray) -> np.ndarray:
    """The same vectors (N, C) of length 1."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


def _model(kind: str):  # noqa: ANN202 (of an optional package)
    try:
        from sklearn.linear_model import LogisticRegression, RidgeCV
    except ImportError as error:
        raise EngineError("scikit-learn is missing; run: pip install -r requirements-finish.txt") from error
    return RidgeCV(np.logspace(0, 6, 13)) if kind == "number" else LogisticRegression(C=WEAK, max_iter=2000)


def _cut(frame: np.ndarray, place: Sequence[float], size: tuple[int, int]) -> np.ndarray:
    left, top, right, bottom = np.rint(np.array(place) * np.tile(frame.shape[1::-1], 2)).astype(int)
    return fitted(frame[top : max(bottom, top + 1), left : max(right, left + 1)], size)


def _save(out: Path, **arrays: np.ndarray) -> None:
    data = io.BytesIO()
    np.savez_compressed(data, **arrays)
    write_whole(out, data.getvalue())


def _load(path: Path, names: set[str], made_by: str) -> dict[str, np.ndarray]:
    check_file(path, "features or head (.npz)")
    try:
        with np.load(path, allow_pickle=False) as file:
            found = dict(file)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} cannot be read ({error}); make it with: {made_by}") from error
    if not names <= found.keys():
        raise InputError(f"{path} lacks {', '.join(sorted(names - found.keys()))}; make it with: {made_by}")
    return found
