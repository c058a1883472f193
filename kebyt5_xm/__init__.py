"""A cross-modal extension framework for a Korean-enhanced byte-level T5."""

from kebyt5_xm.ours import register_encoders

register_encoders()
