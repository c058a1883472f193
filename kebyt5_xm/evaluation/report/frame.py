"""The frame of a page: one HTML file without scripts, in two languages, of which a switch shows one."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from markupsafe import Markup

from kebyt5_xm.evaluation.report.markup import Child, element, say

LANGUAGES = {"ko": "한국어", "en": "English"}

# The page runs nothing and fetches nothing, whatever it is made to hold.
POLICY = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'"


@dataclass(frozen=True)
class Section:
    """A part of the page under a heading; an empty `body` leaves it out."""

    anchor: str
    title: Markup
    body: Markup


def page(title: str, heading: Child, under: Child, sections: Sequence[Section], language: str) -> str:
    """Return the page; `language` is the one shown first, ko or en."""
    present = [section for section in sections if section.body]
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("style", Markup(_style())),
    )
    switches = [
        element(
            "input",
            type="radio",
            name="language",
            id=f"show-{code}",
            class_="switch",
            checked=code == language,
            lang=code,
            aria_label=name,
        )
        for code, name in LANGUAGES.items()
    ]
    labels = [
        element("label", name, for_=f"show-{code}", lang=code, class_=f"to-{code}")
        for code, name in LANGUAGES.items()
    ]
    links = [element("a", section.title, href=f"#{section.anchor}") for section in present if section.anchor]
    body = element(
        "body",
        *switches,
        element(
            "header",
            element("div", *labels, class_="languages"),
            element("h1", heading),
            element("p", under, class_="under"),
        ),
        element("nav", *links),
        element("main", *map(_section, present)),
        element(
            "footer",
            say(
                "이 파일 하나로 완결됩니다: 스크립트도 네트워크도 쓰지 않습니다.",
                "This file is complete by itself: it runs no script and uses no network.",
            ),
        ),
    )
    return f"<!doctype html>\n{element('html', head, body, lang=language)}\n"


def _section(section: Section) -> Markup:
    return element("section", element("h2", section.title), section.body, id=section.anchor)


def _style() -> str:
    """Return the style sheet without the remarks of its file."""
    return (
        files("kebyt5_xm.evaluation.report")
        .joinpath("style.css")
        .read_text(encoding="utf-8")
        .partition("*/")[2]
    )
