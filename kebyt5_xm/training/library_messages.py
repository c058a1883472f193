"""Messages of libraries: known-harmless ones are silenced, errors that users can mend become a `UserError`."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from kebyt5_xm.data.loading.loader import KILLED_WORKER, is_of_killed_worker
from kebyt5_xm.errors import UserError, first_line

SILENCED_PREFIXES = (
    # An advertisement of Lightning 2.6.
    "💡 Tip:",
    # transformers 5: T5Config ignores `tie_word_embeddings: false` of config.json, so every T5 with its own head gets
    # this advice on loading. The weights are loaded correctly.
    "The tied weights mapping and config for this model specifies to tie shared.weight to lm_head.weight",
)
"""Log messages that begin with one of these are silenced."""

SILENCED_WARNINGS = (
    # Lightning 2.6.6 calls a class that torch 2.11 deprecates.
    r".*isinstance\(treespec, LeafSpec\)",
    # Frozen encoders are in evaluation mode on purpose; the table of optimizer groups shows what trains.
    r"Found \d+ module\(s\) in eval mode at the start of training",
    # Metrics are reduced over the ranks before they are logged.
    r"It is recommended to use `self\.log\(.*sync_dist=True\)`",
    # A continued run writes to its own directory.
    r"Checkpoint directory .* exists and is not empty",
    # `validate` needs none of the callbacks of `fit`.
    r"Be aware that when using `ckpt_path`, callbacks used to create the checkpoint need to be provided",
)
"""Patterns of warnings that do not apply here."""

LOST_RANK_PHRASES = ("closed by peer", "reset by peer", "Broken pipe", "remote process exited")
"""In errors of gloo and NCCL when the process at the other end of a connection has ended."""


class _PrefixFilter(logging.Filter):
    def __init__(self) -> None:
        super().__init__()
        self.prefixes: tuple[str, ...] = SILENCED_PREFIXES

    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(self.prefixes)


_prefix_filter = _PrefixFilter()


def silence(*prefixes: str) -> None:
    """Silence known-harmless messages and warnings, and log messages that begin with one of `prefixes`.

    Call this before Lightning's first message.
    """
    import lightning
    import transformers

    _prefix_filter.prefixes += prefixes
    # Filters go on handlers: the filter of a logger does not see the messages of its children.
    for name in (lightning.__name__, "lightning.pytorch", "lightning.fabric", transformers.__name__):
        for handler in logging.getLogger(name).handlers:
            handler.addFilter(_prefix_filter)
    for pattern in SILENCED_WARNINGS:
        warnings.filterwarnings("ignore", pattern)


@contextmanager
def explain_errors() -> Iterator[None]:
    """Raise a `UserError` for an error of a library that the user can mend, and `KeyboardInterrupt` for Ctrl-C."""
    try:
        yield
    except SystemExit as ended:
        if isinstance(ended.__context__, KeyboardInterrupt):  # before the first step; Lightning exits with 1
            raise KeyboardInterrupt from None
        raise
    except ValueError as error:
        # torch's optimizers raise this when the checkpoint has other parameter groups.
        if "loaded state dict" not in str(error):
            raise
        raise UserError(
            f"the checkpoint's optimizer has other groups than the recipe's ({error}); continue it with its own "
            "recipe (-c RUN/config.yaml), or start from its weights with model.backbone.weights"
        ) from error
    except RuntimeError as error:
        if is_of_killed_worker(error):
            raise UserError(KILLED_WORKER) from error
        if any(phrase in str(error) for phrase in LOST_RANK_PHRASES):
            raise UserError(
                f"another rank has ended ({first_line(error)}); mend the error that it printed, and continue with "
                "--ckpt_path last"
            ) from error
        raise
