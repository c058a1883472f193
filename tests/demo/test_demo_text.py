"""The demo's corpora: real text in four languages, and a held-out part that is not in training."""

import re
import sys
from pathlib import Path

import pytest

from demo import text
from kebyt5_xm.errors import UserError


def lines(path: Path) -> list[str]:
    return path.read_bytes().decode().splitlines()


def letters(line: str) -> str:
    return re.sub(r"\W", "", line).casefold()


def test_corpora(tmp_path: Path):
    corpora = text.write_corpora(tmp_path / "corpora")
    assert list(corpora) == ["ko", "en", "zh", "ja"]
    for language, files in corpora.items():
        train, heldout = lines(files.train), lines(files.heldout)
        assert (len(train), len(heldout)) == (files.documents, files.heldout_documents)
        assert files.train.stat().st_size == files.bytes > 140_000
        assert files.heldout.stat().st_size == files.heldout_bytes > 12_000
        assert len(set(train + heldout)) == len(train) + len(heldout), language
        assert all(line == line.strip() and len(line) > 1 for line in train + heldout)
        assert not {letters(line) for line in train} & {letters(line) for line in heldout}
        windows = {w for line in train for w in windows_of(letters(line), text.WINDOW)}
        assert not any(w in windows for line in heldout for w in windows_of(letters(line), text.WINDOW))
    # One from each source.
    korean = lines(corpora["ko"].train) + lines(corpora["ko"].heldout)
    assert "제1조 ① 대한민국은 민주공화국이다." in korean
    assert any("그 협의 내용을 국민에게 공개하여야" in line for line in korean)  # a word cut by a line's end
    japanese = lines(corpora["ja"].train) + lines(corpora["ja"].heldout)
    assert {"韓国", "キャンセル", "2024年8月10日土曜日"} <= set(japanese)

    again = text.write_corpora(tmp_path / "again")
    for language, files in corpora.items():
        assert again[language].train.read_bytes() == files.train.read_bytes()
        assert again[language].heldout.read_bytes() == files.heldout.read_bytes()


def windows_of(line: str, size: int) -> set[str]:
    return {line[i : i + size] for i in range(len(line) - size + 1)}


def test_a_translation_of_a_held_out_text_is_held_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def source():
        for number in range(97):
            yield [("en", f"number {number}"), ("ko", f"{number}번"), ("ja", f"{number}番")]
            # The same Korean for another English word, like two buttons that are both "닫기".
            yield [("en", f"Item {number}."), ("ko", f"{number}번!"), ("zh", f"{number}号")]

    monkeypatch.setattr(text, "SOURCES", (source,))
    numbers = {}
    for language, files in text.write_corpora(tmp_path).items():
        held_out = {int("".join(re.findall(r"\d", line))) for line in lines(files.heldout)}
        train = {int("".join(re.findall(r"\d", line))) for line in lines(files.train)}
        assert held_out | train == set(range(97))
        assert not held_out & train
        numbers[language] = held_out
    assert 0 < len(numbers["ko"]) < 40
    assert numbers["ko"] == numbers["en"] == numbers["zh"] == numbers["ja"]


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "konlpy", None)
    with pytest.raises(UserError, match=r"konlpy.*kebyt5-xm\[demo\]"):
        text.write_corpora(tmp_path)
