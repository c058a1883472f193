"""Decoding: the ids that a model writes for its encoder's states.

`open_decoder` gives a `Decoder`, on which the searches are written: greedy and sampling (`search`), beams (`beams`).
"""

from kebyt5_xm.model.decoding.decoder import Decoder
from kebyt5_xm.model.decoding.opening import encode, open_decoder
from kebyt5_xm.model.decoding.search import greedy_decode

__all__ = ["Decoder", "encode", "greedy_decode", "open_decoder"]
