"""Reports: one self-contained file that shows the content of a run's files, all of it escaped."""

import ast
import base64
import io
import json
import math
import re
import wave
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_report
import yaml
from babel.messages.extract import extract_from_dir
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import Environment, nodes
from PIL import Image

from kebyt5_xm.commands import cli
from kebyt5_xm.errors import UserError
from kebyt5_xm.evaluation.evaluation_file import EvaluationFile
from kebyt5_xm.evaluation.report import media as report_media
from kebyt5_xm.evaluation.report.charts import MAX_POINTS, Line, Row, line_chart, row_chart, thin_points
from kebyt5_xm.evaluation.report.comparison import compare, find_clear_best
from kebyt5_xm.evaluation.report.configuration import flatten
from kebyt5_xm.evaluation.report.difference import MAX_CHARACTERS, as_bytes, is_malformed, mark_differences
from kebyt5_xm.evaluation.report.draw import draw
from kebyt5_xm.evaluation.report.media import manifest_opener, show_audio
from kebyt5_xm.evaluation.report.predictions import MAX_EXAMPLES, read_predictions
from kebyt5_xm.evaluation.report.record import read_record
from kebyt5_xm.evaluation.report.text_ability import find_differing_parts
from kebyt5_xm.evaluation.report.wording import (
    bilingual,
    code,
    data,
    duration,
    interval,
    korean,
    number,
    percent,
)
from kebyt5_xm.metrics.bootstrap import Score
from kebyt5_xm.model.runs.run import Run

TAGS = set(
    re.findall(
        r"\w+",
        "html head meta title style body input header div label h1 h2 h3 h4 p span bdi nav a main section ul li "
        "small b table thead tbody tr th td figure figcaption svg path text tspan img audio mark ruby rt "
        "code pre dl dt dd details summary footer",
    )
)
VOID = {"meta", "input", "img"}
USES = ("real", "shuffled", "none", "real_minus_shuffled", "real_minus_none")
HANGUL = re.compile("[가-힣]")


