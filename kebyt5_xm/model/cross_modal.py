"""The model: a T5 backbone and the modalities whose vectors enter its byte embeddings."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from kebyt5_xm.errors import UserError
from kebyt5_xm.model.decoding.arguments import parse_generation
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
from kebyt5_xm.vocabulary import decode

MAX_NEW_TOKENS = 256
"""Default of `answer`, in bytes; transformers' own 20 would cut nearly every answer."""


class CrossModalT5(CrossModalNetwork):
    """A `CrossModalNetwork` with inference, saving and loading."""

    # -- inference --------------------------------------------------------------------------------------

    @property
    def processor(self) -> CrossModalProcessor:
        """The processor that turns segments into this model's inputs."""
        return CrossModalProcessor.of(self)

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
