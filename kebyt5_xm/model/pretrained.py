"""Sources of a model's weights: a hub model, a local folder in the published layout, or a run."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from kebyt5_xm.errors import UserError
from kebyt5_xm.model.hub_model import Download, HubModel
from kebyt5_xm.model.model_files import Pretrained
from kebyt5_xm.model.runs.run import Run, backbone_tensors, resolve

if TYPE_CHECKING:
    from torch import Tensor

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


class LocalFolder(Pretrained):
    """A folder in the layout of the published checkpoints, or an export."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = str(path)

    def file(self, name: str) -> Path | None:
        path = self.path / name
        return path if path.is_file() else None


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


def open_pretrained(weights: str, download: Download | None = None, subfolder: str = "") -> Pretrained:
    """Return the source that `weights` names: a run or a checkpoint of one, a local folder, or else a hub id.

    Nothing is read or downloaded yet; `download` says how it will be. `subfolder` is a folder in it that holds the
    model. Raises `UserError` if `weights` is none of these.
    """
    whole = Path(weights).expanduser()
    if whole.exists():
        if download is not None and download.revision not in (None, "main"):
            raise UserError(
                f"found revision '{download.revision}' for the local folder '{weights}', which has no revisions; "
                "leave it out, or give a hub id"
            )
        return _open_local(str(Path(weights) / subfolder) if subfolder else weights)
    if _HUB_ID.fullmatch(weights):
        return HubModel(weights, download, subfolder)
    raise UserError(
        f"weights '{weights}' is neither an existing folder, run or checkpoint, nor a hub id (owner/name, such as "
        "google/byt5-small)"
    )


def _open_local(weights: str) -> Pretrained:
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
    if not path.exists():
        raise UserError(f"there is no folder '{weights}'; correct `subfolder`")
    raise UserError(
        f"'{weights}' holds neither config.json, as a model folder does, nor config.yaml, as a run does"
    )
