"""HTML pages from the templates of this folder. All content of files is escaped."""

import re
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from kebyt5_xm.evaluation.evaluation_file import interval_sign
from kebyt5_xm.evaluation.report.charts import DASHES, NUM_COLOURS, row_chart
from kebyt5_xm.evaluation.report.record import section
from kebyt5_xm.evaluation.report.wording import (
    LANGUAGES,
    NONE,
    bilingual,
    change,
    code,
    data,
    duration,
    interval,
    number,
    percent,
    signed,
)

# Whatever its content, the page runs no script and fetches nothing.
POLICY = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'"

# HTML forbids all other control characters; U+2400 and on are their symbols. A lone surrogate is not text.
_CLEAN: dict[int, str | int] = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\t\n"}
# Directional overrides would reorder the words around them, even outside of their element.
_CLEAN |= {code: f"\\u{code:04x}" for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}
_CLEAN |= {0x7F: 0x2421} | dict.fromkeys((*range(128, 160), *range(55296, 57344)), "�")
_UNCLEAN = re.compile(f"[{''.join(map(chr, _CLEAN))}]")  # much faster than translating megabytes of media


def render(template: str, **context: Any) -> str:
    """Return the page of a template, without control characters and lone surrogates.

    Raises `jinja2.UndefinedError` if `context` lacks a value that the template names.
    """
    html = _environment().get_template(template).render(context)
    return _UNCLEAN.sub(lambda found: found[0].translate(_CLEAN), html)


def list_sections(folder: str, **titles: Markup | None) -> list[tuple[str, Markup, str]]:
    """Return (anchor, title, template) of a page's sections. `titles` replaces some; None omits a section."""
    sections: dict[str, Markup | None] = {
        "summary": bilingual("Summary"),
        "metrics": bilingual("Metrics with intervals"),
        "examples": bilingual("Outputs and references"),
        "text": bilingual("Text ability"),
        "modalities": bilingual("Use of modalities"),
        "robustness": bilingual("Robustness"),
        "curves": bilingual("Curves"),
        "configuration": bilingual("Configuration"),
        "data": bilingual("Data and skips"),
        "cost": bilingual("Speed, memory, cost"),
    }
    sections |= titles
    return [(a, title, f"{folder}/{a}.html.j2") for a, title in sections.items() if title is not None]


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("kebyt5_xm.evaluation.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"_": bilingual, "LANGUAGES": LANGUAGES, "POLICY": POLICY, "NONE": NONE}
    environment.globals |= {"row_chart": row_chart, "NUM_COLOURS": NUM_COLOURS, "NUM_DASHES": len(DASHES)}
    filters = (data, code, section, interval_sign, number, signed, interval, percent, change, duration)
    environment.filters |= {function.__name__: function for function in filters}
    return environment
