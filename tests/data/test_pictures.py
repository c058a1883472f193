"""Pictures of odd modes, formats and damage: the right pixels and the right header, or refused in one line."""

import numpy as np
import pytest
from picture_cases import PICTURES

from kebyt5_xm.data.media.bad_sample import MediaError
from kebyt5_xm.data.media.opening import open_image, read_header
from kebyt5_xm.encoder import ImageHeader


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of a TIFF that was cut
def test_pixels_are_right_or_the_picture_is_refused(name: str) -> None:
    picture = PICTURES[name]()
    if picture.pixels is None:
        with pytest.raises(MediaError) as caught:
            open_image(picture.raw)
        assert str(caught.value).isprintable()
        return
    found = np.asarray(open_image(picture.raw))
    assert found.shape == picture.pixels.shape
    assert abs(found.astype(int) - picture.pixels).max() <= picture.tolerance
    assert read_header(picture.raw, "image") == ImageHeader(found.shape[1], found.shape[0])