class Page(HTMLParser):
    """Parses a page strictly: tags must nest, and only the tags in `TAGS` may occur."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[tuple[str, dict[str, str]]] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: list[
            tuple[str, str | None]
        ] = []  # text, and the language of the phrase of ours it stands in
        assert html.startswith("<!doctype html>\n<html")
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {key: value or "" for key, value in attrs}
        assert tag in TAGS, tag
        assert len(attributes) == len(attrs), "an attribute given twice"
        assert not any(key.startswith("on") for key in attributes), attributes
        self.elements.append((tag, attributes))
        if tag not in VOID:
            self.open.append((tag, attributes))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        phrase = None
        for tag, attributes in self.open:
            if attributes.get("class") == "say":
                phrase = attributes["lang"]
            elif tag in ("bdi", "code"):
                phrase = None
        if data.strip():
            self.words.append((data, phrase))

    @property
    def text(self) -> str:
        return " ".join(words for words, _ in self.words)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_report.write_run(tmp_path_factory.mktemp("report") / "a-run")


@pytest.fixture(scope="module")
def html(folder: Path) -> str:
    run = Run(folder)
    return draw(run, manifest_opener(run))


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def write_files(folder: Path, **files: Any) -> Run:
    """Write a run with config.yaml and `files` only."""
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(files.pop("config", {"run_dir": "x"})))
    for name, content in files.items():
        path = folder / name.replace("_dot_", ".")
        if isinstance(content, list):
            tiny_report.write_lines(path, content)
        elif isinstance(content, str):
            path.write_text(content)
        else:
            path.write_text(json.dumps(content))
    return Run(folder)


def test_the_page_needs_nothing_else(page: Page) -> None:
    for tag, attributes in page.elements:
        for key in ("src", "href", "xlink:href", "srcset", "action", "poster"):
            assert re.match(r"data:(image|audio)/|#", attributes.get(key, "#")), (tag, attributes)
        assert "url(" not in attributes.get("style", "")
    policy = next(meta for meta in page.all("meta") if "http-equiv" in meta)
    assert "default-src 'none'" in policy["content"]
    assert "script" not in policy["content"]
    style = next(words for words, _ in page.words if ":root" in words)
    assert "url(" not in style
    assert "@import" not in style


def test_links_and_labels_lead_somewhere(page: Page) -> None:
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {link["href"].removeprefix("#") for link in page.all("a")} <= set(ids)
    assert {label["for"] for label in page.all("label")} <= set(ids)
    assert len(page.all("h1")) == 1


def test_both_languages_say_everything(page: Page) -> None:
    """Every phrase is in both languages; neither has words of the other."""
    spans = [attributes["lang"] for tag, attributes in page.elements if attributes.get("class") == "say"]
    assert spans.count("ko") == spans.count("en") > 100
    english = [words for words, phrase in page.words if phrase == "en"]
    assert not [words for words in english if HANGUL.search(words)]
    outside = [words for words, phrase in page.words if phrase is None and ":root" not in words]
    ours = {"English", "한국어"}
    assert HANGUL.search(" ".join(words for words, phrase in page.words if phrase == "ko"))
    known = {"higher is better", "examples", "wrong", "Summary"}
    assert not [words for words in outside if words not in ours and any(word in words for word in known)]


def test_every_phrase_is_in_both_languages() -> None:
    """Including phrases on none of the tested pages: each takes the same values in Korean and in English."""
    found = extract_from_dir(
        Path(report_media.__file__).parent,
        method_map=[("**.py", "python"), ("templates/**.j2", "jinja2")],
        options_map={"templates/**.j2": {"silent": "false"}},
        keywords={"_": None, "bilingual": None},
    )
    phrases = {message if isinstance(message, str) else message[0] for _, _, message, *_ in found}
    assert phrases == set(korean())
    assert len(phrases) > 150
    for english, translated in korean().items():
        assert HANGUL.search(translated), translated
        assert not HANGUL.search(english), english
        values = [sorted(re.findall(r"{.*?}", phrase)) for phrase in (english, translated)]
        assert values[0] == values[1], (english, translated)


def phrases_in_code() -> Iterator[tuple[str, set[str]]]:
    """Yield every phrase of templates and Python files with the names of its values there."""
    folder = Path(report_media.__file__).parent
    for path in folder.rglob("*.j2"):
        tree = Environment().parse(path.read_text(encoding="utf-8"))
        for call in tree.find_all(nodes.Call):
            if getattr(call.node, "name", None) == "_":
                yield call.args[0].value, {keyword.key for keyword in call.kwargs}
    for path in folder.rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            named = (
                isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "bilingual"
            )
            if named and isinstance(call.args[0], ast.Constant):
                yield str(call.args[0].value), {str(keyword.arg) for keyword in call.keywords}


def test_every_phrase_is_given_its_values() -> None:
    """Including branches that no tested page takes; a missing value would be a KeyError there."""
    found = list(phrases_in_code())
    assert len(found) > 150
    for phrase, values in found:
        assert set(re.findall(r"{(\w+)", phrase)) == values - {"tag"}, phrase


@pytest.mark.parametrize("language", ["ko", "en"])
def test_the_language_shown_first(folder: Path, language: str) -> None:
    page = Page(draw(Run(folder), language=language))
    assert page.all("html")[0]["lang"] == language
    assert [i["id"] for i in page.all("input") if "checked" in i] == [f"show-{language}"]


def test_the_summary_answers(page: Page) -> None:
    summary = page.text[: page.text.index("In brackets the")]
    assert "0.978 [0.962, 0.992]" in summary, "how good, with its interval"
    assert "+0.109" in summary, "text ability: the largest change"
    assert "+0.808 [+0.773, +0.843]" in summary, "the modality's gain"
    assert "it is not shown to use" in summary
    assert "+0.589 [+0.554, +0.624]" in summary, "where lower is better, a gain is positive too"
    assert "impossible by construction" in summary
    assert "0.1 %" in summary, "one of 780 is not UTF-8"


def test_an_answer_that_is_none_of_the_labels_is_said(tmp_path: Path) -> None:
    run = write_files(
        tmp_path / "run",
        evaluation_dot_json={"sources": {"a": {"labels": ["x", "y"], "metrics": {}}}},
        predictions_dot_jsonl=[{"source": "a", "prediction": word} for word in ("x", "y", "z")],
    )
    page = Page(draw(run))
    assert "33.3 %" in page.text
    assert "impossible by construction" not in page.text


def test_what_is_recorded_is_shown(page: Page) -> None:
    told = (
        "1,103,872",
        "6 min 53 s",
        "0.115 h",
        "1.84 GB",
        "41,237 B/s",
        "213.7 B/s",
        "apache-2.0",
        "13 × ",
        "there is no such file",
        "4.02",
        "JPEG",
    )
    for words in told:
        assert words in page.text, words


def test_media_are_small_and_whole(page: Page) -> None:
    pictures = [i["src"] for i in page.all("img")]
    decoded = [Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))) for url in pictures]
    for picture in decoded:
        picture.load()
    assert {(8, 8), (224, 147)} <= {picture.size for picture in decoded}
    assert max(max(p.size) for p in decoded if p.format == "JPEG") == 224
    heard = [a["src"] for a in page.all("audio")]
    lengths = set()
    for url in heard:
        with wave.open(io.BytesIO(base64.b64decode(url.split(",")[1]))) as file:
            lengths.add(round(file.getnframes() / file.getframerate(), 2))
    assert lengths == {0.9, 1.27, 1.64}
    assert sum(i.get("class") == "spectrogram" for i in page.all("img")) == len(heard) == 12


def test_long_recordings_are_cut_and_thinned() -> None:
    samples = np.sin(np.arange(48_000 * 13) / 50).astype(np.float32)
    shown = show_audio((samples, 48_000))
    assert shown.audio
    with wave.open(io.BytesIO(base64.b64decode(shown.audio.split(",")[1]))) as file:
        assert (file.getframerate(), file.getnframes()) == (16_000, 12 * 16_000)
    assert "the first 12 of 13.00 s" in str(shown.caption)


def test_wrong_ones_come_first(page: Page) -> None:
    classes = [a["class"] for _, a in page.elements if a.get("class", "").startswith("example ")]
    assert classes[:12] == ["example wrong"] * 8 + ["example right"] * 4
    assert len(classes) == 12 + 8 + 12


def test_differences_are_marked(html: str) -> None:
    assert "<ruby>갂<rt" in html
    assert "EA B0 <b>82</b>" in html
    assert '<mark class="extra bytes">&lt;ED&gt;&lt;95&gt;</mark>' in html
    assert "(empty)" in html


NASTY = (
    "\"'><script>alert(1)</script></style></title><img src=x onerror=alert(1)>&amp;{}{0}%s\0\x1b\u202e\ud800"
)


def same_tags(html: str) -> list[str]:
    """Return the elements, without those that mark differing bytes."""
    return [tag for tag, _ in Page(html).elements if tag not in ("mark", "ruby", "rt", "b", "small")]


def test_nothing_in_a_run_is_markup(tmp_path: Path) -> None:
    """Markup in a run's files gives a page with the same elements; the markup is read as text."""
    number_ = {"value": 0.5, "low": 0.4, "high": 0.6, "higher_is_better": True}
    use = dict.fromkeys(USES, number_)
    drawn = []
    for index, word in enumerate((re.sub("[<>\"'&={}()/%]", "x", NASTY), NASTY)):
        points = [{"strength": 1, "metrics": {word: number_}}]
        robust = {
            "examples": 3,
            "clean": {word: number_},
            "curves": [{"perturbation": word, "kind": word, "unit": word, "points": points}],
        }
        source = {
            "examples": 3,
            "skipped": 0,
            "labels": None,
            "modalities": [word],
            "metrics": {word: number_},
            "modality_use": {"examples": 3, "modalities": {word: {word: use}}},
            "robustness": robust,
        }
        evaluation = {
            "sources": {word: source},
            "bits_per_byte": {word: 2.0},
            **dict.fromkeys(("date", "checkpoint", "hardware"), word),
        }
        medium = {"modality": word, "media": word, "reference": word}
        prediction = {
            "source": word,
            "row": word,
            "path": "a",
            "line": word,
            "prompt": [medium, word],
            "references": ["", word],
            "prediction": "other" + word,
            "probabilities": {word: 0.5},
            "right": False,
        }
        clean = word.encode(
            "utf-8", "replace"
        ).decode()  # a YAML file holds no surrogate and no control character
        clean = "".join(c for c in clean if c.isprintable())
        block = {"class_path": f"a.{clean}", "init_args": {"path": clean, "prompt": clean, "target": clean}}
        coder = {"class_path": clean, "init_args": {clean: clean}}
        modality = {clean: {"encoder": coder, "adapter": coder}}
        config = {"data": {"sources": {clean: block}}, "model": {"modalities": modality, "optimizer": coder}}
        run = write_files(
            tmp_path / str(index),
            config=config,
            evaluation_dot_json=evaluation,
            predictions_dot_jsonl=[prediction],
            skipped_dot_jsonl=[{"step": 1, "source": word, "line": word, "path": word, "cause": word}],
            results_dot_json={
                "hardware": word,
                "precision": word,
                "strategy": word,
                "date": word,
                "forgetting": {word: {"start": 1.0, "end": 2.0, "worst": 3.0}},
            },
        )
        (run.path / "backbone").mkdir()
        (run.path / "backbone/config.json").write_text(
            json.dumps({"kebyt5_xm": {"licence": word, "started_from": [word]}})
        )
        told = [f'{n},"{clean.replace(chr(34), chr(34) * 2)}",{n}' for n in range(1, 4)]
        (run.path / "metrics.csv").write_text("\n".join(["step,metric,value", *told]) + "\n")
        drawn.append([draw(run), compare([run, run])])
    for plain, nasty in zip(*drawn, strict=True):
        assert [tag for tag, _ in Page(nasty).elements].count("script") == 0
        assert NASTY[2:-5] in Page(nasty).text
        assert not re.search("[\0\x1b\u202e\ud800-\udfff]", nasty)
        nasty.encode()
        assert same_tags(plain) == same_tags(nasty)


