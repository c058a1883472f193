"""HTML that is escaped by construction, in two languages."""

from markupsafe import Markup, escape

Child = str | Markup
"""A `str` is text and gets escaped; `Markup` is kept as it is."""

# A page may hold no other control characters; U+2400 and on are their pictures. A lone surrogate is no text at all.
_CLEAN: dict[int, str | int] = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\t\n"}
# Directional overrides would show words in another order than they have, outside of their element too.
_CLEAN |= {code: f"\\u{code:04x}" for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}
_CLEAN |= {0x7F: 0x2421} | dict.fromkeys((*range(128, 160), *range(55296, 57344)), "�")

EMPTY = Markup("")


def text(content: str) -> Markup:
    """Return text as HTML: escaped, control characters visible, lone surrogates replaced."""
    return content if isinstance(content, Markup) else escape(content.translate(_CLEAN))


def element(name: str, /, *children: Child, **attributes: str | float | bool | None) -> Markup:
    """Return an element.

    Of attributes' names a `_` at the end is dropped and others become `-`; True is an attribute without a value,
    None and False are none.
    """
    told = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{text(_plain(value))}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    inside = "".join(map(text, children))
    closed = name in ("br", "img", "input", "meta")
    return Markup(f"<{name}{told}>" + ("" if closed else f"{inside}</{name}>"))


def join(parts: "list[Markup] | tuple[Markup, ...]", between: Child = "") -> Markup:
    """Return the parts one after the other."""
    return text(between).join(parts)


def say(korean: str, english: str, *values: Child) -> Markup:
    """Return a phrase of ours in both languages, of which the page shows one; each `{}` takes one of `values`."""
    safe = [text(value) for value in values]
    return Markup("").join(
        element("span", Markup(phrase).format(*safe), class_="say", lang=language)
        for language, phrase in (("ko", korean), ("en", english))
    )


def data(content: object) -> Markup:
    """Return words from a run: their language is not known, and their direction is their own."""
    return element("bdi", str(content), lang="", dir="auto")


def code(content: object) -> Markup:
    """Return a name or a command from a run, or of ours."""
    return element("code", str(content), lang="", dir="auto")


def _plain(value: str | float) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
