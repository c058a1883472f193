"""`kebyt5-xm generate`: what a run or an export writes for a prompt with images and recordings.

The media come before the prompt, in the order in which they are given, unless the prompt says where: `{image}`,
`{audio}` and `{NAME}` stand for the next --image, --audio and --media NAME=PATH. Give the prompt as training gave
it: a recipe's "{picture:image} ko:" is --prompt "{image} ko:".
"""

import argparse
import re
from pathlib import Path
from typing import Any

from kebyt5_xm.errors import UserError, did_you_mean


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("model", metavar="MODEL", help="a run, a checkpoint of one, an export, or a hub id")
    parser.add_argument("--prompt", default="", help="text to give")
    parser.add_argument("--media", action=_Medium, metavar="NAME=PATH", help="a file for the modality NAME")
    parser.add_argument(
        "--image", action=_Medium, metavar="PATH", help="an image; may be given several times"
    )
    parser.add_argument("--audio", action=_Medium, metavar="PATH", help="a recording, likewise")
    parser.add_argument("--max-length", type=int, default=256, metavar="N", help="bytes it may write (256)")
    parser.add_argument("--num-beams", type=int, default=1, metavar="N", help="beams; 1 is greedy")
    parser.add_argument(
        "--label",
        action="append",
        default=[],
        metavar="WORD",
        help="answer with one of the labels, each given so, and print the probability of each",
    )
    parser.add_argument("--device", default="cpu", help="where to compute, such as cuda")
    parser.add_argument(
        "--trust", action="append", default=[], metavar="PACKAGE", help="import classes of this package too"
    )


def run(args: argparse.Namespace) -> None:
    """Run the command: print the answer. Raises `UserError`."""
    given: list[tuple[str, str]] = getattr(args, "given", [])
    parts = segments(args.prompt, given)
    if args.max_length < 1 or args.num_beams < 1:
        raise UserError(
            f"found --max-length {args.max_length} and --num-beams {args.num_beams}, expected 1 or more of each"
        )
    if args.label and args.num_beams > 1:
        raise UserError(
            "found --label with --num-beams, expected one of them: labels are scored, not searched"
        )
    for _, path in given:
        if not Path(path).is_file():
            raise UserError(f"found no file '{path}'; correct the path")

    from kebyt5_xm.model import CrossModalT5

    model = CrossModalT5.from_pretrained(args.model, trusted_modules=args.trust).to(args.device)
    parts = [(_modality(model, *part), part[1]) if isinstance(part, tuple) else part for part in parts]
    if args.label:
        found = model.classify(parts, args.label)
        assert isinstance(found, dict)
        for label, probability in sorted(found.items(), key=lambda item: -item[1]):
            print(f"{probability:.4f}  {label}")
        return
    print(model.answer(parts, max_new_tokens=args.max_length, num_beams=args.num_beams, do_sample=False))


def segments(prompt: str, given: list[tuple[str, str]]) -> list[Any]:
    """Return the segments of a prompt: texts, and (name, path) for each of `given`, in their places.

    Raises `UserError` if nothing is given, or if the prompt's places and the files do not match.
    """
    if not prompt and not given:
        raise UserError("found neither a --prompt nor a file; give one")
    names = list(dict.fromkeys(name for name, _ in given))
    pieces = re.split(
        "|".join([r"\{(image|audio)\}", *(rf"\{{({re.escape(name)})\}}" for name in names)]), prompt
    )
    pieces = [piece for piece in pieces if piece is not None]
    places = pieces[1::2]
    if not places:
        return [*given, *([prompt] if prompt else [])]
    waiting = list(given)
    parts: list[Any] = []
    for number, piece in enumerate(pieces):
        if number % 2 == 0:
            parts += [piece] if piece else []
            continue
        medium = next((medium for medium in waiting if medium[0] == piece), None)
        if medium is None:
            option = f"--{piece} PATH" if piece in ("image", "audio") else f"--media {piece}=PATH"
            raise UserError(
                f"the prompt has a place for {{{piece}}} and no file is left for it; give one with {option}"
            )
        waiting.remove(medium)
        parts.append(medium)
    if waiting:
        name, path = waiting[0]
        raise UserError(f"the prompt has no place for '{path}'; put {{{name}}} where it belongs")
    return parts


def _modality(model: Any, name: str, path: str) -> str:
    """Return the modality meant by --image, --audio or the name in --media."""
    interfaces = model.processor.interfaces
    if name in interfaces:
        return name
    fitting = [known for known, interface in interfaces.items() if interface.media == name]
    if len(fitting) == 1:
        return fitting[0]
    known = ", ".join(f"{n} ({i.media})" for n, i in interfaces.items()) or "none: it takes text alone"
    if fitting:
        raise UserError(f"'{path}' could go to {' or '.join(fitting)}; say which with --media NAME={path}")
    raise UserError(
        f"the model has no modality for '{path}' ({name}){did_you_mean(name, interfaces)}; it has {known}"
    )


class _Medium(argparse.Action):
    """Collects --image, --audio and --media in one list `given`, in the order of the command line."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        name = self.dest
        if name == "media":
            name, equals, values = str(values).partition("=")
            if not equals:
                raise UserError(f"found --media {name}, expected --media NAME=PATH")
        namespace.given = [*getattr(namespace, "given", []), (name, values)]
