"""Valid UTF-8 by construction: the rule against Python's decoder, and searches against transformers' under a rule."""

import itertools
from functools import cache
from typing import Any

import pytest
import torch
from test_decoding_search import ending_model, padded
from test_drafting import Guesses, Script
from tiny_model import ROWS, tiny_model
from torch import Tensor
from transformers import LogitsProcessor

from kebyt5_xm.model.cross_modal import CrossModalT5
from kebyt5_xm.model.decoding.arguments import parse_generation
from kebyt5_xm.model.decoding.decoder import ModuleDecoder
from kebyt5_xm.model.decoding.drafting import draft_decode
from kebyt5_xm.model.decoding.search import choose_best, cut, decode_blocks
from kebyt5_xm.model.decoding.utf8 import BETWEEN, RuledRows, Utf8LogitsProcessor, utf8_rule
from kebyt5_xm.vocabulary import BYTE_OFFSET, EOS_ID, PAD_ID, decode_bytes, encode

RULE = utf8_rule(384, torch.device("cpu"))
LIMITS = [1, 2, 3, 6, 19]


ENDS = [b"", *(bytes((x, *rest)) for x in (0x80, 0x90, 0xA0) for rest in (b"", b"\x80", b"\x80\x80"))]
"""Bytes that end any begun character, among them."""


def is_whole(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


@cache
def missing(begun: bytes) -> int | None:
    """Return how many bytes a begun character lacks; None if no character begins so."""
    return min((len(end) for end in ENDS if is_whole(begun + end)), default=None)


def begun(raw: bytes) -> bytes:
    """Return the bytes of the character that is incomplete at the end of valid UTF-8."""
    return raw[len(raw.decode("utf-8", "ignore").encode()) :]


class Reference(LogitsProcessor):
    """The same rule by trying every byte on every row, slowly; `max_length` counts the start id."""

    def __init__(self, max_length: int) -> None:
        self.max_length = max_length

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        left = self.max_length - input_ids.shape[1]
        scores = scores.clone()
        for row, ids in zip(scores, input_ids[:, 1:].tolist(), strict=True):
            if EOS_ID in ids:
                continue
            last, before = begun(decode_bytes(ids)), row.clone()
            too_long: list[Tensor] = []
            row[:] = -torch.inf
            if not last:
                row[EOS_ID] = before[EOS_ID]
            for byte in range(256):
                lacks = missing(last + bytes([byte]))
                if lacks is not None and lacks < left:
                    row[byte + BYTE_OFFSET] = before[byte + BYTE_OFFSET]
                elif lacks is not None:
                    too_long.append(before[byte + BYTE_OFFSET])
            if too_long:
                row[EOS_ID] = max(before[EOS_ID], *too_long)
        return scores


def test_the_rule_allows_what_python_decodes() -> None:
    def follow(raw: bytes) -> int | None:
        state: int | None = BETWEEN
        for byte in raw:
            state = None if state is None else RULE.follow(state, byte + BYTE_OFFSET, 9)
        return state

    def can_begin(raw: bytes) -> bool:
        return any(is_whole(raw + end) for end in ENDS)

    edges = [0x00, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC1, 0xC2, 0xF4, 0xF5, 0xFF]
    cases = [bytes(pair) for length in (1, 2) for pair in itertools.product(range(256), repeat=length)]
    cases += [
        bytes((first, *rest)) for first in range(0xE0, 0xF6) for rest in itertools.product(edges, repeat=2)
    ]
    cases += [
        bytes((first, *rest)) for first in range(0xEF, 0xF6) for rest in itertools.product(edges, repeat=3)
    ]
    for raw in cases:
        state = follow(raw)
        assert (state is not None) == can_begin(raw), raw
        assert (state == BETWEEN) == is_whole(raw), raw
    for state in range(8):
        assert RULE.follow(state, EOS_ID, 9) == (BETWEEN if state == BETWEEN else None)
        for id_ in (PAD_ID, 2, 0xF5 + BYTE_OFFSET, 259, 383):
            assert RULE.follow(state, id_, 9) is None
            assert RULE.mask(torch.zeros(1, 384), torch.tensor([state]), 9)[0, id_] == -torch.inf


@pytest.mark.parametrize("left", [1, 2, 3, 4, 50])
def test_the_mask_is_that_of_trying_every_byte(left: int) -> None:
    texts = ["", "a", "가", "é", "😀", "a\U0010ffff"]
    prefixes = [raw[:end] for raw in map(str.encode, texts) for end in range(len(raw) + 1)]
    torch.manual_seed(left)
    for raw in prefixes:
        lacks = missing(begun(raw))
        assert lacks is not None
        if lacks > left:
            continue  # such a character is not begun
        ids = torch.tensor([[PAD_ID, *(byte + BYTE_OFFSET for byte in raw)]])
        logits, length = torch.randn(1, 384) * 5, ids.shape[1] + left
        expected = Reference(length)(ids, logits)
        assert Utf8LogitsProcessor(length)(ids, logits).equal(expected)
        assert expected.isfinite().any()


def decoded(model: CrossModalT5, rows: Any, **given: Any) -> tuple[Tensor, Tensor]:
    """Return our ids under the rule and transformers' under the reference."""
    inputs = model.processor(rows)
    found = parse_generation(model.generation_config, given)
    assert found is not None
    with torch.no_grad():
        states = model.encode(**inputs).last_hidden_state
    assert states is not None
    torch.manual_seed(11)
    ours = found(model, states, inputs["attention_mask"], inputs["input_ids"], valid_utf8=True)
    torch.manual_seed(11)
    theirs = model.generate(**inputs, **given, logits_processor=[Reference(found.max_length + 1)])
    assert isinstance(theirs, Tensor)
    return ours, padded(theirs[:, 1:])


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"num_beams": 3, "num_return_sequences": 2},
        {"num_beams": 3, "length_penalty": 0.0, "early_stopping": True},
        {"do_sample": True, "top_k": 0},
        {"do_sample": True, "temperature": 2.0, "top_k": 9, "num_return_sequences": 2},
        {"do_sample": True, "top_p": 0.8},
    ],
    ids=str,
)
def test_searches_under_the_rule_are_those_of_transformers(given: dict[str, Any]) -> None:
    for model in (ending_model(1.0), ending_model(3.0)):
        for rows, limit in [*((ROWS, limit) for limit in LIMITS), (ROWS[:1], 19), (ROWS[1:2], 3)]:
            ours, theirs = decoded(model, rows, **given, max_new_tokens=limit)
            assert ours.equal(theirs), limit
            assert all(is_whole(decode_bytes(row)) for row in ours)


