"""What a recipe may say on top of model, data and trainer, and how the command line is read."""

from typing import Any

from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from kebyt5_xm.training.callbacks.forgetting_gate import Forgetting


class RecipeCLI(LightningCLI):
    """LightningCLI with the options of a recipe; it reads and builds, and what runs is in a class above it."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Return the subcommands, and which arguments of the trainer's methods are not for the user."""
        given = {"model", "datamodule", "weights_only"}
        return {
            "fit": {*given, "train_dataloaders", "val_dataloaders"},
            "validate": {*given, "dataloaders", "verbose"},
        }

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        kwargs = super()._prepare_subcommand_kwargs(subcommand)
        # Lightning's table has a column for every part and cuts off names and figures.
        return kwargs | ({"verbose": False} if subcommand == "validate" else {})

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

    @property
    def _chosen(self) -> Any:
        """The configuration of the subcommand that runs."""
        assert self.subcommand is not None
        return self.config[self.subcommand]
