"""`train.py`: LightningCLI over merged recipes, with a run directory."""

import sys
import tempfile
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import yaml
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_info

from kebyt5_xm.data.loading.loader import KILLED_WORKER, is_of_killed_worker
from kebyt5_xm.data.media.names import expand_arguments
from kebyt5_xm.errors import UserError, exit_on_user_error
from kebyt5_xm.model.runs.branches import SetAside, refuse_abandoned
from kebyt5_xm.model.runs.checkpoint_folders import DurableTrainer
from kebyt5_xm.model.runs.checkpoint_io import DurableCheckpointIO, check_readable
from kebyt5_xm.model.runs.checkpoint_reading import checkpoint_step, read_checkpoint, refuse_damaged
from kebyt5_xm.model.runs.run import Run
from kebyt5_xm.training import recipes, trainer_options
from kebyt5_xm.training.callbacks.checkpoints import Best, Newest
from kebyt5_xm.training.callbacks.forgetting import ForgettingMeter
from kebyt5_xm.training.callbacks.forgetting_gate import Forgetting
from kebyt5_xm.training.callbacks.incidents import Incidents
from kebyt5_xm.training.callbacks.progress import ProgressBar, Throughput
from kebyt5_xm.training.callbacks.samples import SampleTable
from kebyt5_xm.training.callbacks.skips import Skips
from kebyt5_xm.training.callbacks.termination import SaveOnTerminate, Terminated
from kebyt5_xm.training.configured import run_data
from kebyt5_xm.training.continued import changes, check_changes, told
from kebyt5_xm.training.lost_rank import is_of_lost_rank, lost_rank
from kebyt5_xm.training.metrics_log import MetricsLog
from kebyt5_xm.training.quiet import quiet
from kebyt5_xm.training.recipe_check import config_paths, trusted_in
from kebyt5_xm.training.recipe_cli import RecipeCLI
from kebyt5_xm.training.recipe_imports import recipes_imports
from kebyt5_xm.training.results import ResultsWriter
from kebyt5_xm.training.save_recipe import SaveRecipe, as_recorded, taken
from kebyt5_xm.training.tensorboard import NoTrace, tensorboard
from kebyt5_xm.training.validations import Validations
from kebyt5_xm.trust import find_packages


