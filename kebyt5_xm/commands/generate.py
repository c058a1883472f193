r"""`kebyt5-xm generate`: the answer of a run or an export to a prompt with images and recordings.

Media come before the prompt, in the order given, unless the prompt has places for them: `{image}`, `{audio}` and
`{NAME}` stand for the next --image, --audio and --media NAME=PATH. Write the prompt as in training: a recipe's
"{picture:image} ko:\n" works unchanged. As in recipes, {{ and }} are braces, \n a new line and \t a tab; a backslash
before one of these letters is \\.
"""

import argparse
from pathlib import Path
from typing import Any

from kebyt5_xm.commands.prompt import fill_prompt, parse_prompt
from kebyt5_xm.errors import UserError, did_you_mean
from kebyt5_xm.trust import add_trust_argument

DTYPES = {"fp32": "float32", "bf16": "bfloat16", "int8": "int8"}
"""Names on the command line, and torch's."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("model", metavar="MODEL", help="a run, a checkpoint of one, an export, or a hub id")
    parser.add_argument("--prompt", default="", help=r"text to give; {{, }}, \n, \t as in a recipe")
    parser.add_argument("--media", action=_Medium, metavar="NAME=PATH", help="a file for the modality NAME")
    parser.add_argument(
        "--image", action=_Medium, metavar="PATH", help="an image; may be given several times"
    )
    parser.add_argument(
        "--audio", action=_Medium, metavar="PATH", help="a recording; may be given several times"
    )
    parser.add_argument(
        "--max-length", type=int, default=256, metavar="N", help="most bytes of the answer (256)"
    )
    parser.add_argument("--num-beams", type=int, default=1, metavar="N", help="beams; 1 is greedy")
    parser.add_argument(
        "--label",
        action="append",
        default=[],
        metavar="WORD",
        help="choose among labels; give one for each label, and the probability of each is printed",
    )
    parser.add_argument("--device", default="cpu", help="device to compute on, such as cuda (cpu)")
    parser.add_argument(
        "--dtype",
        choices=DTYPES,
        help="compute in fp32 or bf16 instead of the dtype of the file; int8 quantises the decoder, on a CPU alone",
    )
    add_trust_argument(parser)


def run(args: argparse.Namespace) -> None:
    """Run the command: print the answer. Raises `UserError`."""
    given: list[tuple[str, str]] = getattr(args, "given", [])
    if not args.prompt and not given:
        raise UserError("found neither a --prompt nor a file; give one")
    if args.max_length < 1 or args.num_beams < 1:
        raise UserError(
            f"found --max-length {args.max_length} and --num-beams {args.num_beams}, expected 1 or more of each"
        )
    if args.label and args.num_beams > 1:
        raise UserError(
            "found --label with --num-beams, expected one of them: labels are scored, not searched"
        )
    if args.dtype == "int8" and args.device != "cpu":
        raise UserError(
            f"found --dtype int8 with --device {args.device}, expected --device cpu: int8 runs there alone; use bf16"
        )
    for _, path in given:
        if not Path(path).is_file():
            found = "a folder" if Path(path).is_dir() else "no file"
            raise UserError(f"found {found} '{path}', expected a file; correct the path")
    found = parse_prompt(args.prompt)
    places = sum(not isinstance(piece, str) for piece in found)
    if places and places != len(given):
        segments(
            args.prompt, given
        )  # raises an error about the surplus place or file before weights are read

    from kebyt5_xm.model.cross_modal import CrossModalT5
    from kebyt5_xm.model.device import explain_out_of_memory, open_device

    device = open_device(args.device)
    model = CrossModalT5.from_pretrained(args.model, trusted_modules=args.trust, dtype=DTYPES.get(args.dtype))
    parts = fill_prompt(found, given, lambda name: _modality(model, name))
    with explain_out_of_memory(device, "shorten the input, its length counts squared"):
        model = model.to(device)  # pyright: ignore[reportArgumentType]
        if args.label:
            probabilities = model.classify(parts, args.label)
            assert isinstance(probabilities, dict)
            for label, probability in sorted(probabilities.items(), key=lambda item: -item[1]):
                print(f"{probability:.4f}  {label}")
            return
        print(model.answer(parts, max_new_tokens=args.max_length, num_beams=args.num_beams, do_sample=False))


def segments(prompt: str, given: list[tuple[str, str]]) -> list[Any]:
    """Return the segments of a prompt and its files, with their names from the command line."""
    return fill_prompt(parse_prompt(prompt), given)


def _modality(model: Any, name: str) -> str:
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
