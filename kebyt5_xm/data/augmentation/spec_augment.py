"""SpecAugment: stretches of time and bands of frequency taken out of prepared frames."""

import numpy as np
from torch import Tensor

from kebyt5_xm.data.augmentation.recordings import torchaudio_functional
from kebyt5_xm.data.augmentation.transformation import Transformation, seeded
from kebyt5_xm.errors import UserError


class SpecAugment(Transformation):
    """Sets random stretches of frames, and random bands, to the mean of the recording (Park et al. 2019).

    It takes what the encoder's preprocessor made, [frames, bands]; encoders of raw waveforms have no frames. It comes
    after all changes of the recording itself. There is no time warping, which the paper found to matter least.

    Args:
        time_masks: stretches of time to take out.
        time_width: the most frames of one.
        time_share: the most frames of one as a share of the recording's.
        frequency_masks: bands to take out.
        frequency_width: the most columns of one.
        probability: share of the recordings that are changed.

    The defaults are the paper's policy SM (table 1), for Switchboard.
    """

    kind = "prepared"

    def __init__(
        self,
        time_masks: int = 2,
        time_width: int = 70,
        time_share: float = 0.2,
        frequency_masks: int = 2,
        frequency_width: int = 15,
        probability: float = 1.0,
    ) -> None:
        super().__init__(probability)
        counts = {"time_masks": time_masks, "frequency_masks": frequency_masks}
        widths = {"time_width": time_width, "frequency_width": frequency_width}
        for name, value in (counts | widths).items():
            if value < 0:
                raise UserError(f"SpecAugment has {name} {value}, expected 0 or more; correct it")
        if not time_masks * time_width and not frequency_masks * frequency_width:
            raise UserError(
                f"SpecAugment has time_masks {time_masks} of width {time_width} and frequency_masks "
                f"{frequency_masks} of width {frequency_width}, which takes nothing out; raise one of each pair, or "
                "take SpecAugment out"
            )
        if not 0 < time_share <= 1:
            raise UserError(f"SpecAugment has time_share {time_share}, expected more than 0 and at most 1")
        self.time_masks, self.time_width, self.time_share = time_masks, time_width, time_share
        self.frequency_masks, self.frequency_width = frequency_masks, frequency_width

    def apply(self, item: Tensor, generator: np.random.Generator) -> Tensor:  # [frames, bands]
        if item.ndim != 2:
            raise UserError(
                f"SpecAugment found prepared input of shape {list(item.shape)}, expected [frames, bands]; take it out"
            )
        mask = torchaudio_functional("SpecAugment").mask_along_axis
        time_width = min(self.time_width, int(self.time_share * item.shape[0]))
        mean = float(item.mean())
        with seeded(int(generator.integers(1 << 63))):
            for _ in range(self.time_masks):
                item = mask(item, time_width, mean, axis=0)
            for _ in range(self.frequency_masks):
                item = mask(item, min(self.frequency_width, item.shape[1]), mean, axis=1)
        return item
