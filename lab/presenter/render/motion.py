"""How a presenter moves: key-framed arms and hands, a swaying body, OpenPose key points at any time.

Lengths are in canvas widths, y points down, the canvas is 1 wide and 1.5 high. Times are in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Thumb, index, middle, ring, little: 0 straight, 1 curled into the palm; then how far the fingers fan out.
HAND_SHAPES = {
    "open": (0.0, 0.0, 0.0, 0.0, 0.0, 1.0),
    "relaxed": (0.2, 0.2, 0.25, 0.3, 0.35, 0.6),
    "flat": (0.1, 0.0, 0.0, 0.0, 0.0, 0.35),
    "point": (0.8, 0.0, 1.0, 1.0, 1.0, 0.5),
    "two": (0.9, 0.0, 0.0, 1.0, 1.0, 1.2),
    "three": (0.9, 0.0, 0.0, 0.0, 1.0, 1.0),
    "fist": (0.9, 1.0, 1.0, 1.0, 1.0, 0.4),
    "ok": (0.5, 0.6, 0.05, 0.0, 0.0, 0.9),
}
# Upper arm and forearm angle (degrees from straight down, outward positive), their visible length,
# the bend of the wrist, and how the hand is turned (1 palm to the viewer, -1 back to the viewer).
ARM_POSES = {
    "rest": (14, -8, 1.0, 0.95, -5, -0.7),
    "waist": (22, -62, 0.95, 0.85, 5, -0.8),
    "chest": (24, -112, 0.9, 0.8, -10, -0.8),
    "front": (12, -145, 0.8, 0.75, 0, 0.8),
    "out": (15, 126, 0.95, 0.72, 25, 0.9),
    "up": (20, 160, 0.85, 0.9, 12, 0.9),
    "high": (30, 178, 0.9, 0.9, 5, 0.9),
}
UPPER_ARM, FOREARM, HAND = 0.30, 0.27, 0.25
HEAD_RISE, HEAD_HALF = 0.262, (0.142, 0.185)
FINGER_LENGTHS = np.array([0.44, 0.42, 0.47, 0.43, 0.34])
FINGER_ROOTS = np.array([[0.10, 0.19], [0.45, 0.165], [0.48, 0.055], [0.46, -0.055], [0.41, -0.16]])
FINGER_FAN = np.radians([48.0, 11.0, 2.0, -7.0, -17.0])


@dataclass(frozen=True)
class Pose:
    """Key points of F moments: body (F, 18, 2) in OpenPose order, hands (F, 2, 21, 2) right then left.

    Hidden or out-of-frame body points are NaN (knees and ankles always are). turn (F, 2) is how much of
    the palm is seen, roll (F,) the head's tilt in radians, yaw (F,) its turn in [-1, 1].
    """

    body: np.ndarray
    hands: np.ndarray
    turn: np.ndarray
    roll: np.ndarray
    yaw: np.ndarray


@dataclass(frozen=True)
class Build:
    """Proportions of one person, as factors of the mean."""

    shoulders: float = 1.0
    head: float = 1.0
    height: float = 1.0


class Noise:
    """A smooth random function of time per channel: three sines of random phase, amplitude about one."""

    def __init__(self, rng: np.random.Generator, channels: int, slowest: float, fastest: float) -> None:
        self.rate = rng.uniform(slowest, fastest, (3, channels)) * 2 * np.pi
        self.phase = rng.uniform(0, 2 * np.pi, (3, channels))

    def __call__(self, t: np.ndarray) -> np.ndarray:
        """Values (F, channels) at times t (F,)."""
        return np.sin(t[:, None, None] * self.rate + self.phase).sum(1) / 1.9


class Keys:
    """Held key values with minimum-jerk moves between them."""

    def __init__(self, times: np.ndarray, values: np.ndarray, hold: float) -> None:
        self.times, self.values, self.hold = times, values, hold

    def __call__(self, t: np.ndarray) -> np.ndarray:
        """Values (F, D) at times t (F,)."""
        i = np.clip(np.searchsorted(self.times, t, side="right") - 1, 0, len(self.times) - 2)
        span = self.times[i + 1] - self.times[i]
        u = np.clip(((t - self.times[i]) / span - self.hold) / (1 - self.hold), 0, 1)[:, None]
        smooth = u**3 * (10 - 15 * u + 6 * u * u)
        return self.values[i] + (self.values[i + 1] - self.values[i]) * smooth


class Motion:
    """One presenter's movement for all time; the same seed is the same movement."""

    def __init__(self, seed: int, build: Build, seconds: float = 60.0) -> None:
        rng = np.random.default_rng((seed, 1))
        self.build = build
        times = np.concatenate([[-2.0], np.cumsum(rng.uniform(0.5, 1.3, int(seconds / 0.5) + 8)) - 1.0])
        right = _arm_keys(rng, len(times))
        left = right if rng.random() < 0.3 else _arm_keys(rng, len(times))
        lag = rng.uniform(-0.3, 0.3)
        self.arms = [Keys(times, right, 0.3), Keys(times + lag, left, 0.3)]
        self.sway = Noise(rng, 4, 0.08, 0.35)
        self.head = Noise(rng, 3, 0.15, 0.7)
        self.tremble = Noise(rng, 6, 0.5, 1.2)

    def at(self, t: np.ndarray) -> Pose:
        """The pose at times t (F,) in seconds."""
        t = np.asarray(t, float)
        sway, head, tremble = self.sway(t), self.head(t), self.tremble(t)
        body = np.full((len(t), 18, 2), np.nan)
        neck = np.stack([0.5 + 0.035 * sway[:, 0], 0.63 + 0.012 * sway[:, 1]], 1)
        neck[:, 1] += 0.08 * (1 - self.build.height)
        lean = 0.05 * sway[:, 2]
        body[:, 1] = neck
        hips = neck + np.stack([-0.5 * lean, np.full(len(t), 0.66)], 1)
        hands = np.empty((len(t), 2, 21, 2))
        turn = np.empty((len(t), 2))
        for k, side in enumerate((-1.0, 1.0)):
            shoulder = neck + np.stack(
                [side * 0.195 * self.build.shoulders * np.cos(lean), 0.075 + side * 0.18 * lean], 1
            )
            arm = self.arms[k](t)
            arm[:, :2] += np.radians(2.5) * tremble[:, 3 * k : 3 * k + 2]
            elbow = shoulder + _direction(arm[:, 0], side) * (UPPER_ARM * arm[:, 2:3])
            wrist = elbow + _direction(arm[:, 1], side) * (FOREARM * arm[:, 3:4])
            first = 2 + 3 * k
            body[:, first], body[:, first + 1], body[:, first + 2] = shoulder, elbow, wrist
            body[:, 8 + 3 * k] = hips + np.array([side * 0.115 * self.build.shoulders, 0.0])
            angle = arm[:, 1] + arm[:, 4] + np.radians(4) * tremble[:, 3 * k + 2]
            turn[:, k] = arm[:, 5]
            hands[:, k] = _hand(wrist, _direction(angle, side), side, arm[:, 5], arm[:, 6:11], arm[:, 11])
        roll, yaw = 0.10 * head[:, 0] + 0.3 * lean, np.clip(0.6 * head[:, 1], -1, 1)
        _place_head(body, neck, roll, yaw, 0.35 * head[:, 2], self.build)
        return Pose(body, hands, turn, roll, yaw)


