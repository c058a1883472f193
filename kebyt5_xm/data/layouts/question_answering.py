"""Questions on a text, with answers that are spans of it: the JSON of SQuAD."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kebyt5_xm.data.layouts.json_file import load_json, objects
from kebyt5_xm.data.layouts.layout import Layout, Row


class Squad(Layout):
    """One row a question: `title`, `context`, `question`, `answers` (a list), `answer` (its first) and `id`.

    As published: KorQuAD 1.0 (`KorQuAD_v1.0_train.json`, `KorQuAD_v1.0_dev.json`) and KLUE-MRC
    (`klue-mrc-v1.1_train.json`, `klue-mrc-v1.1_dev.json`), whose `guid` is the id here. A question without an answer
    that is not said to have none has null in their place.

    Args:
        impossible: the answer to write where a question is marked as one that the text does not answer
            (`is_impossible`). KLUE-MRC is scored with an empty text there.
    """

    def __init__(self, impossible: str = "") -> None:
        self.impossible = impossible

    def read(self, path: Path) -> Iterator[Row]:
        for place, entry in objects(load_json(path), str(path), "data"):
            for at, paragraph in objects(entry, place, "paragraphs"):
                for _, question in objects(paragraph, at, "qas"):
                    answers = self._answers(question)
                    yield {
                        "title": entry.get("title"),
                        "context": paragraph.get("context"),
                        "question": question.get("question"),
                        "answers": answers or None,
                        "answer": answers[0] if answers else None,
                        "id": question.get("id", question.get("guid")),
                    }

    def _answers(self, question: dict[str, Any]) -> list[str]:
        if question.get("is_impossible"):
            return [self.impossible]
        found = [answer.get("text") for answer in question.get("answers") or [] if isinstance(answer, dict)]
        return list(dict.fromkeys(text for text in found if text))
