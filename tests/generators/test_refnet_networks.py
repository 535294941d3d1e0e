"""AnimateAnyone's kind: networks beside numbers of upstream's own classes; published names; work left out.

Recorded in recorded/refnet.npz from Moore-AnimateAnyone a914ef3 with diffusers 0.24.0 and torch 2.13, on the
weights of `python -m generators.refnet random-weights --size tiny`: its UNet3DConditionModel and
UNet2DConditionModel with ReferenceAttentionControl (in float64: v), its PoseGuider, AutoencoderKL and
CLIPVisionModelWithProjection (pose, every third place; latents; embedding), on inputs made as here.
"""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler
from safetensors.torch import load_file, save_file
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from engines.onnx.export_streamed import bare_twin
from engines.onnx.parity import draw
from generators.contract import SHALLOW, GeneratorError, load_generator
from generators.diffusion_grids import DdimScheduler
from generators.refnet.load import load_denoiser, load_reference, load_vae, make_unet
from generators.refnet.pictures import PoseGuider
from generators.refnet.random_weights import CONFIGS, UNET
from generators.refnet.unet import Attend, Denoise, Embed, add_motion, transformers
from generators.resize import stretch
from generators.unet.parts import attend
from tests.tiny_refnet import apart, clip, engines_of, folder_of, with_settings, write_tiny

THEIRS = np.load(Path(__file__).parent / "recorded" / "refnet.npz")
MID = "mid_block.motion_modules.0.temporal_transformer"


@pytest.fixture(scope="module")
def tiny_ref(tmp_path_factory):
    """The tiny generator, and a torch engine for each component."""
    generator = write_tiny(tmp_path_factory.mktemp("refnet"))
    return generator, engines_of(generator)


def test_networks_compute_what_upstreams_classes_do(tiny_ref):
    generator, engines = tiny_ref
    skeletons, picture = clip(2)
    skeletons = np.ascontiguousarray(skeletons[:, :72, :64])
    features = engines["pose"](pixels=skeletons)["features"][:, :, ::3, ::3]
    assert apart(features, THEIRS["pose"]) <= 1e-5
    assert apart(engines["encode"](pixels=skeletons[:1])["latents"], THEIRS["latents"]) <= 1e-5
    embedding = engines["image_embed"](pixels=stretch(picture[None], 224, 224, "bicubic"))["image_embedding"]
    assert apart(embedding, THEIRS["embedding"]) <= 1e-5
    for found, place in zip(predicted(generator), (0, 1, 0), strict=True):
        assert apart(found[0].transpose(0, 1), THEIRS["v"][place]) <= 1e-5  # measured 6e-8
    assert apart(THEIRS["v"][0], THEIRS["v"][1]) > 0.1


@pytest.mark.parametrize(
    "component", ["reference", "pose", "image_embed", "denoise", SHALLOW, "decode"])
def test_what_is_exported_in_halves_at_full_size_computes_in_halves(component, tiny_ref):
    """Large files are traced as such a twin; the tiny ones go another way. No number is computed."""
    generator = with_settings(folder_of(tiny_ref[0]), shallow=True)
    spec, (twin, _) = generator.components[component], bare_twin(generator.build(component), torch.float16)
    given = draw(spec, {name: each.max for name, each in spec.ranges.items()}, 0)
    with FakeTensorMode(allow_non_fake_inputs=True) as fake:
        made = twin(*(fake.from_tensor(torch.from_numpy(array)) for array in given.values()))
    made = made if isinstance(made, tuple) else (made,)
    assert [str(each.dtype) for each in made] == [f"torch.{tensor.dtype}" for tensor in spec.outputs]
    with_settings(folder_of(tiny_ref[0]))


def predicted(generator):
    """Predictions in float64 for upstream's inputs: without bank, with it, and without, all of it hidden."""
    random = np.random.default_rng(5)
    shapes = (1, 4, 3, 9, 8), (1, 32, 3, 9, 8), (1, 4, 9, 8), (1, 16)
    drawn = (random.standard_normal(shape, np.float32) for shape in shapes)
    x, pose, latents, token = map(torch.from_numpy, drawn)
    reference, embed, denoise = (generator.build(name).double() for name in ("reference", "embed", "denoise"))
    attend = Attend(load_denoiser(generator._folder)).double()
    with torch.inference_mode():
        bank = reference(latents.double(), token.double())
        rows, row = attend(torch.cat([torch.zeros_like(token), token]).double()), embed(torch.tensor([733.0]))
        for seen, given in ((0, [each[:, 1:2] for each in bank]), (1, bank), (0, bank)):
            yield denoise(x.transpose(1, 2), pose.transpose(1, 2), row, rows[seen : seen + 1],
                          torch.tensor([float(seen)]), *given)


