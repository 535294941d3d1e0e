"""Choose the colour coding of the base model's videos: a reader that ignores tags must see both alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from engines.errors import InputError, entries_of, reading
from pipeline.batch.dataset import OUTPUTS, VIDEO_SUFFIXES
from pipeline.recipe import Recipe
from pipeline.video.colours import TAGGED
from pipeline.video.reader import colours_of


def as_base_videos(recipe: Recipe, data: Path, say: Callable[[str], None]) -> Recipe:
    """Return the recipe with the colours of the first base video in data, if the recipe names none.

    It is returned unchanged if there is no base video, or none can be read, or its colours cannot be written;
    say gets the latter two. Who needs the base videos themselves finds out why when it looks for them.
    """
    shown = folder = data / OUTPUTS
    if recipe.colours is not None or not folder.is_dir():
        return recipe
    try:
        first = _first_video(folder)
        shown = first or folder
        found = colours_of(first).check() if first else TAGGED
    except (InputError, ValueError) as error:
        say(f"videos are written as {TAGGED}, not as {shown}: {error}")
        return recipe
    if found == TAGGED:
        return recipe
    say(f"videos are written as {found}, as {first} is")
    return replace(recipe, colours=str(found))


def _first_video(folder: Path) -> Path | None:
    """Return the first video file of a folder; None: there is none. InputError: it cannot be looked into."""
    for path in entries_of(folder, "it should hold videos"):
        with reading(path):
            if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file() and not path.name.startswith("."):
                return path
    return None
