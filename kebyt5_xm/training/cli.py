"""`train.py`: LightningCLI over merged recipes, with a run directory."""

import sys
import tempfile
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import yaml
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_info

from kebyt5_xm.data.media.names import expand_arguments
from kebyt5_xm.errors import UserError, exit_on_user_error
from kebyt5_xm.model.attention.choice import NEED_A_GPU
from kebyt5_xm.model.attention.interface import check_device
from kebyt5_xm.model.runs.branches import SetAside, refuse_abandoned
from kebyt5_xm.model.runs.checkpoint_folders import DurableTrainer
from kebyt5_xm.model.runs.checkpoint_io import DurableCheckpointIO, check_readable
from kebyt5_xm.model.runs.checkpoint_reading import checkpoint_step, read_checkpoint, refuse_damaged
from kebyt5_xm.model.runs.run import Run
from kebyt5_xm.training import environment, recipes, trainer_options
from kebyt5_xm.training.callbacks.averaging import Averaging
from kebyt5_xm.training.callbacks.checkpoints import Best, Newest
from kebyt5_xm.training.callbacks.forgetting import Forgetting, ForgettingMeter
from kebyt5_xm.training.callbacks.incidents import Incidents
from kebyt5_xm.training.callbacks.profile import Profile
from kebyt5_xm.training.callbacks.progress import ProgressBar
from kebyt5_xm.training.callbacks.samples import SampleTable
from kebyt5_xm.training.callbacks.skips import Skips
from kebyt5_xm.training.callbacks.termination import SaveOnTerminate, Terminated
from kebyt5_xm.training.callbacks.throughput import Throughput
from kebyt5_xm.training.from_recipes import build_run
from kebyt5_xm.training.inherited_rate import find_inherited_rate
from kebyt5_xm.training.library_messages import explain_errors, silence
from kebyt5_xm.training.loggers import MetricsLog, NoTrace, make_tensorboard_logger
from kebyt5_xm.training.outcome import describe_outcome
from kebyt5_xm.training.recipe_check import split_config_paths, split_trusted
from kebyt5_xm.training.recipe_cli import RecipeCLI, RunExistsError, SaveRecipe, dump_config
from kebyt5_xm.training.recipe_imports import limit_imports
from kebyt5_xm.training.results import ResultsWriter
from kebyt5_xm.training.resuming import check_changes, describe_changes, find_changes
from kebyt5_xm.training.validation import Validations
from kebyt5_xm.trust import find_packages


