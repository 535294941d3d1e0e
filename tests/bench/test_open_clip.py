"""The exported visual tower computes what open_clip computes; where it cannot be had, the reason is said."""

import json
import sys

import numpy as np
import pytest
from PIL import Image

from bench import similarity
from bench.described import read_description
from bench.open_clip import export_open_clip
from bench.similarity import ExtractorError, load_extractor
from tests.extractors import picture

MODEL = "ViT-B-32"


@pytest.fixture(scope="module")
def open_clip():
    """The package; where it cannot be imported, as without torchvision, the test is skipped."""
    try:
        import open_clip
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"open_clip cannot be imported: {error}")
    return open_clip


@pytest.fixture(scope="module")
def exported(open_clip, tmp_path_factory):
    """The exported extractor of a checkpoint, and the package's model.

    Its weights are random, those of its normalisations too, as if it had been trained.
    """
    import torch

    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    model = open_clip.create_model(MODEL).eval()
    with torch.no_grad():
        for layer in model.visual.modules():
            if isinstance(layer, torch.nn.LayerNorm):
                layer.weight += 0.1 * torch.randn_like(layer.weight)
                layer.bias += 0.1 * torch.randn_like(layer.bias)
    torch.save(model.state_dict(), folder / "random.pt")
    return export_open_clip("clip", MODEL, folder / "random.pt", folder / "extractors"), model


@pytest.mark.slow
def test_features_are_open_clips_own(exported):
    import torch

    path, model = exported
    spec = read_description(path, similarity.Spec, "an extractor")
    extractor = similarity.Extractor(spec, path.with_suffix(".onnx"))
    frames = np.stack([picture(seed, 90, 160) for seed in range(5)])
    _, found = extractor.features(frames)
    mean, std = (np.array(values, np.float32) for values in (model.visual.image_mean, model.visual.image_std))
    squashed = [np.asarray(Image.fromarray(f).resize((224, 224), Image.Resampling.BICUBIC)) for f in frames]
    pixels = ((np.stack(squashed) / 255 - mean) / std).astype(np.float32).transpose(0, 3, 1, 2)
    with torch.inference_mode():
        wanted = model.encode_image(torch.from_numpy(pixels)).numpy()
    cosines = [similarity._cosine(a, b) for a, b in zip(wanted, found, strict=True)]
    assert min(cosines) > 1 - 1e-4


@pytest.mark.slow
def test_an_export_is_loaded_by_its_description(exported):
    assert load_extractor(str(exported[0])).name == "clip"


@pytest.mark.slow
def test_a_checkpoint_that_was_never_trained_is_refused(open_clip, tmp_path):
    import torch

    torch.save(open_clip.create_model(MODEL).state_dict(), tmp_path / "new.pt")
    with pytest.raises(ExtractorError, match="new.pt was never trained"):
        export_open_clip("clip", MODEL, tmp_path / "new.pt", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_checkpoint_of_another_model_and_an_unknown_model_are_named(exported, open_clip, tmp_path):
    import torch

    (tmp_path / "other.pt").write_bytes(b"")
    torch.save({"visual.proj": torch.zeros(3)}, tmp_path / "other.pt")
    with pytest.raises(ExtractorError, match=r"other.pt is not a ViT-B-32"):
        export_open_clip("clip", MODEL, tmp_path / "other.pt", tmp_path)
    with pytest.raises(ExtractorError, match="knows no model 'ViT-B-33'"):
        export_open_clip("clip", "ViT-B-33", tmp_path / "other.pt", tmp_path)


def test_without_the_package_the_reason_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    (tmp_path / "any.pt").write_bytes(b"")
    with pytest.raises(ExtractorError, match="cannot be imported .* run: pip install open-clip-torch"):
        export_open_clip("clip", MODEL, tmp_path / "any.pt", tmp_path)


def test_without_a_checkpoint_nothing_is_exported(tmp_path):
    with pytest.raises(ExtractorError, match="no checkpoint at .*none.pt; give the file of the weights"):
        export_open_clip("clip", MODEL, tmp_path / "none.pt", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_description_names_the_checkpoint(request):
    path, _ = request.getfixturevalue("exported")
    spec = json.loads(path.read_text())
    assert spec["source"].startswith("open_clip ViT-B-32, random.pt of SHA-256 ")
    assert spec["size"] == [224, 224]