ALL_FILES = (
    "results.json",
    "metrics.csv",
    "skipped.jsonl",
    "evaluation.json",
    "predictions.jsonl",
    "backbone/config.json",
)


@pytest.mark.parametrize("absent", [*((name,) for name in ALL_FILES), ALL_FILES])
def test_what_is_missing_is_said(tmp_path: Path, absent: tuple[str, ...]) -> None:
    run = Run(tiny_report.write_run(tmp_path / "run"))
    for name in absent:
        (run.path / name).unlink()
    page = Page(draw(run))
    if "evaluation.json" in absent:
        assert "This run has not been evaluated yet." in page.text
        assert f"kebyt5-xm report {run.path}" in page.text
    if "results.json" in absent:
        assert "Not measured" in page.text
    if "metrics.csv" in absent:
        assert "metrics.csv is absent or empty" in page.text
    Page(compare([run, run]))


def test_an_evaluation_is_written_as_it_is_read(tmp_path: Path) -> None:
    path = tiny_report.write_run(tmp_path / "run") / "evaluation.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    read = EvaluationFile.read(path)
    assert read
    read.write(path)
    written = json.loads(path.read_text(encoding="utf-8"))
    assert holds(written, content)
    uses = {name: source["modality_use"]["used"] for name, source in written["sources"].items()}
    assert uses == {"digits": {"image": True}, "captions": {"image": False}, "spoken": {"speech": True}}


