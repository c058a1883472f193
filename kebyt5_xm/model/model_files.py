"""The files of a saved model, wherever they are: its config.json, its weights, the files that state its licence."""

import json
from abc import ABC, abstractmethod
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kebyt5_xm.errors import UserError
from kebyt5_xm.weight_files import (
    ABOUT,
    CROSS_MODAL,
    DIGESTS,
    WEIGHT_FILES,
    check_digest,
    read_digests,
    read_shard_names,
    read_tensors,
)

if TYPE_CHECKING:
    from torch import Tensor


class Pretrained(ABC):
    """A saved model: a subclass says where its files are."""

    name: str
    """The folder, hub id or run, as the user wrote it."""

    @abstractmethod
    def file(self, name: str) -> Path | None:
        """Return the local path of the file `name`, or None if there is none."""

    @cached_property
    def content(self) -> dict[str, Any]:
        """The content of config.json, for any type of model. Raises `UserError`."""
        path = self.file("config.json")
        if path is None:
            raise self.missing_error("config.json")
        return self.read_mapping(path)

    def read_mapping(self, path: Path) -> dict[str, Any]:
        """Return the content of a JSON file of this model. Raises `UserError` unless it holds a mapping."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path.name} of '{self.name}' is not JSON: {error}") from error
        except OSError as error:
            raise UserError(f"'{path}' cannot be read: {error.strerror or error}") from error
        if not isinstance(content, dict):
            raise UserError(
                f"{path.name} of '{self.name}' holds a {type(content).__name__}, expected a mapping"
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

    @cached_property
    def digests(self) -> dict[str, str]:
        """Weight file -> digest; empty for a model that was saved without, or by others."""
        return read_digests(self.file(DIGESTS)) if ABOUT in self.content else {}

    def read(self, name: str) -> "dict[str, Tensor]":
        """Return the tensors of a weight file. Raises `UserError` if it is missing, damaged or of another model."""
        path = self.file(name)
        if path is None:
            raise self.missing_error(name)
        check_digest(path, self.digests)
        return read_tensors(path)

    def all_tensors(self) -> "dict[str, Tensor]":
        """Return the tensors of all weight files by their names there, on the CPU, as stored. Raises `UserError`."""
        for name in WEIGHT_FILES:
            if self.file(name) is not None:
                return self.read(name)
            if (index := self.file(f"{name}.index.json")) is not None:
                shards = read_shard_names(index)
                return {key: tensor for shard in shards for key, tensor in self.read(shard).items()}
        raise self.missing_error(" or ".join(WEIGHT_FILES))

    def tensors(self) -> "dict[str, Tensor]":
        """Return the backbone's tensors by transformers' names, on the CPU, as stored. Raises `UserError`."""
        tensors = self.all_tensors()
        if self.content.get("model_type") != CROSS_MODAL:
            return tensors
        prefix = "backbone."
        return {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}

    def missing_error(self, file: str) -> UserError:
        """Return the error to raise if a required `file` is missing."""
        return UserError(f"'{self.name}' holds no {file}; expected a T5 model in transformers' layout")
