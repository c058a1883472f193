"""`answer`: streams, n best, confidence, the choice of least risk, loops, and arguments that exclude each other."""

import math
from contextlib import suppress
from typing import Any

import hypothesis
import pytest
import torch
from hypothesis import strategies as st
from test_decoding_search import ending_model
from tiny_model import ROWS, picture, recording, tiny_model
from transformers import GenerationConfig

from kebyt5_xm import metrics
from kebyt5_xm.errors import UserError
from kebyt5_xm.metrics import CharacterErrorRate, ChrF, ExactMatch
from kebyt5_xm.model.answer_stream import AnswerStream
from kebyt5_xm.model.bayes_risk import choose_least_risk
from kebyt5_xm.model.cross_modal import CrossModalT5
from kebyt5_xm.model.decoding.loops import MAX_PERIOD, MIN_LOOP_BYTES, MIN_REPEATS, find_loop
from kebyt5_xm.model.decoding.writing import WrittenRow
from kebyt5_xm.model.hypothesis import Hypothesis
from kebyt5_xm.vocabulary import EOS_ID, PAD_ID, encode


def scripted(text: str, ends: bool = True) -> CrossModalT5:
    """Return a model that writes `text` whatever the input: its logits depend on the position alone."""
    model = tiny_model({})
    script = [*encode(text).tolist(), *([EOS_ID] if ends else [])]

    class Scripted:
        length = 0
        device = torch.device("cpu")

        def step(self, ids: torch.Tensor) -> torch.Tensor:
            places = [min(self.length + n, len(script) - 1) for n in range(ids.shape[1])]
            self.length += ids.shape[1]
            logits = torch.nn.functional.one_hot(torch.tensor([script[p] for p in places]), 384).float() * 20
            return logits.expand(len(ids), -1, -1)

    made: list[Scripted] = []
    model.steps = made  # pyright: ignore
    model.make_decoder = lambda *given, **options: made.append(Scripted()) or made[-1]  # pyright: ignore
    return model


@pytest.fixture
def script(monkeypatch):
    def use(text: str, ends: bool = True) -> CrossModalT5:
        model: Any = scripted(text, ends)
        for module in ("arguments", "scoring"):
            monkeypatch.setattr(f"kebyt5_xm.model.decoding.{module}.open_decoder", model.make_decoder)
        return model

    return use


@pytest.mark.parametrize("factor", [0.5, 1.0])
@pytest.mark.parametrize("given", [{}, {"temperature": 1.5}, {"valid_utf8": False}], ids=str)
def test_a_stream_is_the_answer_in_whole_characters(factor: float, given: dict[str, Any]) -> None:
    model = ending_model(factor)

    def seeded() -> dict[str, Any]:
        return given | ({"generator": torch.Generator().manual_seed(5)} if "temperature" in given else {})

    for rows in (ROWS, [ROWS[2]]):
        expected = model.answer(rows, max_new_tokens=41, **seeded())
        stream = model.answer(rows, max_new_tokens=41, stream=True, **seeded())
        texts = [""] * len(rows)
        pieces = 0
        for number, piece in stream:
            texts[number] += piece
            pieces += 1
            assert piece
            if given.get("valid_utf8", True):
                assert "\ufffd" not in piece
        assert texts == expected
        assert pieces > 2 * len(rows)
        assert [answer.text for answer in stream.result()] == expected
        assert next(stream, None) is None
    one = model.answer(ROWS[1], max_new_tokens=41, stream=True, **seeded())
    assert isinstance(one, AnswerStream)
    assert "".join(one) == model.answer(ROWS[1], max_new_tokens=41, **seeded()) == one.result().text


def test_pieces_come_while_the_answer_is_written(script) -> None:
    model = script("가나다 라마바")
    stream = model.answer("x", stream=True)
    assert [next(stream), next(stream), next(stream)] == ["가", "나", "다"]
    assert not stream.is_finished()
    assert stream.result().text == "가나다 라마바"
    assert stream.is_finished()
    assert list(stream) == []


