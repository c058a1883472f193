"""The options of a recipe, how the command line is read, and RUN/config.yaml, which records the merged recipe."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from jsonargparse import ArgumentParser, Namespace
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback

from kebyt5_xm.data.datamodule import DataModule
from kebyt5_xm.errors import UserError
from kebyt5_xm.model import origin
from kebyt5_xm.training import trainer_options
from kebyt5_xm.training.callbacks.averaging import Ema
from kebyt5_xm.training.callbacks.forgetting import Forgetting
from kebyt5_xm.training.parser import Parser
from kebyt5_xm.training.task import Task

NEED_A_VALUE = (
    "run_dir",
    "checkpoint_every",
    "max_bad_steps",
    "monitor",
    "report",
    "profile",
)
"""Top-level keys of a recipe that may not be null, beside those that have a check of their own."""


class RecipeCLI(LightningCLI):
    """LightningCLI with the options of a recipe. It builds model and data; subclasses run something with them.

    Args:
        args: of the command line, with at most one `--config`.
        paths: the recipes that were merged into that file, which errors name.
        others: further arguments of LightningCLI.
    """

    def __init__(self, args: list[str], paths: list[str], **others: Any) -> None:
        self.paths = paths
        super().__init__(
            Task,
            DataModule,
            args=args,
            parser_class=Parser.of(paths),
            trainer_defaults=trainer_options.DEFAULTS,
            seed_everything_default=0,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            **others,
        )

    @property
    def task_and_data(self) -> tuple[Task, DataModule]:
        """The model and the data of the recipe."""
        assert isinstance(self.model, Task)
        assert isinstance(self.datamodule, DataModule)
        return self.model, self.datamodule

    def instantiate_classes(self) -> None:
        """Build model and data. jsonargparse puts an error of an optional value into a `ValueError` with others."""
        try:
            super().instantiate_classes()
        except UserError:
            raise
        except ValueError as error:
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, UserError):
                cause = cause.__cause__ or cause.__context__
            if cause is None:
                raise
            raise cause from None

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Return subcommand -> the arguments of the trainer's method that are not options."""
        shared = {"model", "datamodule", "weights_only"}
        return {
            "fit": {*shared, "train_dataloaders", "val_dataloaders"},
            "validate": {*shared, "dataloaders", "verbose"},
        }

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--run_dir", type=str, default="runs/unnamed", help="Directory of the run.")
        parser.add_argument(
            "--checkpoint_every", type=int, default=1000, help="Optimizer steps between two checkpoints."
        )
        parser.add_argument(
            "--monitor",
            type=str,
            default="val/bits_per_byte",
            help="Metric of the best checkpoint: val/bits_per_byte, or val/METRIC/SOURCE.",
        )
        parser.add_argument(
            "--report", type=bool, default=False, help="Write RUN/report.html when training ends."
        )
        parser.add_argument(
            "--profile", type=bool, default=False, help="Write a trace of ten steps to RUN/profile."
        )
        parser.add_argument(
            "--forgetting",
            type=Forgetting | None,
            default=Forgetting(),
            help="What happens when the model forgets text.",
        )
        parser.add_argument(
            "--ema",
            type=Ema | None,
            default=None,
            help="Moving average of the weights, which validations, checkpoints and exports take.",
        )
        parser.add_argument(
            "--max_bad_steps",
            type=int,
            default=1,
            help="Consecutive steps with a loss or gradient that is not finite, until the run stops. Such steps "
            "change no weight.",
        )
        parser.link_arguments(
            "seed_everything", "data.seed", compute_fn=lambda seed: int(seed or 0)
        )  # null is refused later

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse. Raise `UserError` for a null, which jsonargparse takes for any type, where a value is needed."""
        self.config = parser.parse_args(args)
        for key in NEED_A_VALUE:
            if self.config[self.config["subcommand"]][key] is None:
                raise UserError(
                    f"{key} is null, expected a value; give one, or take the key out for its default"
                )

    def _parse_ckpt_path(self) -> None:
        """Do nothing: Lightning would read a whole checkpoint for hyperparameters, which the recipe has."""


# -- RUN/config.yaml --------------------------------------------------------------------------------------


class RunExistsError(UserError):
    """A new run was given the directory of another run."""

    def __init__(self, run: Path) -> None:
        super().__init__(
            f"'{run}' holds a run already; continue it with --ckpt_path last, or name another with --run_dir"
        )


def dump_config(parser: ArgumentParser, config: Namespace) -> str:
    """Return the text of RUN/config.yaml: the merged recipe with all defaults, which reproduces the run."""
    config = config.clone()
    config["ckpt_path"] = None  # the checkpoint of this start is no part of the recipe
    return parser.dump(config, skip_none=False, skip_link_targets=True)


class SaveRecipe(SaveConfigCallback):
    """Writes RUN/config.yaml and RUN/backbone when training starts. RUN/config.yaml marks the directory as taken.

    Raises `UserError` on every rank if another run has taken the directory since this one was started.
    """

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Do nothing: a run that fails before its first step leaves no files."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Task)
        run = Path(trainer.default_root_dir)
        is_written = trainer.is_global_zero and self._write(run / "config.yaml")
        if not trainer.strategy.broadcast(is_written):
            raise RunExistsError(run)
        if trainer.is_global_zero:
            origin.record(pl_module.backbone, run / "backbone")

    def _write(self, path: Path) -> bool:
        """Write the recipe; return false if a new run finds one there."""
        path.parent.mkdir(parents=True, exist_ok=True)
        is_resumed = self.config.get("ckpt_path")
        text = dump_config(self.parser, self.config)
        try:
            with path.open("w" if is_resumed else "x", encoding="utf-8") as file:
                file.write(text)
        except FileExistsError:
            return False
        return True
