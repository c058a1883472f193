"""UTF-8 and JSON as files have them, with causes in one line for what is neither."""

import json
from typing import Any

UTF_16 = (b"\xff\xfe", b"\xfe\xff")
BYTE_ORDER_MARK = "\ufeff"


def utf8_text(raw: bytes) -> str:
    """Return the text in `raw` without a byte order mark. Raises `ValueError` with the cause for what is no UTF-8."""
    try:
        return raw.decode().removeprefix(BYTE_ORDER_MARK)
    except UnicodeDecodeError as error:
        what = "UTF-16, expected" if raw.startswith(UTF_16) else "not"
        raise ValueError(f"{what} UTF-8: {error.reason} at byte {error.start}") from None


def json_value(raw: bytes) -> Any:
    """Return the value in `raw`, UTF-8 with or without a byte order mark.

    NaN and infinities, which Python and pandas write although JSON has none, are these numbers: an example that
    uses one is refused there. Raises `ValueError` with the cause for what is no JSON.
    """
    text = utf8_text(raw)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at character {error.pos}") from None
    except RecursionError:
        raise ValueError("not JSON that can be read: it is nested too deeply") from None
    except ValueError:  # sys.set_int_max_str_digits
        raise ValueError(
            "not JSON that can be read: it has a whole number of more than 4300 digits"
        ) from None
