r"""`kebyt5-xm generate`: the answers of a run or an export to prompts with images and recordings.

One answer: media come before the prompt, in the order given, unless the prompt has places for them: `{image}`,
`{audio}` and `{NAME}` stand for the next --image, --audio and --media NAME=PATH. Write the prompt as in training: a
recipe's "{picture:image} ko:\n" works unchanged. As in recipes, {{ and }} are braces, \n a new line and \t a tab; a
backslash before one of these letters is \\.

Many answers: --file takes a table (rows.jsonl, .parquet and others), whose columns the prompt names as in a recipe,
or files, each of which gets an answer. With --out the answers are appended to a file of JSON lines, and the same
command goes on where it was stopped.

Without a prompt or a file the command asks for prompts.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from kebyt5_xm.commands.excerpts import add_excerpt_arguments
from kebyt5_xm.commands.generate.options import add_search_arguments, check_options
from kebyt5_xm.commands.prompt import Piece, fill_prompt, parse_prompt
from kebyt5_xm.errors import UserError, did_you_mean
from kebyt5_xm.trust import add_trust_argument

DTYPES = {"fp32": "float32", "bf16": "bfloat16", "int8": "int8"}
"""Names on the command line, and torch's."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "model",
        nargs="?",
        metavar="MODEL",
        help="a run, a checkpoint of one, an export, or a hub id; asked for if left out",
    )
    parser.add_argument("--prompt", default="", help=r"text to give; {{, }}, \n, \t as in a recipe")
    parser.add_argument("--media", action=_Medium, metavar="NAME=PATH", help="a file for the modality NAME")
    parser.add_argument(
        "--image", action=_Medium, metavar="PATH", help="an image; may be given several times"
    )
    parser.add_argument(
        "--audio", action=_Medium, metavar="PATH", help="a recording; may be given several times"
    )
    parser.add_argument(
        "--file",
        nargs="+",
        action="extend",
        default=[],
        metavar="PATH",
        help="a table of prompts, or files or a pattern of them, each with an answer",
    )
    parser.add_argument(
        "--out", metavar="PATH", help="with --file: append the answers to this file of JSON lines"
    )
    parser.add_argument(
        "--batch-size", type=int, default=8, metavar="N", help="with --file: answers written together (8)"
    )
    parser.add_argument(
        "--allow-outside", action="store_true", help="with a table: its media may lie outside its folder"
    )
    add_excerpt_arguments(parser, "with a table: ")
    add_search_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print JSON, with the probability of each word")
    parser.add_argument("--stream", action="store_true", help="print the answer while it is written")
    parser.add_argument("--device", default="cpu", help="device to compute on, such as cuda (cpu)")
    parser.add_argument(
        "--dtype",
        choices=DTYPES,
        help="compute in fp32 or bf16 instead of the dtype of the file; int8 quantises the decoder, on a CPU alone",
    )
    add_trust_argument(parser)


def run(args: argparse.Namespace) -> None:
    """Run the command: print or write the answers, or ask for prompts. Raises `UserError`."""
    given: list[tuple[str, str]] = getattr(args, "given", [])
    check_options(args, given)
    asks = not (args.prompt or given or args.file)
    if asks and not sys.stdin.isatty():
        raise UserError("found neither a --prompt nor a file, and no terminal to ask; give one")
    if args.model is None:
        if not asks:
            raise UserError(
                "found no MODEL, expected a run, a checkpoint of one, an export, or a hub id, before --file"
            )
        args.model = input("model (a run, an export or a hub id): ").strip()
    for _, path in given:
        if not Path(path).is_file():
            found = "a folder" if Path(path).is_dir() else "no file"
            raise UserError(f"found {found} '{path}', expected a file; correct the path")
    pieces = parse_prompt(args.prompt)
    places = sum(not isinstance(piece, str) for piece in pieces)
    if places and not args.file and places != len(given):
        segments(
            args.prompt, given
        )  # raises an error about the surplus place or file before weights are read
    inputs = None
    if args.file:
        from kebyt5_xm.commands.generate.inputs import open_inputs
        from kebyt5_xm.data.sources.excerpt_columns import ExcerptColumns

        excerpts = ExcerptColumns.of(args.offset, args.duration)
        inputs = open_inputs(args.file, args.prompt, args.allow_outside, excerpts)

    from kebyt5_xm.commands.generate.answers import print_answer
    from kebyt5_xm.commands.generate.batch import answer_all
    from kebyt5_xm.commands.generate.interactive import converse
    from kebyt5_xm.commands.generate.output import model_digest
    from kebyt5_xm.model.cross_modal import CrossModalT5
    from kebyt5_xm.model.decoding.int8 import quantize_decoder
    from kebyt5_xm.model.device import explain_out_of_memory, open_device

    device = open_device(args.device)
    dtype = None if args.dtype == "int8" else DTYPES.get(args.dtype)
    model = CrossModalT5.from_pretrained(args.model, trusted_modules=args.trust, dtype=dtype)
    digest = model_digest(model) if args.out else ""
    if args.dtype == "int8":
        quantize_decoder(model)
    with explain_out_of_memory(device, "shorten the input, its length counts squared"):
        model = model.to(device)  # pyright: ignore[reportArgumentType]
        if inputs is not None:
            answer_all(model, digest, inputs, args, lambda name: find_modality(model, name))
        elif asks:
            converse(model, args, lambda name: find_modality(model, name))
        else:
            print_answer(model, _fill(model, pieces, given), args)


def segments(prompt: str, given: list[tuple[str, str]]) -> list[Any]:
    """Return the segments of a prompt and its files, with their names from the command line."""
    return fill_prompt(parse_prompt(prompt), given)


def _fill(model: Any, pieces: list[Piece], given: list[tuple[str, str]]) -> list[Any]:
    return fill_prompt(pieces, given, lambda name: find_modality(model, name))


def find_modality(model: Any, name: str) -> str:
    """Return the modality of --image, --audio, a name in --media or a name in the prompt."""
    interfaces = model.processor.interfaces
    if name in interfaces:
        return name
    fitting = [known for known, interface in interfaces.items() if interface.media == name]
    if len(fitting) == 1:
        return fitting[0]
    known = ", ".join(f"{n} ({i.media})" for n, i in interfaces.items()) or "none: it takes text alone"
    if fitting:
        raise UserError(f"'{name}' could be {' or '.join(fitting)}; say which: --media {fitting[0]}=PATH")
    near = did_you_mean(name, [*interfaces, *{interface.media for interface in interfaces.values()}])
    raise UserError(f"the model has no modality '{name}'{near}; it has {known}")


class _Medium(argparse.Action):
    """Collects --image, --audio and --media in one list `given`, in the order of the command line."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        name = self.dest
        if name == "media":
            name, equals, values = str(values).partition("=")
            if not equals:
                raise UserError(f"found --media {name}, expected --media NAME=PATH")
        namespace.given = [*getattr(namespace, "given", []), (name, values)]