def test_answers_that_repeat_one_phrase_are_reported(tmp_path: Path) -> None:
    run = Run(tiny_report.write_run(tmp_path / "run"))
    assert "end in one phrase" not in draw(run), "of an older file"
    content = json.loads((run.path / "evaluation.json").read_text(encoding="utf-8"))
    for name, share in (("captions", 0.25), ("spoken", 0.5)):
        content["sources"][name] |= {"repetition": share, "examples": 40}
    (run.path / "evaluation.json").write_text(json.dumps(content))
    assert "30 end in one phrase over and over" in draw(run)
    assert "30개는 같은 구절을 되풀이하며 끝남" in draw(run)


def holds(content: Any, part: Any) -> bool:
    """Return whether nested `content` has all values of `part`, where `part` may have fewer keys."""
    if isinstance(part, dict):
        return all(key in content and holds(content[key], value) for key, value in part.items())
    if isinstance(part, list):
        return len(content) == len(part) and all(map(holds, content, part))
    return content == part


def test_null_and_infinity_are_no_numbers(tmp_path: Path) -> None:
    nothing = {"value": None, "low": None, "high": None, "higher_is_better": True}
    use = dict.fromkeys(USES, nothing)
    source = {
        "examples": 0,
        "metrics": {"f1": nothing},
        "modality_use": {"examples": 0, "modalities": {"image": {"f1": use}}},
        "robustness": {"clean": {"f1": nothing}, "curves": []},
    }
    run = write_files(
        tmp_path / "run",
        evaluation_dot_json={
            "sources": {"s": source, "none": {"metrics": {}}},
            "bits_per_byte": {"ko": None},
        },
        metrics_dot_csv="step,metric,value\n1,train/loss,nan\n2,train/loss,inf\n3,val/loss,nan\n4,val/loss,1.5\n",
        results_dot_json={"forgetting": {"ko": {"start": None, "end": 1.0}}, "loss": None, "steps": 3},
    )
    drawn = draw(run)
    assert "nan" not in re.sub("<style>.*?</style>", "", drawn)
    assert "it is not shown to use" in drawn
    compare([run, run])


