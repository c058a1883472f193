"""Span denoising: published lengths, exact restoration, uniform spans, reproducible examples."""

import hashlib
from collections import Counter
from math import comb

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from kebyt5_xm.data.text.denoising import SpanDenoising
from kebyt5_xm.errors import UserError
from kebyt5_xm.vocabulary import EOS_ID, PAD_ID, encode, encode_bytes, sentinel_ids

TEXT = ("한국어 문장이다. An English one; 中文句子，日本語の文 👩‍👩‍👧‍👦 é\n" * 97).encode()


def text_chunks(num_rows: int, length: int, seed: int = 0) -> np.ndarray:
    """Random windows of mixed text; most begin and end inside a character."""
    offsets = np.random.default_rng(seed).integers(0, len(TEXT) - length, num_rows)
    return np.frombuffer(TEXT, dtype=np.uint8)[offsets[:, None] + np.arange(length)]


def inside_characters(raw: bytes) -> set[int]:
    """The offsets inside complete UTF-8 characters of any bytes."""
    inside: set[int] = set()
    offset = 0
    for character in raw.decode("utf-8", "surrogateescape"):
        size = len(character.encode("utf-8", "surrogateescape"))
        inside |= set(range(offset + 1, offset + size))
        offset += size
    return inside


def check_examples(objective: SpanDenoising, chunks: np.ndarray, seed: int, index: np.ndarray) -> None:
    """Check what holds for any settings and, with `extra_id`, for any bytes."""
    inputs, targets = objective.corrupt(chunks, seed, index)
    starts, ends = objective.spans(chunks, seed, index)
    assert inputs.dtype == targets.dtype == np.int16
    assert inputs.shape == (len(chunks), objective.inputs_length)
    assert targets.shape == (len(chunks), objective.targets_length)
    assert starts.shape == ends.shape == (len(chunks), objective.num_spans)
    # Gaps and spans alternate, none is empty, and the last span ends at the chunk's end.
    edges = np.concatenate(
        [np.zeros((len(chunks), 1)), np.stack([starts, ends], 2).reshape(len(chunks), -1)], 1
    )
    assert (np.diff(edges) > 0).all()
    assert (ends[:, -1] == objective.chunk_length).all()
    removed = (ends - starts).sum(axis=1) - objective.num_noise
    if objective.boundaries == "byte":
        assert (removed == 0).all()
    else:
        assert removed.min() >= -1
        assert removed.max() <= 2
        for chunk, edges in zip(chunks, np.concatenate([starts, ends], 1).tolist(), strict=True):
            assert not set(edges) & inside_characters(chunk.tobytes())
    lengths = objective.target_lengths(chunks, seed, index)
    assert lengths.dtype == np.int64
    sentinels = sentinel_ids(objective.sentinels, objective.num_spans).tolist()
    for row, chunk in enumerate(chunks):
        spans = [chunk[s:e].tobytes() for s, e in zip(starts[row], ends[row], strict=True)]
        expected = [
            id_ for at, span in zip(sentinels, spans, strict=True) for id_ in (at, *encode_bytes(span))
        ]
        assert targets[row, : lengths[row]].tolist() == [*expected, EOS_ID]
        assert [id_ for id_ in inputs[row].tolist() if id_ in sentinels] == sentinels
        assert objective.restore(inputs[row], targets[row]) == chunk.tobytes()
        for ids, num_ids in (
            (targets[row], lengths[row]),
            (inputs[row], objective.chunk_length - lengths[row] + 2 * objective.num_spans + 2),
        ):
            assert ids[num_ids - 1] == EOS_ID
            assert (ids[: num_ids - 1] > EOS_ID).all()
            assert (ids[num_ids:] == PAD_ID).all()


@pytest.mark.parametrize(
    ("inputs_length", "chunk_length", "targets_length", "num_spans"),
    [(512, 597, 95, 4), (1024, 1193, 189, 9), (2048, 2387, 377, 18), (4096, 4775, 753, 36)],
)
def test_published_lengths(inputs_length, chunk_length, targets_length, num_spans):
    objective = SpanDenoising(inputs_length, sentinels="extra_id")
    assert objective.chunk_length == chunk_length
    assert objective.targets_length == targets_length
    assert objective.num_spans == num_spans
    assert objective.num_noise == targets_length - num_spans - 1
    check_examples(objective, text_chunks(3, chunk_length), 5, np.arange(3))


def test_the_defaults_are_byt5s():
    assert SpanDenoising() == SpanDenoising(1024, 0.15, 20.0, "descending", "byte")


def test_one_example_by_hand():
    objective = SpanDenoising(inputs_length=13, noise_density=0.3, mean_noise_span_length=2.0)
    assert (objective.chunk_length, objective.num_noise, objective.num_spans) == (14, 4, 2)
    chunk = np.frombuffer(b"abcdefghijklmn", dtype=np.uint8)[None]
    for index in range(23):
        starts, ends = objective.spans(chunk, 3, np.array([index]))
        (s0, s1), (e0, e1) = starts[0].tolist(), ends[0].tolist()
        inputs, targets = objective.corrupt(chunk, 3, np.array([index]))
        raw = encode("abcdefghijklmn").tolist()
        assert inputs[0].tolist() == [*raw[:s0], 258, *raw[e0:s1], 257, 1]
        assert targets[0].tolist() == [258, *raw[s0:e0], 257, *raw[s1:e1], 1]


