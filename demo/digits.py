"""Real handwritten digits from scikit-learn, as PNG files with captions in four languages."""

from pathlib import Path

import numpy as np

from demo.manifests import Manifests, content_hash, write_manifests
from demo.numbers import DIGITS, LANGUAGES
from kebyt5_xm.errors import UserError

SIDE = 32  # pixels; the originals are 8 x 8
HELD_OUT_ONE_IN = 5
CAPTIONS = {"ko": "숫자 {}", "en": "the digit {}", "zh": "数字{}", "ja": "数字の{}"}
WRITTEN = DIGITS | {"ja": DIGITS["zh"]}  # a caption has kanji; only speech needs kana


def write_digits(folder: Path) -> Manifests:
    """Write images/NNNN.png (grey, 32 x 32), train.jsonl and heldout.jsonl; return the manifests.

    Columns: image, caption, language (ko, en, zh, ja), digit. A training image has a row in each language, a
    held-out image one row, its language by turns. One image in five is held out, by the hash of its pixels,
    so that equal images fall on one side. 1797 images of 43 writers (UCI, Alpaydin & Kaynak 1998).
    Raises UserError if scikit-learn or Pillow is not installed.
    """
    try:
        from PIL import Image
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise UserError(f"the demo's digits need {error.name}; run: pip install 'kebyt5-xm[demo]'") from error
    pixels, digits = load_digits(return_X_y=True)
    grey = np.rint(pixels.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)  # the originals count to 16
    (folder / "images").mkdir(parents=True, exist_ok=True)
    train, heldout = [], []
    for number, (image, digit) in enumerate(zip(grey, digits.tolist(), strict=True)):
        name = f"images/{number:04}.png"
        Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(folder / name)
        rows = [
            {
                "image": name,
                "caption": CAPTIONS[language].format(WRITTEN[language][digit]),
                "language": language,
                "digit": digit,
            }
            for language in LANGUAGES
        ]
        if content_hash(image.tobytes()) % HELD_OUT_ONE_IN == 0:
            heldout.append(rows[len(heldout) % len(LANGUAGES)])
        else:
            train.extend(rows)
    return write_manifests(folder, train, heldout)
