"""The renderer of talking presenters: repeatable, of any size, and honest about what its inputs determine."""

import numpy as np
import pytest

from lab.presenter.render.backdrop import add_lights
from lab.presenter.render.clip import REFERENCE_TIME, Clip
from lab.presenter.render.motion import head_frame
from lab.presenter.render.skeleton import HAND_EDGES, HAND_PALETTE, PALETTE
from lab.presenter.render.talk import random_talk

T = np.arange(4) / 24
SEEDS = [0, 3, 12, 42]  # four kinds of hair and top, with and without glasses


def pixels(point, width):
    """A point in canvas widths as column and row."""
    return np.floor(np.asarray(point) * width).astype(int)


def inside(points, width, height, margin=3):
    columns, rows = pixels(points, width).T
    across = (columns >= margin) & (columns < width - margin)
    return (across & (rows >= margin) & (rows < height - margin)).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_the_same_seed_is_the_same_pixels(seed):
    first, again = Clip(seed), Clip(seed)
    np.testing.assert_array_equal(first.frames(T), again.frames(T))
    np.testing.assert_array_equal(first.skeletons(T), again.skeletons(T))
    np.testing.assert_array_equal(first.reference(), again.reference())


def test_a_moment_does_not_depend_on_the_others_asked_for():
    clip = Clip(12)
    np.testing.assert_array_equal(clip.frames(T)[2], clip.frames(T[2:3])[0])
    np.testing.assert_array_equal(clip.skeletons(T)[2], clip.skeletons(T[2:3])[0])


def test_another_seed_is_another_person_in_another_motion():
    one, other = Clip(1), Clip(2)
    assert one.who != other.who
    assert np.abs(one.pose(T).hands - other.pose(T).hands).mean() > 0.05
    assert np.abs(one.frames(T).astype(int) - other.frames(T)).mean() > 10


def test_identity_seed_keeps_the_person_while_the_seed_changes_the_motion():
    one, other = Clip(1, identity_seed=9), Clip(2, identity_seed=9)
    assert one.who == other.who == Clip(9).who
    np.testing.assert_array_equal(one.wall, other.wall)
    assert np.abs(one.pose(T).hands - other.pose(T).hands).mean() > 0.05
    np.testing.assert_array_equal(one.pose(T).turn, Clip(1).pose(T).turn)  # the motion is seed 1's


@pytest.mark.parametrize(("width", "height"), [(64, 96), (128, 192), (256, 384), (100, 151)])
def test_frames_skeletons_and_reference_have_the_size_asked_for(width, height):
    clip = Clip(12, width=width, height=height)
    for frames in (clip.frames(T), clip.skeletons(T)):
        assert frames.shape == (4, height, width, 3) and frames.dtype == np.uint8
    assert clip.reference().shape == (height, width, 3) and clip.reference().dtype == np.uint8
    assert clip.determined(T).shape == (4, height, width) and clip.determined(T).dtype == bool


def test_a_larger_picture_shows_the_same_thing():
    small, large = Clip(12), Clip(12, width=256, height=384)
    half = large.frames(T).reshape(4, 192, 2, 128, 2, 3).mean((2, 4))
    assert np.abs(half - small.frames(T)).mean() < 5  # of 255; another person differs by more than 10


@pytest.mark.parametrize("seed", SEEDS)
def test_joints_whose_hands_are_in_view_are_drawn_where_they_are_and_in_their_colours(seed):
    clip, times = Clip(seed), np.arange(0, 4, 0.25)
    pose, frames, checked = clip.pose(times), clip.skeletons(times), 0
    for body, hands, frame in zip(pose.body, pose.hands, frames, strict=True):
        for hand in hands:
            if inside(hand, 128, 192):
                spots = np.array([frame[row - 1:row + 2, column - 1:column + 2].max((0, 1))
                                  for column, row in pixels(hand, 128)])
                assert (spots.max(-1) > 100).all()  # coloured, at each of the 21
                checked += 1
        column, row = pixels(body[0], 128)  # the nose, where no hand covers it
        if inside(body[:1], 128, 192) and np.hypot(*(hands.reshape(-1, 2) - body[0]).T).min() > 0.1:
            assert frame[row, column, 0] > 100 and frame[row, column, 0] >= frame[row, column].max()
    assert checked > 0


