"""Questions on images, answered by several people: KVQA, and the two files of VQA."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kebyt5_xm.data.layouts.json_file import load_json, objects
from kebyt5_xm.data.layouts.layout import Layout, Row
from kebyt5_xm.errors import UserError


class VisualQuestions(Layout):
    """One row a question: `image`, `question`, `answers` (a list, one a person) and `answer`, the most frequent one.

    As published: KVQA (`KVQA_annotations_train.json` and others), an array of objects with `image`, `question` and
    `answers`, which are texts or objects with `answer`; and VQA v2 (`v2_OpenEndedQuestions_train2014_questions.json`
    and `v2_mscoco_train2014_annotations.json`), where questions and answers are in two files and meet by
    `question_id`. A question without an answer has null in their place.

    Args:
        annotations: the file of the answers beside that of the questions, where these are two.
        image: the path of an image by its number, such as `train2014/COCO_train2014_{image_id:012d}.jpg`, where
            the objects have an `image_id` and no `image`.
        root: the folder of the images, from that of the file.
    """

    def __init__(self, annotations: str | None = None, image: str | None = None, root: str = ".") -> None:
        self.annotations, self.image, self.root = annotations, image, root
        try:
            (image or "").format(image_id=7)
        except (ValueError, LookupError, AttributeError) as error:
            raise UserError(
                f"found the image {image!r} ({error}), expected a path with {{image_id}}"
            ) from None

    def files(self, path: Path) -> list[Path]:
        return [path] if self.annotations is None else [path, path.parent / self.annotations]

    def read(self, path: Path) -> Iterator[Row]:
        if self.annotations is None:
            entries = objects(load_json(path), str(path))
        else:
            entries = self._joined(path, path.parent / self.annotations)
        for place, entry in entries:
            answers = _answers(entry)
            yield {
                "image": self._image(entry, place),
                "question": entry.get("question"),
                "answers": answers or None,
                "answer": Counter(answers).most_common(1)[0][0] if answers else None,
            }

    def _joined(self, questions: Path, annotations: Path) -> Iterator[tuple[str, dict[str, Any]]]:
        by_question = {
            entry.get("question_id"): entry
            for _, entry in objects(load_json(annotations), str(annotations), "annotations")
        }
        for place, entry in objects(load_json(questions), str(questions), "questions"):
            yield place, {**by_question.get(entry.get("question_id"), {}), **entry}

    def _image(self, entry: dict[str, Any], place: str) -> str:
        if isinstance(entry.get("image"), str):
            return entry["image"]
        number = entry.get("image_id")
        if self.image is None or type(number) is not int:
            raise UserError(
                f"{place} has the keys {', '.join(entry)[:200]}, expected the path image, or a number image_id and "
                "`image` in the settings of `format` to make a path of it"
            )
        return self.image.format(image_id=number)


def _answers(entry: dict[str, Any]) -> list[str]:
    """Return the answers as they come, the same one as often as it was given."""
    given = entry.get("answers", entry.get("answer"))
    items = given if isinstance(given, list) else [given]
    texts = [item.get("answer") if isinstance(item, dict) else item for item in items]
    return [str(text).strip() for text in texts if text is not None and str(text).strip()]
