"""`~/` is the home folder in every option and key, except in texts such as prompts."""

from pathlib import Path

import pytest

from kebyt5_xm.data.media.names import expand_arguments
from kebyt5_xm.training import recipes


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    "arg", ["~/x y", "--out=~/x", "--data.sources.s.init_args.path=~/x", "image=~/a.png"]
)
def test_arguments(folder: Path, arg: str) -> None:
    assert expand_arguments(["first", arg]) == ["first", arg.replace("~", str(folder))]


@pytest.mark.parametrize(
    "args",
    [
        ["--prompt", "~/x"],
        ["--prompt=~/x"],
        ["--data.sources.s.init_args.target=~/x"],
        ["a~/x"],
        ["~x"],
        ["~~/x"],
        ["./~/x"],
        ["--labels", "~/"],
    ],
)
def test_other_arguments_are_unchanged(args: list[str]) -> None:
    assert expand_arguments(args) == args


def test_recipes(folder: Path) -> None:
    (folder / "a.yaml").write_text(
        'run_dir: ~/runs/x\nmodel: {backbone: {weights: "~/w"}}\n'
        'data: {sources: {s: {init_args: {path: ["~/a", "b~/c"], prompt: "~/{q}", stores: {ko: "~/ko"}}}}}\n'
    )
    assert recipes.merge(["~/a.yaml"]) == {
        "run_dir": f"{folder}/runs/x",
        "model": {"backbone": {"weights": f"{folder}/w"}},
        "data": {
            "sources": {
                "s": {
                    "init_args": {
                        "path": [f"{folder}/a", "b~/c"],
                        "prompt": "~/{q}",
                        "stores": {"ko": f"{folder}/ko"},
                    }
                }
            }
        },
    }
