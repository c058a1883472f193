"""A rate of a recipe that trains from scratch is noticed under an overlay that starts from weights."""

from pathlib import Path
from typing import Any

import pytest
import tiny_run
from tiny_run import fit

from kebyt5_xm.training.inherited_rate import find_inherited_rate
from kebyt5_xm.training.recipes import overlay


def scratch(rate: float | None = 0.05) -> dict[str, Any]:
    init_args = {} if rate is None else {"lr": rate}
    return {"model": {"optimizer": {"class_path": "torch.optim.SGD", "init_args": init_args}}}


WEIGHTS = {"model": {"backbone": {"weights": "runs/text"}}}
OTHER = {"model": {"optimizer": {"class_path": "torch.optim.AdamW"}}}


def paths(folder: Path, *contents: dict[str, Any]) -> list[str]:
    return [tiny_run.write_recipe(folder, f"r{n}", content) for n, content in enumerate(contents)]


@pytest.mark.parametrize(
    ("contents", "is_inherited"),
    [
        ((scratch(), WEIGHTS), True),
        ((scratch(), WEIGHTS, {"data": {}}), True),
        ((scratch(), overlay(WEIGHTS, scratch(0.01))), False),
        ((scratch(), WEIGHTS, scratch(0.01)), False),
        ((scratch(), WEIGHTS, OTHER), False),
        ((scratch(None), WEIGHTS), False),
        ((WEIGHTS, scratch()), False),
        ((overlay(scratch(), WEIGHTS),), False),
        ((scratch(), WEIGHTS, {"model": {"backbone": {"weights": None}}}), False),
        ((scratch(),), False),
    ],
)
def test_where_the_rate_comes_from(tmp_path: Path, contents: Any, is_inherited: bool) -> None:
    files = paths(tmp_path, *contents)
    found = find_inherited_rate(files)
    assert (found is not None) == is_inherited
    if found is not None:
        assert (found.rate, found.source, found.overlay, found.weights) == (
            "0.05",
            files[0],
            files[1],
            "runs/text",
        )


@pytest.mark.slow
def test_fit_warns_in_one_line(tmp_path: Path) -> None:
    tiny_run.write_stores(tmp_path)
    recipe = tiny_run.recipe(tmp_path, "text", max_steps=2)
    assert fit(tmp_path, "text", recipe) == [0]
    assert "warning: the learning rate" not in (tmp_path / "text.log").read_text()
    shape = {"model": {"backbone": {"shape": None, "weights": str(tmp_path / "text")}}}
    above = tiny_run.write_recipe(tmp_path, "above", shape)
    again = overlay(recipe, {"run_dir": str(tmp_path / "again")})
    assert fit(tmp_path, "again", again, "-c", above) == [0], (tmp_path / "again.log").read_text()
    assert (tmp_path / "again.log").read_text().count("warning: the learning rate 0.003 is of") == 1