def test_a_run_without_metrics_says_so(tmp_path: Path) -> None:
    run = write_files(tmp_path / "run", evaluation_dot_json={"sources": {"s": {"metrics": {}}}})
    for html in (draw(run), compare([run, run])):
        metrics = html[
            html.index('<section id="metrics">') : html.index("</section>", html.index('id="metrics"'))
        ]
        assert "No metric was measured." in metrics
        assert "<table" not in metrics


def test_an_empty_run(tmp_path: Path) -> None:
    run = write_files(tmp_path / "run", metrics_dot_csv="", predictions_dot_jsonl="", skipped_dot_jsonl="")
    (run.path / "config.yaml").write_text("")
    Page(draw(run))
    Page(compare([run, run, run]))


def test_hundreds_of_sources_with_long_names(tmp_path: Path) -> None:
    names = [f"{n}-" + "아주긴이름" * 40 + " لغة" for n in range(401)]
    measured = {"value": 0.5, "low": 0.4, "high": 0.6, "higher_is_better": True}
    rows = [
        {"source": n, "prompt": ["x" * 50_000], "references": ["y" * 5000], "prediction": "가" * 5000}
        for n in names
        for _ in range(2)
    ]
    run = write_files(
        tmp_path / "run",
        evaluation_dot_json={"sources": {n: {"examples": 2, "metrics": {"f1": measured}} for n in names}},
        predictions_dot_jsonl=rows,
        results_dot_json={"forgetting": {n: {"start": 3.0, "end": 2.9, "worst": 3.1} for n in names}},
        metrics_dot_csv="\n".join(f'{s},"val/bits_per_byte/{n}",{s}' for n in names for s in (1, 2)),
    )
    drawn = draw(run)
    assert drawn.count('class="example wrong"') == MAX_EXAMPLES
    assert len(drawn) < 8_000_000
    Page(drawn)
    assert "802" in drawn
    Page(compare([run, run]))


def test_media_that_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(tiny_report.write_run(tmp_path / "run"))
    (tmp_path / "secret.png").write_bytes((run.path / "data/images/0.png").read_bytes())
    (run.path / "data/images/1.png").write_bytes(b"not an image")
    references = ["../../secret.png", "images/1.png", "images/none.png", "images/0.png", "images/2.png"]
    rows = [
        tiny_report.line(run.path, "digits", n, reference, "", ["1"], "2", None)
        for n, reference in enumerate(references)
    ]
    tiny_report.write_lines(run.path / "predictions.jsonl", rows)
    monkeypatch.setattr(report_media, "MAX_BYTES", 1)
    page = Page(draw(run, manifest_opener(run)))
    assert len(page.all("img")) == 1, "the first that could be opened, then the room was spent"
    for words in (
        "it leaves the manifest",
        "found no readable image",
        "there is no such file",
        "the page is full",
    ):
        assert words in page.text
    assert "1 media were left out" in page.text
    assert not Page(draw(run)).all("img")


# -- the pieces ------------------------------------------------------------------------------------


