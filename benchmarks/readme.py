"""README's tables of results, in both languages, and a paragraph of docs/data.md, from benchmarks/results/.

python -m benchmarks.readme            says which lines of these pages differ from the figures
python -m benchmarks.readme --write    replaces them; after `make bench`
"""

import argparse
import difflib
import json
import re
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.report import RESULTS, flatten

ROOT = Path(__file__).parents[1]
LANGUAGES = {"README.md": "en", "README.ko.md": "ko"}
PAGES = (*LANGUAGES, "docs/data.md")
HEADERS = {
    "en": "| | measured | compared with, in the same run | ratio |\n|---|---|---|---|",
    "ko": "| | 측정값 | 같은 실행에서 잰 비교 대상 | 비율 |\n|---|---|---|---|",
}
INTRODUCTIONS = {
    "en": "Measured {dates} on {machines}. After `make bench`, `python -m benchmarks.readme --write` writes this "
    "table. Rates are those of this machine; compare the ratios.",
    "ko": "{dates}에 쟀습니다({machines}). `make bench` 다음에 `python -m benchmarks.readme --write`가 이 표를 "
    "씁니다. 값은 이 기계의 것이므로 비율을 비교하세요.",
}
CORES = {"en": "{} cores of {}", "ko": "{1}의 코어 {0}개"}
OR = {"en": " or ", "ko": " 또는 "}
TO = {"en": " to ", "ko": "~"}
PACKING = (
    "Packing pads least, and attention computes no pair of different examples. On 2 CPU cores, with texts "
    "of 30 to 1,500 bytes (`benchmarks/results/loader.json`), {padded:.0%} of the positions hold nothing in "
    "the plan's order, {budgeted:.0%} by length and {packed:.0%} packed. A tiny model "
    "(`benchmarks/results/training.json`) trains {ratio:.2f}x as many useful bytes a second with packed rows as with "
    "batches by length. To see which is faster for your model and device, compare `bytes_per_second` in the "
    "RUN/results.json of two short runs."
)
WIDTH = 118


@dataclass(frozen=True)
class Row:
    """One row of the table.

    `values` are placeholders of the texts: name -> key of a figure in benchmarks/results/NAME.json, and its format. A
    key may contain the value of another figure in brackets.
    """

    benchmark: str
    values: Mapping[str, tuple[str, str]]
    en: str
    ko: str

    def text(self, language: str) -> str:
        """Return the row with its figures."""
        figures = flatten(_report(self.benchmark)["figures"])
        words = {
            name: format(figures[re.sub(r"\[(.+?)\]", lambda key: figures[key[1]], key)], spec)
            for name, (key, spec) in self.values.items()
        }
        return getattr(self, language).format_map(words)


def _trained(training: str, peer: str) -> dict[str, tuple[str, str]]:
    return {
        "ours": (f"{training}.[{training}.best_of_ours].useful_bytes_per_s", ",.0f"),
        "theirs": (f"{training}.[{training}.{peer}].useful_bytes_per_s", ",.0f"),
        "ratio": (f"{training}.ratio_ours_to_{peer}", ".2f"),
    }


def _decoded(case: str, kind: str, peer: str, ratio: str) -> dict[str, tuple[str, str]]:
    return {
        "ours": (f"{case}.{kind}_ms_per_byte", ".2f"),
        "theirs": (f"{case}.{peer}_ms_per_byte", ".2f"),
        "ratio": (f"{case}.ratio_{kind}_to_{ratio}", ".2f"),
    }


