"""Paths in docs/architecture.md and the READMEs exist, and the package has few entries at its top."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
READMES = "".join((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.ko.md"))
PATHS = sorted(set(re.findall(r"`((?:kebyt5_xm|encoders|tests)/[\w/.]*)`", PAGE + READMES)))
MAX_ENTRIES = 18


@pytest.mark.parametrize("path", PATHS)
def test_a_path_exists(path: str) -> None:
    assert (ROOT / path).exists()
    assert (ROOT / path).is_dir() == path.endswith("/")


def test_there_are_paths() -> None:
    assert len(PATHS) > 30


def test_the_top_of_the_package_stays_small_and_on_the_map() -> None:
    entries = {
        path.name
        for path in (ROOT / "kebyt5_xm").iterdir()
        if not path.name.startswith("__") and path.name != "py.typed"
    }
    assert len(entries) <= MAX_ENTRIES
    missing = [name for name in entries if not re.search(rf"\b{re.escape(name)}\b", PAGE)]
    assert missing == []
