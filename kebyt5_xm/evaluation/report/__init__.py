"""The report of a run as one HTML file that needs no network, in Korean and English.

jinja2, babel and matplotlib take a second to import, so they are imported when a page is drawn.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from kebyt5_xm.errors import UserError
from kebyt5_xm.evaluation import SHOWN_EXAMPLES

if TYPE_CHECKING:
    from kebyt5_xm.evaluation.report.media import Opener
    from kebyt5_xm.model.runs.run import Run


def write_report(
    run: "Run",
    find: "Opener | None" = None,
    out: Path | None = None,
    examples: int = SHOWN_EXAMPLES,
    language: str = "en",
) -> None:
    """Write the page of a run, by default to RUN/report.html, and print its path. Raises `UserError`.

    `find` opens the media of examples; by default it finds files in the manifest's folder.
    """
    from kebyt5_xm.evaluation.report.draw import draw
    from kebyt5_xm.evaluation.report.media import manifest_opener

    out = out or run.path / "report.html"
    html = draw(run, find or manifest_opener(run), examples_shown=examples, language=language)
    size = write_page(html, out)
    print(f"wrote {out}: {size / 1e6:.1f} MB")


def write_page(html: str, out: Path) -> int:
    """Write a page, whole or not at all, and return its size in bytes. Raises `UserError`."""
    from kebyt5_xm.durable import durable_file

    content = html.encode()
    try:
        with durable_file(out) as file:
            file.write(content)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror or error}; choose another --out") from error
    return len(content)
