"""A model that is saved, loaded and published with the arguments of transformers' own models."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from kebyt5_xm.errors import UserError
from kebyt5_xm.model.configuration import CrossModalT5Config
from kebyt5_xm.model.decoding.int8 import quantize_decoder
from kebyt5_xm.model.hub_arguments import (
    FROM_AUTO_CLASSES,
    LOAD_REMEDIES,
    SAVE_REMEDIES,
    parse_device_map,
    parse_dtype,
    parse_size,
    refuse_unknown,
)
from kebyt5_xm.model.hub_model import Download
from kebyt5_xm.model.model_files import Pretrained
from kebyt5_xm.model.network import CrossModalNetwork
from kebyt5_xm.model.pretrained import open_pretrained
from kebyt5_xm.model.processor import CrossModalProcessor
from kebyt5_xm.model.publishing import UPLOAD_ARGUMENTS, Upload, publish_model
from kebyt5_xm.model.saving import build, load, save


class SavedModel(CrossModalNetwork):
    """A `CrossModalNetwork` with saving, loading and publishing."""

    loaded_from: Pretrained | None = None
    """The files that the model was loaded from; None for one made in Python."""

    @property
    def processor(self) -> CrossModalProcessor:
        """The processor that turns segments into this model's inputs."""
        return CrossModalProcessor.of(self)

    @property
    def input_modalities(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The kinds of input in transformers' words: `text`, `image` and `audio`."""
        kinds = [self.modality(name).encoder.media for name in self.modalities]
        return ("text", *dict.fromkeys(kind for kind in kinds if kind != "array"))

    def save_pretrained(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        save_directory: str | os.PathLike[str],
        is_main_process: bool = True,
        state_dict: Mapping[str, Tensor] | None = None,
        push_to_hub: bool = False,
        max_shard_size: int | str | None = None,
        safe_serialization: bool = True,
        repo_id: str | None = None,
        token: str | bool | None = None,
        **others: Any,
    ) -> None:
        """Write the model into a folder, every tensor bit by bit.

        Args:
            save_directory: the folder; files of an earlier model in it are replaced.
            is_main_process: false writes nothing.
            state_dict: tensors to write instead of the model's own, as a trainer gathers them from ranks.
            push_to_hub: publish the model too, as `push_to_hub` does.
            max_shard_size: in bytes, or a string such as "5GB", the default; larger weights become several files.
            safe_serialization: must be true.
            repo_id: the repository for `push_to_hub`; the folder's name by default.
            token: the token for `push_to_hub`.
            others: transformers' other arguments; they are refused, and the error names the alternative.

        Raises `UserError` if `config.modalities` lacks the classes of a modality, or if the names or shapes in
        `state_dict` are not the model's.
        """
        commit = {key: others.pop(key) for key in list(others) if key in UPLOAD_ARGUMENTS}
        refuse_unknown("save_pretrained", others, SAVE_REMEDIES)
        if not safe_serialization:
            raise UserError(
                "found safe_serialization=False, expected True: exports hold no pickles; leave it out"
            )
        size = parse_size(max_shard_size)
        folder = Path(save_directory)
        if folder.is_file():
            raise UserError(f"found the file '{folder}', expected a folder to save into; choose another name")
        if push_to_hub and state_dict is not None:
            raise UserError(
                "found push_to_hub=True with a state_dict, expected one of them; publish the saved folder with "
                "`hf upload`"
            )
        if not is_main_process:
            return
        save(self, folder, state_dict=state_dict, max_shard_bytes=size)
        if push_to_hub:
            self.push_to_hub(
                repo_id or folder.resolve().name, token=token, max_shard_size=max_shard_size, **commit
            )

    def push_to_hub(  # pyright: ignore[reportIncompatibleVariableOverride]
        self,
        repo_id: str,
        *,
        max_shard_size: int | str | None = None,
        tags: Sequence[str] = (),
        **upload: Any,
    ) -> str:
        """Publish the model with its processor, card and terms, and return the address of the commit.

        The card is that of the export from which the model was loaded, if its weights are unchanged. Otherwise a
        short one says what is known: a card with figures comes from `kebyt5-xm export`.

        Args:
            repo_id: NAME or OWNER/NAME; made if there is none.
            max_shard_size: as in `save_pretrained`.
            tags: more tags for the card.
            upload: the fields of `Upload`.

        Raises `UserError` for a model that was loaded from a run, and for whatever the hub refuses.
        """
        options = Upload.of(upload)
        return publish_model(self, repo_id, options, self.processor, parse_size(max_shard_size), tags)

    @classmethod
    def from_pretrained(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str] | None,
        *,
        trusted_modules: Sequence[str] = (),
        config: CrossModalT5Config | None = None,
        state_dict: Mapping[str, Tensor] | None = None,
        dtype: torch.dtype | str | None = None,
        torch_dtype: torch.dtype | str | None = None,
        device_map: Any = None,
        subfolder: str = "",
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        **others: Any,
    ) -> Self:
        """Return a saved model in eval mode, on the CPU, in its saved dtypes.

        Args:
            pretrained_model_name_or_path: an export or a hub id of one, a plain byte-level T5, a run, or one
                checkpoint of a run; None if `config` and `state_dict` are both given.
            trusted_modules: packages, besides this project's own, whose classes may be imported.
            config: a configuration to use instead of the saved one.
            state_dict: tensors to use instead of the saved ones.
            dtype: bfloat16 or float32 instead of the saved one; int8 quantises the decoder's weights, on a CPU and
                for answers and labels alone. `torch_dtype` is its older name.
            device_map: one device instead of the CPU; `auto` is a GPU if there is one.
            subfolder: the folder of the repository, or of the local folder, that holds the model.
            revision, token, cache_dir, force_download, local_files_only: see `Download`.
            others: transformers' other arguments; they are refused, and the error names the alternative.

        Raises `UserError`; for a class that is not trusted, before its module is imported.
        """
        others = {key: value for key, value in others.items() if key not in FROM_AUTO_CLASSES}
        refuse_unknown("from_pretrained", others, LOAD_REMEDIES)
        wanted, device = parse_dtype(dtype, torch_dtype), parse_device_map(device_map)
        if wanted == torch.int8 and device is not None and device.type != "cpu":
            raise UserError(
                f"found dtype int8 for '{device}', expected a CPU: int8 runs there alone; use dtype='bfloat16'"
            )
        if config is not None and not isinstance(config, CrossModalT5Config):
            raise UserError(
                f"found config={config!r:.60}, expected a CrossModalT5Config; load one with "
                "AutoConfig.from_pretrained"
            )
        if pretrained_model_name_or_path is None:
            if config is None or state_dict is None:
                raise UserError(
                    "found no model, expected a folder or a hub id, or both config and state_dict"
                )
            model = build(cls, config, state_dict, trusted_modules)
        else:
            download = Download(revision, token, cache_dir, force_download, local_files_only)
            opened = open_pretrained(os.fspath(pretrained_model_name_or_path), download, subfolder)
            model = load(cls, opened, trusted_modules, config, state_dict)
            model.loaded_from = opened
        if wanted == torch.int8:
            quantize_decoder(model)
            return model
        if wanted is not None:
            model = model.to(wanted)  # pyright: ignore[reportArgumentType]
        return model if device is None else model.to(device)  # pyright: ignore[reportArgumentType]
