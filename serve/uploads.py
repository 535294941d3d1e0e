"""Take an upload: its parts within limits, onto the disk, and looked at before a job is made of it."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import anyio
from starlette.datastructures import FormData, UploadFile
from starlette.requests import ClientDisconnect, Request

from engines.artifact import file_sha256
from engines.errors import InputError, OutputError
from engines.files import sync
from pipeline.batch.dataset import SEED
from pipeline.video.image import read_image
from pipeline.video.info import VideoInfo, probe
from serve.errors import ApiError
from serve.settings import ServeSettings

FILES = ("video", "image")  # the parts that are files, which get these names on the disk
FIELDS = ("seed", "recipe", "generator")
MOST_SEED, SEEDS = 2**63 - 1, re.compile("[0-9]{1,19}")


@dataclass(frozen=True)
class Upload:
    """The parts of an upload, checked as far as their form goes."""

    video: BinaryIO
    image: BinaryIO
    seed: int
    recipe: str


class BodyLimit:
    """A layer that ends a request whose body is larger than `most` bytes, announced or not. ApiError: 413."""

    def __init__(self, app: Callable, most: int) -> None:
        self._app, self._most = app, most

    async def __call__(self, scope: dict, receive: Callable[[], Awaitable[dict]], send: Callable) -> None:
        """Pass a request on, and count its body."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        left = self._most

        async def counted() -> dict:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0 or (announced.isdigit() and int(announced) > self._most):
                told = f"Send at most {self._most} bytes. Cut the video, or encode it smaller."
                raise ApiError(413, "too_large", told)
            return message

        await self._app(scope, counted, send)


@asynccontextmanager
async def received(request: Request, settings: ServeSettings) -> AsyncIterator[Upload]:
    """Read the form of a request and check it; its files last as long as the block. ApiError: 400, 408."""
    try:
        with anyio.fail_after(settings.upload_seconds):
            form = await request.form(max_files=len(FILES), max_fields=len(FIELDS), max_part_size=1_000)
    except ClientDisconnect as error:  # nobody hears this
        raise ApiError(400, "incomplete", "The upload broke off. Send it again.") from error
    except TimeoutError as error:
        most = f"{settings.upload_seconds:g} s"
        raise ApiError(408, "too_slow", f"The upload took longer than {most}. Send it again.") from error
    try:
        yield _checked(form, settings)
    finally:
        await form.close()


def _checked(form: FormData, settings: ServeSettings) -> Upload:
    for name, _ in form.multi_items():
        if name not in (*FILES, *FIELDS):
            known = ", ".join((*FILES, *FIELDS))
            raise ApiError(400, "unknown_field", f"There is no field {name[:40]!r}; send {known}.")
        if len(form.getlist(name)) > 1:
            raise ApiError(400, "invalid_field", f"Send {name} once.")
    for name in FILES:
        if not isinstance(form.get(name), UploadFile):
            raise ApiError(400, "missing_file", f"Send the {name} as a file of a multipart/form-data form.")
    seed, recipe = form.get("seed") or str(SEED), form.get("recipe") or next(iter(settings.recipes))
    if not (isinstance(seed, str) and SEEDS.fullmatch(seed) and int(seed) <= MOST_SEED):
        raise ApiError(400, "invalid_field", f"seed must be a whole number from 0 to {MOST_SEED}.")
    if recipe not in settings.recipes:
        known = ", ".join(settings.recipes)
        raise ApiError(400, "unknown_recipe", f"There is no such recipe; take one of {known}.")
    if "generator" in form and form["generator"] != settings.generator_name:
        told = f"This service has the generator {settings.generator_name} alone; leave the field out."
        raise ApiError(400, "unknown_generator", told)
    return Upload(form["video"].file, form["image"].file, int(seed), recipe)


def save(upload: Upload, folder: Path) -> str:
    """Write the files of an upload to a new folder, synced; return their hash. OSError."""
    folder.mkdir()
    files = hashlib.sha256()
    for name in FILES:
        with (folder / name).open("wb") as file:
            shutil.copyfileobj(getattr(upload, name), file, 1 << 20)
        sync(folder / name)
        files.update(file_sha256(folder / name).encode())
    for each in (folder, folder.parent):
        sync(each)
    return files.hexdigest()


def link(source: Path, folder: Path) -> None:
    """Give a new folder the files of another job, synced. OSError."""
    folder.mkdir()
    for name in FILES:
        os.link(source / name, folder / name)
    for each in (folder, folder.parent):
        sync(each)


def check(folder: Path, settings: ServeSettings) -> VideoInfo:
    """Look at the files of an upload: what kind, how long, how large. ApiError: 400."""
    limits = settings.limits
    try:
        info = probe(
            folder / "video",
            max_pixels=limits.pixels,
            max_frames=limits.frames,
            total_seconds=settings.check_seconds,
        )
        read_image(folder / "image", max_pixels=limits.pixels)
    except (InputError, OutputError) as error:
        raise ApiError(400, "invalid_input", without_paths(str(error), folder)) from error
    return info


def without_paths(text: str, folder: Path) -> str:
    """Return an error's text with "video" and "image" in place of their paths, and no path of the server."""
    return text.replace(f"{folder}/", "").replace(f"{folder.parent.parent}/", "")