@given(st.text(max_size=40), st.text(max_size=40))
@settings(max_examples=200)
def test_pieces_hold_every_byte_and_mark_what_differs(reference: str, prediction: str) -> None:
    sides = mark_differences(reference, prediction)
    kept = []
    for pieces, words in zip(sides[:2], (reference, prediction), strict=True):
        characters = [c for piece in pieces for c in piece.characters]
        assert b"".join(c.raw for c in characters) == as_bytes(words)
        kept.append(
            bytes(
                byte
                for c in characters
                for byte, differs in zip(c.raw, c.differs, strict=True)
                if not differs
            )
        )
        assert all(not any(c.differs) for piece in pieces if piece.kind == "same" for c in piece.characters)
    assert kept[0] == kept[1], "what is not marked is the same on both sides"
    assert (sides[2] == 0) == (reference == prediction)
    longest = max(len(as_bytes(reference)), len(as_bytes(prediction)))
    assert longest - len(kept[0]) <= sides[2] <= longest


def test_a_character_cut_in_half_is_its_bytes() -> None:
    cut = "가나".encode()[:-1].decode("utf-8", "surrogateescape")
    reference, written, distance = mark_differences("가나", cut)
    assert [(p.kind, p.text) for p in reference] == [("same", "가"), ("part", "나")]
    assert [(p.kind, [c.raw for c in p.characters]) for p in written] == [
        ("same", ["가".encode()]),
        ("byte", [b"\xeb", b"\x82"]),
    ]
    assert distance == 1
    assert reference[1].characters[0].differs == (False, False, True)


def test_texts_are_cut_before_they_are_aligned() -> None:
    _, written, _ = mark_differences("", "가" * 100_000)
    assert sum(len(p.characters) for p in written) == MAX_CHARACTERS


@pytest.mark.parametrize(
    ("words", "expected"), [("가", False), ("", False), ("\udcec", True), ("a\ufffd", True)]
)
def test_is_malformed(words: str, expected: bool) -> None:
    assert is_malformed(words) is expected


def test_answers_are_counted_and_few_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    rows = [
        {
            "source": "a",
            "line": n,
            "references": ["1"],
            "prediction": "1" if n % 3 else "x",
            "right": bool(n % 3),
        }
        for n in range(31)
    ]
    rows.append({"source": "b", "line": 0, "references": ["1", "2"], "prediction": "2", "right": None})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"source": "a", "pred')
    found = read_predictions(path, 8, {"a": ["1", "2"], "b": None})
    assert (found["a"].total, found["a"].right, found["a"].malformed) == (31, 20, 11)
    assert [p.line for p in found["a"].shown] == [0, 3, 6, 9, 12, 15, 1, 2]
    assert found["b"].right == 1, "right by its references where the file does not say"
    assert found["b"].malformed == 0
    assert read_predictions(path, 0, {})["a"].shown == []


A, B, TOUCHING = Score(0.5, 0.4, 0.6), Score(0.8, 0.7, 0.9), Score(0.66, 0.55, 0.75)


@pytest.mark.parametrize(
    ("scores", "higher", "best"),
    [
        ([A, B], True, 1),
        ([A, B], False, 0),
        ([A, TOUCHING], True, None),
        ([B, A, TOUCHING], True, None),
        ([B, A, None], True, 0),
        ([B, None], True, None),
        ([A, Score(0.9, math.nan, math.nan)], True, None),
    ],
)
def test_the_best_is_marked_where_intervals_permit(
    scores: list[Score | None], higher: bool, best: int | None
) -> None:
    assert find_clear_best(scores, higher) == best


def test_runs_side_by_side(folder: Path, tmp_path: Path) -> None:
    other = Run(tiny_report.write_run(tmp_path / "other", lr=0.001, accuracy=0.911, seed=1))
    drawn = compare([Run(folder), other])
    page = Page(drawn)
    assert "model.optimizer.init_args.lr" in page.text
    assert "seed_everything" not in page.text, "the same in both"
    assert drawn.count('class="best"') == 2, "accuracy and macro F1; the rest is the same"
    assert drawn.count('<span class="best">0.978 [0.962, 0.992]</span>') == 1
    evaluation = json.loads((other.path / "evaluation.json").read_text())
    evaluation["sources"]["digits"]["examples"] = 370
    (other.path / "evaluation.json").write_text(json.dumps(evaluation))
    assert 'class="best"' not in compare([Run(folder), other]), "other examples are no comparison"


