"""Runs the Python of docs/transformers.md in order, in one process, with a tiny export."""

import re
from pathlib import Path
from typing import Any

import pages
import pytest
from tiny_model import SPECS, picture, tiny_model

from kebyt5_xm.model.hub_arguments import LOAD_REMEDIES

PAGE = (pages.ROOT / "docs" / "transformers.md").read_text(encoding="utf-8")


def test_the_code_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model({"image": SPECS["image"]})
    model.save_pretrained(tmp_path / "exports" / "image")
    picture(3).save(tmp_path / "photo.png")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"(?<!-->\n)```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 3
    printed: list[Any] = []
    names: dict[str, Any] = {"print": printed.append}
    for block in blocks:
        code = block.replace("report_to=[]", "report_to=[], use_cpu=True, disable_tqdm=True")
        exec(code, names)
    assert len(printed) == 3
    assert printed[1][0]["generated_text"] == printed[2][0]["generated_text"]
    assert (tmp_path / "exports" / "tuned" / "digests.json").is_file()


def test_the_arguments_that_the_page_calls_refused_are_refused() -> None:
    for name in re.findall(
        r"`(\w+)`", PAGE.partition("refused by name")[2].partition("`save_pretrained`")[0]
    ):
        assert name in LOAD_REMEDIES, name
