"""Bytes to ids and back, against transformers' ByT5Tokenizer."""

import re
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kebyt5_xm.errors import UserError
from kebyt5_xm.vocabulary import (
    BYTE_OFFSET,
    EOS_ID,
    MAX_SENTINELS,
    PAD_ID,
    UNK_ID,
    VOCAB_SIZE,
    decode,
    decode_bytes,
    encode,
    encode_bytes,
    render,
    sentinel_ids,
)

SPECIAL = re.compile(r"<pad>|</s>|<unk>|<extra_id_\d+>")
any_ids = st.lists(st.integers() | st.integers(-3, VOCAB_SIZE + 3) | st.integers(3 + 0x80, 258))


@pytest.fixture(scope="module")
def tokenizer():
    from transformers.models.byt5.tokenization_byt5 import ByT5Tokenizer

    return ByT5Tokenizer()


@settings(max_examples=300)
@given(text=st.text())
@example("")
@example("  안녕 hello 你好 こんにちは 👩‍👩‍👧‍👦 \x00\t\r\n\u2028\ufeff\ufffd\U0010ffff  ")
@example("<s> < /s> <extra_id_> <pad")
@example("\u1112\u1161\u11ab != \ud55c, e\u0301 != \xe9")  # decomposed stays decomposed
def test_encode_equals_byt5_tokenizer(tokenizer, text):
    ids = encode(text)
    assert ids.dtype == np.int16
    assert decode(ids) == text
    if not SPECIAL.search(text):
        assert ids.tolist() == tokenizer(text, add_special_tokens=False)["input_ids"]


def test_special_ids_are_byt5s(tokenizer):
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id) == (
        PAD_ID,
        EOS_ID,
        UNK_ID,
    )
    assert len(tokenizer) == VOCAB_SIZE
    names = [f"<extra_id_{number}>" for number in range(MAX_SENTINELS["extra_id"])]
    assert tokenizer.convert_tokens_to_ids(names) == sentinel_ids("extra_id", len(names)).tolist()


def test_a_special_spelling_is_plain_bytes():
    assert encode("a</s>").tolist() == [ord(c) + 3 for c in "a</s>"]


def test_a_lone_surrogate_is_refused():
    with pytest.raises(UserError, match=r"U\+DC80 at character 2.*replace") as caught:
        encode("가b\udc80c")
    assert "\n" not in str(caught.value)


@given(raw=st.binary(max_size=97))
def test_bytes_round_trip(raw):
    ids = encode_bytes(raw)
    assert [id_ - 3 for id_ in ids.tolist()] == list(raw)
    assert decode_bytes(ids) == raw
    assert decode_bytes(ids.tolist()) == raw


@settings(max_examples=300)
@given(ids=any_ids)
@example([2**70, -(2**70), 68])
@example([2**63, -1, 68])
@example([3 + 0xED, 3 + 0xA0, 3 + 0x80])  # an encoded surrogate
@example([3 + 0xE3, PAD_ID, 3 + 0x81, 384, 3 + 0x82])  # ids that are not bytes are dropped inside a character
def test_decoding_takes_any_ids(ids):
    raw = bytes(id_ - 3 for id_ in ids if 3 <= id_ < 259)
    assert decode_bytes(ids) == raw
    assert decode(ids) == raw.decode("utf-8", "replace")
    for sentinels in MAX_SENTINELS:
        assert "\n" not in render(ids, sentinels)


@pytest.mark.parametrize(
    ("ids", "found"),
    [([[68, 69]], r"shape \(1, 2\), expected one sequence"), ([68.5], "float64, expected integers")],
)
def test_ids_that_are_not_one_integer_sequence_are_refused(ids, found):
    with pytest.raises(UserError, match=found):
        decode(ids)


def test_sentinels_of_either_convention():
    assert sentinel_ids("descending", 3).tolist() == [258, 257, 256]
    assert sentinel_ids("extra_id", 3).tolist() == [259, 260, 261]
    assert sentinel_ids("extra_id", 125)[-1] == VOCAB_SIZE - 1
    assert sentinel_ids("descending", 0).dtype == np.int16


def test_max_sentinels_is_the_number_of_bytes_that_no_text_contains():
    everything = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x110000)]))
    used = set((encode(everything) - BYTE_OFFSET).tolist())
    free_from_the_top = next(count for count in range(256) if 255 - count in used)
    assert MAX_SENTINELS["descending"] == free_from_the_top
    assert not used & set((sentinel_ids("descending", 11) - BYTE_OFFSET).tolist())


@pytest.mark.parametrize(
    ("sentinels", "count", "found"),
    [
        ("descending", 12, "12 spans, expected at most 11.*use sentinels: extra_id"),
        ("extra_id", 126, "126 spans, expected at most 125.*fewer spans$"),
        ("extra_ids", 1, "did you mean 'extra_id'"),
    ],
)
def test_too_many_sentinels_are_refused(sentinels, count, found):
    with pytest.raises(UserError, match=found):
        sentinel_ids(sentinels, count)


def test_render():
    ids = [0, 258, *encode("한\n\t\x07|\x7f\x9f"), 257, 3 + 0xE3, 259, 2, 700, -5, *encode("b"), 1, 0, 0]
    assert render(ids, "descending") == r"⟨0⟩한↵⇥\x07|\x7f\x9f⟨1⟩\xe3⟨id 259⟩⟨unk⟩⟨id 700⟩⟨id -5⟩b"
    assert render(ids, "extra_id") == r"\xff한↵⇥\x07|\x7f\x9f\xfe\xe3⟨0⟩⟨unk⟩⟨id 700⟩⟨id -5⟩b"
    assert render(np.empty(0, dtype=np.int16), "extra_id") == ""


def test_importing_is_light():
    """Data workers and commands without a model must not import torch."""
    code = (
        "import sys, kebyt5_xm.vocabulary, kebyt5_xm.data.text.denoising\n"
        "print(*sorted({'torch', 'transformers', 'lightning'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