def test_bits_of_other_held_out_text_are_not_put_side_by_side(folder: Path, tmp_path: Path) -> None:
    other = Run(tiny_report.write_run(tmp_path / "other"))
    same = compare([Run(folder), other])
    assert "not the same in these runs" not in same
    results = json.loads((other.path / "results.json").read_text())
    part = next(name for name, entry in results["parts"].items() if entry.get("unigram"))
    results["parts"][part]["unigram"] += 0.1
    (other.path / "results.json").write_text(json.dumps(results))
    records = [read_record(run, examples=0) for run in (Run(folder), other)]
    assert find_differing_parts(records) == {part, ""}
    drawn = compare([Run(folder), other])
    assert "is not the same in these runs, so its bits and losses" in drawn
    assert drawn.count("<svg") < same.count("<svg"), "its curves are left out"


def test_flattened() -> None:
    assert flatten({"a": {"b": 1, "c": {}}, "d": [1, 2]}) == [("a.b", "1"), ("a.c", "{}"), ("d", "[1, 2]")]


def ticks(svg: str) -> list[str]:
    """Return the tick labels of a chart."""
    return re.findall("<text[^>]*var\\(--soft\\)[^>]*>([^<]+)</text>", svg)


def as_number(label: str) -> float:
    units = {"k": 1e3, "M": 1e6, "G": 1e9}
    return float(label.rstrip("kMG").replace("−", "-")) * units.get(label[-1], 1)


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9))
@settings(max_examples=30)
def test_ticks_cover_the_values(low: float, extent: float) -> None:
    high = low + extent
    if not high > low or extent < 1e-3 * abs(low):
        return
    labels = ticks(row_chart([Row("a", "", low), Row("b", "", high)]))
    found = [as_number(label) for label in labels]
    slack = 0.1 * (found[1] - found[0])
    assert found[0] <= low + slack
    assert found[-1] >= high - slack
    assert 2 <= len(set(labels)) == len(labels) <= 8


def test_ticks_of_one_value() -> None:
    for value in (0.0, 3.0, -2e-8):
        found = [as_number(label) for label in ticks(row_chart([Row("a", "", value)]))]
        assert found[0] < value < found[-1]
    assert ticks(row_chart([Row("a", "", 0.0), Row("b", "", 0.2)])) == [
        "0.00",
        "0.05",
        "0.10",
        "0.15",
        "0.20",
    ]
    assert ticks(row_chart([Row("a", "", -20_000.0), Row("b", "", 20_000.0)])) == [
        "−20k",
        "−10k",
        "0",
        "10k",
        "20k",
    ]


def test_the_same_chart_is_the_same_text_and_asks_for_no_font() -> None:
    charts = [row_chart([Row("가나다", "1 < 2", 1.0)]) for _ in range(2)]
    assert charts[0] == charts[1]
    assert re.findall("<text[^>]*>([^<]*)</text>", charts[0])[-2:] == ["가나다", "1 &lt; 2"]
    assert "font-family" not in charts[0]


def test_thinning_keeps_spikes() -> None:
    points = [(float(n), 0.0) for n in range(100_003)]
    points[70_001] = (70_001.0, 9.0)
    points[71_001] = (71_001.0, -9.0)
    kept = thin_points(points)
    assert {points[70_001], points[71_001], points[-1]} <= set(kept)
    assert len(kept) <= MAX_POINTS + 2
    assert kept == sorted(kept)


def test_lines_break_where_a_value_is_missing() -> None:
    line = Line("x", [(1, 1.0), (2, 2.0), (3, math.nan), (4, 1.0), (5, 2.0)])
    chart = line_chart("title", "x", [line])
    assert chart
    curves = [d for d in re.findall('<path d="([^"]*)"', chart.svg) if d.count("L") == 2]
    assert [d.count("M") for d in curves] == [2]
    assert line_chart("title", "x", [Line("x", [(1, math.nan)])]) is None


def test_ticks_of_steps_are_integers() -> None:
    chart = line_chart("title", "x", [Line("x", [(3, 1.0), (4, 2.0), (6, 1.5)])])
    assert chart
    labels = ticks(chart.svg)
    assert labels[:4] == ["3", "4", "5", "6"]
    assert all(1.0 <= as_number(label) <= 2.0 for label in labels[4:])  # of the other axis


