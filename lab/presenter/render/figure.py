"""Draw the presenter: torso, arms, hands with five fingers."""

from __future__ import annotations

import numpy as np

from lab.presenter.render.brush import Brush, Colour, rounded, shade
from lab.presenter.render.face import draw_back_hair, draw_head
from lab.presenter.render.identity import Identity
from lab.presenter.render.motion import HAND, Pose
from lab.presenter.render.talk import Talk

LONG_SLEEVES = ("suit", "sweater", "shirt")
LIGHT = np.array([-0.010, -0.008])  # highlights sit a little towards the light, up and left


def draw_figure(brush: Brush, who: Identity, pose: Pose, talk: Talk, i: int) -> None:
    """Draw moment i of a pose, with moment i of what the skeleton does not tell."""
    draw_back_hair(brush, who, pose, i)
    _torso(brush, who, pose.body[i], talk.folds[i])
    draw_head(brush, who, pose, talk, i)
    for k in range(2):
        _arm(brush, who, pose.body[i, 2 + 3 * k : 5 + 3 * k], talk.folds[i], k)
        _hand(brush, who.skin, pose.hands[i, k], pose.turn[i, k])


def _torso(brush: Brush, who: Identity, body: np.ndarray, folds: np.ndarray) -> None:
    neck, right, left = body[1], body[2], body[5]
    hips = (body[8] + body[11]) / 2
    half = (body[11, 0] - body[8, 0]) / 2
    across = (left - right) / 2
    mid = (right + left) / 2
    outline = rounded(
        np.array(
            [
                neck + (-0.055, -0.005),
                mid - across * 0.80 + (0, -0.048),
                right + (-0.045, -0.012),
                right + (-0.052, 0.07),
                mid - across * 0.86 + (0, 0.22),
                hips + (-half - 0.070, 0.0),
                hips + (-half - 0.085, 0.30),
                hips + (half + 0.085, 0.30),
                hips + (half + 0.070, 0.0),
                mid + across * 0.86 + (0, 0.22),
                left + (0.052, 0.07),
                left + (0.045, -0.012),
                mid + across * 0.80 + (0, -0.048),
                neck + (0.055, -0.005),
            ]
        )
    )
    brush.polygon(outline, shade(who.top_colour, 0.86))
    brush.polygon(outline * (0.94, 1) + (0.06 * mid[0] - 0.008, 0), who.top_colour)
    _front(brush, who, neck, mid, hips, across)
    crease = shade(who.top_colour, 0.72)
    for f in range(4):
        side = -1 if f < 2 else 1
        top = mid + (side * (0.05 + 0.04 * (f % 2)) + 0.025 * folds[f], 0.20 + 0.09 * (f % 2))
        bend = top + (0.04 * folds[f + 4] - side * 0.02, 0.11)
        end = top + (0.02 * folds[f] + side * 0.02, 0.23 + 0.05 * folds[f + 4])
        s = np.linspace(0, 1, 7)[:, None]
        brush.path((1 - s) ** 2 * top + 2 * s * (1 - s) * bend + s**2 * end, crease, 0.011)


def _front(
    brush: Brush, who: Identity, neck: np.ndarray, mid: np.ndarray, hips: np.ndarray, across: np.ndarray
) -> None:
    """Neck, collar and what makes the five tops differ."""
    white, shadow = (238, 238, 236), shade(who.skin, 0.82)
    depth = {"tee": 0.055, "suit": 0.05, "sweater": 0.035, "shirt": 0.05, "tank": 0.12}[who.top]
    if who.top == "sweater":
        for y in (0.16, 0.22):
            brush.path(
                np.array([mid - across * 0.80 + (0, y), mid + across * 0.80 + (0, y)]), who.accent, 0.028
            )
    if who.top == "suit":
        brush.polygon(np.array([neck + (-0.065, 0), neck + (0.065, 0), mid + (0, 0.33)]), white)
        brush.polygon(
            np.array(
                [
                    neck + (-0.018, 0.06),
                    neck + (0.018, 0.06),
                    mid + (0.024, 0.25),
                    mid + (0, 0.285),
                    mid + (-0.024, 0.25),
                ]
            ),
            who.accent,
        )
        for s in (-1, 1):
            brush.polygon(
                np.array(
                    [neck + (s * 0.055, 0), neck + (s * 0.10, 0.04), mid + (s * 0.085, 0.16), mid + (0, 0.34)]
                ),
                shade(who.top_colour, 0.74),
            )
    brush.polygon(
        rounded(
            np.array(
                [
                    neck + (-0.058, -0.03),
                    neck + (0.058, -0.03),
                    neck + (0.05, 0.02),
                    neck + (0, depth + 0.035),
                    neck + (-0.05, 0.02),
                ]
            ),
            1,
        ),
        who.skin,
    )
    brush.limb(neck + (0, -0.13), neck + (0, 0.0), 0.088, 0.096, shadow)
    if who.top == "shirt":
        for s in (-1, 1):
            brush.polygon(
                np.array(
                    [
                        neck + (s * 0.055, -0.02),
                        neck + (s * 0.092, 0.035),
                        neck + (s * 0.04, 0.085),
                        neck + (0, 0.05),
                    ]
                ),
                shade(who.top_colour, 1.35),
            )
        brush.path(np.array([neck + (0, 0.06), hips + (0, 0.3)]), shade(who.top_colour, 0.7), 0.008)
        for y in (0.16, 0.28, 0.40):
            brush.disc(mid + (0.0, y), 0.010, who.accent)
    if who.top == "tee":
        brush.disc(mid + (0, 0.20), 0.055, who.accent)
        brush.polygon(mid + (0, 0.20) + np.array([(-0.018, -0.028), (0.032, 0), (-0.018, 0.028)]), white)


