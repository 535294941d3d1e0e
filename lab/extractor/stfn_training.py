"""Train stfn on rendered clips: near itself when encoded again, away with every visible defect."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import IterableDataset

from engines.artifact import file_sha256
from engines.onnx.export import quiet, strip
from lab.extractor.defects import (
    DEFECTS,
    Defect,
    Kind,
    Scene,
    blurred,
    brighter,
    encoded_again,
    half_size,
    late,
    levels,
    moved,
    noisy,
    tinted,
)
from lab.extractor.stfn import HEIGHT, WIDTH, Stfn, StfnSize
from lab.presenter.dataset import TRAINING_SEEDS, stream
from lab.presenter.render.clip import FPS, Clip
from lab.presenter.train import Plan, train_network

# What a clip is trained to leave. 3 levels more everywhere cannot be told from another exposure without being
# touchy about everything: the check of the mean colour sees it.
HARMFUL = tuple(d for d in DEFECTS if not d.harmless and d.change is not brighter)
HARD = (late, moved, tinted)  # drawn twice as often as others
GRADED = (blurred, noisy, brighter, moved, tinted, half_size)  # a tenth of these is harmless
DRAWN = 4  # defects of each clip in a step
# Distances (1 - cosine): a harmless change may make the first, a defect must make the second, another clip
# the third. The gate lies at 0.03; harmless changes shall stay below 0.005.
HARMLESS, DEFECT, OTHER = 0.001, 0.06, 0.5
STILL = 0.25  # of the clips are one picture all the time, as in the self-test of bench.similarity


@dataclass(frozen=True)
class Batch:
    """Clips (F, H, W, 3) uint8: the one to hold against, harmless versions, defective ones, another clip.

    kinds: of the defects.
    """

    clip: Tensor
    harmless: list[Tensor]
    defects: list[Tensor]
    kinds: list[Kind]
    other: Tensor


class Scenes(IterableDataset):
    """Endless batches; number n is always the same."""

    def __init__(self, first: int) -> None:
        self.first = first

    def __iter__(self) -> Iterator[Batch]:
        n = self.first
        while True:
            yield make_batch(n)
            n += 1


def make_scene(seed: int, start: float, frames: int) -> Scene:
    """Render a clip, with another person in its motion and its person in another."""
    t = start + np.arange(frames) / FPS
    own, other = Clip(seed), seed + 250_000
    return Scene(
        own.frames(t),
        Clip(seed, identity_seed=other).frames(t, detail_seed=seed),
        Clip(other, identity_seed=seed).frames(t),
    )


def make_batch(number: int) -> Batch:
    """Make the batch of that number: the clip was encoded, as videos are, half of the defects before it was."""
    random = np.random.default_rng((number, 17))
    still, frames = random.random() < STILL, int(random.integers(8, 25))
    scene = make_scene(TRAINING_SEEDS + 2 * number, random.uniform(0, 8), 1 if still else frames)
    if still:
        parts = (scene.frames, scene.other_person, scene.other_pose)
        scene = Scene(*(part.repeat(frames // 3, 0) for part in parts))
    clip = encoded_again(scene)
    plain = Scene(clip, scene.other_person, scene.other_pose)
    drawn = _draw([d for d in HARMFUL if not still or d.kind is not Kind.TIME], random)
    return Batch(
        torch.from_numpy(clip),
        [torch.from_numpy(each) for each in _harmless(scene, plain, random)],
        [torch.from_numpy(np.ascontiguousarray(_defective(d, scene, plain, random))) for d in drawn],
        [defect.kind for defect in drawn],
        torch.from_numpy(scene.other_pose[:, ::-1, ::-1].copy()),
    )


def loss(network: Stfn, batch: Batch) -> Tensor:
    """Return how far distances are beyond their bounds, in natural logarithms: a hundredth counts like a
    tenth.
    """
    whole = network(batch.clip)

    def distances(other: Tensor) -> tuple[Tensor, Tensor]:
        pairs = zip(network(other), whole, strict=True)
        cosines = [nn.functional.cosine_similarity(a.float(), b.float()) for a, b in pairs]
        return tuple((1 - cosine).clamp(min=1e-6) for cosine in cosines)

    def below(distance: Tensor, bound: float) -> Tensor:
        return torch.relu(torch.log(distance / bound)).mean()

    def above(distance: Tensor, bound: float) -> Tensor:
        return torch.relu(torch.log(bound / distance)).mean()

    near = [distances(each) for each in batch.harmless]
    away = [distances(each) for each in batch.defects]
    other = distances(batch.other)
    of_clips = torch.stack([below(each[0], HARMLESS) for each in near]).mean()
    of_clips = of_clips + torch.stack([above(each[0], DEFECT) for each in away]).mean()
    looks = [each[1] for each, kind in zip(away, batch.kinds, strict=True) if kind is Kind.LOOK]
    of_frames = torch.stack([below(each[1], HARMLESS) for each in near]).mean()
    of_frames = of_frames + sum(above(each, DEFECT) for each in looks) / DRAWN
    return of_clips + 0.3 * of_frames + 0.2 * (above(other[0], OTHER) + above(other[1], OTHER))


def train(run: Path, steps: int, out: Path, size: StfnSize = StfnSize(), save_every: int = 50) -> Path:
    """Train from nothing, or go on from the run's checkpoint; writes stfn.json and its graphs to out."""
    torch.manual_seed(0)
    plan = Plan(steps, 1e-3, warm_up=50, save_every=save_every)
    network = train_network(run, "stfn", Stfn(size), plan, lambda first: stream(Scenes(first), 1), loss)
    return export(network.eval(), out)