ROWS = (
    Row(
        "training",
        _trained("mixed", "best_peer"),
        "| useful bytes trained, texts of 30 to 1,500 bytes, tiny T5 | {ours} bytes/s | {theirs} bytes/s, "
        "transformers' T5 with length-grouped batches | {ratio}x |",
        "| 30~1,500바이트 텍스트로 작은 T5가 학습하는 유효 바이트 | {ours} 바이트/초 | {theirs} 바이트/초, "
        "길이별로 묶은 배치의 transformers T5 | {ratio}배 |",
    ),
    Row(
        "training",
        _trained("mixed", "best_tuned_peer"),
        "| the same, transformers with our environment variables | {ours} bytes/s | {theirs} bytes/s | {ratio}x |",
        "| 같은 학습, transformers에도 우리의 환경 변수 | {ours} 바이트/초 | {theirs} 바이트/초 | {ratio}배 |",
    ),
    Row(
        "training",
        _trained("demo", "best_peer"),
        "| bytes trained by the demo's text pretraining | {ours} bytes/s | {theirs} bytes/s, transformers' T5 "
        "| {ratio}x |",
        "| 데모의 텍스트 사전학습이 학습하는 바이트 | {ours} 바이트/초 | {theirs} 바이트/초, transformers T5 "
        "| {ratio}배 |",
    ),
    Row(
        "training",
        _trained("demo", "best_tuned_peer"),
        "| the same, transformers with our environment variables | {ours} bytes/s | {theirs} bytes/s | {ratio}x |",
        "| 같은 학습, transformers에도 우리의 환경 변수 | {ours} 바이트/초 | {theirs} 바이트/초 | {ratio}배 |",
    ),
    Row(
        "decoding",
        _decoded("demo", "fp32", "transformers", "transformers"),
        "| a byte of an answer, the demo's shape | {ours} ms | {theirs} ms, transformers' `generate` | {ratio}x |",
        "| 답 한 바이트, 데모의 크기 | {ours} ms | {theirs} ms, transformers의 `generate` | {ratio}배 |",
    ),
    Row(
        "decoding",
        _decoded("demo", "fp32", "ctranslate2_fp32", "ctranslate2"),
        "| the same | {ours} ms | {theirs} ms, CTranslate2 | {ratio}x |",
        "| 같은 답 | {ours} ms | {theirs} ms, CTranslate2 | {ratio}배 |",
    ),
    Row(
        "decoding",
        _decoded("byt5_small", "fp32", "transformers", "transformers"),
        "| a byte of an answer, byt5-small's shape | {ours} ms | {theirs} ms, transformers' `generate` | {ratio}x |",
        "| 답 한 바이트, byt5-small의 크기 | {ours} ms | {theirs} ms, transformers의 `generate` | {ratio}배 |",
    ),
    Row(
        "decoding",
        _decoded("byt5_small", "fp32", "ctranslate2_fp32", "ctranslate2"),
        "| the same | {ours} ms | {theirs} ms, CTranslate2 | {ratio}x |",
        "| 같은 답 | {ours} ms | {theirs} ms, CTranslate2 | {ratio}배 |",
    ),
    Row(
        "decoding",
        _decoded("byt5_small", "int8", "ctranslate2_int8", "ctranslate2"),
        "| the same in int8 | {ours} ms | {theirs} ms, CTranslate2 in int8 | {ratio}x |",
        "| 같은 답, int8 | {ours} ms | {theirs} ms, int8의 CTranslate2 | {ratio}배 |",
    ),
    Row(
        "serving",
        {
            "clients": ("clients", "d"),
            "seconds": ("seconds", ".0f"),
            "bytes": ("num_bytes", "d"),
            "ours": ("batches_of_16.requests_per_s", ",.0f"),
            "p50": ("batches_of_16.p50_ms", ",.0f"),
            "p99": ("batches_of_16.p99_ms", ",.0f"),
            "failed": ("batches_of_16.failed", "d"),
            "theirs": ("one_by_one.requests_per_s", ",.0f"),
            "ratio": ("ratio_batches_to_one_by_one", ".1f"),
        },
        "| `kebyt5-xm serve`, {clients} clients for {seconds} s, tiny T5, answers of {bytes} bytes | {ours} "
        "requests/s, {failed} failed, p50 {p50} ms, p99 {p99} ms | {theirs} requests/s without batches | {ratio}x |",
        "| `kebyt5-xm serve`, 클라이언트 {clients}개, {seconds}초, 작은 T5, {bytes}바이트 답 | 초당 요청 {ours}개, "
        "실패 {failed}개, p50 {p50} ms, p99 {p99} ms | 묶지 않으면 초당 요청 {theirs}개 | {ratio}배 |",
    ),
    Row(
        "bytes",
        {
            "ours": ("documents.encode_mb_per_s", ",.0f"),
            "theirs": ("documents.ByT5Tokenizer_mb_per_s", ".2f"),
            "ratio": ("documents.ratio_encode_to_ByT5Tokenizer", ".0f"),
        },
        "| text to byte ids | {ours} MB/s | {theirs} MB/s, `ByT5Tokenizer` | {ratio}x |",
        "| 텍스트를 바이트 id로 | {ours} MB/초 | {theirs} MB/초, `ByT5Tokenizer` | {ratio}배 |",
    ),
    Row(
        "denoising",
        {
            "ours": ("byte_boundaries.examples_per_s_at_batch_64", ",.0f"),
            "theirs": ("collator_examples_per_s", ",.0f"),
            "ratio": ("ratio_byte_batch_64_to_collator", ".1f"),
        },
        "| span denoising, inputs of 1024, batch 64, one core | {ours} examples/s | {theirs} examples/s, a "
        "per-example collator | {ratio}x |",
        "| 스팬 복원 예제 만들기, 입력 1024, 배치 64, 코어 하나 | {ours} 예/초 | {theirs} 예/초, 예제마다 도는 "
        "콜레이터 | {ratio}배 |",
    ),
    Row(
        "store",
        {
            "ours": ("memory.store.4_gb.resident_growth_mb", ".1f"),
            "theirs": ("memory.memmap.4_gb.resident_growth_mb", ",.0f"),
            "ratio": ("ratio_resident_growth_memmap_to_store", ",.0f"),
        },
        "| memory resident after random reads of a 4 GB store | {ours} MB | {theirs} MB, a memory map "
        "| {ratio}x |",
        "| 4 GB 저장소를 임의로 읽은 뒤의 상주 메모리 | {ours} MB | {theirs} MB, 메모리 맵 | {ratio}배 |",
    ),
    Row(
        "store",
        {
            "ours": ("tensors.4_gb.examples_per_s_in_process", ",.0f"),
            "theirs": ("tensors.4_gb.examples_per_s_from_1_worker", ",.0f"),
        },
        "| 4 GB store to denoised tensors, in the loading process | {ours} examples/s | {theirs} examples/s from "
        "one worker | |",
        "| 4 GB 저장소에서 텐서까지, 읽는 프로세스 안 | {ours} 예/초 | {theirs} 예/초, 작업 프로세스 하나를 거쳐 "
        "| |",
    ),
    Row(
        "manifest",
        {
            "ms": ("json_lines.opening_ms", ".1f"),
            "mb": ("json_lines.private_growth_mb_of_opening", ".1f"),
            "seconds": ("json_lines.indexing_s", ".1f"),
        },
        "| opening an indexed manifest of 10,000,000 rows | {ms} ms, {mb} MB | {seconds} s, indexing it once | |",
        "| 색인된 10,000,000행 매니페스트 열기 | {ms} ms, {mb} MB | {seconds}초, 한 번 색인하기 | |",
    ),
    Row(
        "loader",
        {"mb": ("budgeted.private_mb_of_a_worker", ".1f")},
        "| private memory of one data worker, texts of 30 to 1,500 bytes | {mb} MB | | |",
        "| 30~1,500바이트 텍스트를 읽는 작업 프로세스 하나의 전용 메모리 | {mb} MB | | |",
    ),
)