settings_of_objectives = st.fixed_dictionaries(
    {
        "inputs_length": st.integers(3, 131),
        "noise_density": st.floats(0.01, 0.9),
        "mean_noise_span_length": st.floats(1.0, 30.0),
        "boundaries": st.sampled_from(["byte", "character"]),
    }
)


@settings(max_examples=200)
@given(options=settings_of_objectives, data=st.data(), seed=st.integers(-(2**65), 2**65))
def test_any_bytes_restore_exactly(options, data, seed):
    try:
        objective = SpanDenoising(sentinels="extra_id", **options)
    except UserError:
        assume(False)
        return
    length = objective.chunk_length
    # Arbitrary bytes, and bytes with many lead and continuation bytes.
    raw = data.draw(st.binary(min_size=3 * length, max_size=3 * length))
    likely = data.draw(
        st.lists(st.sampled_from([0x80, 0xBF, 0x41, 0xC3, 0xE3, 0xF0]), min_size=7, max_size=7)
    )
    chunks = np.frombuffer(raw + bytes((likely * length)[:length]), dtype=np.uint8).reshape(4, length)
    check_examples(objective, chunks, seed, np.array([0, 7, 2**63, 2**64 - 1], dtype=np.uint64))


@pytest.mark.parametrize("boundaries", ["byte", "character"])
def test_text_restores_exactly_with_descending_sentinels(boundaries):
    objective = SpanDenoising(boundaries=boundaries)
    check_examples(objective, text_chunks(53, objective.chunk_length), 11, np.arange(1000, 1053))


# Spans of exactly 4 bytes and gaps of exactly 7: the tightest settings that character boundaries allow.
tightest = SpanDenoising(66, 4 / 11, 4.0, "extra_id", "character")


@pytest.mark.parametrize("objective", [SpanDenoising(boundaries="character"), tightest])
@pytest.mark.parametrize("text", ["a", "é", "한", "👦", "a한👦é", "👦aa👦", "\u0301👦b"])
def test_characters_stay_whole(objective, text):
    length = objective.chunk_length
    raw = np.frombuffer(text.encode() * (length + 5), dtype=np.uint8)
    chunks = np.stack(
        [raw[offset : offset + length] for offset in range(5)]
    )  # begin at any byte of a character
    starts, ends = objective.spans(chunks, 13, np.arange(5))
    for chunk, edges in zip(chunks, np.concatenate([starts, ends[:, :-1]], 1), strict=True):
        assert (chunk[edges] & 0xC0 != 0x80).all()
    check_examples(objective, chunks, 13, np.arange(5))


def test_the_tightest_settings_are_the_tightest():
    assert tightest.num_noise == 4 * tightest.num_spans
    assert tightest.chunk_length - tightest.num_noise == 7 * tightest.num_spans


@pytest.mark.parametrize("raw", [b"\x80", b"\xf0", b"\xff", b"\xe3\x81", b"\xf0\x9f\x91\xa6\x80", b"\xc3a"])
@pytest.mark.parametrize("objective", [SpanDenoising(sentinels="extra_id", boundaries="character"), tightest])
def test_invalid_utf8_restores_exactly(objective, raw):
    chunk = np.frombuffer((raw * objective.chunk_length)[: objective.chunk_length], dtype=np.uint8)
    check_examples(objective, np.stack([chunk] * 7), 17, np.arange(7))


def test_character_lengths_are_maxima_that_occur():
    objective = SpanDenoising(boundaries="character")
    chunks = text_chunks(2003, objective.chunk_length)
    starts, ends = objective.spans(chunks, 19, np.arange(2003))
    assert set((ends - starts).sum(axis=1) - objective.num_noise) == {-1, 0, 1, 2}
    inputs, targets = objective.corrupt(chunks, 19, np.arange(2003))
    assert inputs[:, -1].max() == targets[:, -1].max() == EOS_ID
    assert inputs.shape[1] == 1024


def test_spans_are_uniform():
    objective = SpanDenoising(inputs_length=11, noise_density=0.45, mean_noise_span_length=2.0)
    length, noise, k = objective.chunk_length, objective.num_noise, objective.num_spans
    assert (length, noise, k) == (13, 6, 3)
    num_ways = comb(length - noise - 1, k - 1) * comb(noise - 1, k - 1)
    each = 400
    num_rows = each * num_ways
    starts, ends = objective.spans(np.zeros((num_rows, length), dtype=np.uint8), 23, np.arange(num_rows))
    ways = Counter(map(tuple, np.concatenate([starts, ends], 1).tolist()))
    assert len(ways) == num_ways
    chi_squared = sum((count - each) ** 2 / each for count in ways.values())
    assert abs(chi_squared - num_ways) < 5 * (2 * num_ways) ** 0.5


