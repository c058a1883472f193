"""Encoders, one file per library. Each file imports its library; none is imported by `kebyt5_xm`."""
