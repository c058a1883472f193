"""Label smoothing: the training loss with a share of every label spread over the ids that an answer may hold.

The labels become (1 - s) of the true id and s / 257 of each of the 256 bytes and the end of sequence (Szegedy et al.
2016, section 7, over the whole vocabulary there). Sentinels, padding and the unknown id get nothing: no answer ends
or goes on with them.
"""

from torch import Tensor

from kebyt5_xm.data.batch import IGNORE_INDEX
from kebyt5_xm.errors import UserError
from kebyt5_xm.vocabulary import BYTE_OFFSET, EOS_ID

NUM_BYTES = 256
MAX_SMOOTHING = 0.5
"""More than half of a label would say nothing of it; published values are 0.1 and 0.2."""


def check_smoothing(smoothing: float) -> None:
    """Raise `UserError` for a share out of range."""
    if not 0 <= smoothing <= MAX_SMOOTHING:
        raise UserError(
            f"model.label_smoothing is {smoothing:g}; expected 0 to {MAX_SMOOTHING:g}, such as 0.1"
        )


def smooth(losses: Tensor, logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """Return the smoothed losses [B, T] in nats, zero where `labels` [B, T] are `IGNORE_INDEX`.

    `losses` [B, T] are the negative log-likelihoods of the labels by `logits` [B, T, V]. The logarithm of
    the softmax's sum is the same for every id, so the rest follows from logits: losses + s (the label's - mean).
    """
    bytes_and_end = logits[..., BYTE_OFFSET : BYTE_OFFSET + NUM_BYTES].sum(-1, dtype=losses.dtype)
    bytes_and_end = bytes_and_end + logits[..., EOS_ID]
    valid = labels != IGNORE_INDEX
    of_label = logits.gather(-1, labels.masked_fill(~valid, EOS_ID)[..., None])[..., 0].to(losses.dtype)
    # `where`, as a logit that is not finite must not reach padding's zeros
    return losses + smoothing * (of_label - bytes_and_end / (NUM_BYTES + 1)).where(valid, 0.0)
