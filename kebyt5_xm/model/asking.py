"""How a person asks a model: segments in, text or a label out."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kebyt5_xm.model.labels import LabelScorer
from kebyt5_xm.model.network import CrossModalNetwork
from kebyt5_xm.model.processor import CrossModalProcessor, Processed, Segments
from kebyt5_xm.vocabulary import decode

ANSWER_LENGTH = 256
"""Ids that `answer` may write unless told otherwise; transformers' own 20 would cut nearly every answer."""


def answer(
    model: CrossModalNetwork,
    processor: CrossModalProcessor,
    segments: Segments | Sequence[Segments],
    labels: Sequence[str] | None = None,
    **generate_kwargs: Any,
) -> str | list[str]:
    """Return what the model writes for a list of segments, or for each of a batch of such lists.

    Segments are as `CrossModalProcessor` takes them; with `labels` it is the most probable of them (see
    `classify`). The other arguments are `generate`'s (greedy, at most `ANSWER_LENGTH` ids unless they say
    otherwise). Raises `UserError` as the processor and `classify` do.
    """
    if labels is not None:
        found = classify(model, processor, segments, labels)
        chosen = [max(p, key=lambda label: p[label]) for p in (found if isinstance(found, list) else [found])]
        return chosen if isinstance(found, list) else chosen[0]
    if not {"max_length", "max_new_tokens", "generation_config"} & generate_kwargs.keys():
        generate_kwargs["max_new_tokens"] = ANSWER_LENGTH
    written = model.generate(**_inputs(model, processor, segments), **generate_kwargs)  # pyright: ignore
    ids = written if isinstance(written, Tensor) else written.sequences
    texts = [decode(row) for row in ids.cpu().numpy()]
    return texts if len(texts) > 1 or processor.is_batch(segments) else texts[0]


def classify(
    model: CrossModalNetwork,
    processor: CrossModalProcessor,
    segments: Segments | Sequence[Segments],
    labels: Sequence[str],
) -> dict[str, float] | list[dict[str, float]]:
    """Return the probability of each label, for a list of segments or for each of a batch of such lists.

    The probability is that the model writes the label, given that it writes one of them. Raises `UserError`
    for fewer than two labels, an empty one, or one given twice.
    """
    scorer = LabelScorer(labels)
    with torch.no_grad():
        inputs = _inputs(model, processor, segments)
        states = model.encode(**inputs).last_hidden_state
        assert states is not None
        rows = scorer.log_probabilities(model, states, inputs["attention_mask"]).exp().tolist()
    found = [dict(zip(scorer.labels, row, strict=True)) for row in rows]
    return found if len(found) > 1 or processor.is_batch(segments) else found[0]


def _inputs(model: CrossModalNetwork, processor: CrossModalProcessor, segments: Any) -> Processed:
    return processor(segments).to(model.backbone.shared.weight.device)
