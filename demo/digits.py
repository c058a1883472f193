"""Real handwritten digits from scikit-learn, as PNG files with captions in four languages."""

from pathlib import Path

import numpy as np

from demo.folder import Manifests, content_hash, write_manifests
from demo.speech import DIGIT_WORDS
from demo.text import LANGUAGES
from kebyt5_xm.errors import UserError

SIDE = 32  # pixels; the originals are 8 x 8
HELD_OUT_ONE_IN = 5
CAPTIONS = {"ko": "숫자 {}", "en": "the digit {}", "zh": "数字{}", "ja": "数字の{}"}
WRITTEN_DIGITS = DIGIT_WORDS | {"ja": DIGIT_WORDS["zh"]}  # captions have kanji; only speech needs kana


def write_digits(folder: Path) -> Manifests:
    """Write images/NNNN.png (grey, 32 x 32), train.jsonl and heldout.jsonl; return the manifests.

    Columns: image, caption, language (ko, en, zh, ja), digit. A training image has a row in each language, a
    held-out image one row, with languages in turn. One image in five is held out, by the hash of its pixels, so equal
    images are never on both sides. 1797 images of 43 writers (UCI, Alpaydin & Kaynak 1998).
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
                "caption": CAPTIONS[language].format(WRITTEN_DIGITS[language][digit]),
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
