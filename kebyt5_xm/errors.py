"""The one error that is for the user, and near-miss suggestions."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Something the user gave cannot be used.

    The message is one line: what was found, what was expected, what to do. Commands print it without a
    traceback and exit with code 2. A bug of ours is never a `UserError`.
    """


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `"; did you mean 'image'?"` for the nearest of `known`, or an empty string."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean '{near[0]}'?" if near else ""
