"""HTML pages from the templates of this folder. What comes from files is escaped, always."""

import re
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from kebyt5_xm.evaluation.report import numbers
from kebyt5_xm.evaluation.report.charts import row_chart
from kebyt5_xm.evaluation.report.data_used import one_line
from kebyt5_xm.evaluation.report.figures import is_used
from kebyt5_xm.evaluation.report.language import LANGUAGES, bilingual
from kebyt5_xm.evaluation.report.recorded import section

# The page runs nothing and fetches nothing, whatever it is made to hold.
POLICY = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'"

# A page may hold no other control characters; U+2400 and on are their pictures. A lone surrogate is no text at all.
_CLEAN: dict[int, str | int] = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\t\n"}
# Directional overrides would show words in another order than they have, outside of their element too.
_CLEAN |= {code: f"\\u{code:04x}" for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}
_CLEAN |= {0x7F: 0x2421} | dict.fromkeys((*range(128, 160), *range(55296, 57344)), "�")
_UNCLEAN = re.compile(f"[{''.join(map(chr, _CLEAN))}]")  # much faster than translating megabytes of media


def render(template: str, **context: Any) -> str:
    """Return the page of a template, without control characters and lone surrogates.

    Raises `jinja2.UndefinedError` for a value that the template names and `context` lacks.
    """
    html = _environment().get_template(template).render(context)
    return _UNCLEAN.sub(lambda found: found[0].translate(_CLEAN), html)


def data(content: object) -> Markup:
    """Return words from a run: their language is not known, and their direction is their own."""
    return Markup('<bdi lang="" dir="auto">{}</bdi>').format(content)


def code(content: object) -> Markup:
    """Return a name or a command from a run, or of ours."""
    return Markup('<code lang="" dir="auto">{}</code>').format(content)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("kebyt5_xm.evaluation.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"_": bilingual, "LANGUAGES": LANGUAGES, "POLICY": POLICY, "NONE": numbers.NONE}
    environment.globals["row_chart"] = row_chart
    environment.filters |= {
        "data": data,
        "code": code,
        "section": section,
        "one_line": one_line,
        "is_used": is_used,
    }
    for name in ("number", "signed", "interval", "percent", "change", "duration"):
        environment.filters[name] = getattr(numbers, name)
    return environment
