"""When a rank has ended: what the others, which wait for it in a collective operation, say of it."""

from kebyt5_xm.errors import UserError, first_line

PHRASES = ("closed by peer", "reset by peer", "Broken pipe", "remote process exited")
"""Of gloo's and NCCL's errors where the other end of a connection is gone."""


def is_of_lost_rank(error: RuntimeError) -> bool:
    """Say whether a collective operation raised this because another rank is gone."""
    return any(phrase in str(error) for phrase in PHRASES)


def lost_rank(error: RuntimeError) -> UserError:
    """Return what to tell the user in place of `error`."""
    return UserError(
        f"another rank has ended ({first_line(error)}); mend what its own message says, and continue with "
        "--ckpt_path last"
    )
