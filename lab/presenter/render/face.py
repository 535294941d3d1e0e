"""Draw the presenter's head: hair, eyes that blink, a mouth that talks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lab.presenter.render.brush import Brush, rounded, shade
from lab.presenter.render.identity import Identity
from lab.presenter.render.motion import Pose, head_frame
from lab.presenter.render.talk import Talk

ANGLES = np.linspace(0, 2 * np.pi, 32, endpoint=False)
OUTLINE = np.stack([np.cos(ANGLES) * (1 - 0.16 * np.clip(np.sin(ANGLES), 0, 1) ** 2), np.sin(ANGLES)], 1)
Frame = Callable[[np.ndarray], np.ndarray]


def draw_back_hair(brush: Brush, who: Identity, pose: Pose, i: int) -> None:
    """The hair behind the neck and shoulders."""
    place, unit = _frame(who, pose, i)
    dark = shade(who.hair, 0.8)
    if who.hair_style == "long":
        brush.polygon(
            place(
                rounded(
                    np.array(
                        [
                            (-1.18, -0.3),
                            (-0.9, -1.1),
                            (0.9, -1.1),
                            (1.18, -0.3),
                            (1.35, 1.5),
                            (0.9, 1.95),
                            (-0.9, 1.95),
                            (-1.35, 1.5),
                        ]
                    )
                )
            ),
            dark,
        )
    elif who.hair_style == "bob":
        brush.polygon(
            place(
                rounded(
                    np.array(
                        [
                            (-1.2, -0.4),
                            (-0.9, -1.1),
                            (0.9, -1.1),
                            (1.2, -0.4),
                            (1.3, 0.9),
                            (0.6, 1.05),
                            (-0.6, 1.05),
                            (-1.3, 0.9),
                        ]
                    )
                )
            ),
            dark,
        )
    elif who.hair_style == "bun":
        brush.disc(place(np.array([0.0, -1.22])), 0.48 * unit, dark)
    elif who.hair_style == "curly":
        for u, v in ((-1.0, -0.1), (1.0, -0.1), (-0.9, 0.4), (0.9, 0.4)):
            brush.disc(place(np.array([u, v])), 0.45 * unit, dark)


def draw_head(brush: Brush, who: Identity, pose: Pose, talk: Talk, i: int) -> None:
    """Head, features and front hair at moment i."""
    place, unit = _frame(who, pose, i)
    turn = 0.32 * pose.yaw[i]
    shadow = shade(who.skin, 0.82)
    for s in (-1, 1):
        brush.disc(place(np.array([s + 0.12 * pose.yaw[i], 0.06])), 0.17 * unit, shadow)
    brush.polygon(place(OUTLINE), shadow)
    brush.polygon(place(OUTLINE * (0.93, 0.96) + (-0.05, -0.02)), who.skin)
    if who.beard:
        jaw = np.concatenate(
            [OUTLINE[1:16] * (1.0, 1.02), [(-0.72, 0.15), (-0.3, 0.32), (0.3, 0.32), (0.72, 0.15)]]
        )
        brush.polygon(place(jaw), shade(who.hair, 1.06))
    _mouth(brush, who, place, unit, turn, talk.mouth[i])
    _eyes(brush, who, place, unit, turn, talk, i)
    nose = np.array([(turn * 1.25, -0.02), (turn * 1.25 + 0.13, 0.24), (turn * 1.25 - 0.04, 0.27)])
    brush.path(place(nose), shade(who.skin, 0.70), 0.010)
    _front_hair(brush, who, place, unit)


def _frame(who: Identity, pose: Pose, i: int) -> tuple[Frame, float]:
    """Maps head coordinates (half widths right, half heights down) to the canvas; and the half width."""
    centre, half_width, half_height = head_frame(pose, i, who.build)
    cos, sin = np.cos(pose.roll[i]), np.sin(pose.roll[i])
    axes = np.array([[cos * half_width, sin * half_width], [-sin * half_height, cos * half_height]])
    return lambda points: centre + points @ axes, half_width


def _mouth(brush: Brush, who: Identity, place: Frame, unit: float, turn: float, mouth: np.ndarray) -> None:
    """mouth: how open, how wide, how much of a smile."""
    opening, width, smile = mouth
    half, high = 0.24 + 0.10 * width, 0.02 + 0.17 * opening
    centre = np.array([turn, 0.56])
    lips = shade(tuple(int(0.55 * c + 0.45 * r) for c, r in zip(who.skin, (190, 60, 70), strict=True)), 0.92)
    corner = -0.07 * smile
    outer = np.stack([np.cos(ANGLES) * (half + 0.05), np.sin(ANGLES) * (high + 0.055)], 1)
    outer[:, 1] += corner * (outer[:, 0] / half) ** 2
    brush.polygon(place(centre + outer), lips)
    if opening > 0.08:
        inner = np.stack([np.cos(ANGLES) * half * 0.9, np.sin(ANGLES) * high], 1)
        inner[:, 1] += corner * (inner[:, 0] / half) ** 2
        brush.polygon(place(centre + inner), (72, 26, 30))
        if opening > 0.3:
            teeth = inner[(inner[:, 1] < -0.2 * high)]
            brush.polygon(place(centre + teeth), (240, 236, 230))
    else:
        line = np.array([(-half, corner), (-half / 2, 0.01), (half / 2, 0.01), (half, corner)])
        brush.path(place(centre + line), shade(lips, 0.6), 0.008)


def _eyes(brush: Brush, who: Identity, place: Frame, unit: float, turn: float, talk: Talk, i: int) -> None:
    lid, lift = talk.lids[i], talk.brows[i]
    for s in (-1, 1):
        eye = np.array([s * 0.40 + turn, -0.05])
        half = 0.20 * (1 - 0.25 * abs(turn) * (s * turn > 0))
        open_ = 0.105 * lid
        if lid > 0.25:
            white = np.stack([np.cos(ANGLES) * half, np.sin(ANGLES) * open_], 1)
            brush.polygon(place(eye + white), (246, 246, 244))
            iris = eye + talk.gaze[i] * (0.07, 0.02)
            brush.polygon(
                place(iris + np.stack([np.cos(ANGLES) * 0.10, np.sin(ANGLES) * min(0.085, open_)], 1)),
                who.eye,
            )
        arc = np.linspace(np.pi, 2 * np.pi, 7)
        brush.path(
            place(eye + np.stack([np.cos(arc) * half * 1.08, np.sin(arc) * max(open_, 0.01)], 1)),
            shade(who.hair, 0.6),
            0.010,
        )
        brow = np.array([(-0.20, 0.02), (0.0, -0.05), (0.20, 0.02)]) + eye + (0, -0.24 - 0.06 * lift)
        brush.path(place(brow), shade(who.hair, 0.8), 0.014)
        if who.glasses:
            brush.ring(place(eye + (0, 0.02)), 0.30 * unit, (40, 40, 46), 0.009)
    if who.glasses:
        brush.path(place(np.array([(-0.12 + turn, -0.06), (0.12 + turn, -0.06)])), (40, 40, 46), 0.009)


def _front_hair(brush: Brush, who: Identity, place: Frame, unit: float) -> None:
    if who.hair_style == "bald":
        return
    if who.hair_style == "curly":
        for angle in np.linspace(np.pi * 1.02, np.pi * 1.98, 8):
            brush.disc(place(np.array([np.cos(angle) * 0.95, np.sin(angle) * 0.88])), 0.33 * unit, who.hair)
        brush.polygon(place(OUTLINE[17:32] * (1.05, 1.05) * (1, 0.98)), who.hair)
        return
    crown = np.stack([np.cos(ANGLES[16:]), np.sin(ANGLES[16:])], 1) * (1.10, 1.10)
    crown = np.concatenate([[(-1.08, 0.05)], crown[1:], [(1.08, 0.05)]])
    fringe = {
        "short": [(0.92, -0.35), (0.5, -0.58), (-0.5, -0.58), (-0.92, -0.35)],
        "side": [(0.92, -0.25), (0.75, -0.55), (-0.35, -0.72), (-0.75, -0.45), (-0.93, -0.2)],
        "long": [(0.88, 0.1), (0.66, -0.5), (0.0, -0.78), (-0.66, -0.5), (-0.88, 0.1)],
        "bob": [(0.94, 0.2), (0.80, -0.38), (-0.80, -0.38), (-0.94, 0.2)],
        "bun": [(0.90, -0.35), (0.0, -0.75), (-0.90, -0.35)],
    }[who.hair_style]
    brush.polygon(place(np.concatenate([crown, fringe])), who.hair)
    shine = np.linspace(1.15 * np.pi, 1.45 * np.pi, 7)
    brush.path(place(np.stack([np.cos(shine), np.sin(shine)], 1) * 0.86), shade(who.hair, 1.25), 0.018)
