"""What a generator takes of a request beside skeleton and picture: columns of pairs.csv."""

from __future__ import annotations

from inspect import Parameter, signature

import numpy as np

from engines.errors import InputError, reading
from generators.contract import Generator
from pipeline.batch.dataset import PICTURE, Request
from pipeline.video.image import MAX_PIXELS, read_image

FORM = ("output_size", "output_fps")  # members that may be left out, and take columns as condition does
ORIGINAL = "original"  # the parameter of condition that is no column but the picture before it was fitted


def columns_of(generator: Generator, member: str = "condition") -> dict[str, object]:
    """List the columns that a member takes, by its keyword-only parameters, with their defaults.

    Parameter.empty: it has none.
    """
    found = _parameters(generator, member)
    return {name: default for name, default in found.items() if name != ORIGINAL}


def _parameters(generator: Generator, member: str = "condition") -> dict[str, object]:
    taking = getattr(getattr(generator, "original", generator), member, None)
    parameters = signature(taking).parameters.values() if taking else ()
    return {each.name: each.default for each in parameters if each.kind is each.KEYWORD_ONLY}


def example_columns(generator: Generator, image: np.ndarray) -> dict[str, object]:
    """Make up what a condition without defaults needs, for a trial. image: for further pictures."""
    needed = [name for name, default in columns_of(generator).items() if default is Parameter.empty]
    return {name: image if PICTURE.fullmatch(name) else "a person" for name in needed}


def cells(request: Request, generator: Generator, member: str) -> dict[str, object]:
    """Return the texts and numbers that a member takes of a request's further columns.

    InputError: a number is none, or a column that has no default is not there.
    """
    found = {}
    for name, default in columns_of(generator, member).items():
        text = request.columns.get(name)
        if text is None and default is Parameter.empty and name not in request.pictures:
            raise InputError(f"{request.id}: {generator.name} needs the column {name} in pairs.csv")
        if text is not None:
            try:
                found[name] = type(default)(text) if type(default) in (int, float) else text
            except ValueError as error:
                raise InputError(f"{request.id}: {name} in pairs.csv is no number: {text!r}") from error
    return found


def read_columns(
    request: Request,
    generator: Generator,
    notes: list[str],
    max_pixels: int = MAX_PIXELS,
    image: np.ndarray | None = None,
) -> dict[str, object]:
    """Return what condition takes of a request's further columns: fitted pictures, texts and numbers.

    The picture as it was read is among them where condition asks for it. notes: gets a sentence on columns
    that the generator does not take. image: that picture, if it has been read. InputError: a picture cannot
    be used, a number is none, or a column that has no default is not there.
    """
    known, found = columns_of(generator), cells(request, generator, "condition")
    for name in request.pictures.keys() & known.keys():
        with reading(request.pictures[name]):
            picture = read_image(request.pictures[name], notes=notes, max_pixels=max_pixels)
        found[name] = generator.fit(picture[None])
    for member in FORM:
        known |= columns_of(generator, member)
    unused = sorted({*request.columns, *request.pictures} - known.keys())
    if unused:
        takes = f"it takes {', '.join(known)}" if known else "it takes none beyond id, video, image, seed"
        notes.append(f"{generator.name} makes no use of {', '.join(unused)} in pairs.csv: {takes}")
    if ORIGINAL in _parameters(generator):
        if image is None:
            with reading(request.image):
                image = read_image(request.image, notes=[], max_pixels=max_pixels)
        found[ORIGINAL] = image[None]
    return found
