"""Layouts of JSON documents: tables, reading comprehension (SQuAD), visual questions (VQA), Korean COCO captions."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from kebyt5_xm.data.layouts.layout import Layout, Row
from kebyt5_xm.data.tables.json_value import iterate_objects, load_json
from kebyt5_xm.errors import UserError


class JsonDocuments(Layout):
    """Rows of a JSON document: an array of objects, or an object with the array under a key.

    Published files: KLUE's YNAT, STS, NLI and RE (`ynat-v1.1_train.json`, `klue-sts-v1.1_train.json`,
    `klue-nli-v1.1_train.json`, `klue-re-v1.1_train.json`, and `_dev` of each). Nested objects become columns with
    dotted names (`labels.real-label`, `subject_entity.word`). Arrays of texts or numbers stay lists; other arrays are
    left out, because a prompt cannot use them.

    Args:
        key: where the array is, with dots between nested keys; the document itself if not given.
        root: the folder that media paths are relative to, given relative to the file's folder.
    """

    def __init__(self, key: str | None = None, root: str = ".") -> None:
        self.key, self.root = key, root

    def read(self, path: Path) -> Iterator[Row]:
        for place, entry in iterate_objects(load_json(path), str(path), self.key):
            try:
                row = flatten(entry)
            except RecursionError:
                raise UserError(
                    f"{place} is nested too deeply, expected a row of a table; remove it"
                ) from None
            yield row


def flatten(entry: dict[str, Any]) -> Row:
    """Return an object as a row: nested objects under dotted names, without arrays of objects or of arrays.

    A key that contains dots itself wins over a nested path of the same name.
    """
    row = dict(_flatten(entry))
    row.update((name, value) for name, value in entry.items() if name in row)
    return row


def _flatten(entry: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in entry.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{name}.")
        elif not isinstance(value, list) or not any(isinstance(item, list | dict) for item in value):
            yield f"{prefix}{name}", value


class Squad(Layout):
    """One row per question: `title`, `context`, `question`, `answers` (a list), `answer` (the first one) and `id`.

    Published files: KorQuAD 1.0 (`KorQuAD_v1.0_train.json`, `KorQuAD_v1.0_dev.json`) and KLUE-MRC
    (`klue-mrc-v1.1_train.json`, `klue-mrc-v1.1_dev.json`), whose `guid` becomes `id`. A question without answers that
    is not marked as unanswerable has null answers.

    Args:
        impossible: the answer of questions marked as unanswerable (`is_impossible`). KLUE-MRC is scored with an empty
            text for these.
    """

    def __init__(self, impossible: str = "") -> None:
        self.impossible = impossible

    def read(self, path: Path) -> Iterator[Row]:
        for place, entry in iterate_objects(load_json(path), str(path), "data"):
            for at, paragraph in iterate_objects(entry, place, "paragraphs"):
                for _, question in iterate_objects(paragraph, at, "qas"):
                    answers = self._list_answers(question)
                    yield {
                        "title": entry.get("title"),
                        "context": paragraph.get("context"),
                        "question": question.get("question"),
                        "answers": answers or None,
                        "answer": answers[0] if answers else None,
                        "id": question.get("id", question.get("guid")),
                    }

    def _list_answers(self, question: dict[str, Any]) -> list[str]:
        if question.get("is_impossible"):
            return [self.impossible]
        found = [answer.get("text") for answer in question.get("answers") or [] if isinstance(answer, dict)]
        return list(dict.fromkeys(text for text in found if text))


class VisualQuestions(Layout):
    """One row per question: `image`, `question`, `answers` (a list, one per annotator), `answer` (the most frequent).

    Published files: KVQA (`KVQA_annotations_train.json` and others), an array of objects with `image`, `question` and
    `answers`, which are texts or objects with `answer`; and VQA v2 (`v2_OpenEndedQuestions_train2014_questions.json`
    and `v2_mscoco_train2014_annotations.json`), two files whose questions and answers are joined by `question_id`. A
    question without an answer has null answers.

    Args:
        annotations: name of the answer file in the folder of the question file, if the answers are in their own file.
        image: path pattern of an image, such as `train2014/COCO_train2014_{image_id:012d}.jpg`, if the objects have
            an `image_id` instead of an `image`.
        root: the folder of the images, relative to the file's folder.
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
            entries = iterate_objects(load_json(path), str(path))
        else:
            entries = self._join(path, path.parent / self.annotations)
        for place, entry in entries:
            answers = _list_answers(entry)
            yield {
                "image": self._image_path(entry, place),
                "question": entry.get("question"),
                "answers": answers or None,
                "answer": Counter(answers).most_common(1)[0][0] if answers else None,
            }

    def _join(self, questions: Path, annotations: Path) -> Iterator[tuple[str, dict[str, Any]]]:
        by_question = {
            entry.get("question_id"): entry
            for _, entry in iterate_objects(load_json(annotations), str(annotations), "annotations")
        }
        for place, entry in iterate_objects(load_json(questions), str(questions), "questions"):
            yield place, {**by_question.get(entry.get("question_id"), {}), **entry}

    def _image_path(self, entry: dict[str, Any], place: str) -> str:
        if isinstance(entry.get("image"), str):
            return entry["image"]
        number = entry.get("image_id")
        if self.image is None or type(number) is not int:
            raise UserError(
                f"{place} has the keys {', '.join(entry)[:200]}, expected a path image or a number image_id; for a "
                "number set `image` in the settings of `format`"
            )
        return self.image.format(image_id=number)


def _list_answers(entry: dict[str, Any]) -> list[str]:
    """Return all answers, repeated ones included."""
    given = entry.get("answers", entry.get("answer"))
    items = given if isinstance(given, list) else [given]
    texts = [item.get("answer") if isinstance(item, dict) else item for item in items]
    return [str(text).strip() for text in texts if text is not None and str(text).strip()]


class KoreanCaptions(Layout):
    """Rows of `image`, `id`, `caption` and `captions` (all Korean captions of the image).

    Published file (`MSCOCO_train_val_Korean.json`; AI Hub): an array of objects with `file_path`
    (`val2014/COCO_val2014_000000391895.jpg`), `captions` (English), `id` and `caption_ko` (Korean). The photographs
    are COCO's own. An image without captions has null in `caption` and `captions`.

    Args:
        rows: `caption` gives one row per caption, for training; `image` gives one row per image, for scoring against
            all its captions (`references: captions`).
        folder: read only the images of this folder; the file holds both `train2014` and `val2014`.
        root: the folder that `file_path` is relative to, given relative to the file's folder.
    """

    def __init__(
        self, rows: Literal["caption", "image"] = "caption", folder: str | None = None, root: str = "."
    ) -> None:
        self.rows, self.folder, self.root = rows, folder, root

    def read(self, path: Path) -> Iterator[Row]:
        for place, entry in iterate_objects(load_json(path), str(path)):
            image, texts = entry.get("file_path"), entry.get("caption_ko")
            if not isinstance(image, str) or not isinstance(texts, list):
                raise UserError(
                    f"{place} has the keys {', '.join(entry)[:200]}, expected file_path and a list caption_ko; give "
                    "MSCOCO_train_val_Korean.json, or correct `format`"
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
