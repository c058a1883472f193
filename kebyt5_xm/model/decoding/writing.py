"""One answer while it is written: its ids, the text that is complete so far, and why it ended."""

import codecs
from collections.abc import Iterable
from typing import Literal

from kebyt5_xm.model.decoding.loops import CHECK_EVERY, find_loop
from kebyt5_xm.model.decoding.utf8 import MAX_BYTES
from kebyt5_xm.vocabulary import EOS_ID, decode_bytes

FinishReason = Literal["stop", "length", "loop", "cancelled"]
"""`stop`: the model ended it. `length`: it is as long as it may be, or so nearly that a character may not have
fitted. `loop`: it repeated one phrase. `cancelled`: the caller ended it."""


class WrittenRow:
    """An answer that grows by ids.

    Args:
        max_length: the most ids.
        valid_utf8: the ids are those of valid UTF-8; a character that is still incomplete at the end is left out.
        stop_loops: end it when it repeats one phrase (`kebyt5_xm.model.decoding.loops`).
    """

    def __init__(self, max_length: int, valid_utf8: bool, stop_loops: bool = False) -> None:
        self.ids: list[int] = []
        self.finish_reason: FinishReason | None = None
        self._max_length, self._valid_utf8, self._stop_loops = max_length, valid_utf8, stop_loops
        self._looked = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._shown = 0

    def add(self, ids: Iterable[int]) -> None:
        """Append the next ids, up to the end of sequence; nothing once the answer has ended."""
        if self.finish_reason is not None:
            return
        for id_ in ids:
            self.ids.append(id_)
            if id_ == EOS_ID:
                may_not_fit = self._valid_utf8 and len(self.ids) > self._max_length - (MAX_BYTES - 1)
                self.finish_reason = "length" if may_not_fit else "stop"
                return
        if len(self.ids) >= self._max_length:
            self.finish_reason = "length"
        elif self._stop_loops and len(self.ids) - self._looked >= CHECK_EVERY:
            self._looked = len(self.ids)
            if find_loop(decode_bytes(self.ids)):
                self.finish_reason = "loop"

    def end(self, reason: FinishReason) -> None:
        """End the answer unless it has ended."""
        self.finish_reason = self.finish_reason or reason

    def take(self) -> str:
        """Return the text that was completed since the last call; never a part of a character."""
        new, self._shown = self.ids[self._shown :], len(self.ids)
        is_last = self.finish_reason is not None and not self._valid_utf8
        return self._decoder.decode(decode_bytes(new), is_last)

    @property
    def raw(self) -> bytes:
        """The bytes of the answer; whole characters if it is valid UTF-8."""
        raw = decode_bytes(self.ids)
        return raw.decode("utf-8", "ignore").encode() if self._valid_utf8 else raw