@pytest.mark.parametrize("prediction", ["v", "epsilon"])
def test_steps_in_half_precision_are_diffusers_formulas_on_halves(prediction):
    """With factors in single precision, as a GPU takes them; a processor would round these to halves too."""
    zero = prediction == "v"
    grid = DdimScheduler(30, prediction, "trailing", 1, "linear", zero_snr=zero, half=True)
    theirs = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="linear", steps_offset=1,
                           rescale_betas_zero_snr=zero, timestep_spacing="trailing")
    theirs.set_timesteps(30)
    assert grid.times[:-1].tolist() == theirs.timesteps.tolist() and grid.times[1] == 966
    kept = torch.cat([theirs.alphas_cumprod, torch.ones(1)])  # behind the first trained step nothing is lost
    latents, guided = torch.randn(2, 1, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0)).unbind()
    x, of_noise = latents.half(), guided.half()
    for step, time in enumerate(theirs.timesteps):
        signal, noise, then, rest = (float(each**0.5) for at in (time, max(time - 33, -1))
                                     for each in (kept[at], 1 - kept[at]))
        clean = (x - noise * of_noise) / signal
        wanted = then * clean + rest * of_noise
        if zero:
            wanted = then * (signal * x - noise * of_noise) + rest * (signal * of_noise + noise * x)
        found = grid.leap(x.float().numpy(), guided.numpy(), step, step + 1)
        assert (found != wanted.float().numpy()).mean() < 0.01  # where factors differ in their last bit


@pytest.fixture(scope="module")
def full():
    """The denoising U-Net of the published size, without numbers."""
    with torch.device("meta"):
        return add_motion(make_unet(CONFIGS["full"][UNET]), 24)


def numbers(module):
    return sum(tensor.numel() for tensor in module.state_dict().values())


def test_networks_have_the_published_tensors(full):
    """1,274 with the 42 tables of places, which are computed here."""
    shapes = {name: tuple(tensor.shape) for name, tensor in full.state_dict().items()}
    motion = [name for name in shapes if ".motion_modules." in name]
    assert len(shapes) == 1274 - 42 and numbers(full) == 1_312_730_244
    assert len(motion) == 21 * 26 and sum(np.prod(shapes[name]) for name in motion) == 453_209_280
    deep = f"{MID}.transformer_blocks.0"
    assert shapes[f"{deep}.attention_blocks.1.to_out.0.bias"] == (1280,)
    assert shapes[f"{deep}.ff.net.0.proj.weight"] == (10240, 1280)
    last = "up_blocks.3.motion_modules.2.temporal_transformer"
    assert shapes[f"{last}.proj_in.weight"] == (320, 320) and shapes[f"{last}.norm.weight"] == (320,)
    assert shapes["up_blocks.1.attentions.2.transformer_blocks.0.attn2.to_k.weight"] == (1280, 768)
    assert {block.transformer_blocks[0].attn1.heads for block in transformers(full)} == {8}
    guider = PoseGuider(320).state_dict()
    assert len(guider) == 16 and numbers(PoseGuider(320)) == 1_086_480
    with torch.device("meta"):
        plain = make_unet(CONFIGS["full"][UNET])
        assert numbers(AutoencoderKL.from_config(CONFIGS["full"]["sd-vae-ft-mse"])) == 83_653_863
    del plain.conv_norm_out, plain.conv_out
    assert len(plain.state_dict()) == 682 and numbers(plain) == 859_508_800


def test_a_sixth_of_upstreams_operations_is_left_out(full):
    """Of a window of 24 frames at 512x784 and both branches: 111.08 TFLOP upstream (86.63 counted with its
    UNet3DConditionModel without bank; 24.48 for the bank's projections and attention, in both halves, and the
    unconditional half once more), here 91.63."""
    layers = [(0, 320)] * 2 + [(1, 640)] * 2 + [(2, 1280)] * 2 + [(3, 1280)]
    layers += [(2, 1280)] * 3 + [(1, 640)] * 3 + [(0, 320)] * 3
    tokens = [98 * 64, 49 * 32, 25 * 16, 13 * 8]
    embedded, attended = sum(Embed(full).sizes), sum(Attend(full).sizes)
    denoise, found = Denoise(full), []
    with torch.device("meta"):
        for seen in (False, True):
            bank = [torch.zeros(1, tokens[level] if seen else 1, 2 * size) for level, size in layers]
            window = torch.zeros(1, 24, 4, 98, 64), torch.zeros(1, 24, 320, 98, 64)
            rows = torch.zeros(1, embedded), torch.zeros(1, attended), torch.zeros(1)
            with FlopCounterMode(display=False) as counter:
                denoise(*window, *rows, *bank)
            found.append(counter.get_total_flops() / 1e12)
    assert found == pytest.approx([42.366, 49.262], abs=0.001)
    frames = 24
    concatenated = sum(8 * frames * tokens[level] * size * (size + tokens[level]) for level, size in layers)
    again = sum(frames * tokens[level] * size * (8 * size + 4 * tokens[level]) for level, size in layers)
    assert sum(found) / (86.629 + (concatenated + again) / 1e12) == pytest.approx(0.825, abs=0.001)


