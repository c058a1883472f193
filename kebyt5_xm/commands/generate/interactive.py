"""`kebyt5-xm generate MODEL` without a prompt: it asks for prompts and files until an empty line."""

import argparse
import contextlib
from collections.abc import Callable
from typing import Any

from kebyt5_xm.commands.generate.answers import print_answer
from kebyt5_xm.commands.prompt import fill_prompt, parse_prompt
from kebyt5_xm.data.media.names import expand_home
from kebyt5_xm.errors import UserError
from kebyt5_xm.model.cross_modal import CrossModalT5


def converse(model: CrossModalT5, args: argparse.Namespace, to_modality: Callable[[str], str]) -> None:
    """Ask for prompts, and for the file of each placeholder in them, and print the answers.

    An error is printed, and the next prompt asked for. Every prompt stands alone: the model sees no earlier one.
    """
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  # lets `input` edit lines

    kinds = [interface.media for interface in model.processor.interfaces.values()]
    places = " or ".join(f"{{{kind}}}" for kind in dict.fromkeys(kinds))
    print(r"Write a prompt as in training, \n for a new line. An empty line ends.", end="")
    print(f" {places} stands for a file." if places else "")
    with contextlib.suppress(EOFError):
        while prompt := input("prompt> "):
            try:
                print_answer(model, _ask_files(prompt, to_modality), args, stream=True)
            except UserError as error:
                print(f"error: {error}")


def _ask_files(prompt: str, to_modality: Callable[[str], str]) -> list[Any]:
    pieces, given = parse_prompt(prompt), []
    for piece in pieces:
        if not isinstance(piece, str):
            name, written = piece
            to_modality(name)  # raises before the question
            given.append((name, expand_home(input(f"file for {written}> ").strip())))
    return fill_prompt(pieces, given, to_modality)