def test_an_example_of_a_stream_can_be_cancelled(script) -> None:
    model = script("가나다라마바사")
    stream = model.answer([["x"], ["y"]], stream=True)
    texts = {0: "", 1: ""}
    for number, piece in stream:
        texts[number] += piece
        if len(texts[1]) == 2:
            stream.cancel(1)
    assert texts == {0: "가나다라마바사", 1: "가나"}
    first, second = stream.result()
    assert (first.finish_reason, second.finish_reason) == ("stop", "cancelled")
    assert second.text.startswith("가나")
    assert len(second.byte_confidence) == len(second.raw)
    for number in (-1, 2):
        with pytest.raises(UserError, match="expected 0 to 1"):
            stream.cancel(number)
    closed = model.answer("x", stream=True)
    next(closed)
    steps = model.steps[-1].length
    closed.close()
    assert list(closed) == []
    assert model.steps[-1].length == steps
    both = model.answer([["x"], ["y"]], stream=True)
    next(both)
    steps = model.steps[-1].length
    for number in (0, 1):
        both.cancel(number)
    assert next(both, None) is None
    assert model.steps[-1].length == steps, "nothing is computed for those who have gone"
    assert closed.result().finish_reason == "cancelled"


def test_confidence_is_the_probability_of_each_byte_and_word() -> None:
    model = ending_model(2.0)
    for given in ({}, {"num_beams": 3}, {"repetition_penalty": 1.3}):
        for segments, answer in zip(
            ROWS, model.answer(ROWS, max_new_tokens=21, details=True, **given), strict=True
        ):
            assert answer.text == answer.raw.decode("utf-8", "replace")
            ids = [byte + 3 for byte in answer.raw] + ([EOS_ID] if answer.finish_reason == "stop" else [])
            inputs = model.processor(segments)
            with torch.no_grad():
                logits = model(**inputs, decoder_input_ids=torch.tensor([[PAD_ID, *ids]])).logits[0]
            found = logits.log_softmax(-1)[:-1].gather(1, torch.tensor(ids)[:, None])[:, 0]
            if answer.finish_reason == "stop":
                assert answer.log_probability == pytest.approx(float(found.sum()), rel=1e-3, abs=1e-3)
                assert answer.confidence == pytest.approx(math.exp(float(found.mean())), rel=1e-3)
            expected = found.exp()[: len(answer.raw)].tolist()
            assert list(answer.byte_confidence) == pytest.approx(expected, rel=1e-3, abs=1e-5)


def test_words_have_places_and_probabilities() -> None:
    text = " 가나  abc\n다"
    row = WrittenRow(99, True)
    row.add([*encode(text).tolist(), EOS_ID])
    count = len(text.encode())
    answer = Hypothesis.of(row, [math.log(0.5 + n / 100) for n in range(count)] + [0.0])
    assert [(word.text, text[word.start : word.end]) for word in answer.words] == [
        ("가나", "가나"),
        ("abc", "abc"),
        ("다", "다"),
    ]
    for word in answer.words:
        first = len(text[: word.start].encode())
        expected = math.prod(0.5 + n / 100 for n in range(first, first + len(word.text.encode())))
        assert word.confidence == pytest.approx(expected)
    assert answer.as_dict()["words"][1]["text"] == "abc"
    broken = WrittenRow(99, False)
    broken.add([0xEA + 3, 0x20 + 3, *encode("가").tolist(), EOS_ID])
    answer = Hypothesis.of(broken, [0.0] * 6)
    assert [(word.text, word.start, word.end) for word in answer.words] == [("\ufffd", 0, 1), ("가", 2, 3)]


def test_n_best_of_beams_and_samples_come_with_the_best_first() -> None:
    model = ending_model(2.0)
    beams = model.answer(ROWS, n=3, max_new_tokens=17)
    assert beams == model.answer(ROWS, n=3, num_beams=3, max_new_tokens=17)
    assert [group[0] for group in beams] == model.answer(ROWS, num_beams=3, max_new_tokens=17)
    wide = model.answer(ROWS[0], n=2, num_beams=5, max_new_tokens=17, details=True)
    assert [answer.text for answer in wide][:1] == [model.answer(ROWS[0], num_beams=5, max_new_tokens=17)]
    generator = torch.Generator().manual_seed(3)
    samples = model.answer(ROWS, n=5, temperature=2.0, max_new_tokens=17, details=True, generator=generator)
    for group in samples:
        scores = [answer.log_probability for answer in group]
        assert scores == sorted(scores, reverse=True)
    assert sum(len({answer.text for answer in group}) > 1 for group in samples) > 2
    assert model.answer(ROWS[0], temperature=0, max_new_tokens=9) == model.answer(ROWS[0], max_new_tokens=9)


