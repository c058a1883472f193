"""The words of pages: phrases in Korean and English, and numbers as text.

The page has both languages, and its style sheet shows one. Phrases are written in English where they are used.
Their Korean is in locale/ko/LC_MESSAGES/report.po, a gettext catalogue that any editor of translations opens.
"""

import io
import math
from functools import cache
from importlib.resources import files

from babel.messages.pofile import read_po
from markupsafe import Markup, escape

from kebyt5_xm.metrics.bootstrap import Score

LANGUAGES = {"ko": "한국어", "en": "English"}
NONE = "–"


@cache
def korean() -> dict[str, str]:
    """Return the catalogue: English phrase -> Korean phrase, with the same `{names}` of values in both."""
    path = files("kebyt5_xm.evaluation.report").joinpath("locale/ko/LC_MESSAGES/report.po")
    catalogue = read_po(io.BytesIO(path.read_bytes()), locale="ko", abort_invalid=True)
    return {str(message.id): str(message.string) for message in catalogue if message.id}


def bilingual(phrase: str, tag: str = "span", **values: object) -> Markup:
    """Return a phrase in both languages; each `{name}` in it takes one of `values`, escaped unless it is markup.

    `tag` is the element around each, `tspan` inside a chart. Raises `KeyError` for a phrase without Korean.
    """
    safe = {name: escape(value) for name, value in values.items()}
    return Markup("").join(
        Markup('<{0} class="say" lang="{1}">{2}</{0}>').format(tag, language, Markup(text).format(**safe))
        for language, text in (("ko", korean()[phrase]), ("en", phrase))
    )


def data(content: object) -> Markup:
    """Return text of a run as an element of unknown language, with its own direction."""
    return Markup('<bdi lang="" dir="auto">{}</bdi>').format(content)


def code(content: object) -> Markup:
    """Return a name or a command as code."""
    return Markup('<code lang="" dir="auto">{}</code>').format(content)


def number(value: float | None) -> str:
    """Return three decimals below ten, fewer above; a dash for None and NaN."""
    if value is None or math.isnan(value):
        return NONE
    size = abs(value)
    if math.isinf(size):
        text = "∞"
    elif isinstance(value, int) or size >= 1000:
        text = f"{size:,.0f}"
    elif 0 < size < 0.001:
        text = f"{size:.2g}"
    else:
        text = f"{size:.{3 if size < 10 else 2 if size < 100 else 1}f}"
    return "−" * (value < 0) + text


def signed(value: float | None) -> str:
    """Return as `number`, with a plus sign for positive values."""
    return ("+" if value is not None and value > 0 else "") + number(value)


def interval(score: Score | None, plus: bool = False) -> str:
    """Return `0.978 [0.962, 0.989]`; a dash for None and NaN."""
    if score is None or math.isnan(score.value):
        return NONE
    to_text = signed if plus else number
    if math.isnan(score.low) or math.isnan(score.high):
        return to_text(score.value)
    return f"{to_text(score.value)} [{to_text(score.low)}, {to_text(score.high)}]"


def percent(share: float) -> str:
    """Return a share as a percentage; a small share above 0 does not read as 0."""
    if math.isnan(share):
        return NONE
    return "< 0.1 %" if 0 < share < 0.001 else f"{100 * share:.1f} %"


def change(difference: float, start: float) -> str:
    """Return a difference as a signed percentage of the start; a dash if the start is 0."""
    if not start or math.isnan(difference / start):
        return NONE
    return f"{'+' if difference > 0 else '−' if difference < 0 else ''}{abs(100 * difference / start):.1f} %"


def duration(seconds: float) -> str:
    """Return seconds as hours, minutes and seconds: the two largest units."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60:,} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {rest} s"
