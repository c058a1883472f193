"""Contestants of `benchmarks.decoding`: one row decoded greedily by a peer, in a process of its own.

python -m benchmarks.decoding_contestant FOLDER NUM_BYTES PEER

PEER is fp32 or int8 (ours), transformers, ctranslate2_fp32 or ctranslate2_int8. FOLDER holds `export`, a model that
never ends, and `converted`, the same for CTranslate2. A turn times several answers of NUM_BYTES and as many of one
byte, whose difference is the time of the other bytes.
"""

import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.turns import report_ready, report_turn
from kebyt5_xm.training import environment

NUM_INPUT_IDS = 100
DTYPES = {"fp32": "float32", "int8": "int8"}
ANSWERS = 3
"""Answers of a turn."""

Answer = Callable[[int], list[int]]
"""Takes the number of bytes to write; returns their ids."""


def command(folder: Path, num_bytes: int, peer: str) -> list[str]:
    """Return the arguments of Python that decode with the models in `folder`."""
    return ["-m", "benchmarks.decoding_contestant", str(folder), str(num_bytes), peer]


def main(folder: Path, num_bytes: int, peer: str) -> None:
    """Decode until the benchmark is over."""
    if peer in ("fp32", "int8"):
        environment.set_defaults()  # as every command of ours does
    write = make_answer(folder, peer)
    report_ready(ids=write(num_bytes))
    while True:
        seconds = sum(_time(write, num_bytes) - _time(write, 1) for _ in range(ANSWERS))
        report_turn(max(seconds, 1e-9), ANSWERS * (num_bytes - 1))  # toy sizes on a busy machine: below zero


def _time(write: Answer, num_bytes: int) -> float:
    begin = time.perf_counter()
    write(num_bytes)
    return time.perf_counter() - begin


def make_answer(folder: Path, peer: str) -> Answer:
    """Load a peer's model and return its function."""
    if peer == "transformers":
        return _transformers(folder / "export")
    if peer in ("fp32", "int8"):
        return _ours(folder / "export", peer)
    return _ctranslate2(folder / "converted", peer.removeprefix("ctranslate2_"))


def input_ids() -> Any:
    """Return the ids [1, S] that all answer."""
    import torch

    return torch.randint(3, 259, (1, NUM_INPUT_IDS), generator=torch.Generator().manual_seed(1))


def _ours(export: Path, dtype: str) -> Answer:
    import torch

    from kebyt5_xm.model.cross_modal import CrossModalT5
    from kebyt5_xm.model.decoding.arguments import parse_generation

    model, ids = CrossModalT5.from_pretrained(export, dtype=DTYPES[dtype]), input_ids()

    @torch.no_grad()
    def write(num_bytes: int) -> list[int]:
        """Decode as `CrossModalT5.answer` does."""
        generation = parse_generation(model.generation_config, {"max_new_tokens": num_bytes})
        states = model.encode(ids).last_hidden_state
        assert generation is not None
        assert states is not None
        return generation(model, states, None)[0].tolist()

    return write


def _transformers(export: Path) -> Answer:
    from transformers import T5ForConditionalGeneration

    t5: Any = T5ForConditionalGeneration.from_pretrained(export).eval()
    ids = input_ids()

    def write(num_bytes: int) -> list[int]:
        found = t5.generate(
            ids, attention_mask=ids.new_ones(ids.shape), max_new_tokens=num_bytes, do_sample=False
        )
        return found[0, 1:].tolist()

    return write


def _ctranslate2(converted: Path, kind: str) -> Answer:
    if kind == "int8" and platform.machine() in ("x86_64", "AMD64"):
        os.environ.setdefault("CT2_USE_MKL", "1")  # as its export's card: oneDNN errs in int8 without VNNI
    import ctranslate2
    import torch
    from transformers import ByT5Tokenizer

    tokenizer = ByT5Tokenizer()
    source = [tokenizer.convert_ids_to_tokens(input_ids()[0].tolist())]
    translator = ctranslate2.Translator(
        str(converted),
        compute_type=DTYPES[kind],
        inter_threads=1,
        intra_threads=torch.get_num_threads(),
    )

    def write(num_bytes: int) -> list[int]:
        results = translator.translate_batch(
            source, beam_size=1, max_decoding_length=num_bytes, min_decoding_length=num_bytes
        )
        found: Any = tokenizer.convert_tokens_to_ids(results[0].hypotheses[0])
        return found

    return write


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
