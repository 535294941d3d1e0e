"""The embedding of a prompt by UMT5, made once: a generator reads it from a file, and never needs UMT5 again.

Only this file needs transformers and ftfy.
"""

from __future__ import annotations

import html
from pathlib import Path

from engines.files import atomic_write
from generators.contract import GeneratorError

TOKENS = 512  # that Wan's networks are trained with


def write_prompts(encoder: Path, prompt: str, negative: str | None, path: Path, cleaned: bool = True) -> Path:
    """Embed the texts and write them, whole or not at all; shapes (512, width), zeros after a text's end.

    encoder: a folder with text_encoder/ and tokenizer/, as in diffusers' layout of a Wan checkpoint.
    cleaned: as Wan's own code and UniAnimate clean them, see clean(); VideoX-Fun does not. GeneratorError:
    transformers or ftfy is not installed, or transformers cannot read them.
    """
    import torch
    from safetensors.torch import save_file

    tokenizer, network = _load(encoder)
    texts = {"prompt": prompt, **({} if negative is None else {"negative": negative})}
    found = {}
    for name, text in texts.items():
        given = tokenizer(
            clean(text) if cleaned else text,
            padding="max_length",
            max_length=TOKENS,
            truncation=True,
            return_tensors="pt",
        )
        with torch.inference_mode():
            embedded = network(given.input_ids, given.attention_mask).last_hidden_state[0]
        found[name] = (embedded.float() * given.attention_mask[0, :, None]).contiguous()
    with atomic_write(path) as draft:
        save_file(found, draft)
    return path


def clean(text: str) -> str:
    """Clean a text as upstream does before it is cut into tokens: plain forms of letters, single spaces.

    ftfy, of which upstream makes use, writes the full-width commas and curly quotes of its own prompts anew.
    """
    try:
        import ftfy
    except ImportError as error:
        raise GeneratorError(
            "cleaning a prompt as upstream does needs ftfy; run: pip install ftfy"
        ) from error
    return " ".join(html.unescape(html.unescape(ftfy.fix_text(text))).split())


def _load(folder: Path) -> tuple:
    try:
        from transformers import AutoTokenizer, UMT5EncoderModel
    except ImportError as error:
        reason = 'needs transformers; run: pip install "transformers>=4.49" sentencepiece ftfy'
        raise GeneratorError(f"embedding a prompt {reason}") from error
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
        network = UMT5EncoderModel.from_pretrained(folder / "text_encoder", local_files_only=True)
    except (OSError, ValueError) as error:
        raise GeneratorError(f"{folder} has no text_encoder/ and tokenizer/ to read: {error}") from error
    return tokenizer, network.eval()
