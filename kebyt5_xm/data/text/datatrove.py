"""Pipeline steps for datatrove that write a text store; they run locally, on SLURM or on Ray.

    pipeline = [JsonlReader("s3://bucket/crawl/"), ..., WriteStore("/shared/stores/ko", language="ko")]
    write = SlurmPipelineExecutor(pipeline, tasks=1000, ...)
    SlurmPipelineExecutor([FinishStore("/shared/stores/ko")], tasks=1, depends=write, ...).run()

Each task writes one shard. All tasks must use the same folder.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from kebyt5_xm.data.text.documents import Problem, ReadOptions, filter_documents
from kebyt5_xm.data.text.shards import load_report, make_shard, merge_shards
from kebyt5_xm.data.text.store_folder import join_store, read_options, remove_leftovers
from kebyt5_xm.errors import UserError

try:
    from datatrove.data import Document  # pyright: ignore[reportMissingImports]  # not among our dependencies
    from datatrove.pipeline.base import PipelineStep  # pyright: ignore[reportMissingImports]
except ImportError as error:
    raise UserError(
        f"cannot import datatrove ({error}), expected version 0.10 or newer: pip install 'datatrove>=0.10'"
    ) from error


class WriteStore(PipelineStep):
    """The last step of a pipeline: writes its documents as shard number `rank`.

    Args:
        path: folder of the store.
        language: BCP 47 code of the text.
        separator: bytes after every document.
        reading: which documents are skipped; only `invalid_utf8` (lone surrogates) and `max_document_bytes` apply.
    """

    type = "💽 - WRITER"
    name = "🗄 kebyt5-xm store"

    def __init__(
        self,
        path: str,
        language: str,
        separator: bytes = b"\n",
        reading: ReadOptions = ReadOptions(),  # noqa: B008  # frozen
    ) -> None:
        super().__init__()
        self.path = path
        self.language = language
        self.separator = separator
        self.reading = reading

    def run(self, data: Iterable[Document], rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        out = Path(self.path)
        join_store(out, {"language": self.language, "separator": self.separator.hex(), "ranks": world_size})
        report = make_shard(out, rank, self.separator, self._batches(data))
        self.stat_update("documents", value=report.shard.documents)
        self.stat_update("bytes", value=report.shard.bytes)
        for cause, count in report.problems.items():
            self.stat_update(cause, value=count)
        yield from ()

    def _batches(self, data: Iterable[Document]) -> Iterator[tuple[int, list[bytes], list[Problem], int]]:
        for number, document in enumerate(data, start=1):
            raw = document.text.encode("utf-8", "surrogatepass")
            yield 1, *filter_documents(document.id, number, [raw], self.reading)


class FinishStore(PipelineStep):
    """Combines the shards of all ranks into a store; run it in one task after the last `WriteStore`.

    Raises:
        UserError: a rank has not finished its shard, or there are no documents.
    """

    type = "💽 - WRITER"
    name = "🗄 kebyt5-xm store: finish"

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def run(
        self, data: Iterable[Document] | None = None, rank: int = 0, world_size: int = 1
    ) -> Iterator[Document]:
        out = Path(self.path)
        options = read_options(out)
        reports = [load_report(out, number) for number in range(options["ranks"])]
        missing = [number for number, report in enumerate(reports) if report is None]
        if missing:
            raise UserError(
                f"{out}: {len(missing)} of {len(reports)} ranks have not written their shard (first: rank "
                f"{missing[0]}): run them again"
            )
        merge_shards(
            out,
            options["language"],
            bytes.fromhex(options["separator"]),
            [report for report in reports if report],
            continues=[False] * len(reports),
            made_from={"options": options},
        )
        remove_leftovers(out)
        yield from data or ()
