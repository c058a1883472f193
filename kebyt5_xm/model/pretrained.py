"""Sources of a backbone's weights: a hub model, a local folder in the published layout, or a run."""

import json
import re
from abc import ABC, abstractmethod
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kebyt5_xm.errors import UserError, first_line
from kebyt5_xm.model.runs.run import Run, backbone_tensors, resolve
from kebyt5_xm.weight_files import ABOUT, CROSS_MODAL, WEIGHT_FILES, read_shard_names, read_tensors

if TYPE_CHECKING:
    from torch import Tensor

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


class Pretrained(ABC):
    """A backbone's config.json, its tensors, and the files that state its licence."""

    name: str
    """The folder, hub id or run, as the user wrote it."""

    @abstractmethod
    def file(self, name: str) -> Path | None:
        """Return the local path of the file `name`, or None if there is none."""

    @abstractmethod
    def tensors(self) -> "dict[str, Tensor]":
        """Return all tensors by transformers' names, on the CPU, as stored. Raises `UserError`."""

    @cached_property
    def content(self) -> dict[str, Any]:
        """The content of config.json, for any type of model. Raises `UserError`."""
        path = self.file("config.json")
        if path is None:
            raise self.missing_error("config.json")
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise UserError(f"config.json of '{self.name}' is not JSON: {error}") from error
        except OSError as error:
            raise UserError(f"'{path}' cannot be read: {error.strerror or error}") from error
        if not isinstance(content, dict):
            raise UserError(
                f"config.json of '{self.name}' holds a {type(content).__name__}, expected a mapping"
            )
        return content

    @property
    def config(self) -> dict[str, Any]:
        """The backbone's config.json; in that of a CrossModalT5 it is a part. Raises `UserError`."""
        content = self.content
        if content.get("model_type") != CROSS_MODAL:
            return content
        backbone, about = content.get("backbone"), content.get(ABOUT)
        return {**(backbone if isinstance(backbone, dict) else {}), ABOUT: about}

    def missing_error(self, file: str) -> UserError:
        """Return the error to raise if a required `file` is missing."""
        return UserError(f"'{self.name}' holds no {file}; expected a T5 model in transformers' layout")


class LocalFolder(Pretrained):
    """A folder in the layout of the published checkpoints, or an export."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = str(path)

    def file(self, name: str) -> Path | None:
        path = self.path / name
        return path if path.is_file() else None

    def tensors(self) -> "dict[str, Tensor]":
        return _read_weights(self)


class HubModel(Pretrained):
    """A model on the hub; files in the local cache are used without network access."""

    def __init__(self, repo_id: str, local_files_only: bool = False) -> None:
        self.name = repo_id
        self._unreachable = local_files_only

    def file(self, name: str) -> Path | None:
        from huggingface_hub import errors, hf_hub_download

        try:
            return Path(hf_hub_download(self.name, name, local_files_only=True))
        except errors.LocalEntryNotFoundError:
            if self._unreachable:
                return None
        try:
            return Path(hf_hub_download(self.name, name))
        except errors.GatedRepoError as error:
            raise UserError(
                f"'{self.name}' is gated: accept its conditions at https://huggingface.co/{self.name}, log "
                "in with `hf auth login` (or set HF_TOKEN) and try again"
            ) from error
        except errors.RepositoryNotFoundError as error:
            raise UserError(
                f"'{self.name}' is neither a local folder nor a model on the hub that you can access; check the "
                "spelling, or log in with `hf auth login` if it is private"
            ) from error
        except errors.LocalEntryNotFoundError:
            self._unreachable = True
            return None
        except errors.EntryNotFoundError:
            return None
        except errors.HfHubHTTPError as error:
            raise UserError(
                f"cannot download '{name}' of '{self.name}' from the hub: {first_line(error)}"
            ) from error

    def missing_error(self, file: str) -> UserError:
        if not self._unreachable:
            return super().missing_error(file)
        return UserError(
            f"'{self.name}' is not a local folder, and {file} of the hub model of that name is neither in "
            f"the local cache nor could it be downloaded (no network?); run `hf download {self.name}` "
            "first, or give a folder"
        )

    def tensors(self) -> "dict[str, Tensor]":
        return _read_weights(self)


class RunBackbone(LocalFolder):
    """The backbone of a run's chosen, best or last checkpoint."""

    def __init__(self, run: Run) -> None:
        super().__init__(run.backbone)
        self.name = str(run.chosen or run.path)
        self.run = run

    def missing_error(self, file: str) -> UserError:
        return UserError(
            f"'{self.path}' holds no {file}, which training writes at its start; the run is incomplete"
        )

    def tensors(self) -> "dict[str, Tensor]":
        return backbone_tensors(self.run.checkpoint())


def open_pretrained(weights: str, local_files_only: bool = False) -> Pretrained:
    """Return the source that `weights` names: a run or a checkpoint of one, a local folder, or else a hub id.

    Nothing is read or downloaded yet; with `local_files_only` nothing will be downloaded. Raises `UserError` if
    `weights` is none of these.
    """
    path = Path(weights).expanduser()
    if (path / "lora" / "adapter_config.json").is_file():
        raise UserError(
            f"'{weights}' was exported with --lora apart, so its weights lack the LoRA; export the run without that "
            "option to use it here, or load it with peft"
        )
    if (path / "config.json").is_file():
        return LocalFolder(path)
    if (path / "config.yaml").is_file() or (path.name.endswith(".ckpt") and path.exists()):
        return RunBackbone(resolve(path))
    if path.exists():
        raise UserError(
            f"'{weights}' holds neither config.json, as a model folder does, nor config.yaml, as a run does"
        )
    if _HUB_ID.fullmatch(weights):
        return HubModel(weights, local_files_only)
    raise UserError(
        f"weights '{weights}' is neither an existing folder, run or checkpoint, nor a hub id (owner/name, such as "
        "google/byt5-small)"
    )


def _read_weights(source: Pretrained) -> "dict[str, Tensor]":
    tensors = _read_all_weights(source)
    if source.content.get("model_type") != CROSS_MODAL:
        return tensors
    prefix = "backbone."
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}


def _read_all_weights(source: Pretrained) -> "dict[str, Tensor]":
    for name in WEIGHT_FILES:
        if (path := source.file(name)) is not None:
            return read_tensors(path)
        if (index := source.file(f"{name}.index.json")) is not None:
            return {
                key: tensor
                for shard in read_shard_names(index)
                for key, tensor in _read_shard(source, shard).items()
            }
    raise source.missing_error(" or ".join(WEIGHT_FILES))


def _read_shard(source: Pretrained, name: str) -> "dict[str, Tensor]":
    path = source.file(name)
    if path is None:
        raise source.missing_error(name)
    return read_tensors(path)
