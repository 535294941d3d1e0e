"""What tests of clips sampled piece by piece share: generators, plans, constants, both ways to sample."""

from dataclasses import dataclass

import numpy as np

from generators.samplers import FlowMatchEuler, UniPcMultistep
from generators.windows import OverlapWindows
from pipeline.guard import Guard
from pipeline.sampler import Sampler, evaluations
from pipeline.step_plan import StepPlan
from pipeline.streaming import StreamedClip

NEVER = 100.0


def poses(frames, seed=0):
    """Poses that are noise, so that any frame that lands elsewhere is seen."""
    random = np.random.default_rng(seed)
    return random.standard_normal((1, frames, 12, 8), np.float32)


def mixing(generator):
    """Let a window's flow hang on all its frames, the pose, and the branch."""
    def flow(conditional, latents, pose):
        mean = latents.mean(1, keepdims=True)
        return np.tanh(latents - pose * conditional + 0.3 * mean * latents.shape[1] ** 0.5)

    generator.flow = flow
    return generator


def in_pieces(constants, length, taken=None):
    first = {"reference": constants["reference"]}
    for start in range(0, constants["pose"].shape[1], length):
        if taken is not None:
            taken.append(start)
        yield {"pose": constants["pose"][:, start : start + length], **first}
        first = {}


def at_once(generator, plan, constants, frames, **options):
    engines = {"denoise": generator.engines()["denoise"]}
    return Sampler(generator, engines, plan, **options).sample(constants, frames, 7)


def streamed(generator, plan, constants, frames, length=8, **options):
    engines = {"denoise": generator.engines()["denoise"]}
    clip = StreamedClip(Sampler(generator, engines, plan, **options), in_pieces(constants, length), frames, 7)
    return np.concatenate([*clip.latents()], 1), clip


def constants_of(frames, seed=0):
    return {"pose": poses(frames, seed), "reference": np.ones((1, 2, 12, 8), np.float32)}


def random_case(seed):
    random = np.random.default_rng(seed)
    length = int(random.integers(2, 17))
    rule = OverlapWindows(length, int(random.integers(0, length)))
    steps = int(random.integers(1, 9))
    actions = "F" + "".join(random.choice(list("FCS"), steps - 1))
    count = sum(letter != "S" for letter in actions)
    overlaps = tuple(int(n) for n in random.integers(0, length, random.integers(0, count + 1)))
    scheduler = (FlowMatchEuler, UniPcMultistep)[seed % 2](steps, 2.0)
    return rule, StepPlan(actions, overlaps=overlaps), scheduler, int(random.integers(1, 120)), random


@dataclass(frozen=True)
class Around:
    """A rule whose windows go around the end of the clip, as AnimateAnyone's do: every frame hangs on all."""

    length: int = 4
    frames = property(lambda self: self.length)

    def latent_frames(self, frames):
        return frames

    def condition_indices(self, frames):
        return np.arange(frames)

    def window_indices(self, frames):
        return [np.arange(start, start + self.length) % frames for start in range(0, frames, self.length - 1)]

    def count(self, frames):
        return len(self.window_indices(frames))

    def weights(self, length):
        return np.ones(length, np.float32)


def unlike_at(frames, plan, *runs):
    """A plan whose guard takes these runs of poses for unlike, and constants of such a clip."""
    changes = (0.0,) + (NEVER,) * (len(plan.evaluated) - 1)
    guard = Guard(5, changes, ("pose",), ((0.0,) * 12,), ((1.0,) * 12,), (1.0,))
    constants = constants_of(frames)
    for begin, end in runs:
        constants["pose"][:, begin:end] *= 100
    return StepPlan(plan.actions, overlaps=plan.overlaps, guard=guard), constants


def both_ways(generator, plan, constants, frames, length=8):
    """The latents of a clip made at once, which streamed ones must be, and the state."""
    ticks, more = [], []
    whole = at_once(generator, plan, constants, frames)
    sampler = Sampler(generator, {"denoise": generator.engines()["denoise"]}, plan, None,
                      lambda: ticks.append(1), more.append)
    clip = StreamedClip(sampler, in_pieces(constants, length), frames, 7)
    pieces, latents = [], clip.latents()
    while sum(piece.shape[1] for piece in pieces) < whole.latents.shape[1]:  # nobody asks again
        pieces.append(next(latents))
    found = np.concatenate(pieces, 1)
    assert found.tobytes() == whole.latents.tobytes() and found.shape == whole.latents.shape
    assert clip.unlike == whole.unlike and clip.taken == whole.taken
    assert evaluations(generator, frames, plan) + sum(more) == len(ticks)
    return found, whole
