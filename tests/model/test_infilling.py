"""Gaps in texts: the same input, answer and spans as by hand with transformers, and what cannot be filled."""

from typing import Any

import pytest
import torch
from tiny_model import picture, tiny_model

from kebyt5_xm.errors import UserError
from kebyt5_xm.model.cross_modal import CrossModalT5
from kebyt5_xm.model.decoding.writing import WrittenRow
from kebyt5_xm.model.hypothesis import Hypothesis
from kebyt5_xm.model.infilling import Filled, Gaps
from kebyt5_xm.vocabulary import EOS_ID, encode

PIECES = ("서울은 ", "이고, ", ".")


@pytest.fixture(scope="module")
def model() -> CrossModalT5:
    return tiny_model()


def answer(*parts: int | str, is_cut: bool = False) -> Hypothesis:
    ids = [id_ for part in parts for id_ in ([part] if isinstance(part, int) else encode(part).tolist())]
    row = WrittenRow(10_000, valid_utf8=False)
    row.add(ids if is_cut else [*ids, EOS_ID])
    row.end("length")
    return Hypothesis.of(row, [-0.1] * len(row.ids))


@pytest.mark.parametrize("seed", [11, 27, 37])
def test_an_answer_is_that_of_transformers_put_into_the_text(seed: int) -> None:
    """With these seeds the untrained model writes both sentinels."""
    model = tiny_model({}, seed)
    ids = [*encode(PIECES[0]), 258, *encode(PIECES[1]), 257, *encode(PIECES[2]), EOS_ID]
    written: list[int] = model.backbone.generate(  # pyright: ignore
        input_ids=torch.tensor([ids]), max_new_tokens=300, do_sample=False
    )[0, 1:].tolist()
    numbers, spans = {258: 0, 257: 1}, [b"", b""]
    number = 0
    for id_ in written:
        if id_ in numbers:
            number = numbers[id_]
            spans[0] = b"" if number == 0 else spans[0]
        elif id_ == EOS_ID or 248 <= id_ < 257:
            break
        elif 3 <= id_ < 248:
            spans[number] += bytes([id_ - 3])
    filled = model.fill(Gaps(PIECES), max_new_tokens=300, stop_loops=False)
    assert [span.text.rstrip("\ufffd") for span in filled.spans] == [
        span.decode("utf-8", "replace").rstrip("\ufffd") for span in spans
    ]
    assert all(spans)


def test_spans_stand_in_their_places_with_their_probabilities() -> None:
    filled = Filled.of(Gaps(PIECES), answer("x", 258, "수도", 257, "강", 256, "y"), "descending")
    assert filled.text == "서울은 수도이고, 강."
    assert [span.text for span in filled.spans] == ["수도", "강"]
    assert [filled.text[span.start : span.end] for span in filled.spans] == ["수도", "강"]
    words = Filled.of(Gaps(PIECES), answer(258, "한 수", 257, "강"), "descending").words
    assert [(word.text, word.start, word.end) for word in words] == [
        ("한", 4, 5),
        ("수", 6, 7),
        ("강", 11, 12),
    ]
    assert [word.confidence for word in words] == pytest.approx([0.9048**3] * 3, rel=1e-3)
    assert [span.confidence for span in filled.spans] == pytest.approx([0.9048**6, 0.9048**3], rel=1e-3)


@pytest.mark.parametrize(
    ("written", "spans"),
    [
        (answer("수도", 257, "강"), ["수도", "강"]),  # without the first sentinel
        (answer(258, "수도"), ["수도", ""]),
        (answer(257, "강"), ["", "강"]),
        (answer(258, "수", 253, "도", 257, "강"), ["수", ""]),  # a sentinel of no gap ends the answer
        (answer(), ["", ""]),
        (answer(258, "a", 257, "b", 239, 180, is_cut=True), ["a", "b"]),  # cut inside a character
        (answer(258, "a", 257, "b", 239), ["a", "b\ufffd"]),
    ],
)
def test_whatever_is_written_gives_a_span_for_each_gap(written: Hypothesis, spans: list[str]) -> None:
    filled = Filled.of(Gaps(PIECES), written, "descending")
    assert [span.text for span in filled.spans] == spans
    assert filled.text == PIECES[0] + spans[0] + PIECES[1] + spans[1] + PIECES[2]


def test_the_sentinels_are_those_of_training() -> None:
    model = tiny_model(denoising={"sentinels": "extra_id"})
    assert model.processor(Gaps(PIECES))["input_ids"][0].tolist() == [
        *encode(PIECES[0]),
        259,
        *encode(PIECES[1]),
        260,
        *encode(PIECES[2]),
        EOS_ID,
    ]
    filled = Filled.of(Gaps(PIECES), answer(259, "a", 260, "b", 261), "extra_id")
    assert [span.text for span in filled.spans] == ["a", "b"]
    many = Gaps(["x"] * 13)
    assert len(model.fill(many, max_new_tokens=3).spans) == 12
    with pytest.raises(UserError, match="found 12 spans, expected at most 11"):
        tiny_model().fill(many)


def test_gaps_are_filled_alone_among_media_and_in_batches(model: CrossModalT5) -> None:
    alone = Gaps(PIECES)
    rows: list[Any] = [[alone], [picture(1), Gaps(["a", ""])]]
    arguments: dict[str, Any] = {"max_new_tokens": 20}
    filled = model.fill(rows, **arguments)
    assert [text.text for text in filled] == [model.fill(row, **arguments).text for row in rows]
    assert filled[0].text == model.fill(alone, **arguments).text
    assert model.answer(rows, **arguments) == [text.text for text in filled]
    best = model.fill(alone, n=3, **arguments)
    assert len(best) == 3
    assert model.answer(alone, n=3, **arguments) == [text.text for text in best]


def test_what_cannot_be_filled_is_refused(model: CrossModalT5) -> None:
    for pieces in ("a [] b", ["a"], [], ["a", 3]):
        with pytest.raises(UserError, match="expected the texts before, between and after the gaps"):
            Gaps(pieces)  # pyright: ignore[reportArgumentType]
    with pytest.raises(UserError, match="found 2 texts with gaps in one example"):
        model.processor([Gaps(PIECES), Gaps(PIECES)])
    for segments in ("a", [], [[Gaps(PIECES)], ["a"]], model.processor(Gaps(PIECES))):
        with pytest.raises(UserError, match="found an example without gaps"):
            model.fill(segments)  # pyright: ignore[reportArgumentType]
    for arguments in ({"stream": True}, {"labels": ["a", "b"]}, {"details": True}):
        with pytest.raises(UserError, match="expected gaps alone"):
            model.answer(Gaps(PIECES), **arguments)
    with pytest.raises(UserError, match="lone surrogate"):
        model.fill(Gaps(["\ud800", ""]))
