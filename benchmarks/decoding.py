"""Greedy decoding of one row on a CPU, in milliseconds a byte: ours, transformers' `generate` and CTranslate2.

    python -m benchmarks.decoding

All write the same number of bytes after the same input: the head's weights for the end of sequence are zero, so
random weights never choose it. Every contestant is a process of its own in a plain environment; they take turns, and
the best of five counts. `reading_ms` is what reading the decoder's weights once takes, which no fp32 decoder can go
below. The ratios to CTranslate2 are of equal precision. It is left out if it is not installed; it reads the text
export, and its int8 is weights and inputs in 8 bits as ours is.
"""

import importlib.util
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from benchmarks import decoding_contestant
from benchmarks.report import measure_seconds, write_report
from benchmarks.training_data import TINY
from benchmarks.turns import Contestant, plain_environment, wait_until_ready
from kebyt5_xm.commands.export.export import export_backbone
from kebyt5_xm.model.backbone import SHAPES, Backbone
from kebyt5_xm.model.configuration import CrossModalT5Config
from kebyt5_xm.model.cross_modal import CrossModalT5
from kebyt5_xm.vocabulary import EOS_ID

OURS = ("fp32", "int8")
CTRANSLATE2 = ("ctranslate2_fp32", "ctranslate2_int8")
TURNS = 5


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


def measure(case: Case, folder: Path, turns: int = TURNS) -> dict[str, float]:
    """Return the figures of one case; `folder` is for the models."""
    model = random_model(case.shape)
    export_backbone(model.backbone, folder / "export", denoising={})
    peers = [*OURS, "transformers"]
    if importlib.util.find_spec("ctranslate2"):
        from ctranslate2.converters import TransformersConverter

        TransformersConverter(str(folder / "export")).convert(str(folder / "converted"))
        peers += CTRANSLATE2
    else:
        print("ctranslate2 is not installed; it is left out", file=sys.stderr)
    contestants = {
        peer: Contestant(decoding_contestant.command(folder, case.num_bytes, peer), plain_environment())
        for peer in peers
    }
    try:
        wait_until_ready(list(contestants.values()))
        for _ in range(turns):
            for contestant in contestants.values():
                contestant.turn()
    finally:
        for contestant in contestants.values():
            contestant.close()
    ms = {peer: 1000 / contestant.best["useful_bytes_per_s"] for peer, contestant in contestants.items()}
    written = {peer: contestant.about["ids"] for peer, contestant in contestants.items()}
    assert all(len(ids) == case.num_bytes for ids in written.values()), written
    equal = {
        f"equal_ids_{peer}_to_fp32": sum(a == b for a, b in zip(ids, written["fp32"], strict=True)) / len(ids)
        for peer, ids in written.items()
        if peer != "fp32"
    }
    times = {f"{peer}_ms_per_byte": value for peer, value in ms.items()}
    return {**times, "reading_ms": reading_ms(model), **ratios(ms), **equal}


def ratios(ms: Mapping[str, float]) -> dict[str, float]:
    """Return how many times as fast ours is as the peers."""
    found = {f"ratio_{kind}_to_transformers": ms["transformers"] / ms[kind] for kind in OURS}
    for kind, peer in zip(OURS, CTRANSLATE2, strict=True):
        if peer in ms:
            found[f"ratio_{kind}_to_ctranslate2"] = ms[peer] / ms[kind]
    return found


def reading_ms(model: CrossModalT5) -> float:
    """Return what adding up every matrix of the decoder takes, less those that make the encoder's keys and values."""
    matrices: list[torch.Tensor] = []
    for part in (model.backbone.decoder, model.backbone.lm_head):
        for name, module in part.named_modules():
            if isinstance(module, nn.Linear) and not name.endswith(
                ("EncDecAttention.k", "EncDecAttention.v")
            ):
                matrices.append(module.weight.detach())
    return measure_seconds({"read": lambda: [m.sum() for m in matrices]}, turns=TURNS)["read"] * 1000


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


if __name__ == "__main__":
    main()
