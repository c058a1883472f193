"""Runs the Python and the commands of docs/answering.md in order, on a tiny model."""

import json
import shlex
from pathlib import Path

import pages
import pytest
from tiny_model import picture, tiny_model, write_files

from kebyt5_xm.commands import cli

PAGE = (pages.ROOT / "docs" / "answering.md").read_text(encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    tiny_model().save_pretrained(tmp_path / "runs" / "photos")
    write_files(tmp_path)
    (tmp_path / "images").mkdir()
    for number in range(3):
        picture(number).save(tmp_path / "images" / f"{number}.png")
    row = json.dumps({"picture": "images/1.png", "question": "무엇"}, ensure_ascii=False)
    (tmp_path / "rows.jsonl").write_text(row + "\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_code_and_the_commands_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {}
    blocks = pages.blocks(PAGE)
    for kind, text in blocks:
        if kind == "python":
            exec(compile(text, "docs/answering.md", "exec"), names)
    assert "cannot use gone.png, segment 2, example 2: there is no such file" in capsys.readouterr().out
    commands = [line for kind, text in blocks if kind == "bash" for line in text.splitlines()]
    for command in commands:
        name, *words = shlex.split(command)
        assert name == "kebyt5-xm"
        cli.main(words)
    captions = [json.loads(line) for line in Path("captions.jsonl").read_text("utf-8").splitlines()]
    assert [Path(row["file"]).name for row in captions] == ["0.png", "1.png", "2.png"]
    (row,) = [json.loads(line) for line in Path("answers.jsonl").read_text("utf-8").splitlines()]
    assert row["row"] == 0
    assert len(commands) == 6
    assert {kind for kind, _ in blocks} == {"python", "bash"}