def head_frame(pose: Pose, i: int, build: Build) -> tuple[np.ndarray, float, float]:
    """Centre (2,), half width and half height of the head at moment i."""
    up = np.array([np.sin(pose.roll[i]), -np.cos(pose.roll[i])])
    return pose.body[i, 1] + up * HEAD_RISE, HEAD_HALF[0] * build.head, HEAD_HALF[1] * build.head


def hands_and_face(pose: Pose, i: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points (N, 2) whose boxes hold the right hand, the left hand and the face at moment i."""
    face = pose.body[i, [0, 14, 15, 16, 17]] + (0, 0.04)  # the mouth lies below the key points
    return pose.hands[i, 0], pose.hands[i, 1], face


def _place_head(
    body: np.ndarray, neck: np.ndarray, roll: np.ndarray, yaw: np.ndarray, pitch: np.ndarray, build: Build
) -> None:
    up = np.stack([np.sin(roll), -np.cos(roll)], 1)
    right = np.stack([np.cos(roll), np.sin(roll)], 1)
    centre, hw, hh = neck + up * HEAD_RISE, HEAD_HALF[0] * build.head, HEAD_HALF[1] * build.head
    shift, nod = 0.32 * yaw, 0.10 * pitch
    for joint, u, v in ((0, 0.0, -0.20), (14, -0.40, 0.05), (15, 0.40, 0.05)):
        body[:, joint] = centre + right * ((u + shift) * hw)[:, None] + up * ((v + nod) * hh)[:, None]
    for joint, u in ((16, -1.0), (17, 1.0)):
        body[:, joint] = centre + right * ((u + 0.12 * yaw) * hw)[:, None] - up * (0.02 * hh)


def _direction(angle: np.ndarray, side: float) -> np.ndarray:
    """Unit vectors (F, 2) for angles from straight down, outward positive, of the arm on that side."""
    return np.stack([side * np.sin(angle), np.cos(angle)], 1)


def _arm_keys(rng: np.random.Generator, count: int) -> np.ndarray:
    """Key values (count, 12): two arm angles, two lengths, wrist bend, hand turn, five curls, fan."""
    poses, shapes = list(ARM_POSES.values()), list(HAND_SHAPES.values())
    keys = np.empty((count, 12))
    for row in keys:
        pose = np.array(poses[rng.choice(len(poses), p=[0.14, 0.14, 0.14, 0.1, 0.18, 0.18, 0.12])], float)
        pose[[0, 1, 4]] = np.radians(pose[[0, 1, 4]] + rng.uniform(-1, 1, 3) * (8, 16, 14))
        pose[2:4] = np.clip(pose[2:4] + rng.uniform(-0.1, 0.06, 2), 0.6, 1.0)
        row[:6] = pose
        row[6:] = shapes[rng.integers(len(shapes))] + rng.normal(0, 0.04, 6)
    turns = np.diff(keys[:, 1])
    keys[1:, 1] = keys[0, 1] + np.cumsum((turns + np.pi) % (2 * np.pi) - np.pi)
    keys[:, 6:11] = keys[:, 6:11].clip(0, 1)
    return keys


def _hand(
    wrist: np.ndarray, along: np.ndarray, side: float, turn: np.ndarray, curl: np.ndarray, fan: np.ndarray
) -> np.ndarray:
    """21 hand key points (F, 21, 2): the wrist, then four joints of thumb, index, middle, ring, little."""
    across = -side * np.stack([-along[:, 1], along[:, 0]], 1) * turn[:, None]
    points = np.empty((len(wrist), 21, 2))
    points[:, 0] = wrist
    for finger in range(5):
        root = wrist + HAND * (along * FINGER_ROOTS[finger, 0] + across * FINGER_ROOTS[finger, 1])
        bend = curl[:, finger]
        if finger == 0:  # the thumb folds across the palm rather than towards the viewer
            angle = FINGER_FAN[0] * (0.75 + 0.35 * fan) - bend * np.radians(75)
            folds = [angle, angle - bend * 0.5, angle - bend * 1.1]
            segments = [(np.cos(a), np.sin(a)) for a in folds]
        else:
            angle = FINGER_FAN[finger] * fan
            depth = [bend * np.radians(80), bend * np.radians(165), bend * np.radians(225)]
            segments = [(np.cos(angle) * np.cos(d), np.sin(angle) * np.cos(d)) for d in depth]
        point = root
        points[:, 1 + 4 * finger] = point
        for joint, (share, (a, b)) in enumerate(zip((0.46, 0.30, 0.24), segments, strict=True)):
            length = HAND * FINGER_LENGTHS[finger] * share
            point = point + length * (along * a[:, None] + across * b[:, None])
            points[:, 2 + 4 * finger + joint] = point
    return points
