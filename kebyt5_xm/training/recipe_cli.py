"""What a recipe may say on top of model, data and trainer, and how the command line is read."""

from typing import Any

from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from kebyt5_xm.data.datamodule import DataModule
from kebyt5_xm.training import trainer_options
from kebyt5_xm.training.callbacks.forgetting_gate import Forgetting
from kebyt5_xm.training.parser import Parser
from kebyt5_xm.training.task import Task


class RecipeCLI(LightningCLI):
    """LightningCLI with the options of a recipe; it reads and builds, and what runs is in a class above it.

    Args:
        args: of the command line, with one `--config` at most.
        paths: the recipes that were merged into it, which errors name.
        others: LightningCLI's.
    """

    def __init__(self, args: list[str], paths: list[str], **others: Any) -> None:
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
    def built(self) -> tuple[Task, DataModule]:
        """What the recipe says of model and data, built."""
        assert isinstance(self.model, Task)
        assert isinstance(self.datamodule, DataModule)
        return self.model, self.datamodule

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Return the subcommands, and which arguments of the trainer's methods are not for the user."""
        given = {"model", "datamodule", "weights_only"}
        return {
            "fit": {*given, "train_dataloaders", "val_dataloaders"},
            "validate": {*given, "dataloaders", "verbose"},
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
            help="Metric by which the best checkpoint is kept: val/bits_per_byte, or val/METRIC/SOURCE.",
        )
        parser.add_argument(
            "--report", type=bool, default=False, help="Write RUN/report.html when training ends."
        )
        parser.add_argument(
            "--forgetting",
            type=Forgetting | None,
            default=Forgetting(),
            help="What is done when text is forgotten.",
        )
        parser.add_argument(
            "--max_bad_steps",
            type=int,
            default=1,
            help="Steps in a row whose loss or gradient is not finite, and that change nothing, until the run stops.",
        )
        parser.link_arguments("seed_everything", "data.seed", compute_fn=int)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        self.config = parser.parse_args(args)

    def _parse_ckpt_path(self) -> None:
        """Nothing: Lightning would read a whole checkpoint here for hyperparameters, and the recipe has them."""
