"""Embed the prompt of a Wan generator once; FOLDER/prompt.safetensors is what its other parts need of it.

  python -m generators.wan prompt FOLDER "a person is dancing" --negative "blurred"

Needs transformers and the text encoder, 11 GB: in FOLDER, or in another folder in diffusers' layout.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from engines.cli import ending, run
from engines.errors import Exit
from generators.contract import GeneratorError
from generators.wan.config import TransformerSize, transformer_size
from generators.wan.files import Files
from generators.wan.fun_control import FunControl


def main() -> Exit:
    """Embed the prompts that the command line names, and print where they are."""
    args = parse()
    return ending("generators.wan", lambda: embed(args))


def embed(args: argparse.Namespace) -> Exit:
    """Write the embeddings of the prompts; return their path."""
    from generators.wan.prompt import write_prompts

    source = args.text_encoder or args.folder
    path = Files(args.folder).prompt
    print(write_prompts(source, args.prompt, args.negative, path, not (args.as_is or is_fun(args.folder))))
    return Exit.OK


def is_fun(folder: Path) -> bool:
    """Tell whether a folder's network is of Fun-Control, whose prompts upstream does not clean."""
    try:
        return transformer_size(folder, TransformerSize).in_channels == FunControl.channels
    except GeneratorError:  # no network there: the folder is for a prompt alone
        return False


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m generators.wan",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=["prompt"])
    parser.add_argument("folder", type=Path, help="of the checkpoint; gets prompt.safetensors")
    parser.add_argument("prompt", help="the text that every video is made with")
    parser.add_argument("--negative", help="the text to lead away from, where there is guidance")
    parser.add_argument("--text-encoder", type=Path, help="folder with text_encoder/ and tokenizer/ (FOLDER)")
    parser.add_argument(
        "--as-is", action="store_true",
        help="do not clean the texts, as is so for wan-fun-control; else half-width commas take the place of "
        "full-width ones, and the like (needs ftfy)",
    )  # fmt: skip
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
