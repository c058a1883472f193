"""The error class for users' mistakes, how commands report it, and suggestions of similar names."""

import difflib
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class UserError(ValueError):
    """An input of the user cannot be used.

    The message is one line: what was found, what was expected, what to do. Commands print it without a
    traceback and exit with code 2. A bug of this package is never a `UserError`.
    """


@contextmanager
def exit_on_user_error() -> Iterator[None]:
    """Print a `UserError` as one line and exit with code 2; exit with 130 on a keyboard interrupt."""
    try:
        yield
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `"; did you mean 'image'?"` for the most similar word of `known`, or an empty string."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean '{near[0]}'?" if near else ""


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its class name if the message is empty."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
