"""A processor that is saved, loaded and published with the arguments of transformers' own."""

import json
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from kebyt5_xm.data.media.interface import MediaInterface
from kebyt5_xm.data.media.opening import Limits
from kebyt5_xm.errors import UserError
from kebyt5_xm.model.hub_arguments import FROM_MODEL, LOAD_REMEDIES, refuse_unknown
from kebyt5_xm.model.hub_model import Download
from kebyt5_xm.model.infilling import sentinels_of
from kebyt5_xm.model.network import CrossModalNetwork
from kebyt5_xm.model.pipeline_calls import PipelineProcessor
from kebyt5_xm.model.pretrained import open_pretrained
from kebyt5_xm.model.publishing import Upload, publish_processor
from kebyt5_xm.model.saving import read_config
from kebyt5_xm.model.specs import build_modalities
from kebyt5_xm.vocabulary import Sentinels

CONFIG = "processor_config.json"


class SavedProcessor(PipelineProcessor):
    """The data side of every modality of a model.

    Args:
        interfaces: the data side of each modality, by name.
        limits: limits on the size of media that are opened.
        sentinels: which ids stand for the removed spans of a text with gaps.
    """

    def __init__(
        self,
        interfaces: dict[str, MediaInterface],
        limits: Limits | None = None,
        sentinels: Sentinels = "descending",
    ) -> None:
        self.interfaces = interfaces
        self.limits = limits or Limits()
        self.sentinels: Sentinels = sentinels

    @classmethod
    def of(cls, model: CrossModalNetwork, limits: Limits | None = None) -> Self:
        """Return the processor of a loaded model."""
        modules = {name: model.modality(name) for name in model.modalities}
        return cls(
            {
                name: MediaInterface(module.encoder.media, module.encoder.preprocessor(), module.adapter)
                for name, module in modules.items()
            },
            limits,
            sentinels_of(model.config.denoising),
        )

    @classmethod
    def from_pretrained(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        trusted_modules: Sequence[str] = (),
        limits: Limits | None = None,
        subfolder: str = "",
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        **others: Any,
    ) -> Self:
        """Return the processor of a saved model without reading its weights.

        For a loaded model use `of`, which costs nothing. The arguments and errors are those of
        `CrossModalT5.from_pretrained`.
        """
        others = {key: value for key, value in others.items() if key not in FROM_MODEL}
        refuse_unknown("from_pretrained of a processor", others, LOAD_REMEDIES)
        download = Download(revision, token, cache_dir, force_download, local_files_only)
        source = open_pretrained(os.fspath(pretrained_model_name_or_path), download, subfolder)
        content = read_config(source)
        parts = build_modalities(content["modalities"], content["backbone"]["d_model"], trusted_modules)
        interfaces = {
            name: MediaInterface(encoder.media, encoder.preprocessor(), adapter)
            for name, (encoder, adapter) in parts.items()
        }
        processor = cls(interfaces, limits, sentinels_of(content["denoising"]))
        if path := source.file(CONFIG):
            processor._warn_of_changes(source.read_mapping(path).get("preprocessing"))
        return processor

    def save_pretrained(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, save_directory: str | os.PathLike[str], push_to_hub: bool = False, **upload: Any
    ) -> None:
        """Write processor_config.json into the folder of the model's config.json, which holds the rest.

        It holds a hash of each modality's preprocessing. With it `from_pretrained` notices if the preprocessing has
        changed since training, as a new version of a library may change it. With `push_to_hub` it is published too,
        in the repository `repo_id`, by default of the folder's name; `upload` are the fields of `Upload`.
        """
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        content = {
            "processor_class": type(self).__name__,
            "preprocessing": {name: i.preprocessor.fingerprint() for name, i in self.interfaces.items()},
        }
        (folder / CONFIG).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        if push_to_hub:
            self.push_to_hub(upload.pop("repo_id", None) or folder.resolve().name, **upload)
        else:
            refuse_unknown("save_pretrained of a processor", upload, {})

    def push_to_hub(self, repo_id: str, **upload: Any) -> str:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Publish processor_config.json and return the address of the commit; `upload` are the fields of `Upload`."""
        return publish_processor(self, repo_id, Upload.of(upload))

    def modality_of(self, kind: str) -> str:
        fitting = [name for name, interface in self.interfaces.items() if interface.media == kind]
        if len(fitting) == 1:
            return fitting[0]
        remedy = f"choose one in a list of segments: ('{fitting[0]}', item)" if fitting else "leave it out"
        raise UserError(f"found {kind}, and the model has {self.describe_modalities()}; {remedy}")

    def describe_modalities(self) -> str:
        """Return the names of the modalities and what each takes, for messages."""
        return ", ".join(f"'{name}' ({i.media})" for name, i in self.interfaces.items()) or "none, only text"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.describe_modalities()})"

    def _warn_of_changes(self, preprocessing: Any) -> None:
        for name, fingerprint in (preprocessing if isinstance(preprocessing, dict) else {}).items():
            if name in self.interfaces and self.interfaces[name].preprocessor.fingerprint() != fingerprint:
                warnings.warn(
                    f"the preprocessing of modality '{name}' has changed since the model was saved (other versions "
                    "of its libraries?); answers may be worse",
                    stacklevel=3,
                )
