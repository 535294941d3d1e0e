"""What a service runs with, checked once when it starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from engines.artifact import key
from generators.contract import load_generator
from pipeline.recipe import Recipe
from pipeline.request import Limits
from pipeline.runner import Settings, identity_of

LIVE = "live-{:04}-{:04}.mp4"  # a job's growing file: of an attempt, of a try within it
WATCHED = "watched"  # a file in a job's folder, which says that somebody asked for the growing one


@dataclass(frozen=True)
class ServeSettings:
    """The settings of a service.

    home: folder of its jobs, which belongs to one service at a time. recipes: by name; the first is the
    default. devices: of each worker. keys: see serve/keys.py; empty: everyone is the same caller.
    limits: the largest inputs. most_bytes: of an upload, all parts together. most_queued: jobs that wait, of
    all callers; most_per_key: jobs of one that wait or run. job_seconds: a job may run. upload_seconds: an
    upload may take; check_seconds: ffmpeg's look at it. keep_seconds: ended jobs are kept. hosts: names under
    which the service answers.
    """

    home: Path
    generator: str
    recipes: Mapping[str, Recipe]
    devices: tuple[str, ...] = ("cpu",)
    keys: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = Limits(7_200, 8_847_360)
    most_bytes: int = 64 << 20
    most_queued: int = 200
    most_per_key: int = 100
    job_seconds: float = 3_600.0
    upload_seconds: float = 120.0
    check_seconds: float = 20.0
    keep_seconds: float = 86_400.0
    hosts: tuple[str, ...] = ("127.0.0.1", "localhost", "[::1]")

    @cached_property
    def generator_name(self) -> str:
        """The generator's own name, which callers may give."""
        return load_generator(self.generator).name

    @cached_property
    def generator_hash(self) -> str:
        """What decides the frames of the generator: its class, its files, and adapters."""
        generator = load_generator(self.generator)
        of_class = {"class": type(generator).__qualname__, "name": generator.name}
        return key({**of_class, "files": identity_of(generator)})

    def inputs_of(self, files: str, seed: int, recipe: str) -> str:
        """Return all that decides a video, in a line that begins with the hashes of its files and generator.

        recipe: a name; its settings count too.
        """
        return f"{files} {self.generator_hash} {seed} {key(self.recipes[recipe].settings())} {recipe}"

    @property
    def videos(self) -> Path:
        """The folder with a folder for each job."""
        return self.home / "videos"

    @property
    def database(self) -> Path:
        """The SQLite file of the jobs."""
        return self.home / "jobs.sqlite"

    @property
    def base(self) -> str | None:
        """The name of the base model's recipe, if it is offered."""
        return next((name for name, recipe in self.recipes.items() if recipe.is_baseline), None)

    def run_settings(self, recipe: str, device: str) -> Settings:
        """Return the settings that a recipe's videos are made with on a device."""
        chosen = self.recipes[recipe]
        return Settings(self.generator, chosen, device, limits=self.limits, stream=not chosen.technique)
