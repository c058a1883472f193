"""Phrases in Korean and English: both stand in the page, and its style sheet shows one.

Phrases are written in English, where they are used. Their Korean is in locale/ko/LC_MESSAGES/report.po, a gettext
catalogue that any editor of translations opens.
"""

import io
from functools import cache
from importlib.resources import files

from babel.messages.pofile import read_po
from markupsafe import Markup, escape

LANGUAGES = {"ko": "한국어", "en": "English"}


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
    """Return words from a run: their language is not known, and their direction is their own."""
    return Markup('<bdi lang="" dir="auto">{}</bdi>').format(content)


def code(content: object) -> Markup:
    """Return a name or a command from a run, or of ours."""
    return Markup('<code lang="" dir="auto">{}</code>').format(content)
