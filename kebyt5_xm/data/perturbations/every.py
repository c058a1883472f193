"""All perturbations, in the order of reports."""

from kebyt5_xm.data.perturbations import Perturbation
from kebyt5_xm.data.perturbations.media import BandLimit, Blur, Jpeg, Noise
from kebyt5_xm.data.perturbations.text import ByteNoise, Homoglyphs, Jamo, MissingSpaces, Typos

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
