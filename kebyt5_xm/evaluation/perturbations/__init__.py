"""Perturbations: damage to texts, images and recordings, one file a kind, for curves of what it costs a model."""

from kebyt5_xm.evaluation.perturbations.audio import BandLimit, Noise
from kebyt5_xm.evaluation.perturbations.image import Blur, Jpeg
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
