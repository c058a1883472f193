"""RUN/config.yaml: the merged and completed recipe, which reproduces the run and tells that the folder is taken."""

from pathlib import Path

import lightning.pytorch as pl
from jsonargparse import ArgumentParser, Namespace
from lightning.pytorch.cli import SaveConfigCallback

from kebyt5_xm.errors import UserError
from kebyt5_xm.model import origin
from kebyt5_xm.training.task import Task


def taken(run: Path) -> UserError:
    """Return the error of a new run in the folder of another."""
    return UserError(
        f"'{run}' holds a run already; continue it with --ckpt_path last, or name another with --run_dir"
    )


def as_recorded(parser: ArgumentParser, config: Namespace) -> str:
    """Return the text of RUN/config.yaml."""
    config = config.clone()
    config["ckpt_path"] = None  # where this start went on from is nothing of the recipe, and soon gone
    return parser.dump(config, skip_none=False, skip_link_targets=True)


class SaveRecipe(SaveConfigCallback):
    """Writes config.yaml and what the run starts from, once it trains.

    Raises `UserError` on every rank if another run has taken the folder since this one was started.
    """

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Nothing yet: a run that fails before its first step leaves no trace."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Task)
        run = Path(trainer.default_root_dir)
        written = trainer.is_global_zero and self._write(run / "config.yaml")
        if not trainer.strategy.broadcast(written):
            raise taken(run)
        if trainer.is_global_zero:
            origin.record(pl_module.backbone, run / "backbone")

    def _write(self, path: Path) -> bool:
        """Write the recipe; return whether the folder was free, or its own run is continued."""
        path.parent.mkdir(parents=True, exist_ok=True)
        continued = self.config.get("ckpt_path")
        text = as_recorded(self.parser, self.config)
        try:
            with path.open("w" if continued else "x", encoding="utf-8") as file:
                file.write(text)
        except FileExistsError:
            return False
        return True