def broken(name, change):
    def damage(folder):
        tensors = torch.load(folder / name, weights_only=True)
        change(tensors)
        torch.save(tensors, folder / name)
    return damage


@pytest.mark.parametrize(("damage", "component", "reason"), [
    (broken("motion_module.pth", lambda t: t.pop(f"{MID}.norm.bias")), "denoise",
     r"with motion_module.pth does not fit.*\n1 missing:\n  mid_block.motion_modules.0"),
    (broken("denoising_unet.pth", lambda t: t.update(more=torch.zeros(1))), "reference",
     "1 unexpected:\n  more"),
    (broken("reference_unet.pth", lambda t: t.pop("conv_in.bias")), "reference",
     "1 missing:\n  conv_in.bias"),
    (broken("pose_guider.pth", lambda t: t.update({"conv_in.weight": torch.zeros(16, 4, 3, 3)})), "pose",
     r"conv_in.weight is \(16, 4, 3, 3\) in the file, \(16, 3, 3, 3\)"),
    (lambda folder: (folder / "pose_guider.pth").unlink(), "pose", "no checkpoint at .*pose_guider.pth"),
    (lambda folder: (folder / "image_encoder" / "config.json").unlink(), None, "and image_encoder beside"),
    (lambda folder: (folder / "sd-vae-ft-mse" / "config.json").write_text("[]"), None, "no settings but"),
    (lambda folder: (folder / "vivace.toml").write_text("width = 60"), None, "multiples of 8"),
])
def test_a_folder_that_does_not_fit_is_refused_by_name(tmp_path, damage, component, reason):
    write_tiny(tmp_path)
    damage(tmp_path)
    with pytest.raises(GeneratorError, match=reason):
        load_generator(f"refnet={tmp_path}").build(component)


def test_names_that_published_files_may_have_beside_are_taken(tiny_ref):
    """Tables of places with motion modules, last layers of the reference's U-Net, old names of the VAE's."""
    folder = tiny_ref[0]._folder
    places = f"{MID}.transformer_blocks.0.attention_blocks.0.pos_encoder.pe"
    broken("motion_module.pth", lambda t: t.update({places: torch.zeros(1, 32, 64)}))(folder.path)
    broken("reference_unet.pth", lambda t: t.update({"conv_out.bias": torch.zeros(4)}))(folder.path)
    file = folder.path / "sd-vae-ft-mse" / "diffusion_pytorch_model.safetensors"
    new = load_file(file)
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    named = {re.sub("to_out.0|to_[qkv]", lambda found: old[found[0]], name): new[name] for name in new}
    save_file(named, file)
    load_denoiser(folder)
    load_reference(folder)
    assert load_vae(folder).state_dict().keys() == new.keys() != named.keys()


def test_work_that_is_left_out_changes_no_bit(tiny_ref):
    """With weights and inputs of few binary places in double precision, where sums are exact in any order: on
    random numbers the order of a larger product's sums moves the last bit."""
    unet, random = load_denoiser(tiny_ref[0]._folder).double(), torch.Generator().manual_seed(0)
    for weight in unet.parameters():
        weight.data = (weight.data * 64).round() / 64

    def few(*shape):
        return torch.randint(-32, 33, shape, generator=random).double() / 16

    token, context = few(1, 16), Attend(unet)
    with torch.inference_mode():
        rows = context(token).split(context.sizes, 1)
        for block, row in zip(transformers(unet), rows, strict=True):
            own, picture = (getattr(block.transformer_blocks[0], name) for name in ("attn1", "attn2"))
            seen = picture(few(3, 20, picture.to_q.in_features), token[None].repeat(3, 1, 1))
            assert torch.equal(seen, row[:, None].expand_as(seen))
            tokens, reference = few(3, 20, own.to_k.in_features), few(1, 12, own.to_k.in_features)
            bank = torch.cat([own.to_k(reference), own.to_v(reference)], 2)
            again = reference.repeat(3, 1, 1)
            for_each_frame = torch.cat([own.to_k(again), own.to_v(again)], 2)
            assert torch.equal(for_each_frame, bank.expand(3, -1, -1))
            # The unconditional branch: a bank of one token that is hidden, as upstream attends without one.
            hidden = attend(own, tokens, bank[:, :1], torch.zeros(1).double())
            assert torch.equal(hidden, attend(own, tokens))
            concatenated = own(tokens, torch.cat([tokens, again], 1))
            assert (attend(own, tokens, bank, torch.ones(1).double()) - concatenated).abs().max() < 1e-12