def test_phrases_and_words_of_a_run_are_escaped() -> None:
    assert bilingual("{count} more", count="<") == (
        '<span class="say" lang="ko">&lt;개 더</span><span class="say" lang="en">&lt; more</span>'
    )
    assert data("{0}<") == '<bdi lang="" dir="auto">{0}&lt;</bdi>'
    assert code('<"') == '<code lang="" dir="auto">&lt;&#34;</code>'
    with pytest.raises(KeyError):
        bilingual("no such phrase")


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (number(None), "–"),
        (number(math.nan), "–"),
        (number(-math.inf), "−∞"),
        (number(1234567), "1,234,567"),
        (number(-0.5), "−0.500"),
        (number(2.9e-6), "2.9e-06"),
        (interval(Score(1, 0.5, math.nan)), "1"),
        (percent(0), "0.0 %"),
        (percent(0.0004), "< 0.1 %"),
        (duration(59.94), "59.9 s"),
        (duration(59.96), "1 min 0 s"),
        (duration(90_000), "25 h 0 min"),
    ],
)
def test_numbers(told: str, expected: str) -> None:
    assert told == expected


# -- the commands ----------------------------------------------------------------------------------


def test_the_commands_write_their_pages(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.run("report", [str(folder), "--no-evaluate", "--examples", "1", "--out", str(tmp_path / "r.html")])
    out = tmp_path / "c.html"
    cli.run("compare", [str(folder), str(folder), "--out", str(out), "--language", "ko"])
    assert Page(out.read_text(encoding="utf-8")).all("html")[0]["lang"] == "ko"
    assert Page((tmp_path / "r.html").read_text(encoding="utf-8")).all("html")[0]["lang"] == "en"
    assert capsys.readouterr().out.count("wrote ") == 2


def test_no_file_takes_the_name_of_a_function() -> None:
    """Importing a submodule sets its name in the package and would replace a function of that name."""
    folder = Path(report_media.__file__).parent
    defined = ast.parse((folder / "__init__.py").read_text(encoding="utf-8")).body
    names = {node.name for node in defined if isinstance(node, ast.FunctionDef)}
    assert {"write_report", "write_page"} <= names
    assert not names & {path.stem for path in folder.glob("*.py")}


def broken(name: str) -> Callable[[Path], None]:
    return lambda run: (run / name).write_text("{")


@pytest.mark.parametrize(
    ("command", "args", "spoil", "words"),
    [
        ("report", ["RUN", "--no-evaluate"], broken("evaluation.json"), "is not an evaluation"),
        ("report", ["RUN", "--no-evaluate"], broken("results.json"), "is not JSON"),
        ("report", ["RUN", "--no-evaluate", "--examples", "-1"], None, "expected 0 or more"),
        ("report", ["RUN", "--no-evaluate", "--robustness"], None, "it needs the model"),
        ("report", ["RUN", "--no-evaluate", "--out", "none/x.html"], None, "cannot write none/x.html"),
        ("report", ["none", "--no-evaluate"], None, "is not a directory"),
        ("compare", ["RUN"], None, "expected two or more"),
    ],
)
def test_wrong_use_is_refused(
    tmp_path: Path,
    command: str,
    args: list[str],
    spoil: Callable[[Path], None] | None,
    words: str,
) -> None:
    run = write_files(tmp_path / "run").path
    if spoil:
        spoil(run)
    with pytest.raises(UserError, match=re.escape(words)):
        cli.run(command, [str(run) if arg == "RUN" else arg for arg in args])


def test_baselines_stand_beside_the_scores(folder: Path, page: Page, tmp_path: Path) -> None:
    words = " ".join(page.text.split())
    linear = "no better than logistic regression on"
    assert f"{linear} pixels : 0.978 against 0.985" in words
    assert words.count(f"{linear} pixels") == 2, "in the summary, and in the table"
    assert f"{linear} log-mel : 0.041 against 0.027" in words
    assert "better than all" in words  # by macro F1
    assert "separately for each of 4 prompts" in words
    content = json.loads((folder / "evaluation.json").read_text("utf-8"))
    for source in content["sources"].values():
        source.pop("baselines", None)
    bare = Page(draw(write_files(tmp_path / "bare", evaluation_dot_json=content)))
    assert "--baselines on" in bare.text
    assert "no better than" not in bare.text
