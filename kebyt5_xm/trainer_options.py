"""Trainer options of Lightning that say here what is said elsewhere, or that a run by steps does not know."""

from collections.abc import Mapping
from typing import Any

from kebyt5_xm.errors import UserError

DEFAULTS: dict[str, Any] = {
    "max_epochs": 1,  # one epoch is the whole run: the plan knows no other
    "check_val_every_n_epoch": None,  # intervals count steps of the run
    "num_sanity_val_steps": 0,
    "log_every_n_steps": 10,
    "gradient_clip_val": 1.0,
}
"""Ours, where they differ from Lightning's."""

_STEPS = "trainer.max_steps is the length of a run"
_RUN_DIR = "run_dir names the folder of a run, which has its checkpoints"
REFUSED: dict[str, tuple[tuple[Any, ...], str]] = {
    "max_epochs": ((1, None), f"{_STEPS}, and `epochs` of a source how often its rows are passed"),
    "min_epochs": ((None,), _STEPS),
    "limit_train_batches": ((None, 1.0), _STEPS),
    "overfit_batches": ((0.0,), "a source of few rows is what a run can be made to overfit on"),
    "fast_dev_run": ((False, 0), f"{_STEPS}; `kebyt5-xm doctor` tries a recipe without training"),
    "reload_dataloaders_every_n_epochs": ((0,), "the order of a whole run is one plan"),
    "default_root_dir": ((None,), _RUN_DIR),
    "enable_checkpointing": ((None, True), f"{_RUN_DIR}; checkpoint_every tells how often they are written"),
    "barebones": ((False,), "a run is logged and saved"),
}
"""Option -> (values that change nothing, what to use in its place)."""


def check(trainer: Mapping[str, Any]) -> None:
    """Raise `UserError` for an option of `trainer` in a recipe that would be passed over or end a run too early."""
    for name, (harmless, instead) in REFUSED.items():
        value = trainer.get(name)
        if value not in harmless:
            raise UserError(
                f"found trainer.{name} {value}, which means nothing here: {instead}; leave it out"
            )
