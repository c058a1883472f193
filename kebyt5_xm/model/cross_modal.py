"""The model: a T5 backbone and the modalities whose vectors enter its byte embeddings."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kebyt5_xm.model.decoding.arguments import parse_generation
from kebyt5_xm.model.labels import LabelScorer
from kebyt5_xm.model.processor import Processed, Segments
from kebyt5_xm.model.saved_model import SavedModel
from kebyt5_xm.vocabulary import decode

MAX_NEW_TOKENS = 256
"""Default of `answer`, in bytes; transformers' own 20 would cut nearly every answer."""


class CrossModalT5(SavedModel):
    """The model that people load: a `SavedModel` that answers."""

    def answer(
        self,
        segments: Segments | Sequence[Segments],
        labels: Sequence[str] | None = None,
        **generate_kwargs: Any,
    ) -> str | list[str]:
        """Return the generated text for a list of segments, or a list of texts for a batch of such lists.

        Args:
            segments: as `CrossModalProcessor` takes them.
            labels: the answer is then the most probable of these (see `classify`).
            generate_kwargs: arguments of `generate`; by default greedy, with at most `MAX_NEW_TOKENS`. Those in
                `kebyt5_xm.model.decoding.arguments.DEFAULTS` are decoded here, several times as fast; any other
                leaves the whole call to transformers. `generator`, a torch.Generator, seeds `do_sample=True`.

        A single greedy answer on a CPU is written several bytes at a time where these can be guessed; see
        `kebyt5_xm.model.decoding.drafting`.

        Raises `UserError` as the processor and `classify` do.
        """
        if labels is not None:
            found = self.classify(segments, labels)
            best = [
                max(p, key=lambda label: p[label]) for p in (found if isinstance(found, list) else [found])
            ]
            return best if isinstance(found, list) else best[0]
        if not {"max_length", "max_new_tokens", "generation_config"} & generate_kwargs.keys():
            generate_kwargs["max_new_tokens"] = MAX_NEW_TOKENS
        inputs = self._inputs(segments)
        generation = parse_generation(self.generation_config, generate_kwargs)
        if generation is None:
            output = self.generate(**inputs, **generate_kwargs)  # pyright: ignore
            ids = output if isinstance(output, Tensor) else output.sequences
        else:
            with torch.no_grad():
                states = self.encode(**inputs).last_hidden_state
            assert states is not None
            ids = generation(self, states, inputs["attention_mask"], inputs["input_ids"])
        texts = [decode(row) for row in ids.cpu().numpy()]
        return texts if len(texts) > 1 or self.processor.is_batch(segments) else texts[0]

    def classify(
        self, segments: Segments | Sequence[Segments], labels: Sequence[str]
    ) -> dict[str, float] | list[dict[str, float]]:
        """Return the probability of each label for a list of segments, or for each of a batch of such lists.

        It is the probability that the model writes the label, given that it writes one of `labels`. Raises
        `UserError` for fewer than two labels, an empty one, or one given twice.
        """
        scorer = LabelScorer(labels)
        with torch.no_grad():
            inputs = self._inputs(segments)
            states = self.encode(**inputs).last_hidden_state
            assert states is not None
            rows = scorer.log_probabilities(self, states, inputs["attention_mask"]).exp().tolist()
        probabilities = [dict(zip(scorer.labels, row, strict=True)) for row in rows]
        is_batch = len(probabilities) > 1 or self.processor.is_batch(segments)
        return probabilities if is_batch else probabilities[0]

    def _inputs(self, segments: Segments | Sequence[Segments]) -> Processed:
        return self.processor(segments).to(self.backbone.shared.weight.device)
