"""What libraries print that is no use to who trains here: advertisements, and warnings of what is meant so.

Everything else is printed as ever.
"""

import logging
import warnings

UNTOLD = (
    # Of Lightning 2.6, an advertisement.
    "💡 Tip:",
    # Of transformers 5: T5Config forgets the `tie_word_embeddings: false` that is in config.json, so that every T5
    # with a head of its own gets this advice on loading; it is loaded right.
    "The tied weights mapping and config for this model specifies to tie shared.weight to lm_head.weight",
)
"""How the messages begin that are kept back."""

MEANT = (
    # Lightning 2.6.6 calls what torch 2.11 has deprecated; nobody but Lightning can change that.
    r".*isinstance\(treespec, LeafSpec\)",
    # A frozen encoder is in evaluation mode; the table of what trains tells of it.
    r"Found \d+ module\(s\) in eval mode at the start of training",
    # Figures are summed over the ranks before they are logged, and alike on all.
    r"It is recommended to use `self\.log\(.*sync_dist=True\)`",
    # A run is continued in its own folder.
    r"Checkpoint directory .* exists and is not empty",
    # `validate` needs none of the callbacks of a fit.
    r"Be aware that when using `ckpt_path`, callbacks used to create the checkpoint need to be provided",
)
"""Patterns of warnings that tell of a mistake where there is none."""


class _Untold(logging.Filter):
    def __init__(self) -> None:
        super().__init__()
        self.begun: tuple[str, ...] = UNTOLD

    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(self.begun)


_untold = _Untold()


def quiet(*untold: str) -> None:
    """Keep `UNTOLD`, messages that begin like one of `untold` and the warnings `MEANT` from being printed.

    To be called before Lightning's first message.
    """
    import lightning
    import transformers

    _untold.begun += untold
    # Handlers, not loggers: a logger's filter passes over what its children tell.
    for name in (lightning.__name__, "lightning.pytorch", "lightning.fabric", transformers.__name__):
        for handler in logging.getLogger(name).handlers:
            handler.addFilter(_untold)
    for pattern in MEANT:
        warnings.filterwarnings("ignore", pattern)
