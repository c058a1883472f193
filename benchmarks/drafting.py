"""Drafted answers of one row on a CPU: passes and time a byte, against greedy's one pass a byte.

    python -m benchmarks.drafting

`pass` is what a pass over several ids takes, in passes over one: what guesses must win. `copying` writes given texts
with random weights, every pass computed in full and its logits then replaced by those of the text: sentences of
Korean law after the same with one wrong byte (`corrected`), English ones after themselves in capitals and points
(`normalised`), and a sentence after an unrelated one (`unrelated`). `heads` trains a tiny model with draft heads on
corrections for a minute, and decodes held-out sentences with heads alone and with both. `demo` fills gaps in held-out
text with the demo's own model, if `make demo` has made one; its other tasks read images and sound, which no byte can
be copied from.
"""

import random
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.decoding import CASES, random_model
from benchmarks.denoising import collate
from benchmarks.report import measure_seconds, write_report
from benchmarks.training_data import TINY, demo_objective
from demo.text import english_descriptions, korean_law
from kebyt5_xm.data.batch import IGNORE_INDEX
from kebyt5_xm.model.backbone import Backbone
from kebyt5_xm.model.configuration import CrossModalT5Config
from kebyt5_xm.model.cross_modal import CrossModalT5
from kebyt5_xm.model.decoding import greedy_decode
from kebyt5_xm.model.decoding.drafting import Drafter, draft_decode, make_drafters
from kebyt5_xm.model.decoding.fast import FastDecoder
from kebyt5_xm.model.decoding.opening import open_decoder
from kebyt5_xm.model.draft_heads import DraftHeadsModule, draft_labels
from kebyt5_xm.model.network import token_losses
from kebyt5_xm.vocabulary import BYTE_OFFSET, EOS_ID, PAD_ID

NUM_IDS = (1, 2, 5, 8, 16)
NUM_TEXTS = 3
TRAINING_SECONDS = 60.0
NUM_HEADS = 4
DEMO = Path(__file__).parents[1] / "runs" / "demo"
DEMO_CHUNKS = 6
"""Of each language."""

Pair = tuple[list[int], list[int]]
"""The ids of an input and of its answer."""


class Copying(FastDecoder):
    """Computes every pass, and then writes `target` whatever the logits are. Counts its passes."""

    target: list[int]
    passes = 0

    def step(self, ids: Tensor) -> Tensor:
        first = self.length
        logits = super().step(ids)
        places = [min(first + n, len(self.target) - 1) for n in range(ids.shape[1])]
        self.passes += 1
        return F.one_hot(torch.tensor([[self.target[place] for place in places]]), logits.shape[-1])


def main(cases: Sequence[str] = tuple(CASES), training_seconds: float = TRAINING_SECONDS) -> None:
    """Measure everything."""
    figures: dict[str, Any] = {"pass": {}, "copying": {}}
    for name in cases:
        with tempfile.TemporaryDirectory() as folder:
            models = {
                "fp32": random_model(CASES[name].shape),
                "int8": random_model(CASES[name].shape, Path(folder) / "export"),
            }
        for dtype, model in models.items():
            figures["pass"][f"{name}_{dtype}"] = pass_costs(model)
            figures["copying"][f"{name}_{dtype}"] = copying(model)
    figures["heads"] = trained_heads(training_seconds)
    if (DEMO / "export" / "text").is_dir():
        figures["demo"] = demo_spans()
    write_report("drafting", {"threads": torch.get_num_threads(), **figures})


