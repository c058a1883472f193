"""The model: a T5 backbone and the modalities whose vectors enter its byte embeddings."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from kebyt5_xm.errors import UserError
from kebyt5_xm.model.answering import Answering, AnswerOptions, search_arguments
from kebyt5_xm.model.decoding.int8 import quantize_decoder
from kebyt5_xm.model.hub_arguments import (
    LOAD_REMEDIES,
    SAVE_REMEDIES,
    parse_device_map,
    parse_dtype,
    parse_size,
    refuse_unknown,
)
from kebyt5_xm.model.labels import LabelScorer
from kebyt5_xm.model.network import CrossModalNetwork
from kebyt5_xm.model.processor import CrossModalProcessor, Processed, Segments
from kebyt5_xm.model.saving import load, save

if TYPE_CHECKING:
    from kebyt5_xm.metrics.metric import Metric


class CrossModalT5(CrossModalNetwork):
    """A `CrossModalNetwork` with inference, saving and loading."""

    # -- inference --------------------------------------------------------------------------------------

    @property
    def processor(self) -> CrossModalProcessor:
        """The processor that turns segments into this model's inputs."""
        return CrossModalProcessor.of(self)

    def answer(
        self,
        segments: Segments | Sequence[Segments] | Processed,
        *,
        n: int = 1,
        temperature: float | None = None,
        num_beams: int | None = None,
        labels: Sequence[str] | None = None,
        stream: bool = False,
        choose: "Metric | None" = None,
        details: bool = False,
        valid_utf8: bool = True,
        stop_loops: bool = True,
        **generate_kwargs: Any,
    ) -> Any:
        """Return what the model writes for a list of segments, or a list of that for a batch of such lists.

        Args:
            segments: as `CrossModalProcessor` takes them, or the batch that it made of them.
            n: answers to each input, as a list with the best first: samples if there is a temperature, else those of
                as many beams or more.
            temperature: above 0 samples; 0 is greedy. The model's own generation config decides by default.
            num_beams: searches with so many beams.
            labels: the answer is the most probable of these (see `classify`).
            stream: returns an `AnswerStream` of pieces of text instead.
            choose: a metric of `kebyt5_xm.metrics`; of the n answers, that most like the others is returned.
            details: returns a `Hypothesis` (probabilities, words, why it ended) for each text.
            valid_utf8: nothing but valid UTF-8 can be written, in whole characters up to the longest length. False
                for a model that fills in removed spans, which begin and end inside characters.
            stop_loops: ends an answer that repeats one phrase; not with beams.
            generate_kwargs: other arguments of `generate`; `max_new_tokens` is 256 bytes by default. Those in
                `kebyt5_xm.model.decoding.arguments.DEFAULTS` are decoded here, several times as fast; any other
                leaves the whole call to transformers. `generator`, a torch.Generator, seeds sampling.

        A single greedy answer on a CPU is written several bytes at a time where these can be guessed; see
        `kebyt5_xm.model.decoding.drafting`.

        Raises `UserError` as the processor and `classify` do, and for arguments that exclude each other.
        """
        arguments = search_arguments(self.generation_config, n, temperature, num_beams, generate_kwargs)
        is_batch = self._is_batch(segments)
        if labels is not None:
            if n > 1 or stream or details or choose is not None or temperature or (num_beams or 1) > 1:
                raise UserError(
                    "found labels with n, temperature, num_beams, stream, choose or details, expected labels alone: "
                    "they are scored, not searched; classify(segments, labels) gives their probabilities"
                )
            found = self.classify(segments, labels)
            best = [
                max(p, key=lambda label: p[label]) for p in (found if isinstance(found, list) else [found])
            ]
            return best if is_batch else best[0]
        options = AnswerOptions(n, choose, details, valid_utf8, stop_loops)
        answering = Answering(self, self._inputs(segments), arguments, options)
        if stream:
            return answering.stream(is_batch)
        answers = answering.answers()
        return answers if is_batch else answers[0]

    def classify(
        self, segments: Segments | Sequence[Segments] | Processed, labels: Sequence[str]
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
        return probabilities if self._is_batch(segments) else probabilities[0]

    def _is_batch(self, segments: Segments | Sequence[Segments] | Processed) -> bool:
        return isinstance(segments, Processed) or self.processor.is_batch(segments)

    def _inputs(self, segments: Segments | Sequence[Segments] | Processed) -> Processed:
        inputs = segments if isinstance(segments, Processed) else self.processor(segments)
        return inputs.to(self.backbone.shared.weight.device)

    # -- saving -----------------------------------------------------------------------------------------

    def save_pretrained(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        save_directory: str | os.PathLike[str],
        is_main_process: bool = True,
        state_dict: Mapping[str, Tensor] | None = None,
        safe_serialization: bool = True,
        max_shard_size: int | str | None = None,
        **others: Any,
    ) -> None:
        """Write config.json and model.safetensors into a folder, every tensor bit by bit.

        Args:
            save_directory: the folder.
            is_main_process: false writes nothing.
            state_dict: tensors to write instead of the model's own, as a trainer gathers them from ranks.
            safe_serialization: must be true.
            max_shard_size: in bytes, or a string such as "5GB"; the weights are one file, and a larger one is
                refused.
            others: transformers' other arguments; they are refused, and the error names the alternative.

        Raises `UserError` if `config.modalities` lacks the classes of a modality, or if the names or shapes in
        `state_dict` are not the model's.
        """
        refuse_unknown("save_pretrained", others, SAVE_REMEDIES)
        if not safe_serialization:
            raise UserError(
                "found safe_serialization=False, expected True: exports hold no pickles; leave it out"
            )
        if is_main_process:
            save(self, Path(save_directory), state_dict=state_dict, max_bytes=parse_size(max_shard_size))

    @classmethod
    def from_pretrained(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        trusted_modules: Sequence[str] = (),
        dtype: torch.dtype | str | None = None,
        torch_dtype: torch.dtype | str | None = None,
        device_map: Any = None,
        local_files_only: bool = False,
        **others: Any,
    ) -> Self:
        """Return a saved model in eval mode, on the CPU, in its saved dtypes.

        Args:
            pretrained_model_name_or_path: an export or a hub id of one, a plain byte-level T5, a run, or one
                checkpoint of a run.
            trusted_modules: packages, besides this project's own, whose classes may be imported.
            dtype: bfloat16 or float32 instead of the saved one; int8 quantises the decoder's weights, on a CPU and
                for answers and labels alone. `torch_dtype` is its older name.
            device_map: one device instead of the CPU.
            local_files_only: use no network; a hub id is then looked up in the local cache alone.
            others: transformers' other arguments; they are refused, and the error names the alternative.

        Raises `UserError`; for a class that is not trusted, before its module is imported.
        """
        refuse_unknown("from_pretrained", others, LOAD_REMEDIES)
        wanted, device = parse_dtype(dtype, torch_dtype), parse_device_map(device_map)
        model = load(cls, os.fspath(pretrained_model_name_or_path), trusted_modules, local_files_only)
        if wanted == torch.int8:
            if device is not None and device.type != "cpu":
                raise UserError(
                    f"found dtype int8 for '{device}', expected a CPU: int8 runs there alone; use dtype='bfloat16'"
                )
            quantize_decoder(model)
            return model
        if wanted is not None:
            model = model.to(wanted)  # pyright: ignore[reportArgumentType]
        return model if device is None else model.to(device)  # pyright: ignore[reportArgumentType]

    def push_to_hub(self, *args: Any, **kwargs: Any) -> Any:  # pyright: ignore
        """Raise `UserError`: an export's folder is published instead, with its card and its terms."""
        raise UserError(
            "a model is published as a folder: `kebyt5-xm export RUN --out FOLDER`, then `hf upload`"
        )
