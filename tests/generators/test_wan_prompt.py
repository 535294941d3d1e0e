"""Prompts are embedded once, as upstream embeds them; what is missing for that is said."""

import sys
import types

import pytest
import torch

import generators.wan.__main__ as script
from generators.contract import load_generator
from generators.wan import load
from generators.wan.files import Files
from generators.wan.prompt import clean
from tests.wan_checkpoints import TEXT, write_checkpoint


@pytest.fixture
def transformers(monkeypatch):
    """A stand-in for transformers: a word is a token, whose embedding is the word's length everywhere."""
    module = types.ModuleType("transformers")

    class Given(types.SimpleNamespace):
        pass

    class Tokenizer:
        @classmethod
        def from_pretrained(cls, folder, local_files_only):
            if not folder.parent.is_dir():
                raise OSError("nothing there")
            return cls()

        def __call__(self, text, padding, max_length, truncation, return_tensors):
            lengths = [len(word) for word in text.split()][:max_length]
            fill = [0] * (max_length - len(lengths))
            mask = [1] * len(lengths) + fill
            return Given(input_ids=torch.tensor([lengths + fill]), attention_mask=torch.tensor([mask]))

    class Encoder(Tokenizer):
        def eval(self):
            return self

        def __call__(self, ids, mask):
            return Given(last_hidden_state=ids[..., None].expand(-1, -1, TEXT) + 0.5)

    module.AutoTokenizer, module.UMT5EncoderModel = Tokenizer, Encoder
    monkeypatch.setitem(sys.modules, "transformers", module)


def test_prompts_are_embedded_and_the_generator_takes_them(transformers, tmp_path, run_main):
    folder = write_checkpoint(tmp_path, "wan-fun-control")
    Files(folder).prompt.unlink()
    ran = run_main(script, "prompt", folder, "a  person &amp; dances", "--negative", "still")
    assert ran.status == 0 and ran.out == f"{folder / 'prompt.safetensors'}\n", ran.err
    negative, prompt = load.load_prompts(Files(folder), guided=True)
    assert prompt.shape == (512, TEXT)
    assert prompt[:5, 0].tolist() == [1.5, 6.5, 5.5, 6.5, 0.0]  # as it is; whatever UMT5 gives after the end
    assert negative[:2, 0].tolist() == [5.5, 0.0]
    load_generator(f"wan-fun-control={folder}").build("denoise")


def test_text_is_cleaned_as_wans_own_code_does(transformers, tmp_path, run_main, monkeypatch):
    """VideoX-Fun's pipeline cleans none."""
    ftfy = types.ModuleType("ftfy")
    ftfy.fix_text = lambda text: text.replace("，", ",")
    monkeypatch.setitem(sys.modules, "ftfy", ftfy)
    assert clean(" a&amp;amp;b \n c，d ") == "a&b c,d"
    folder = write_checkpoint(tmp_path, "wan-animate")
    for more, length in (((), 1), (("--as-is",), 5)):
        assert run_main(script, "prompt", folder, "&amp;", *more).status == 0
        assert load.load_prompts(Files(folder), guided=False)[0, 0, 0] == length + 0.5
    monkeypatch.setitem(sys.modules, "ftfy", None)
    ran = run_main(script, "prompt", folder, "x")
    assert ran.status == 2 and "needs ftfy; run: pip install ftfy" in ran.err


def test_ftfy_changes_the_published_negative_prompt_as_upstream_sees_it():
    pytest.importorskip("ftfy")
    assert clean("色调艳丽，过曝，“静态”") == '色调艳丽,过曝,"静态"'


def test_what_is_missing_is_said(transformers, tmp_path, run_main, monkeypatch):
    ran = run_main(script, "prompt", tmp_path, "x", "--as-is", "--text-encoder", tmp_path / "none")
    assert ran.status == 2 and "has no text_encoder/ and tokenizer/ to read: nothing there" in ran.err
    monkeypatch.setitem(sys.modules, "transformers", None)
    ran = run_main(script, "prompt", tmp_path, "x")
    assert ran.status == 2 and "needs transformers; run: pip install" in ran.err
