"""The causal autoencoder in chunks is the uncut one, exactly; frames come in the groups that it takes."""

import numpy as np
import pytest
import torch

from generators.wan.config import VaeSize
from generators.wan.frame_groups import bounced, groups, mirrored
from generators.wan.vae import Decode, DecodeTile, Encode, autoencoder
from tests.wan_checkpoints import VAE, spread

HEIGHT, WIDTH = 48, 32
SIZES = [VAE, VaeSize(8, 16, (1, 2, 2, 2), 1), VaeSize(base_dim=4, dim_mult=(1, 2, 3, 4), num_res_blocks=2)]


@pytest.fixture(params=SIZES, ids=str)
def network(request):
    """A size, and a random network of it."""
    torch.manual_seed(0)
    return request.param, spread(autoencoder(request.param))


def scale(vae):
    return [torch.tensor(vae.config[key]).view(1, 16, 1, 1, 1) for key in ("latents_mean", "latents_std")]


def in_chunks(graph, chunks, caches):
    """Outputs of the first graph and the next; all caches have the shapes that are written down."""
    found, kept = [], ()
    for chunk in chunks:
        first, *kept = graph(*chunk, *kept)
        found.append(first)
        assert [tuple(each.shape[1:]) for each in kept] == caches
    return found


@torch.inference_mode()
@pytest.mark.parametrize("groups_after", [0, 1, 3])
def test_encoded_group_by_group_a_clip_has_the_latents_that_it_has_uncut(network, groups_after):
    size, vae = network
    pixels = torch.randint(0, 256, (1 + 4 * groups_after, HEIGHT, WIDTH, 3), dtype=torch.uint8)
    mean, std = scale(vae)
    whole = vae.encode(pixels.permute(3, 0, 1, 2)[None] / 127.5 - 1).latent_dist.mode()
    caches = size.encoder_caches(HEIGHT, WIDTH)
    chunks = [(part, torch.ones(len(part))) for part in (pixels[:1], *pixels[1:].split(4)) if len(part)]
    found = torch.cat(in_chunks(Encode(vae, caches), chunks, caches), 2)
    torch.testing.assert_close(found, (whole - mean) / std, rtol=0, atol=1e-5)


@torch.inference_mode()
def test_a_frame_that_is_not_kept_is_neither_black_nor_white(network):
    size, vae = network
    encode = Encode(vae, size.encoder_caches(HEIGHT, WIDTH))
    pixels = torch.randint(0, 256, (1, HEIGHT, WIDTH, 3), dtype=torch.uint8)
    mean, std = scale(vae)
    whole = vae.encode(torch.zeros(1, 3, 1, HEIGHT, WIDTH)).latent_dist.mode()
    torch.testing.assert_close(encode(pixels, torch.zeros(1))[0], (whole - mean) / std, rtol=0, atol=1e-5)


@torch.inference_mode()
@pytest.mark.parametrize("truncate", [False, True])
@pytest.mark.parametrize("frames", [1, 2, 4])
def test_decoded_latent_by_latent_a_clip_has_the_pixels_that_it_has_uncut(network, frames, truncate):
    size, vae = network
    latents = torch.randn(1, 16, frames, HEIGHT // 8, WIDTH // 8)
    mean, std = scale(vae)
    levels = ((vae.decode(latents * std + mean).sample[0].permute(1, 2, 3, 0) + 1) * 127.5).clamp(0, 255)
    caches = size.decoder_caches(HEIGHT // 8, WIDTH // 8)
    chunks = [(part,) for part in latents.split(1, 2)]
    found = torch.cat(in_chunks(Decode(vae, caches, truncate), chunks, caches)).int()
    wanted = (levels.floor() if truncate else levels.round()).int()
    assert found.shape == (1 + 4 * (frames - 1), HEIGHT, WIDTH, 3)
    assert (found - wanted).abs().max() <= 1 and (found != wanted).float().mean() < 1e-3
    assert levels.std() > 10  # it is no uniform picture that is compared


@torch.inference_mode()
def test_a_tile_of_free_size_has_the_pixels_and_caches_of_a_picture_of_that_size(network):
    size, vae = network
    whole = Decode(vae, size.decoder_caches(6, 4), truncate=False)
    tile = DecodeTile(vae, size.decoder_caches(1, 1), truncate=False)
    kept, held = (), ()
    for latents in torch.randn(3, 1, 16, 1, 6, 4):
        pixels, *kept = whole(latents, *kept)
        values, *held = tile(latents, *held)
        assert torch.equal(pixels, ((values + 1) * 127.5).clamp(0, 255).round().to(torch.uint8))
        for wanted, found in zip(kept, held, strict=True):
            assert found.shape[3] == 6 and found.shape[5] == 4  # the only sizes that are free
            assert torch.equal(found.flatten(5).flatten(3, 4), wanted)


def numbered(*sizes):
    """Chunks of those sizes of a clip whose frames hold their number."""
    frames = np.arange(sum(sizes), dtype=np.int64).reshape(-1, 1, 1, 1)
    return np.split(frames, np.cumsum(sizes)[:-1])


def numbers(parts):
    return [part.ravel().tolist() for part in parts]


@pytest.mark.parametrize("sizes", [(9,), (4, 4, 1), (1,) * 9, (2, 7), (8, 1)])
def test_groups_are_the_same_whatever_the_chunks(sizes):
    assert numbers(groups(numbered(*sizes))) == [[0], [1, 2, 3, 4], [5, 6, 7, 8]]


def test_the_last_frame_fills_a_group_and_what_is_missing_to_a_window():
    assert numbers(groups(numbered(7))) == [[0], [1, 2, 3, 4], [5, 6, 6, 6]]
    assert numbers(groups(numbered(1), least=3)) == [[0], [0] * 4, [0] * 4]
    assert numbers(groups(numbered(3), least=3)) == [[0], [1, 2, 2, 2], [2] * 4]


@pytest.mark.parametrize(("frames", "every", "shared"), [
    (9, 9, 1), (10, 9, 1), (17, 9, 1), (18, 9, 1), (40, 9, 1), (40, 17, 5), (3, 9, 1), (2, 9, 1), (1, 9, 1)])
@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_windows_follow_on_one_another_and_the_clip_is_mirrored_at_its_end(frames, every, shared, chunk):
    parts = numbered(*[chunk] * (frames // chunk), *[frames % chunk] * bool(frames % chunk))
    found, whole, begin = numbers(mirrored(parts, every, shared)), bounced(frames, 10 * every).tolist(), 0
    for window in found:
        assert window == whole[begin:begin + every]
        begin += every - shared
    assert len(found) == max(1, -(-(frames - shared) // (every - shared)))


def test_a_clip_is_played_back_and_forth():
    assert bounced(3, 8).tolist() == [0, 1, 2, 1, 0, 1, 2, 1] and bounced(1, 3).tolist() == [0, 0, 0]