def test_an_example_depends_on_seed_and_index_alone():
    objective = SpanDenoising(boundaries="character")
    chunks, index = (
        text_chunks(7, objective.chunk_length),
        np.array([5, 3, 2**40, 0, 11, 7, 13], dtype=np.uint64),
    )
    together = objective.corrupt(chunks, 29, index)
    order = np.array([6, 0, 4, 2, 5, 1, 3])
    for whole, moved in zip(together, objective.corrupt(chunks[order], 29, index[order]), strict=True):
        assert np.array_equal(whole[order], moved)
    for row in range(7):
        for whole, single in zip(
            together, objective.corrupt(chunks[row : row + 1], 29, index[row : row + 1]), strict=True
        ):
            assert np.array_equal(whole[row : row + 1], single)
    same = chunks[[0] * 7]
    assert len({row.tobytes() for row in objective.corrupt(same, 29, index)[0]}) == 7
    assert not np.array_equal(objective.corrupt(same, 29, index)[0], objective.corrupt(same, 31, index)[0])


@pytest.mark.parametrize(
    ("boundaries", "digest"), [("byte", "471cb132cb5ee7a9"), ("character", "faa221ec527db13f")]
)
def test_the_same_on_every_machine(boundaries, digest):
    """Pinned: a change here changes the examples of every run, and no checkpoint resumes exactly."""
    objective = SpanDenoising(boundaries=boundaries)
    chunk = np.frombuffer(TEXT[2 : objective.chunk_length + 2], dtype=np.uint8)
    inputs, targets = objective.corrupt(np.stack([chunk] * 101), 37, np.arange(101) ** 6)
    raw = inputs.astype("<i2").tobytes() + targets.astype("<i2").tobytes()
    assert hashlib.sha256(raw).hexdigest()[:16] == digest


def test_target_lengths_read_no_chunk_on_byte_boundaries():
    objective = SpanDenoising()
    assert objective.target_lengths(np.empty((5, 0), dtype=np.uint8), 1, np.arange(5)).tolist() == [189] * 5


def test_no_rows_and_read_only_chunks():
    objective = SpanDenoising(boundaries="character")
    inputs, targets = objective.corrupt(np.empty((0, 1192), dtype=np.uint8), 1, np.arange(0))
    assert inputs.shape == (0, 1024)
    assert targets.shape == (0, objective.targets_length)
    chunks = text_chunks(2, 1192)
    chunks.flags.writeable = False
    check_examples(objective, chunks, 1, np.arange(2))


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (
            {"inputs_length": 2048},
            "18 spans .* 2048, expected at most 11.*extra_id.*mean_noise.*inputs_length",
        ),
        ({"inputs_length": 4096}, "36 spans .* 4096"),
        ({"mean_noise_span_length": 3.0}, "57 spans"),
        (
            {"inputs_length": 16384, "sentinels": "extra_id"},
            "at most 125.*; use a larger mean_noise_span_length",
        ),
        ({"inputs_length": 2}, "inputs_length 2, expected at least 3"),
        ({"noise_density": 0.0}, "noise_density 0.0, expected a share"),
        ({"noise_density": 1.0}, "noise_density 1.0"),
        ({"noise_density": float("nan")}, "noise_density nan"),
        ({"mean_noise_span_length": 0.5}, "0.5, expected 1 byte"),
        ({"mean_noise_span_length": float("nan")}, "nan, expected 1 byte"),
        ({"inputs_length": 13, "noise_density": 0.9, "mean_noise_span_length": 3.0}, "bytes to remove and"),
        (
            {"inputs_length": 64, "mean_noise_span_length": 3.0, "boundaries": "character"},
            "boundaries: character",
        ),
        ({"boundaries": "characters"}, "boundaries 'characters'.*did you mean 'character'"),
        ({"sentinels": "ascending"}, r"sentinels 'ascending', expected one of \['descending', 'extra_id'\]"),
    ],
)
def test_impossible_settings_are_refused(options, found):
    with pytest.raises(UserError, match=found) as caught:
        SpanDenoising(**options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("chunks", "index", "found"),
    [
        (np.zeros((2, 1192), dtype=np.uint8), np.arange(2), r"\(2, 1192\), expected uint8 \(n, 1193\)"),
        (np.zeros((2, 1193), dtype=np.int16), np.arange(2), "int16"),
        (np.zeros((2, 1193), dtype=np.uint8), np.arange(3), r"index of shape \(3,\), expected \(2,\)"),
    ],
)
def test_wrong_chunks_are_refused(chunks, index, found):
    with pytest.raises(UserError, match=found):
        SpanDenoising().corrupt(chunks, 1, index)


def test_restore_refuses_ambiguous_sentinels():
    objective = SpanDenoising()
    chunks = text_chunks(1, 1193)
    inputs, targets = objective.corrupt(chunks, 1, np.arange(1))
    with pytest.raises(UserError, match=r"found the sentinels .258, 257"):
        objective.restore(inputs[0, :500], targets[0])
    chunks[0, 0] = 0xFF
    inputs, targets = objective.corrupt(chunks, 1, np.arange(1))
    with pytest.raises(UserError, match=r"found the sentinels .258, 258"):
        objective.restore(inputs[0], targets[0])