class TrainingCLI(RecipeCLI):
    """Adds the run directory, its checkpoints, loggers and reports to every run."""

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        kwargs = super()._prepare_subcommand_kwargs(subcommand)
        # Lightning's table has a column for every held-out part, and cuts off names and numbers.
        return kwargs | ({"verbose": False} if subcommand == "validate" else {})

    def after_validate(self) -> None:
        """Print every metric on a line."""
        metrics = {name: float(value) for name, value in self.trainer.callback_metrics.items()}
        if self.trainer.is_global_zero:
            for name, value in sorted(metrics.items()):
                print(f"{name:<{max(map(len, metrics))}}  {value:.4f}")

    @property
    def _subcommand_config(self) -> Any:
        """The parsed options of the subcommand that runs."""
        assert self.subcommand is not None
        return self.config[self.subcommand]

    def before_instantiate_classes(self) -> None:
        config = self._subcommand_config
        trainer_options.check(config["trainer"])
        run = Path(config["run_dir"])
        if run.exists() and not run.is_dir():
            raise UserError(f"run_dir '{run}' is a file; name another directory with --run_dir")
        if config.get("ckpt_path"):
            path = self._find_checkpoint(run, config["ckpt_path"])
            config["ckpt_path"] = str(path)
            if self.subcommand == "fit":
                refuse_abandoned(path, run)
                self._print_changes(run)
        elif self.subcommand == "fit" and (run / "config.yaml").exists():
            raise RunExistsError(run)
        elif self.subcommand == "validate" and not config["model"]["backbone"]["weights"]:
            raise UserError(
                "found no --ckpt_path, so random weights would be validated; expected last, best or the path of "
                "a checkpoint, or weights in model.backbone"
            )

    def _print_changes(self, run: Path) -> None:
        """Print what the recipe has changed since the last start. Raises `UserError` for a change without effect."""
        if not (run / "config.yaml").is_file():
            return
        recipe = yaml.safe_load(dump_config(self._parser(self.subcommand), self._subcommand_config))
        changes = find_changes(Run(run).config, recipe)
        check_changes(changes)
        if changes:
            rank_zero_info(
                f"continues with other options than it was started with last: {describe_changes(changes)}"
            )

    def _find_checkpoint(self, run: Path, name: str) -> Path:
        """Return the checkpoint that `--ckpt_path` names. Raises `UserError` if it is missing or cannot be read."""
        path = {"last": lambda: Run(run).last, "best": lambda: Run(run).best}.get(name, lambda: Path(name))()
        if not path.exists():
            raise UserError(f"found no checkpoint '{name}'; expected a path, or last or best of the run")
        refuse_damaged(path)
        if path.is_file():
            read_checkpoint(path)
        return path

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        config = self._subcommand_config
        run = Path(config["run_dir"])
        is_fit = self.subcommand == "fit"
        task, data = self.task_and_data
        task.connect(data)  # the one place where task, data and callbacks are connected
        throughput, skips = Throughput(), Skips(data)
        averaging: list[Callback] = []
        callbacks: list[Callback] = [throughput, skips, SampleTable(data)]
        if config["trainer"]["enable_progress_bar"] is not False:
            callbacks.append(ProgressBar())
        if is_fit:
            folder = run / "checkpoints"
            newest = Newest(folder, config["checkpoint_every"])
            forgetting = ForgettingMeter(
                self._get(self.config_init, "forgetting") or Forgetting(), newest, data
            )
            if ema := self._get(self.config_init, "ema"):
                averaging = [Averaging(ema)]
            callbacks = [
                *([Profile(run / "profile")] if config["profile"] else []),
                SetAside(run),
                *callbacks,
                ResultsWriter(data, throughput, skips, forgetting),
                NoTrace(run),
                Incidents(run, config["max_bad_steps"], newest, task, data),
                forgetting,
                Validations(),
                newest,
                SaveOnTerminate(newest),
                Best(folder, config["monitor"], data),
            ]
        try:
            trainer = super().instantiate_trainer(
                default_root_dir=str(run),
                logger=[*self._make_loggers(run), *self._get_list("trainer.logger")] if is_fit else False,
                callbacks=[*averaging, *self._get_list("trainer.callbacks"), *callbacks],
                enable_model_summary=False,  # the table of optimizer groups replaces it
                enable_checkpointing=is_fit,
                **kwargs,
            )
        except UserError:
            raise
        except (MisconfigurationException, ValueError) as error:  # no such device, no such strategy
            raise UserError(f"trainer: {' '.join(str(error).split())}") from error
        trainer_options.check_precision(trainer.precision)
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:  # otherwise the user has chosen one
            trainer.strategy.checkpoint_io = DurableCheckpointIO()
        return trainer

    def before_fit(self) -> None:
        """Print the environment. Raise `UserError` if the checkpoint or the device cannot be used."""
        rank_zero_info(environment.describe())
        self._warn_of_inherited_rate()
        self._check_run(trains=True)

    def _warn_of_inherited_rate(self) -> None:
        """Print a line if the run starts from weights at a rate that a recipe from scratch has given."""
        config = self._subcommand_config
        inherited = None if config.get("ckpt_path") else find_inherited_rate(self.paths)
        if inherited is None:
            return
        rate = (config["model"]["optimizer"].get("init_args") or {}).get("lr")
        if rate is not None and float(rate) == float(inherited.rate):  # not changed on the command line
            rank_zero_info(f"warning: {inherited}")

    def before_validate(self) -> None:
        """Raise `UserError` if the checkpoint or the device cannot be used."""
        self._check_run(trains=False)

    def _check_run(self, trains: bool) -> None:
        if path := self._subcommand_config.get("ckpt_path"):
            check_readable(Path(path), self.trainer.strategy)
            self.task_and_data[0].builder.resume(Path(path).absolute().parent.parent / "backbone")
        backbone, precision = self.task_and_data[0].backbone, self.trainer.precision
        if backbone.attention in NEED_A_GPU:  # the others run everywhere, and need no look into the weights
            dtype = torch.bfloat16 if precision.startswith("bf16") else torch.float32
            width = backbone.config().d_kv
            check_device(backbone.attention, self.trainer.strategy.root_device, dtype, width, trains)

    def after_fit(self) -> None:
        """Write the report of the best checkpoint, if the recipe says so, and print what the run has come to."""
        if not self.trainer.is_global_zero:
            return
        run = Run(self._subcommand_config["run_dir"])
        if self._subcommand_config["report"]:
            self._report(run)
        print(describe_outcome(run))

    def _report(self, run: Run) -> None:
        from kebyt5_xm.evaluation.baselines.beside import BaselineChoice
        from kebyt5_xm.evaluation.evaluate import evaluate
        from kebyt5_xm.evaluation.report import write_report

        device, trusted = str(self.trainer.strategy.root_device), find_packages(run.config)
        data, encoders = build_run(run, trusted)
        choice = BaselineChoice("auto", encoders)
        write_report(run, evaluate(run, data, device, trusted, baselines=choice).medium)

    def _make_loggers(self, run: Path) -> list[Logger]:
        path = self._subcommand_config.get("ckpt_path")
        return [make_tensorboard_logger(run, checkpoint_step(Path(path)) if path else None), MetricsLog(run)]

    def _get_list(self, key: str) -> list[Any]:
        """Return the recipe's value of `key` as a list, which is empty for true, false and null."""
        value = self._get(self.config_init, key)
        return value if isinstance(value, list) else [] if value in (None, True, False) else [value]


def main(args: list[str]) -> None:
    """Run `train.py` with `args`; a `UserError` ends it with one line and exit code 2."""
    silence()
    try:
        with exit_on_user_error(), explain_errors():
            _run(expand_arguments(args))
    except Terminated as error:
        print(error, file=sys.stderr)
        raise SystemExit(error.exit_code) from None


def _run(args: list[str]) -> None:
    trusted, args = split_trusted(args)
    paths = split_config_paths(args)[0]
    with limit_imports(paths, trusted, args), tempfile.TemporaryDirectory() as folder:
        TrainingCLI(
            merge_arguments(args, Path(folder)),
            paths,
            trainer_class=DurableTrainer,
            save_config_callback=SaveRecipe,
        )


def merge_arguments(args: list[str], folder: Path) -> list[str]:
    """Replace all `-c/--config FILE` in `args` by one merged file in `folder`, put first."""
    paths, rest = split_config_paths(args)
    if not paths:
        return rest
    merged = folder / "merged.yaml"
    merged.write_text(recipes.to_yaml(recipes.merge(paths)), encoding="utf-8")
    return [*rest[:1], "--config", str(merged), *rest[1:]]
