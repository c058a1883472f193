"""Fills gaps in held-out text with an exported backbone, with transformers alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kebyt5_xm.vocabulary import decode, sentinel_ids

FIRST, SECOND = sentinel_ids("descending", 2).tolist()
"""Sentinel ids of the first and the second removed span; with one span, the second one ends the answer."""
LINE_BYTES = range(36, 71)
GAP_BYTES = 12
"""Four Korean, Chinese or Japanese characters; spans in training average 19 bytes."""
MAX_NEW_TOKENS = 24


@dataclass(frozen=True)
class Gap:
    """A line with a gap in its middle: `before` and `after` are the input, `was` is the target."""

    language: str
    before: str
    was: str
    after: str


def cut_gaps(language: str, lines: Sequence[str], count: int) -> list[Gap]:
    """Cut a gap of about `GAP_BYTES` out of each of the first `count` lines of `LINE_BYTES` length."""
    fitting = [line for line in lines if len(line.encode()) in LINE_BYTES]
    return [_cut(language, line) for line in fitting[:count]]


def _cut(language: str, line: str) -> Gap:
    raw = line.encode()
    before = raw[: (len(raw) - GAP_BYTES) // 2].decode("utf-8", "ignore")  # whole characters only
    was = raw[len(before.encode()) :][:GAP_BYTES].decode("utf-8", "ignore")
    return Gap(language, before, was, line[len(before) + len(was) :])


def restore(export: Path, gaps: Sequence[Gap]) -> list[str]:
    """Return the text that the exported model writes into each gap, decoded greedily."""
    import torch
    from transformers import AutoTokenizer, T5ForConditionalGeneration

    tokenizer: Any = AutoTokenizer.from_pretrained(export)
    model: Any = T5ForConditionalGeneration.from_pretrained(export).eval()
    ids = [
        [
            *tokenizer(gap.before, add_special_tokens=False).input_ids,
            FIRST,
            *tokenizer(gap.after).input_ids,  # with the end of sequence
        ]
        for gap in gaps
    ]
    inputs = tokenizer.pad({"input_ids": ids}, return_tensors="pt")
    with torch.inference_mode():
        outputs = model.generate(**inputs, max_new_tokens=MAX_NEW_TOKENS, do_sample=False)
    return [_first_span(output, tokenizer.eos_token_id) for output in outputs.tolist()]


def _first_span(ids: list[int], eos: int) -> str:
    """Return the text between the first sentinel and the second, or the end."""
    start = ids.index(FIRST) + 1 if FIRST in ids else 0
    ends = [n for n in range(start, len(ids)) if ids[n] in (SECOND, eos)]
    if ends:
        return decode(ids[start : ends[0]])
    return decode(ids[start:]).rstrip("\ufffd")  # cut at MAX_NEW_TOKENS, perhaps within a character
