"""Trainer options of Lightning that are refused: they repeat other options, or do not fit T5 or runs by steps."""

from collections.abc import Iterator, Mapping
from typing import Any

from kebyt5_xm.errors import UserError

DEFAULTS: dict[str, Any] = {
    "max_epochs": 1,  # one epoch is the whole run
    "check_val_every_n_epoch": None,  # intervals count steps of the run
    "num_sanity_val_steps": 0,
    "log_every_n_steps": 10,
    "gradient_clip_val": 1.0,
}
"""Our defaults where they differ from Lightning's."""

_STEPS = "trainer.max_steps is the length of a run"
_RUN_DIR = "run_dir names the folder of a run and of its checkpoints"
REFUSED: dict[str, tuple[tuple[Any, ...], str]] = {
    "max_epochs": ((1, None), f"{_STEPS}, and `epochs` of a source is how often its rows are used"),
    "min_epochs": ((None,), _STEPS),
    "limit_train_batches": ((None, 1.0), _STEPS),
    "overfit_batches": ((0.0, 0), "give a source with few rows to overfit on it"),
    "fast_dev_run": ((False, 0), f"{_STEPS}; `kebyt5-xm doctor` tries a recipe without training"),
    "reload_dataloaders_every_n_epochs": ((0,), "the order of a whole run is one plan"),
    "default_root_dir": ((None,), _RUN_DIR),
    "enable_checkpointing": (
        (None, True),
        f"{_RUN_DIR}; checkpoint_every is the number of steps between them",
    ),
    "barebones": ((False,), "a run always logs and saves"),
}
"""Option -> (allowed values, of exactly that type: 1 is one batch, 1.0 is all; what to use instead)."""

FP16_NAMES = ("16", "16-true", "16-mixed", "transformer-engine-float16")
"""Names of fp16 in Lightning 2.6, as texts (16 may also be an integer), with that of Transformer Engine."""


def check(trainer: Mapping[str, Any], is_complete: bool = True) -> None:
    """Raise `UserError` for an option of `trainer` that would be ignored, end a run too early, or use fp16.

    `is_complete` says that the parser has filled in all options. Otherwise only the given options are checked.
    """
    for name, (allowed, instead) in REFUSED.items():
        if not is_complete and name not in trainer:
            continue
        value = trainer.get(name)
        if not any(type(value) is type(other) and value == other for other in allowed):
            near = [other for other in allowed if other == value]
            kind = f" ({_with_type(value)}, not {_with_type(near[0])})" if near else ""
            raise UserError(
                f"found trainer.{name} {value}{kind}, which is not supported here: {instead}; leave it out"
            )
    if found := next(_find_fp16(trainer), None):
        raise UserError(
            f"found {found}, but fp16 overflows in T5's feed-forward layers and the loss becomes NaN; expected "
            "bf16-mixed, bf16-true or 32-true"
        )


def check_precision(precision: str) -> None:
    """Raise `UserError` if a trainer computes in fp16, also by the default of a plugin or the environment."""
    check({"precision": precision}, is_complete=False)


def _with_type(value: object) -> str:
    return f"{type(value).__name__} {value}"


def _find_fp16(trainer: Mapping[str, Any]) -> Iterator[str]:
    """Yield every place that asks for fp16: the precision, a plugin, the configuration of DeepSpeed."""
    precision = trainer.get("precision")
    if str(precision) in FP16_NAMES and not isinstance(precision, bool):
        yield f"trainer.precision {precision}"
    plugins = trainer.get("plugins")
    for name, block in (
        *(("plugins", block) for block in (plugins if isinstance(plugins, list) else [plugins])),
        ("strategy", trainer.get("strategy")),
    ):
        if isinstance(block, str) and block in FP16_NAMES:
            yield f"trainer.{name} {block}"
        init_args = _get(block, "init_args")
        if str(_get(init_args, "precision")) in FP16_NAMES:
            yield f"trainer.{name} with precision {_get(init_args, 'precision')}"
        if _get(_get(_get(init_args, "config"), "fp16"), "enabled") is True:
            yield f"trainer.{name} with fp16.enabled"


def _get(block: Any, key: str) -> Any:
    """Return an entry of a mapping or of a parser's namespace; None for anything else."""
    getter = getattr(block, "get", None)
    return getter(key) if getter is not None else None
