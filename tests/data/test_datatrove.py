"""The datatrove steps, tested with a stub that calls them as datatrove's executors do."""

import importlib
import sys
from collections import Counter, deque
from copy import deepcopy
from dataclasses import dataclass
from types import ModuleType

import pytest

from kebyt5_xm.data.text.store import Store
from kebyt5_xm.errors import UserError


@dataclass
class Document:
    """Like datatrove's: a text and an id that names file and line."""

    text: str
    id: str


class PipelineStep:
    """Like datatrove's: it collects statistics, and the executor consumes the iterator that `run` returns."""

    def __init__(self) -> None:
        self.stats: Counter[str] = Counter()

    def stat_update(self, *labels: str, value: int = 1) -> None:
        for label in labels:
            self.stats[label] += value


@pytest.fixture
def steps(monkeypatch):
    modules = {name: ModuleType(name) for name in ("datatrove", "datatrove.data", "datatrove.pipeline.base")}
    modules["datatrove.data"].Document = Document
    modules["datatrove.pipeline.base"].PipelineStep = PipelineStep
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(sys.modules, "datatrove.pipeline", ModuleType("datatrove.pipeline"))
    monkeypatch.delitem(sys.modules, "kebyt5_xm.data.text.datatrove", raising=False)
    yield importlib.import_module("kebyt5_xm.data.text.datatrove")
    sys.modules.pop("kebyt5_xm.data.text.datatrove", None)


def execute(step, texts=(), rank=0, world_size=1):
    step = deepcopy(step)
    documents = (Document(text, f"{rank}/{i}") for i, text in enumerate(texts))
    deque(step.run(documents, rank, world_size), maxlen=0)
    return step.stats


def test_ranks_write_shards_and_one_task_finishes(steps, tmp_path):
    write, finish = (
        steps.WriteStore(str(tmp_path / "store"), "ko"),
        steps.FinishStore(str(tmp_path / "store")),
    )
    stats = execute(write, ["둘", "half \ud800", "셋", " "], 1, 3)
    assert stats == {"documents": 2, "bytes": 8, "invalid UTF-8": 1, "empty": 1}
    execute(write, ["하나"], 0, 3)
    with pytest.raises(UserError, match=r"1 of 3 ranks have not .*rank 2"):
        execute(finish)
    with pytest.raises(UserError, match="unfinished"):
        Store(tmp_path / "store")
    with pytest.raises(UserError, match=r"begun with .*'ranks': 3"):
        execute(write, ["넷"], 0, 2)
    execute(write, [], 2, 3)
    execute(write, ["둘", "셋"], 1, 3)  # datatrove ran this rank again
    execute(finish)
    store = Store(tmp_path / "store")
    assert [store.document(i).decode() for i in range(store.num_documents)] == ["하나", "둘", "셋"]
    assert sorted(path.name for path in store.path.iterdir() if path.name[0] != "0") == [
        "errors.jsonl",
        "store.json",
    ]
    with pytest.raises(UserError, match="finished store"):
        execute(write, ["넷"], 0, 3)


def test_without_datatrove_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "datatrove", None)
    monkeypatch.delitem(sys.modules, "kebyt5_xm.data.text.datatrove", raising=False)
    with pytest.raises(UserError, match="pip install"):
        importlib.import_module("kebyt5_xm.data.text.datatrove")
