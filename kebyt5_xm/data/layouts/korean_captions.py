"""Korean captions of the photographs of COCO."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from kebyt5_xm.data.layouts.json_file import load_json, objects
from kebyt5_xm.data.layouts.layout import Layout, Row
from kebyt5_xm.errors import UserError


class KoreanCaptions(Layout):
    """Rows of `image`, `id`, `caption` and `captions`, all Korean captions of the image.

    As published (`MSCOCO_train_val_Korean.json`; AI Hub): an array of objects with `file_path`
    (`val2014/COCO_val2014_000000391895.jpg`), `captions` (English), `id` and `caption_ko` (Korean). The photographs
    are COCO's own. An image without a caption has null in their place.

    Args:
        rows: `caption` for a row a caption, to train on; `image` for a row an image, to be judged by all its
            captions (`references: captions`).
        folder: takes the images of this folder alone; the one file holds `train2014` and `val2014`.
        root: the folder that `file_path` starts from, from that of the file.
    """

    def __init__(
        self, rows: Literal["caption", "image"] = "caption", folder: str | None = None, root: str = "."
    ) -> None:
        self.rows, self.folder, self.root = rows, folder, root

    def read(self, path: Path) -> Iterator[Row]:
        for place, entry in objects(load_json(path), str(path)):
            image, texts = entry.get("file_path"), entry.get("caption_ko")
            if not isinstance(image, str) or not isinstance(texts, list):
                raise UserError(
                    f"{place} has the keys {', '.join(entry)[:200]}, expected file_path and a list caption_ko; is it "
                    "another file?"
                )
            if self.folder is not None and not image.startswith(f"{self.folder.rstrip('/')}/"):
                continue
            captions = [text.strip() for text in texts if isinstance(text, str) and text.strip()]
            for caption in (captions or [None])[: 1 if self.rows == "image" else None]:
                yield {
                    "image": image,
                    "id": entry.get("id"),
                    "caption": caption,
                    "captions": captions or None,
                }