def test_the_tiny_model_writes_no_utf8_without_the_rule() -> None:
    free = tiny_model().answer(ROWS, max_new_tokens=23, valid_utf8=False)
    assert sum("\ufffd" in text for text in free) > 3


@pytest.mark.parametrize("text", ["가나다라", "a가b나", "😀é😀", "abcdefg", ""])
def test_a_character_that_would_not_fit_is_not_begun(text: str) -> None:
    target = encode(text).tolist()
    for limit in range(1, len(target) + 4):
        whole = text.encode()[:limit].decode("utf-8", "ignore")
        rows = RuledRows(1, limit, torch.device("cpu"))
        script: Any = Script(target)
        script.device = torch.device("cpu")
        blocks = list(decode_blocks(script, 1, {0}, limit, choose_best, rows))
        drafted = [
            draft_decode(Script(target), [Guesses(lambda written, ids=ids: ids[len(written) :])], limit, RULE)
            for ids in (target, [*target[:4], 99, *target[5:]], [255] * 30)
        ]
        for ids in (torch.cat(blocks, 1), *drafted):
            assert decode_bytes(ids[0]).decode() == whole
            assert ids.shape[1] <= limit


def test_module_calls_and_a_single_row_under_the_rule_are_the_same() -> None:
    model = ending_model(2.0)
    inputs = model.processor(ROWS)
    with torch.no_grad():
        states = model.encode(**inputs).last_hidden_state
    assert states is not None
    decoder = ModuleDecoder(model, states, inputs["attention_mask"])
    rows = RuledRows(len(ROWS), 31, torch.device("cpu"))
    blocks = torch.cat(list(decode_blocks(decoder, len(ROWS), set(range(5)), 31, choose_best, rows)), 1)
    texts = model.answer(ROWS, max_new_tokens=31)
    assert [decode_bytes(row).decode() for row in cut(blocks)] == texts
    assert [model.answer(row, max_new_tokens=31) for row in ROWS] == texts


def test_arguments_left_to_transformers_keep_the_rule() -> None:
    model = tiny_model()
    for given in (
        {"repetition_penalty": 1.5, "max_new_tokens": 13},
        {"min_new_tokens": 5, "max_length": 11},
        {"no_repeat_ngram_size": 2, "num_beams": 2, "max_new_tokens": 7},
    ):
        texts = model.answer(ROWS, **given)
        assert not any("\ufffd" in text for text in texts)
        assert any(len(text.encode()) > 3 for text in texts)