class TrainingCLI(RecipeCLI):
    """Adds the run directory, its checkpoints, loggers and reports to every run."""

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        kwargs = super()._prepare_subcommand_kwargs(subcommand)
        # Lightning's table has a column for every part and cuts off names and figures.
        return kwargs | ({"verbose": False} if subcommand == "validate" else {})

    def after_validate(self) -> None:
        """Print what was measured, a line each."""
        figures = {name: float(value) for name, value in self.trainer.callback_metrics.items()}
        if self.trainer.is_global_zero:
            for name, value in sorted(figures.items()):
                print(f"{name:<{max(map(len, figures))}}  {value:.4f}")

    @property
    def _chosen(self) -> Any:
        """The configuration of the subcommand that runs."""
        assert self.subcommand is not None
        return self.config[self.subcommand]

    def before_instantiate_classes(self) -> None:
        config = self._chosen
        trainer_options.check(config["trainer"])
        run = Path(config["run_dir"])
        if run.exists() and not run.is_dir():
            raise UserError(f"run_dir '{run}' is a file; name another directory with --run_dir")
        if config.get("ckpt_path"):
            path = self._checkpoint(run, config["ckpt_path"])
            config["ckpt_path"] = str(path)
            if self.subcommand == "fit":
                refuse_abandoned(path, run)
                self._tell_changes(run)
        elif self.subcommand == "fit" and (run / "config.yaml").exists():
            raise taken(run)
        elif self.subcommand == "validate" and not config["model"]["backbone"]["weights"]:
            raise UserError(
                "found no --ckpt_path, so that random weights would be validated; expected last, best or the path of "
                "a checkpoint, or weights in model.backbone"
            )

    def _tell_changes(self, run: Path) -> None:
        """Say what the recipe has changed since the last start. Raises `UserError` for what would do nothing."""
        if not (run / "config.yaml").is_file():
            return
        given = as_recorded(self._parser(self.subcommand), self._chosen)
        found = changes(Run(run).config, yaml.safe_load(given))
        check_changes(found)
        if found:
            rank_zero_info(f"continues with other options than it was started with last: {told(found)}")

    def _checkpoint(self, run: Path, name: str) -> Path:
        """Return the checkpoint that `--ckpt_path` names, after a look into it; raise `UserError` for none."""
        path = {"last": lambda: Run(run).last, "best": lambda: Run(run).best}.get(name, lambda: Path(name))()
        if not path.exists():
            raise UserError(f"found no checkpoint '{name}'; expected a path, or last or best of the run")
        refuse_damaged(path)
        if path.is_file():
            read_checkpoint(path)
        return path

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        config = self._chosen
        run = Path(config["run_dir"])
        fitting = self.subcommand == "fit"
        task, data = self.built
        task.connect(data)  # here alone: task, data and callbacks are given what they need of each other
        throughput, skips = Throughput(), Skips(data)
        callbacks: list[Callback] = [throughput, skips, SampleTable(data)]
        if config["trainer"]["enable_progress_bar"] is not False:
            callbacks.append(ProgressBar())
        if fitting:
            folder = run / "checkpoints"
            newest = Newest(folder, config["checkpoint_every"])
            forgetting = ForgettingMeter(
                self._get(self.config_init, "forgetting") or Forgetting(), newest, data
            )
            callbacks = [
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
                logger=[*self._loggers(run), *self._listed("trainer.logger")] if fitting else False,
                callbacks=[*self._listed("trainer.callbacks"), *callbacks],
                enable_model_summary=False,  # the table of optimizer groups says it better
                enable_checkpointing=fitting,
                **kwargs,
            )
        except UserError:
            raise
        except (MisconfigurationException, ValueError) as error:  # no such device, no such strategy
            raise UserError(f"trainer: {' '.join(str(error).split())}") from error
        trainer_options.check_precision(trainer.precision)
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:  # else the user has chosen another
            trainer.strategy.checkpoint_io = DurableCheckpointIO()
        return trainer

    def before_fit(self) -> None:
        """Raise `UserError` if the strategy cannot continue from the checkpoint."""
        if path := self._chosen.get("ckpt_path"):
            check_readable(Path(path), self.trainer.strategy)
            self.built[0].building.go_on(Path(path).absolute().parent.parent / "backbone")

    before_validate = before_fit

    def after_fit(self) -> None:
        """Evaluate the run's best checkpoint and write its report, if the recipe says so."""
        if not (self._chosen["report"] and self.trainer.is_global_zero):
            return
        from kebyt5_xm.evaluation.evaluate import evaluate
        from kebyt5_xm.evaluation.report import write_report

        run = Run(self._chosen["run_dir"])
        device, trusted = str(self.trainer.strategy.root_device), find_packages(run.config)
        write_report(run, evaluate(run, run_data(run, trusted), device, trusted).medium)

    def _loggers(self, run: Path) -> list[Logger]:
        path = self._chosen.get("ckpt_path")
        return [tensorboard(run, checkpoint_step(Path(path)) if path else None), MetricsLog(run)]

    def _listed(self, key: str) -> list[Any]:
        """Return what the recipe gives under `key` as a list; true, false and null give nothing."""
        value = self._get(self.config_init, key)
        return value if isinstance(value, list) else [] if value in (None, True, False) else [value]


def main(args: list[str]) -> None:
    """Run `train.py` with `args`; a `UserError` ends it with one line and exit code 2."""
    quiet()
    try:
        with exit_on_user_error():
            _run(expand_arguments(args))
    except Terminated as error:
        print(error, file=sys.stderr)
        raise SystemExit(error.exit_code) from None


def _run(args: list[str]) -> None:
    """Run `train.py`; what libraries raise for something the user can mend is raised as a `UserError`."""
    try:
        trusted, args = trusted_in(args)
        paths = config_paths(args)[0]
        with recipes_imports(paths, trusted, args), tempfile.TemporaryDirectory() as folder:
            TrainingCLI(
                merged_arguments(args, Path(folder)),
                paths,
                trainer_class=DurableTrainer,
                save_config_callback=SaveRecipe,
            )
    except SystemExit as ended:
        if isinstance(ended.__context__, KeyboardInterrupt):  # before the first step; Lightning ends with 1
            raise KeyboardInterrupt from None
        raise
    except ValueError as error:
        # Of torch's optimizers, whose groups are not those that were saved.
        if "loaded state dict" not in str(error):
            raise
        raise UserError(
            f"the checkpoint's optimizer has other groups than the recipe's ({error}); continue it with its own "
            "recipe (-c RUN/config.yaml), or start from its weights with model.backbone.weights"
        ) from error
    except RuntimeError as error:
        if is_of_killed_worker(error):
            raise UserError(KILLED_WORKER) from error
        if is_of_lost_rank(error):
            raise lost_rank(error) from error
        raise


def merged_arguments(args: list[str], folder: Path) -> list[str]:
    """Replace all `-c/--config FILE` in `args` by one merged file in `folder`, put first."""
    paths, rest = config_paths(args)
    if not paths:
        return rest
    merged = folder / "merged.yaml"
    merged.write_text(recipes.written(recipes.merge(paths)), encoding="utf-8")
    return [*rest[:1], "--config", str(merged), *rest[1:]]
