"""Augmentation: random changes of training examples, drawn anew every time that a row is used.

What is drawn for an example is a pure function of the run's seed and of the number of the example in the run. So it
depends neither on data workers nor on ranks, and a resumed run draws the same.
"""

from kebyt5_xm.data.augmentation.images import Crop
from kebyt5_xm.data.augmentation.noise import Noise
from kebyt5_xm.data.augmentation.perturb import Perturb
from kebyt5_xm.data.augmentation.recordings import Gain, Room, Speed
from kebyt5_xm.data.augmentation.spec_augment import SpecAugment
from kebyt5_xm.data.augmentation.transformation import Transformation

__all__ = ["Crop", "Gain", "Noise", "Perturb", "Room", "SpecAugment", "Speed", "Transformation"]