def _arm(brush: Brush, who: Identity, arm: np.ndarray, folds: np.ndarray, k: int) -> None:
    shoulder, elbow, wrist = arm
    cloth, skin = who.top_colour, who.skin
    if who.top in LONG_SLEEVES:
        cuff = elbow + (wrist - elbow) * 0.88
        brush.limb(shoulder, elbow, 0.128, 0.108, shade(cloth, 0.70))
        brush.limb(elbow, cuff, 0.108, 0.086, shade(cloth, 0.70))
        brush.limb(elbow, wrist, 0.06, 0.062, shade(skin, 0.8))
        brush.limb(shoulder + LIGHT * 0.6, elbow + LIGHT * 0.6, 0.108, 0.090, cloth)
        brush.limb(elbow + LIGHT * 0.6, cuff + LIGHT * 0.6, 0.090, 0.070, cloth)
        crease = shade(cloth, 0.72)
        normal = np.array([-(wrist - elbow)[1], (wrist - elbow)[0]])
        for f in range(2):
            at = elbow + (wrist - elbow) * (0.10 + 0.22 * f + 0.09 * folds[2 * k + f])
            brush.path(
                np.array(
                    [at + normal * 0.13, at + normal * (0.05 * folds[4 + f]) + 0.01, at - normal * 0.08]
                ),
                crease,
                0.009,
            )
        if who.top == "suit":
            brush.limb(cuff, cuff + (wrist - elbow) * 0.05, 0.080, 0.078, (238, 238, 236))
        return
    brush.limb(shoulder, elbow, 0.108, 0.088, shade(skin, 0.74))
    brush.limb(elbow, wrist, 0.088, 0.062, shade(skin, 0.74))
    brush.limb(shoulder + LIGHT * 0.6, elbow + LIGHT * 0.6, 0.090, 0.072, skin)
    brush.limb(elbow + LIGHT * 0.6, wrist + LIGHT * 0.6, 0.072, 0.050, skin)
    reach = 0.55 if who.top == "tee" else 0.12
    hem = shoulder + (elbow - shoulder) * reach
    brush.limb(shoulder, hem, 0.130, 0.124, shade(cloth, 0.78))
    brush.limb(shoulder + LIGHT * 0.6, hem + LIGHT * 0.6, 0.110, 0.106, cloth)


def _hand(brush: Brush, skin: Colour, points: np.ndarray, turn: float) -> None:
    palm = shade(skin, 1.12) if turn > 0 else skin
    edge = shade(skin, 0.62)
    fingers = (4, 3, 2, 1, 0) if turn > 0 else (0, 4, 3, 2, 1)
    if turn <= 0:  # seen from the back, curled fingers hide behind the palm
        for f in fingers:
            _finger(brush, points, f, palm, edge)
    knuckles = points[[1, 5, 9, 13, 17]]
    wrist = points[0]
    across = (points[5] - points[17]) * 0.36
    outline = np.concatenate(
        [[wrist + across, points[1]], knuckles[1:], [points[17] - across * 0.3, wrist - across]]
    )
    centre = outline.mean(0)
    rim = (
        outline
        + (outline - centre) / (np.linalg.norm(outline - centre, axis=1, keepdims=True) + 1e-6) * 0.012
    )
    brush.polygon(rounded(rim, 1), edge)
    brush.polygon(rounded(outline, 1), palm)
    brush.disc(wrist, 0.027, palm)
    if turn > 0:
        for f in fingers:
            _finger(brush, points, f, palm, edge)
    else:
        for f in range(1, 5):
            brush.disc(points[1 + 4 * f], 0.009, shade(skin, 0.86))


def _finger(brush: Brush, points: np.ndarray, finger: int, colour: Colour, edge: Colour) -> None:
    joints = points[1 + 4 * finger : 5 + 4 * finger]
    width = HAND * (0.135 if finger == 0 else 0.118)
    brush.path(joints, edge, width + 0.014)
    brush.path(joints, colour, width)