def test_skeletons_are_colours_on_black():
    frames = Clip(12).skeletons(T)
    corners = frames[:, :4, [0, 1, -2, -1]]
    assert corners.max() == 0
    assert 0.5 < (frames.max(-1) == 0).mean() < 0.97
    assert len(set(PALETTE)) == 18 and len(set(HAND_PALETTE)) == 20 == len(HAND_EDGES)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_mouth_is_not_determined(seed):
    clip, times = Clip(seed), np.arange(0, 3, 0.5)
    pose, determined, free = clip.pose(times), clip.determined(times), []
    for i in range(len(times)):
        centre, half_width, half_height = head_frame(pose, i, clip.who.build)
        down = np.array([-np.sin(pose.roll[i]), np.cos(pose.roll[i])])
        right = np.array([np.cos(pose.roll[i]), np.sin(pose.roll[i])])
        mouth = centre + down * 0.56 * half_height + right * 0.32 * pose.yaw[i] * half_width
        if np.hypot(*(pose.hands[i].reshape(-1, 2) - mouth).T).min() > 0.12:  # no hand before it
            column, row = pixels(mouth, 128)
            free.append(not determined[i, row - 1:row + 2, column - 1:column + 2].any())
    assert free and np.mean(free) > 0.7


def test_the_lights_are_not_determined():
    shares = []
    for seed in SEEDS:
        clip = Clip(seed)
        determined, frames = clip.determined(T), clip.frames(T)
        for i, lights in enumerate(random_talk(seed, T).lights):
            lit = add_lights(clip.wall, clip.who, lights).astype(int)
            changed = np.abs(lit - clip.wall).max(-1) > 20
            seen = np.abs(lit - frames[i]).max(-1) <= 3  # no figure before it
            shares.append(determined[i][changed & seen].mean())
    assert np.mean(shares) < 0.1


@pytest.mark.parametrize("seed", SEEDS)
def test_most_of_the_torso_is_determined(seed):
    clip = Clip(seed)
    determined, body = clip.determined(T), clip.pose(T).body
    for i in range(len(T)):
        (left, top), (right, bottom) = pixels(body[i, 2], 128), pixels(body[i, 11], 128)
        assert determined[i, top:bottom, left:right].mean() > 0.5


@pytest.mark.parametrize("seed", SEEDS)
def test_pixels_called_determined_do_not_change_with_the_other_detail(seed):
    clip = Clip(seed)
    fresh = clip.frames(T, detail_seed=123_456).astype(int)
    change = np.abs(fresh - clip.frames(T)).max(-1)[clip.determined(T)]
    assert (change > 6).mean() < 0.03  # four redraws do not see everything that a fifth can move


def test_the_reference_is_the_person_in_another_gesture_than_the_first_frame():
    for seed in range(40):
        clip = Clip(seed)
        hands = clip.pose(np.array([REFERENCE_TIME, 0.0])).hands
        assert np.abs(hands[0] - hands[1]).mean() > 0.05, seed  # of a width: 6 pixels
        assert np.abs(clip.reference().astype(int) - clip.frames(T[:1])[0]).mean() > 3, seed


def test_key_points_move_smoothly():
    """No joint jumps at 24 frames/s, though a finger of a hand thrown up moves a third of the width."""
    times = np.arange(0, 20, 1 / 24)
    for seed in range(20):
        pose = Clip(seed).pose(times)
        steps = np.linalg.norm(np.diff(pose.body[:, :8], axis=0), axis=-1)
        assert np.isfinite(pose.hands).all() and np.isfinite(pose.body[:, :8]).all()
        assert np.nanmax(steps) < 0.25, seed
        assert np.linalg.norm(np.diff(pose.hands, axis=0), axis=-1).max() < 0.4, seed
        fine = Clip(seed).pose(np.arange(0, 20, 1 / 240))  # ten times finer, about a tenth of the step
        assert np.linalg.norm(np.diff(fine.hands, axis=0), axis=-1).max() < 0.06, seed


def test_knees_and_ankles_are_never_seen():
    assert np.isnan(Clip(1).pose(T).body[:, [9, 10, 12, 13]]).all()
