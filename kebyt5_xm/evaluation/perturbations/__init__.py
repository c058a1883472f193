"""Perturbations: damage to texts, images and recordings, for curves of what it costs a model."""

from kebyt5_xm.evaluation.perturbations.media import BandLimit, Blur, Jpeg, Noise
from kebyt5_xm.evaluation.perturbations.perturbation import Kind, Perturbation, generator
from kebyt5_xm.evaluation.perturbations.text import ByteNoise, Homoglyphs, Jamo, MissingSpaces, Typos

PERTURBATIONS: tuple[Perturbation, ...] = (
    Typos(),
    Jamo(),
    MissingSpaces(),
    Homoglyphs(),
    ByteNoise(),
    Blur(),
    Jpeg(),
    Noise(),
    BandLimit(),
)
"""All there are, in the order of reports."""

__all__ = [
    "PERTURBATIONS",
    "BandLimit",
    "Blur",
    "ByteNoise",
    "Homoglyphs",
    "Jamo",
    "Jpeg",
    "Kind",
    "MissingSpaces",
    "Noise",
    "Perturbation",
    "Typos",
    "generator",
]