def test_the_choice_of_least_risk_is_the_sample_that_is_like_the_others() -> None:
    texts = ["고양이가 잔다", "개가 뛴다", "개가 뛴다.", "개도 뛴다"]
    for metric in (
        ChrF(),
        CharacterErrorRate(),
        metrics.BLEU(tokenize="char"),
        metrics.RougeL(tokens="characters"),
    ):
        assert choose_least_risk(texts, metric) in (1, 2)
    assert choose_least_risk(["가", "나", "나"], ExactMatch()) == 1
    assert choose_least_risk(["가", "가"], metrics.Accuracy()) == 0
    model = tiny_model()
    given: dict[str, Any] = {"n": 6, "temperature": 2.0, "max_new_tokens": 9}
    seeded = [torch.Generator().manual_seed(7) for _ in range(3)]
    groups = model.answer(ROWS, **given, generator=seeded[0])
    chosen = model.answer(ROWS, **given, generator=seeded[1], choose=ChrF())
    assert chosen == [group[choose_least_risk(group, ChrF())] for group in groups]
    details = model.answer(ROWS, **given, generator=seeded[2], choose=ChrF(), details=True)
    assert [answer.text for answer in details] == chosen
    assert any(group[0] != text for group, text in zip(groups, chosen, strict=True))


@pytest.mark.parametrize("metric", [ChrF(), CharacterErrorRate(), metrics.WordErrorRate(), metrics.BLEU()])
def test_empty_samples_are_no_reason_to_refuse(metric: Any) -> None:
    assert choose_least_risk(["", "가 나 다 라 마", "가 나 다 라 바"], metric) in (1, 2)
    assert choose_least_risk(["", "", "가"], metric) == 0
    assert choose_least_risk(["", " "], metric) == 0


@pytest.mark.parametrize(
    "name", sorted(set(metrics.__all__) - {"Answer", "MeanMetric", "Metric", "SetMetric", "Score"})
)
def test_every_metric_chooses_or_says_that_it_cannot(name: str) -> None:
    kind = getattr(metrics, name)
    if not isinstance(kind, type):
        return
    options: dict[str, Any] = {"EntityF1": {"tags": ["PS"]}, "ThresholdF1": {"threshold": 3.0}}.get(name, {})
    for texts in (
        ["개가 뛴다", "개가 뛴", "고양이"],
        ["3.5", "3.4", "1"],
        ["이순신=PS", "이순신=PS; 한산=PS", ""],
    ):
        with suppress(UserError):
            assert choose_least_risk(texts, kind(**options)) in range(3)


def test_loops_end_an_answer_and_are_reported(script) -> None:
    phrase = "그래서 나는 "
    model = script(phrase * 100)
    answer = model.answer("x", max_new_tokens=1500, details=True)
    assert answer.finish_reason == "loop"
    assert (phrase * 100).startswith(answer.text)
    assert MIN_LOOP_BYTES - 3 < len(answer.raw) < 2 * MIN_LOOP_BYTES, "a syllable may be left out"
    assert "".join(model.answer("x", max_new_tokens=1500, stream=True)) == answer.text
    assert model.answer([["x"], ["y"]], max_new_tokens=1500) == [answer.text] * 2
    free = model.answer("x", max_new_tokens=1500, stop_loops=False, details=True)
    assert free.finish_reason == "length"
    assert 1497 < len(free.raw) <= 1500
    ended = script("끝 " * 8).answer("x", details=True)
    assert (ended.finish_reason, ended.text) == ("stop", "끝 " * 8)