def export(network: Stfn, folder: Path) -> Path:
    """Export the network as an extractor of two graphs, so that clips can be long; return its JSON's path."""
    folder.mkdir(parents=True, exist_ok=True)
    graph, pool = (folder / f"stfn{part}.onnx" for part in ("", "-pool"))
    frames = torch.zeros(12, HEIGHT, WIDTH, 3, dtype=torch.uint8)
    rows = torch.zeros(12, 2 * network.size.frame)
    _export(_Part(network, "rows"), graph, {"frames": frames}, ["rows"])
    _export(_Part(network, "pool"), pool, {"rows": rows}, ["clip", "each"])
    spec = {
        "name": "stfn",
        "onnx": graph.name,
        "sha256": file_sha256(graph),
        "kind": "clip",
        "size": [WIDTH, HEIGHT],
        "resize": "box",
        "input": "frames",
        "output": "clip",
        "frames_output": "each",
        "pool": pool.name,
        "pool_sha256": file_sha256(pool),
        "licence": "Apache-2.0",
        "source": "lab/extractor/stfn_training.py, trained on clips of the bundled renderer",
    }
    path = folder / "stfn.json"
    path.write_text(json.dumps(spec, indent=1) + "\n", encoding="utf-8")
    return path


class _Part(nn.Module):
    """A method of a network as a module, for the exporter."""

    def __init__(self, network: nn.Module, name: str) -> None:
        super().__init__()
        self.network, self.name = network, name

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        return getattr(self.network, self.name)(x)


def _export(module: nn.Module, path: Path, example: dict[str, Tensor], outputs: list[str]) -> None:
    with quiet(), torch.inference_mode():
        program = torch.onnx.export(
            module,
            tuple(example.values()),
            dynamo=True,
            opset_version=20,
            input_names=list(example),
            output_names=outputs,
            dynamic_shapes=({0: torch.export.Dim("n", min=2, max=100_000)},),
            verbose=False,
        )
    strip(program.model)
    program.save(path, external_data=False)


def _draw(defects: list[Defect], random: np.random.Generator) -> list[Defect]:
    weights = np.array([2.0 if defect.change in HARD else 1.0 for defect in defects])
    return [defects[i] for i in random.choice(len(defects), DRAWN, False, weights / weights.sum())]


def _harmless(scene: Scene, plain: Scene, random: np.random.Generator) -> list[np.ndarray]:
    """Return the clip encoded again, or noisy below a level; as of another engine; with a tenth of a defect."""
    clip, others = plain.frames, (scene.other_person, scene.other_pose)
    noise = [random.normal(0, random.uniform(0.2, 1.2), clip.shape) for _ in range(2)]
    graded = GRADED[random.integers(len(GRADED))](plain)
    return [
        encoded_again(plain) if random.random() < 0.5 else levels(clip + noise[0]),
        encoded_again(Scene(levels(scene.frames + noise[1]), *others)),
        levels(clip + 0.1 * (graded.astype(np.float32) - clip)),
    ]


def _defective(defect: Defect, scene: Scene, plain: Scene, random: np.random.Generator) -> np.ndarray:
    """Return the clip with the defect: before it was encoded, as a bad generator makes it, or after."""
    if random.random() < 0.5:
        return defect.change(plain)
    return encoded_again(Scene(defect.change(scene), scene.frames, scene.frames))
