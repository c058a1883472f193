"""The model: a T5 backbone and the modalities whose vectors enter its byte embeddings."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from kebyt5_xm.errors import UserError
from kebyt5_xm.model import asking
from kebyt5_xm.model.hub_arguments import (
    LOAD_REMEDIES,
    SAVE_REMEDIES,
    parse_device_map,
    parse_dtype,
    parse_size,
    refuse_unknown,
)
from kebyt5_xm.model.network import CrossModalNetwork
from kebyt5_xm.model.processor import CrossModalProcessor, Segments
from kebyt5_xm.model.saving import load, save


class CrossModalT5(CrossModalNetwork):
    """A `CrossModalNetwork` that can be asked, saved and loaded."""

    # -- using it ---------------------------------------------------------------------------------------

    @property
    def processor(self) -> CrossModalProcessor:
        """What turns segments into this model's inputs."""
        return CrossModalProcessor.of(self)

    def answer(
        self,
        segments: Segments | Sequence[Segments],
        labels: Sequence[str] | None = None,
        **generate_kwargs: Any,
    ) -> str | list[str]:
        """Return what the model writes for segments, or which of `labels`: see `kebyt5_xm.model.asking.answer`."""
        return asking.answer(self, self.processor, segments, labels, **generate_kwargs)

    def classify(
        self, segments: Segments | Sequence[Segments], labels: Sequence[str]
    ) -> dict[str, float] | list[dict[str, float]]:
        """Return the probability of each label for segments: see `kebyt5_xm.model.asking.classify`."""
        return asking.classify(self, self.processor, segments, labels)

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
            state_dict: tensors of this model to write in place of its own, as a trainer gathers them from ranks.
            safe_serialization: the only form there is.
            max_shard_size: bytes, or such as "5GB"; the weights are one file, and a larger one is refused.
            others: transformers' other arguments are refused with what to use.

        Raises `UserError` if `config.modalities` does not say of which classes the modalities are, or if the
        tensors of `state_dict` are not the model's.
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
        """Return a saved model in eval mode, on the CPU, in the dtypes in which it was saved.

        Args:
            pretrained_model_name_or_path: an export or a hub id of one, a plain byte-level T5, a run, or one
                checkpoint of a run.
            trusted_modules: packages, beside this project's own, whose classes may be imported.
            dtype: bfloat16 or float32 in place of the saved one; `torch_dtype` is its older name.
            device_map: one device in place of the CPU.
            local_files_only: ask no network; a hub id is then looked for in the local cache alone.
            others: transformers' other arguments are refused with what to use.

        Raises `UserError`; for a class that is not trusted, before anything of it is imported.
        """
        refuse_unknown("from_pretrained", others, LOAD_REMEDIES)
        wanted, device = parse_dtype(dtype, torch_dtype), parse_device_map(device_map)
        model = load(cls, os.fspath(pretrained_model_name_or_path), trusted_modules, local_files_only)
        if wanted is not None:
            model = model.to(wanted)  # pyright: ignore[reportArgumentType]
        return model if device is None else model.to(device)  # pyright: ignore[reportArgumentType]

    def push_to_hub(self, *args: Any, **kwargs: Any) -> Any:  # pyright: ignore
        """Raise `UserError`: what is published is the folder of an export, with its card and its terms."""
        raise UserError(
            "a model is published as a folder: `kebyt5-xm export RUN --out FOLDER`, then `hf upload`"
        )
