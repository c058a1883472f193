"""Encoders, one file per library. Each file imports its library; `kebyt5_xm` imports none of them."""