def demo_spans() -> dict[str, float]:
    """Return passes and time a byte, and how many times as fast drafts are, for removed spans of held-out text."""
    model = Backbone(weights=str(DEMO / "export" / "text")).build()
    wrapped = CrossModalT5(CrossModalT5Config(model.config.to_dict()), model, {}).eval()
    objective, rng = demo_objective(), np.random.default_rng(0)
    rows = []
    for store in sorted((DEMO / "data").glob("*.heldout")):
        text = np.frombuffer(next(store.glob("*.bytes")).read_bytes(), dtype=np.uint8)
        rows += [*text[: DEMO_CHUNKS * objective.chunk_length].reshape(DEMO_CHUNKS, -1)]
    inputs, labels = collate(np.stack(rows), objective, rng)
    sources = [(states_of(wrapped, ids), ids) for ids in inputs.tolist()]
    passes = 0

    def write(drafted: bool) -> list[list[int]]:
        nonlocal passes
        answers, passes = [], 0
        for states, source in sources:
            decoder = counting_decoder(wrapped, states, labels.shape[1])
            drafters = make_drafters_of(wrapped, decoder, source) if drafted else []
            answers.append(draft_decode(decoder, drafters, labels.shape[1])[0].tolist())
            passes += decoder.passes
        return answers

    greedy = write(False)
    assert write(True) == greedy
    figures = {"passes_per_byte": passes / sum(map(len, greedy))}
    seconds = measure_seconds({"greedy": lambda: write(False), "drafted": lambda: write(True)}, turns=3)
    return figures | {
        "ratio_drafted_to_greedy": seconds["greedy"] / seconds["drafted"],
        "ms_per_byte": seconds["drafted"] / sum(map(len, greedy)) * 1e3,
    }


def pass_costs(model: CrossModalT5) -> dict[str, float]:
    """Return what a pass over several ids takes, in passes over one."""
    decoder = open_decoder(model, states_of(model, [*range(3, 103)]), None, capacity=64)

    def call(num_ids: int) -> Callable[[], Tensor]:
        def step() -> Tensor:
            decoder.truncate(20)
            return decoder.step(torch.full((1, num_ids), 70))

        return step

    decoder.step(torch.full((1, 20), 70))
    seconds = measure_seconds({str(n): call(n) for n in NUM_IDS}, turns=3)
    return {f"{n}_ids_to_1": seconds[str(n)] / seconds["1"] for n in NUM_IDS[1:]}


def copying(model: CrossModalT5) -> dict[str, float]:
    """Return passes a byte, and how many times as fast drafted answers are, for each kind of text."""
    found = {}
    for kind, pairs in tasks().items():
        decoders = [copying_decoder(model, *pair) for pair in pairs]
        num_bytes = sum(len(target) for _, target in pairs)

        def write(drafted: bool, decoders: list[Copying] = decoders, pairs: list[Pair] = pairs) -> int:
            passes = 0
            for decoder, (source, target) in zip(decoders, pairs, strict=True):
                decoder.truncate(0)
                decoder.passes = 0
                drafters = make_drafters_of(model, decoder, source) if drafted else []
                written = draft_decode(decoder, drafters, len(target) + 9)[0].tolist()
                assert written == target
                passes += decoder.passes
            return passes

        found[f"{kind}_passes_per_byte"] = write(True) / num_bytes
        seconds = measure_seconds({"greedy": lambda: write(False), "drafted": lambda: write(True)}, turns=2)
        found[f"{kind}_ratio_drafted_to_greedy"] = seconds["greedy"] / seconds["drafted"]
    return found


def make_drafters_of(model: CrossModalT5, decoder: FastDecoder, source: list[int]) -> list[Drafter]:
    """Return the drafters of an answer to `source`, as `CrossModalT5.answer` has them."""
    plain = open_decoder(model, torch.zeros(1, 1, model.backbone.config.d_model), None)
    assert decoder.copies == 1
    return make_drafters(model, plain, torch.tensor([source]))


def copying_decoder(model: CrossModalT5, source: list[int], target: list[int]) -> Copying:
    """Return a decoder that writes `target` for `source`."""
    decoder = open_decoder(model, states_of(model, source), None, capacity=len(target) + 9)
    assert isinstance(decoder, FastDecoder)
    decoder.__class__ = Copying
    assert isinstance(decoder, Copying)
    decoder.target = target
    return decoder


@torch.no_grad()
def states_of(model: CrossModalT5, ids: list[int]) -> Tensor:
    """Return the encoder's states [1, S, D]."""
    states = model.encode(torch.tensor([ids])).last_hidden_state
    assert states is not None
    return states


def ids_of(text: bytes) -> list[int]:
    """Return the ids of a text and the end of sequence."""
    return [*(byte + BYTE_OFFSET for byte in text), EOS_ID]


