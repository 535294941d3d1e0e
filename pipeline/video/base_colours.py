"""Choose the colour coding of the base model's videos: a reader that ignores tags must see both alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from engines.errors import InputError
from pipeline.batch.dataset import VIDEO_SUFFIXES
from pipeline.recipe import Recipe
from pipeline.video.colours import TAGGED
from pipeline.video.reader import colours_of

OUTPUTS = "outputs"  # subfolder of a data folder with the base model's videos


def as_base_videos(recipe: Recipe, data: Path, say: Callable[[str], None]) -> Recipe:
    """Return the recipe with the colours of the first base video in data, if the recipe names none.

    It is returned unchanged if there is no base video, or its colours cannot be written; say gets the latter.
    """
    folder = data / OUTPUTS
    if recipe.colours is not None or not folder.is_dir():
        return recipe
    videos = (path for path in sorted(folder.iterdir()) if path.suffix.lower() in VIDEO_SUFFIXES)
    first = next((path for path in videos if path.is_file() and not path.name.startswith(".")), None)
    try:
        found = colours_of(first).check() if first else TAGGED
    except (InputError, ValueError) as error:
        say(f"videos are written as {TAGGED}, not as {first}: {error}")
        return recipe
    if found == TAGGED:
        return recipe
    say(f"videos are written as {found}, as {first} is")
    return replace(recipe, colours=str(found))
