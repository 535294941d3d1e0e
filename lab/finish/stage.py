"""Rendered presenters side by side before a wall: pictures of any shape whose content is known."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import numpy as np

from lab.presenter.render.backdrop import add_lights, draw_wall
from lab.presenter.render.brush import SUBPIXEL, Brush
from lab.presenter.render.figure import draw_figure
from lab.presenter.render.identity import random_identity
from lab.presenter.render.motion import Motion
from lab.presenter.render.talk import random_talk

REACH = 0.55  # of a presenter's width: how far hands and shoulders get from the middle to each side


class Placed(Brush):
    """A brush for a presenter who stands somewhere on a canvas; width and origin (x, y) in its pixels."""

    def __init__(self, canvas: np.ndarray, width: float, origin: tuple[float, float]) -> None:
        super().__init__(canvas)
        self.scale, self.fixed = width, width * (1 << SUBPIXEL)
        self._origin = np.round(np.array(origin) * (1 << SUBPIXEL)).astype(np.int32)

    def _points(self, points: np.ndarray) -> np.ndarray:
        return super()._points(points) + self._origin


class Person:
    """One presenter: who it is, how it moves, and where its picture's upper left corner and width are."""

    def __init__(self, seed: int, width: float, origin: tuple[float, float], seconds: float = 60.0) -> None:
        self.seed, self.width, self.origin = seed, width, origin
        self.who = random_identity(seed)
        self.motion = Motion(seed, self.who.build, seconds)

    def draw(self, canvas: np.ndarray, moment: float, lids: float | None = None) -> None:
        """Draw on a canvas (H, W, 3) uint8 as it is at a moment of its own; lids: 1 open, 0 closed."""
        t = np.array([moment])
        talk = random_talk(self.seed, t)
        if lids is not None:
            talk = replace(talk, lids=np.array([lids]))
        draw_figure(Placed(canvas, self.width, self.origin), self.who, self.motion.at(t), talk, 0)

    def box(self, moments: np.ndarray) -> np.ndarray:
        """Left, top, right, bottom on the canvas that hold head, shoulders and hands at all moments (4,)."""
        pose = self.motion.at(moments)
        body, hands = pose.body[:, [1, 2, 5, 16, 17]].reshape(-1, 2), pose.hands.reshape(-1, 2)
        points = np.concatenate([body, hands, pose.body[:, 0] - (0, 0.2)])  # the hair is above the nose
        low, high = np.percentile(points, [2, 98], axis=0)  # a hand thrown up once does not frame a scene
        return (np.concatenate([low, np.maximum(high, low)]).reshape(2, 2) * self.width + self.origin).ravel()


class Stage:
    """Several people before one wall; size is (width, height) in pixels, the same seed the same stage."""

    def __init__(self, seed: int, size: tuple[int, int], people: int, seconds: float = 60.0) -> None:
        random = np.random.default_rng((seed, 41))
        self.seed, self.size = seed, size
        width, height = size
        self.people = []
        for place in random.permutation(people):
            high = height * random.uniform(0.72, 0.95)  # of the part of a presenter that is seen
            share = width / people
            own = min(high / 1.35, 1.2 * share / (2 * REACH))
            middle = share * (place + 0.5) + random.uniform(-0.5, 0.5) * max(0.0, share - 2 * REACH * own)
            origin = (middle - own / 2, height - 1.35 * own)
            self.people.append(Person(seed * 8 + int(place), own, origin, seconds))

    @cached_property
    def wall(self) -> np.ndarray:
        """The backdrop without its lights (H, W, 3) uint8."""
        return draw_wall(self.people[0].who, *self.size)

    def picture(
        self, moments: np.ndarray, lights: float | None = None, lids: float | None = None
    ) -> np.ndarray:
        """The people at moments of their own (P,), the lights at another (H, W, 3) uint8 RGB."""
        at = np.array([moments[0] if lights is None else lights])
        canvas = add_lights(self.wall, self.people[0].who, random_talk(self.seed, at).lights[0])
        for person, moment in zip(self.people, moments, strict=True):
            person.draw(canvas, float(moment), lids)
        return canvas
