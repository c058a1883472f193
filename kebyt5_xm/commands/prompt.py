"""A prompt on the command line: the recipe's own language, with files in the places of its slots."""

import re
from collections.abc import Callable
from typing import Any

from kebyt5_xm.data.sources.template import Template
from kebyt5_xm.errors import UserError, did_you_mean

ESCAPES = {r"\n": "\n", r"\t": "\t", r"\\": "\\"}
"""As in a YAML string in double quotes, so that a recipe's prompt can be pasted; every other backslash is itself."""

Piece = str | tuple[str, str]
"""Text, or a place: (the name of its modality or kind, the place as it was written)."""


def parse_prompt(prompt: str) -> list[Piece]:
    """Return the texts and places of a prompt, in order.

    `{NAME}` and a recipe's `{column:NAME}` are places, `{{` and `}}` are braces. Raises `UserError` for any other
    brace, and for bytes that are no UTF-8.
    """
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"--prompt is no UTF-8 from character {error.start} on; give text in UTF-8 (is LANG or LC_ALL set?)"
        ) from None
    text = re.sub(r"\\[nt\\]", lambda match: ESCAPES[match[0]], prompt)
    found: list[Piece] = []
    for piece in Template(text).pieces():
        if isinstance(piece, str):
            joins = bool(found) and isinstance(found[-1], str)
            found[-1:] = [f"{found[-1]}{piece}"] if joins else [*found[-1:], piece]
        else:
            column, modality = piece
            found.append((modality or column, f"{{{column}:{modality}}}" if modality else f"{{{column}}}"))
    return found


def fill_prompt(
    found: list[Piece], given: list[tuple[str, str]], named: Callable[[str], str] = lambda name: name
) -> list[Any]:
    """Return segments: the texts, and in every place the next of the files `given`, as (name, path).

    Where there is no place, the files come first. `named` turns the name of a place or of a file into a
    modality's. Raises `UserError` if places and files do not match.
    """
    files = [(named(name), path) for name, path in given]
    if all(isinstance(piece, str) for piece in found):
        return [*files, *found]
    parts: list[Any] = []
    waiting = list(files)
    for piece in found:
        if isinstance(piece, str):
            parts.append(piece)
            continue
        name, written = piece
        literal = f"write a column's text itself, and {{{written}}} for braces"
        try:
            modality = named(name)
        except UserError as error:
            raise UserError(f"the prompt has the place {written}: {error}; {literal}") from error
        medium = next((medium for medium in waiting if medium[0] == modality), None)
        if medium is None:
            others = {"image", "audio", *(name for name, _ in given)} - {name}
            raise UserError(
                f"the prompt has a place for {written} and no file is left for it{did_you_mean(name, others)}; give "
                f"one with {format_option(name)}, {literal}"
            )
        waiting.remove(medium)
        parts.append(medium)
    if waiting:
        name, path = waiting[0]
        raise UserError(f"the prompt has no place for '{path}'; put {{{name}}} where it belongs")
    return parts


def format_option(name: str) -> str:
    """Return the option that gives a file for `name`."""
    return f"--{name} PATH" if name in ("image", "audio") else f"--media {name}=PATH"
