"""Greedy decoding of one row on a CPU, in milliseconds a byte: ours, transformers' `generate` and CTranslate2.

    python -m benchmarks.decoding

All write the same number of bytes after the same input, the encoder included: the head's weights for the end of
sequence are zero, so random weights never choose it. A byte's time is that of the whole answer less that of its first
byte, divided by the other bytes. The ratios to the best peer are of equal precision. CTranslate2 is left out if it is
not installed; it reads the text export, and its int8 is weights and inputs in 8 bits as ours is.
"""

import importlib.util
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.peers import plain_copy
from benchmarks.report import measure_seconds, write_report
from benchmarks.training_data import TINY
from kebyt5_xm.commands.export.export import export_backbone
from kebyt5_xm.model.backbone import SHAPES, Backbone
from kebyt5_xm.model.configuration import CrossModalT5Config
from kebyt5_xm.model.cross_modal import CrossModalT5
from kebyt5_xm.model.decoding.arguments import parse_generation
from kebyt5_xm.vocabulary import EOS_ID

NUM_INPUT_IDS = 100

Answer = Callable[[int], list[int]]
"""Takes the number of bytes to write; returns their ids."""


@dataclass(frozen=True)
class Case:
    """A shape, the bytes written, and the smallest ratios demanded."""

    shape: dict[str, int]
    num_bytes: int
    demanded: dict[str, float]


CASES = {
    "demo": Case(TINY, 128, {"ratio_fp32_to_transformers": 4}),
    "byt5_small": Case(
        {**SHAPES["small"], "d_kv": 64},
        24,
        {"ratio_fp32_to_transformers": 1.65, "ratio_int8_to_transformers": 5},
    ),
}


def main(cases: Mapping[str, Case] = CASES) -> None:
    """Measure all cases."""
    figures, demanded = {}, {}
    for name, case in cases.items():
        with tempfile.TemporaryDirectory() as folder:
            figures[name] = measure(case, Path(folder))
        demanded |= {f"{name}.{key}": value for key, value in case.demanded.items()}
    write_report("decoding", {"threads": torch.get_num_threads(), **figures}, demanded)


def measure(case: Case, folder: Path) -> dict[str, float]:
    """Return the figures of one case; `folder` is for the export that CTranslate2 converts."""
    model, quantized = random_model(case.shape), random_model(case.shape, folder / "export")
    peer = plain_copy(model.backbone)
    ids = torch.randint(3, 259, (1, NUM_INPUT_IDS), generator=torch.Generator().manual_seed(1))
    answers: dict[str, Answer] = {
        "fp32": lambda num_bytes: answer(model, ids, num_bytes),
        "int8": lambda num_bytes: answer(quantized, ids, num_bytes),
        "transformers": lambda num_bytes: transformers_answer(peer, ids, num_bytes),
    }
    if importlib.util.find_spec("ctranslate2"):
        answers |= ctranslate2_answers(folder, ids)
    else:
        print("ctranslate2 is not installed; it is left out", file=sys.stderr)
    written = {name: write(case.num_bytes) for name, write in answers.items()}
    assert all(len(found) == case.num_bytes for found in written.values()), written
    calls: dict[str, Callable[[], Any]] = {}
    for name, write in answers.items():
        calls[name] = lambda write=write: write(case.num_bytes)
        calls[f"{name} first"] = lambda write=write: write(1)
    seconds = measure_seconds(calls, turns=3)
    ms = {name: (seconds[name] - seconds[f"{name} first"]) * 1000 / (case.num_bytes - 1) for name in answers}
    peers = {
        "fp32": [name for name in ("transformers", "ctranslate2_fp32") if name in ms],
        "int8": [name for name in ("ctranslate2_int8",) if name in ms],
    }
    ratios = {f"ratio_{kind}_to_transformers": ms["transformers"] / ms[kind] for kind in peers}
    ratios |= {
        f"ratio_{kind}_to_best_peer": min(ms[name] for name in names) / ms[kind]
        for kind, names in peers.items()
        if names
    }
    equal = {
        f"equal_ids_{name}_to_fp32": sum(a == b for a, b in zip(found, written["fp32"], strict=True))
        / case.num_bytes
        for name, found in written.items()
        if name != "fp32"
    }
    return {**{f"{name}_ms_per_byte": value for name, value in ms.items()}, **ratios, **equal}


def random_model(shape: dict[str, int], folder: Path | None = None) -> CrossModalT5:
    """Return a model with random weights that never ends; with a `folder`, saved there and its decoder in int8."""
    torch.manual_seed(0)
    t5 = Backbone(shape=shape).build()
    with torch.no_grad():
        t5.lm_head.weight[EOS_ID] = 0
    if folder is None:
        return CrossModalT5(CrossModalT5Config(t5.config.to_dict()), t5, {}).eval()
    export_backbone(t5, folder, denoising={})
    return CrossModalT5.from_pretrained(folder, dtype="int8")


@torch.no_grad()
def answer(model: CrossModalT5, ids: torch.Tensor, num_bytes: int) -> list[int]:
    """Return the ids that the model writes, decoded as `CrossModalT5.answer` does."""
    generation = parse_generation(model.generation_config, {"max_new_tokens": num_bytes})
    states = model.encode(ids).last_hidden_state
    assert generation is not None
    assert states is not None
    return generation(model, states, None)[0].tolist()


def transformers_answer(t5: Any, ids: torch.Tensor, num_bytes: int) -> list[int]:
    """Return the ids that transformers' `generate` writes."""
    found = t5.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=num_bytes, do_sample=False)
    return found[0, 1:].tolist()


def ctranslate2_answers(folder: Path, ids: torch.Tensor) -> dict[str, Answer]:
    """Return CTranslate2's functions, for a conversion of the export in `folder`."""
    import ctranslate2
    from ctranslate2.converters import TransformersConverter
    from transformers import ByT5Tokenizer

    tokenizer = ByT5Tokenizer()
    source = [tokenizer.convert_ids_to_tokens(ids[0].tolist())]
    TransformersConverter(str(folder / "export")).convert(str(folder / "converted"))

    def make(compute_type: str) -> Answer:
        translator = ctranslate2.Translator(
            str(folder / "converted"),
            compute_type=compute_type,
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

    return {"ctranslate2_fp32": make("float32"), "ctranslate2_int8": make("int8")}


if __name__ == "__main__":
    main()
