"""Tables that scroll inside their own box, and lists of facts."""

from collections.abc import Iterable, Sequence

from markupsafe import Markup

from kebyt5_xm.evaluation.report.markup import Child, element


def table(header: Sequence[Child], rows: Iterable[Sequence[Child]], numbers: Iterable[int] = ()) -> Markup:
    """Return a table; columns `numbers` are set to the right, the first is the row's name."""
    right = set(numbers)

    def cells(row: Sequence[Child], head: bool) -> list[Markup]:
        return [
            element(
                "th" if head or column == 0 else "td",
                cell,
                class_="n" if column in right else None,
                scope="col" if head else "row" if column == 0 else None,
            )
            for column, cell in enumerate(row)
        ]

    head = element("thead", element("tr", *cells(header, True)))
    body = element("tbody", *(element("tr", *cells(row, False)) for row in rows))
    # With a tabindex the arrow keys scroll it too.
    return element("div", element("table", head, body), class_="scroll", tabindex=0)


def facts(entries: Iterable[tuple[Child, Child]]) -> Markup:
    """Return name and value pairs."""
    return element(
        "dl",
        *(element("div", element("dt", name), element("dd", value)) for name, value in entries),
        class_="facts",
    )


def folded(summary: Child, *content: Child) -> Markup:
    """Return content that opens at a click, without a script."""
    return element("details", element("summary", summary), *content)


def note(content: Child) -> Markup:
    """Return a remark in small print."""
    return element("p", content, class_="note")