def tasks() -> dict[str, list[Pair]]:
    """Return the inputs and answers of each kind of text."""
    draw = random.Random(1)
    law = [text for text in texts(korean_law) if 60 <= len(text) <= 180][: 2 * NUM_TEXTS]
    english = [text for text in texts(english_descriptions) if 60 <= len(text) <= 180][:NUM_TEXTS]
    plain = [bytes(text.lower().translate(None, b".,")) for text in english]
    return {
        "corrected": [(ids_of(with_wrong_byte(text, draw)), ids_of(text)) for text in law[:NUM_TEXTS]],
        "normalised": [(ids_of(text), ids_of(other)) for text, other in zip(english, plain, strict=True)],
        "unrelated": [(ids_of(a), ids_of(b)) for a, b in zip(law[:NUM_TEXTS], law[NUM_TEXTS:], strict=True)],
    }


def texts(source: Callable[[], Any]) -> list[bytes]:
    """Return the texts of a source of the demo, in UTF-8."""
    return [text.strip().encode() for item in source() for _, text in item]


def with_wrong_byte(text: bytes, draw: random.Random) -> bytes:
    """Return the text with one byte replaced by another."""
    place = draw.randrange(len(text))
    return text[:place] + bytes([draw.randrange(33, 127)]) + text[place + 1 :]


def trained_heads(seconds: float) -> dict[str, float]:
    """Train a tiny model with heads on corrections; return what drafts win on held-out sentences."""
    draw = random.Random(2)
    sentences = [text[:60] for text in texts(korean_law) if len(text) >= 30]
    held_out, sentences = sentences[::9][:12], [text for n, text in enumerate(sentences) if n % 9]
    torch.manual_seed(0)
    t5 = Backbone(shape=TINY).build()
    heads = DraftHeadsModule(NUM_HEADS, t5.config.d_model, t5.config.vocab_size)
    model = CrossModalT5(CrossModalT5Config(t5.config.to_dict()), t5, {}, draft_heads=heads).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    begin, steps, loss = time.monotonic(), 0, torch.zeros(())
    while steps < 2 or time.monotonic() - begin < seconds:
        chosen = draw.sample(sentences, 16)
        inputs = padded([ids_of(with_wrong_byte(text, draw)) for text in chosen], PAD_ID)
        labels = padded([ids_of(text) for text in chosen], IGNORE_INDEX)
        output = model(
            input_ids=inputs,
            attention_mask=inputs != PAD_ID,
            decoder_input_ids=model.shift_right(labels),
            use_cache=False,
        )
        loss = token_losses(output.logits, labels).sum() / (labels != IGNORE_INDEX).sum()
        drafts = draft_labels(labels, None, NUM_HEADS)
        draft_losses = token_losses(output.draft_logits.flatten(0, 1), drafts.flatten(0, 1))
        (loss + draft_losses.sum() / (drafts != IGNORE_INDEX).sum()).backward()
        torch.nn.utils.clip_grad_norm_(t5.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        steps += 1
    model.eval()
    pairs = [(ids_of(with_wrong_byte(text, draw)), len(text) + 1) for text in held_out]
    figures: dict[str, float] = {"steps": steps, "loss": float(loss.detach()), **pass_costs(model)}
    states = [states_of(model, source) for source, _ in pairs]

    def write(first: int, last: int) -> tuple[int, int]:
        num_bytes = passes = 0
        for state, (source, longest) in zip(states, pairs, strict=True):
            decoder = counting_decoder(model, state, longest)
            drafters = make_drafters_of(model, decoder, source)[first:last]
            written = draft_decode(decoder, drafters, longest)
            assert written.equal(greedy_decode(model, state, None, longest)) or not drafters
            num_bytes, passes = num_bytes + written.shape[1], passes + decoder.passes
        return num_bytes, passes

    for name, part in {"heads": (1, 2), "both": (0, 2)}.items():
        num_bytes, passes = write(*part)
        figures[f"{name}_passes_per_byte"] = passes / num_bytes
    return figures


class Counting(FastDecoder):
    """Counts its passes."""

    passes = 0

    def step(self, ids: Tensor) -> Tensor:
        self.passes += 1
        return super().step(ids)


def counting_decoder(model: CrossModalT5, states: Tensor, capacity: int) -> Counting:
    """Return a decoder for the encoder's states [1, S, D]."""
    decoder = open_decoder(model, states, None, capacity=capacity)
    assert isinstance(decoder, FastDecoder)
    decoder.__class__ = Counting
    assert isinstance(decoder, Counting)
    return decoder


def padded(rows: list[list[int]], value: int) -> Tensor:
    """Return ids [B, T], `value` after the end."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows])


if __name__ == "__main__":
    main()
