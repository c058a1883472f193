"""Runs the Python and the commands of docs/transcription.md, on a tiny model."""

import shlex
from pathlib import Path

import pages
import pytest
from tiny_model import tiny_model, write_files

from kebyt5_xm.commands import cli

PAGE = (pages.ROOT / "docs" / "transcription.md").read_text(encoding="utf-8")


def test_the_code_and_the_commands_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_model().save_pretrained(tmp_path / "runs" / "photos")
    write_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    blocks = pages.blocks(PAGE)
    for kind, text in blocks:
        if kind == "python":
            exec(compile(text, "docs/transcription.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "00:00:00," in printed
    commands = [line for kind, text in blocks if kind == "bash" for line in text.splitlines()]
    for command in commands:
        name, *words = shlex.split(command)
        assert name == "kebyt5-xm"
        cli.main(words)
    assert (tmp_path / "subtitles" / "b.srt").read_text(encoding="utf-8").startswith("1\n00:00:0")
    assert len(commands) == 2
