"""PromptTable on the command line: a recipe's prompt syntax, with media files filling its placeholders."""

import re
from collections.abc import Callable
from typing import Any

from kebyt5_xm.data.sources.template import Template
from kebyt5_xm.errors import UserError, did_you_mean

ESCAPES = {r"\n": "\n", r"\t": "\t", r"\\": "\\"}
"""The escapes of a double-quoted YAML string, so a recipe's prompt can be pasted; other backslashes are literal."""

Piece = str | tuple[str, str]
"""Text, or a placeholder: (the name of its modality or media kind, the placeholder as written)."""


def unescape(prompt: str) -> str:
    """Return a prompt with its `ESCAPES` replaced. Raises `UserError` for invalid UTF-8."""
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"--prompt is not valid UTF-8 from character {error.start} on, expected text in UTF-8; check that LANG "
            "or LC_ALL is set"
        ) from None
    return re.sub(r"\\[nt\\]", lambda match: ESCAPES[match[0]], prompt)


def parse_prompt(prompt: str) -> list[Piece]:
    """Return the texts and placeholders of a prompt, in order.

    `{NAME}` and a recipe's `{column:NAME}` are placeholders; `{{` and `}}` are braces. Raises `UserError` for any
    other brace and for invalid UTF-8.
    """
    found: list[Piece] = []
    for piece in Template(unescape(prompt)).pieces():
        if isinstance(piece, str):
            joins = bool(found) and isinstance(found[-1], str)
            found[-1:] = [f"{found[-1]}{piece}"] if joins else [*found[-1:], piece]
        else:
            column, modality = piece
            found.append((modality or column, f"{{{column}:{modality}}}" if modality else f"{{{column}}}"))
    return found


def fill_prompt(
    pieces: list[Piece], media: list[tuple[str, str]], to_modality: Callable[[str], str] = lambda name: name
) -> list[Any]:
    """Return the segments of a prompt: its texts, and for each placeholder the next matching file of `media`.

    `media` are (name, path) pairs, and so are the returned files. Without placeholders the files come first.
    `to_modality` maps the name of a placeholder or of a file to a modality. Raises `UserError` if placeholders and
    files do not match.
    """
    unused = [(to_modality(name), path) for name, path in media]
    if all(isinstance(piece, str) for piece in pieces):
        return [*unused, *pieces]
    segments: list[Any] = []
    for piece in pieces:
        if isinstance(piece, str):
            segments.append(piece)
            continue
        name, written = piece
        literal = f"write the text of a column itself, and {{{written}}} for braces"
        try:
            modality = to_modality(name)
        except UserError as error:
            raise UserError(f"the prompt has the placeholder {written}: {error}; {literal}") from error
        medium = next((medium for medium in unused if medium[0] == modality), None)
        if medium is None:
            others = {"image", "audio", *(name for name, _ in media)} - {name}
            raise UserError(
                f"the prompt has the placeholder {written} and no file is left for it{did_you_mean(name, others)}; "
                f"give one with {format_option(name)}, {literal}"
            )
        unused.remove(medium)
        segments.append(medium)
    if unused:
        name, path = unused[0]
        raise UserError(f"the prompt has no placeholder for '{path}'; put {{{name}}} where the file belongs")
    return segments


def format_option(name: str) -> str:
    """Return the command-line option that gives a file for `name`."""
    return f"--{name} PATH" if name in ("image", "audio") else f"--media {name}=PATH"