def _report(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def introduction(language: str) -> str:
    """Return the sentence above the table: dates and machines."""
    reports = [_report(name) for name in dict.fromkeys(row.benchmark for row in ROWS)]
    dates = sorted({report["date"][:10] for report in reports})
    machines = sorted({(report["machine"]["cores"], report["machine"]["cpu"]) for report in reports})
    sentence = INTRODUCTIONS[language].format(
        dates=TO[language].join(dict.fromkeys((dates[0], dates[-1]))),
        machines=OR[language].join(CORES[language].format(*machine) for machine in machines),
    )
    return textwrap.fill(sentence, WIDTH)


def packing() -> str:
    """Return the paragraph of docs/data.md about packing."""
    loader, trained = _report("loader")["figures"], _report("training")["figures"]["mixed"]
    rates = [trained[f"ours_{name}"]["useful_bytes_per_s"] for name in ("packed", "by_length")]
    shares = {name: loader[name]["padding_share"] for name in ("padded", "budgeted", "packed")}
    return textwrap.fill(PACKING.format(**shares, ratio=rates[0] / rates[1]), WIDTH)


def updated(name: str, page: str) -> str:
    """Return the text of a page of `PAGES` with the present figures."""
    blocks = page.split("\n\n")
    if name not in LANGUAGES:
        start = PACKING.partition(",")[0]
        return "\n\n".join(packing() if block.startswith(start) else block for block in blocks)
    language = LANGUAGES[name]
    place = next(n for n, block in enumerate(blocks) if block.startswith(HEADERS[language]))
    table = "\n".join((HEADERS[language], *(row.text(language) for row in ROWS)))
    return "\n\n".join((*blocks[: place - 1], introduction(language), table, *blocks[place + 1 :]))


def main(args: list[str] | None = None) -> int:
    """Compare or write the pages; see the top of this file. Return 1 if they differ and are not written."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.readme", description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the pages")
    write = parser.parse_args(args).write
    differ = False
    for name in PAGES:
        page = (ROOT / name).read_text(encoding="utf-8")
        new = updated(name, page)
        if new != page and write:
            (ROOT / name).write_text(new, encoding="utf-8")
        elif new != page:
            differ = True
            print("\n".join(difflib.unified_diff(page.splitlines(), new.splitlines(), name, "figures", n=0)))
    return int(differ)


if __name__ == "__main__":
    sys.exit(main())
