"""What one request may ask of the server. All defaults are our own choice."""

from dataclasses import dataclass

from kebyt5_xm.data.media.reference import Limits
from kebyt5_xm.errors import UserError


@dataclass(frozen=True)
class ServingLimits:
    """Limits of requests and of the server.

    Args:
        max_bytes: of the body of a request.
        max_pixels: of an image.
        max_seconds: of a recording.
        max_input_ids: encoder positions of an input: bytes of text, slots of media, the end of sequence. Attention
            holds its square per head.
        max_new_tokens: bytes of an answer.
        max_answers: answers to a request, and beams.
        max_labels: labels of a request.
        max_request_seconds: from the first byte of a request to the last of its answer.
        max_requests: requests in the server, waiting or running; more get 429.
        max_batch_size: requests that are answered together.
        gather_seconds: how long a request waits for others to join it.

    Raises `UserError` for a value that is not positive.
    """

    max_bytes: int = 32_000_000
    max_pixels: int = 64_000_000
    max_seconds: float = 600.0
    max_input_ids: int = 4096
    max_new_tokens: int = 1024
    max_answers: int = 8
    max_labels: int = 256
    max_request_seconds: float = 120.0
    max_requests: int = 64
    max_batch_size: int = 16
    gather_seconds: float = 0.005

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 < value < float("inf"):
                raise UserError(f"found {name}={value}, expected a number above 0")

    @property
    def media(self) -> Limits:
        """The limits for media that are opened. An array has at most as many values as an image has pixels."""
        return Limits(self.max_pixels, self.max_seconds, self.max_pixels)

    @property
    def max_batch_ids(self) -> int:
        """Encoder positions of a batch, padding included: twice the longest input."""
        return 2 * self.max_input_ids
