"""The implementations of attention that a recipe can name. Imports no torch."""

from typing import Literal

from kebyt5_xm.errors import UserError

Implementation = Literal["sdpa", "flex", "triton", "eager"]
"""`sdpa` is torch's kernels, `flex` its FlexAttention, `triton` our kernel for a GPU, `eager` transformers' own: that
one can return attention weights, and knows no `Pattern`."""

NEED_A_GPU = WITHOUT_DROPOUT = ("flex", "triton")
"""Those that train on a GPU alone; they cannot drop attention weights either."""


def check_dropout(name: Implementation, dropout: float) -> None:
    """Raise `UserError` if the backbone has a dropout rate that the implementation does not know."""
    if dropout and name in WITHOUT_DROPOUT:
        raise UserError(
            f"backbone.dropout is {dropout}, but attention: {name} has no dropout of attention weights; set "
            "attention: sdpa, or dropout: 0"
        )
