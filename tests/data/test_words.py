"""Labels, layouts and references of a manifest, before anything is trained."""

import json
import pickle
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from kebyt5_xm.data import Manifest
from kebyt5_xm.data.layouts import Layout
from kebyt5_xm.data.media.bad_sample import BadSample, RowError
from kebyt5_xm.data.sources.manifest import open_rows
from kebyt5_xm.data.sources.words import Words
from kebyt5_xm.errors import UserError
from kebyt5_xm.metrics import Accuracy, ExactMatch


class Lines(Layout):
    """Lines `label: text`."""

    def __init__(self, separator: str = ": "):
        self.separator = separator

    def read(self, path):
        for line in path.read_text(encoding="utf-8").splitlines():
            label, text = line.split(self.separator)
            yield {"label": label, "text": text, "answers": [text, text.upper()]}


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    path = tmp_path / "rows.txt"
    path.write_text("0: a\n1: b\n0: c\n7: d\n1: e\n", encoding="utf-8")
    return path


def source(path: Path, **changes) -> Manifest:
    given = {"prompt": "{text}", "target": "{label}", "format": Lines(), "validation": str(path)}
    return Manifest(str(path), **{**given, **changes})


def test_a_layout_is_a_table_that_workers_open_again(lines: Path) -> None:
    rows = open_rows(lines, Lines())
    again = pickle.loads(pickle.dumps(rows))
    assert [row["text"] for row in map(again.row, range(len(again)))] == ["a", "b", "c", "d", "e"]
    assert again.fingerprint == rows.fingerprint
    before = rows.fingerprint
    lines.write_text("0: a\n1: b\n", encoding="utf-8")
    assert len(open_rows(lines, Lines())) == 2
    assert open_rows(lines, Lines()).fingerprint != before


def test_settings_of_a_layout_make_other_rows(lines: Path) -> None:
    lines.write_text("0: a b\n", encoding="utf-8")
    assert open_rows(lines, Lines()).row(0)["label"] == "0"
    lines.write_text("0:a: b\n", encoding="utf-8")
    assert open_rows(lines, Lines(":a: ")).row(0)["text"] == "b"


def test_a_published_label_becomes_its_word(lines: Path) -> None:
    data = source(lines, labels={"0": "부정", "1": "긍정"}, metrics=[Accuracy()])
    assert data.labels == ("부정", "긍정")
    assert data.references(0, 1) == ("긍정",)
    with pytest.raises(RowError, match="'7', expected one of 0, 1"):
        data.references(0, 3)


def test_references_of_a_column(lines: Path) -> None:
    assert source(lines, references="answers").references(0, 2) == ("c", "C")
    with pytest.raises(UserError, match=r"'answer'.*did you mean 'answers'"):
        source(lines, references="answer")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": {"긍정": "긍정", "부정": "부정"}}, "of the first 5 targets that are no label"),
        ({"labels": ["0"]}, "two words or more"),
        ({"labels": ["0", "1", "0"]}, "each word once"),
        ({"metrics": [Accuracy()]}, "Accuracy needs a source with labels"),
        ({"metrics": [ExactMatch(), ExactMatch()]}, "found 2 metrics that are logged as 'exact_match'"),
        ({"metrics": [ExactMatch()], "validation": None}, "no held-out rows to judge"),
    ],
)
def test_what_does_not_fit_is_refused_at_once(lines: Path, changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        source(lines, **changes)


def test_labels_enter_the_fingerprint(lines: Path) -> None:
    first, second = (source(lines, labels={"0": "a", "1": word}) for word in "bc")
    assert json.dumps(first.settings()) != json.dumps(second.settings())


def nfd(text: str) -> str:
    return unicodedata.normalize("NFD", text)


@pytest.mark.parametrize(
    ("labels", "published", "word"),
    [
        ({"0": "a", "1": "b"}, "1.0", "b"),
        ({"0": "a", "1": "b"}, "1   ", "b"),
        ({"0": "a", "1": "b"}, "01", "b"),
        ({"1": "a", "1.0": "b"}, "1.0", "b"),
        ({"1": "a", "1.0": "b"}, "1", "a"),
        ({"true": "a", "false": "b"}, "True", "a"),
        ({True: "a", 0: "b"}, "True", "a"),
        ({True: "a", 0: "b"}, "0", "b"),
        (["긍정", "부정"], nfd("긍정"), "긍정"),
        ([nfd("긍정"), "부정"], "긍정", nfd("긍정")),
    ],
)
def test_a_label_matches_as_the_value_that_it_is(labels: Any, published: str, word: str) -> None:
    assert Words(labels).word(published) == word


@pytest.mark.parametrize(
    ("labels", "published", "message"),
    [
        ({"0": "a", "1": "b"}, "True", "expected one of 0, 1; the column holds booleans"),
        ({"true": "a", "false": "b"}, "1", "expected one of true, false"),
        ({"1": "a", "1.0": "b"}, "1.00", "expected one of 1, 1.0"),
        ({"0": "a", "1": "b"}, "１", "'1' differs in the width or the form"),
        (["긍정", "부정"], "긍\u200b정", "'긍정' differs in spaces, case or characters that are not seen"),
        (["Yes", "No"], "yes", "'Yes' differs in upper and lower case"),
        (["0", "1"], "9" * 5000, "expected one of 0, 1"),
    ],
)
def test_a_label_that_only_looks_alike_is_told_apart(labels: Any, published: str, message: str) -> None:
    with pytest.raises(BadSample, match=message):
        Words(labels).word(published)


@pytest.mark.parametrize(
    "labels", [["긍정", nfd("긍정")], {"a": "b", "a ": "c"}, {"긍": "b", nfd("긍"): "c"}]
)
def test_a_label_in_two_forms_is_given_twice(labels: Any) -> None:
    with pytest.raises(UserError, match="twice"):
        Words(labels)
