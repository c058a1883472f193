"""docs/sources.md shows the source that the contract tests, and names the members that `Source` has."""

import re
from pathlib import Path

from kebyt5_xm.data import Source

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "sources.md").read_text(encoding="utf-8")


def members(table: str) -> list[str]:
    """Return the names in the first column of the table that begins with `table`."""
    rows = PAGE[PAGE.index(table) :].split("\n\n")[0].splitlines()[2:]
    return [name for row in rows for name in re.findall(r"`(\w+)", row.split("|")[1])]


def test_the_example_is_the_tested_source() -> None:
    first = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[0]
    tested = (ROOT / "tests" / "tools" / "tiny_sources.py").read_text(encoding="utf-8")
    assert tested.partition("\n\n")[2] == first


def test_the_tables_name_the_members_of_a_source() -> None:
    assert set(members("| method |")) == Source.__abstractmethods__
    assert all(hasattr(Source, name) for name in members("| member |"))