def test_what_counts_as_a_loop() -> None:
    assert find_loop("ㅋ".encode() * 32) == 3
    assert find_loop("ㅋ".encode() * 31) == 0
    assert find_loop(b"x" * 96 + b"y") == 0
    phrase = "동해물과 백두산이 마르고 닳도록 ".encode()
    assert find_loop(b"start " + phrase * 4) == len(phrase)
    assert find_loop(b"start " + phrase * 4 + phrase[:7]) == len(phrase)
    assert find_loop(b"start " + phrase * 3) == 0
    assert find_loop(bytes(range(256)) * 4) == 256
    assert find_loop(b"") == find_loop(b"a") == 0
    assert find_loop("가나다라마바사아자차카타파하 abcdefghijklmnopqrstuvwxyz 0123456789".encode() * 2) == 0


def test_arguments_that_exclude_each_other_are_refused() -> None:
    model = tiny_model()
    for given, message in (
        ({"n": 0}, "n=0"),
        ({"num_beams": 0}, "num_beams=0"),
        ({"temperature": -1.0}, "temperature=-1.0, expected 0 for greedy"),
        ({"temperature": math.nan}, "temperature=nan"),
        ({"temperature": 0.7, "num_beams": 2}, "temperature with num_beams"),
        ({"num_return_sequences": 2}, "num_return_sequences, expected n"),
        ({"choose": ChrF()}, "choose without n"),
        ({"stream": True, "n": 2}, "stream=True"),
        ({"stream": True, "num_beams": 2}, "stream=True"),
        ({"stream": True, "repetition_penalty": 2.0}, "stream=True"),
        ({"labels": ["a", "b"], "n": 2}, "labels with n"),
        ({"labels": ["a", "b"], "stream": True}, "labels with n"),
        ({"max_new_tokens": 0}, "max_new_tokens=0, expected a whole number from 1"),
        ({"max_new_tokens": 5.5}, "max_new_tokens=5.5"),
        ({"max_length": 1}, "max_length=1, expected a whole number from 2"),
        ({"n": "2"}, "n='2'"),
        ({"temperature": "0.7"}, "temperature='0.7'"),
        ({"max_tokens": 5}, "max_tokens, expected one of .*did you mean 'max_"),
        ({"output_scores": True}, "output_scores, expected details=True"),
        ({"streamer": print}, "streamer, expected stream=True"),
        ({"top_k": 5}, "top_k without sampling"),
        ({"top_p": 2.0, "temperature": 1}, "top_p=2.0"),
        ({"generator": 5, "temperature": 1}, "generator=5, expected a torch.Generator"),
        ({"choose": "chrf", "n": 2}, r"choose='chrf', expected a metric such as kebyt5_xm.metrics.ChrF\(\)"),
        ({"choose": ChrF, "n": 2}, "expected a metric such as"),
        ({"generation_config": GenerationConfig(max_length=1)}, "without room for a byte"),
    ):
        with pytest.raises(UserError, match=message):
            model.answer(ROWS[0], **given)


def test_images_in_a_row_and_shapes_of_recordings_answer_alike() -> None:
    model = tiny_model()
    samples, rate = recording(3)
    one = model.answer([picture(1), picture(2), (samples, rate), " ko:"], max_new_tokens=9)
    tensor = torch.from_numpy(samples)
    batch = [
        [picture(1), picture(2), (shaped, rate), " ko:"]
        for shaped in (samples, tensor[None], tensor[:, None])
    ]
    assert model.answer(batch, max_new_tokens=9) == [one] * 3
    assert model.answer([picture(2), picture(1), (samples, rate), " ko:"], max_new_tokens=9) != one


@hypothesis.given(st.binary(min_size=1, max_size=300), st.integers(0, 40), st.binary(max_size=5))
def test_loops_are_found_as_by_trying_every_period(phrase: bytes, times: int, rest: bytes) -> None:
    raw = (b"start" + phrase * times + rest)[-3000:]

    def repeats(period: int) -> bool:
        length = max(MIN_LOOP_BYTES, MIN_REPEATS * period)
        return length <= len(raw) and raw[-length:][period:] == raw[-length:-period]

    assert find_loop(raw) == next((p for p in range(1, MAX_PERIOD + 1) if repeats(p)), 0)
