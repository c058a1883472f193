"""`kebyt5-xm inspect STORE`: shows the content of a text store."""

import argparse
from pathlib import Path

import numpy as np
from tqdm import tqdm

from kebyt5_xm.data.media.bad_sample import escape_unprintable
from kebyt5_xm.data.text.store import Store
from kebyt5_xm.errors import UserError
from kebyt5_xm.evaluation.entropies import measure_entropies

SAMPLED_DOCUMENTS = 2000
SAMPLED_BYTES = 16 << 20
SHOWN_DOCUMENTS = 3
SHOWN_CHARACTERS = 100

SCRIPTS: dict[str, tuple[tuple[int, int], ...]] = {
    "ASCII": ((0x00, 0x7F),),
    "Hangul": ((0x1100, 0x11FF), (0x3130, 0x318F), (0xA960, 0xA97F), (0xAC00, 0xD7FF), (0xFFA0, 0xFFDC)),
    "Han": ((0x2E80, 0x2FDF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF)),
    "Kana": ((0x3040, 0x30FF), (0x31F0, 0x31FF), (0xFF66, 0xFF9F), (0x1AFF0, 0x1B16F)),
}
"""Code point ranges, ends included, from the blocks of Unicode 16 (Blocks.txt)."""
OTHER, INVALID = "other", "invalid UTF-8"


def sample_numbers(num_documents: int) -> list[int]:
    """Return the numbers of the sampled documents, evenly spaced."""
    return np.unique(np.linspace(0, num_documents - 1, SAMPLED_DOCUMENTS).astype(np.int64)).tolist()


def script_shares(documents: list[bytes]) -> dict[str, float]:
    """Return script -> its share of the documents' bytes; invalid UTF-8 is a separate class."""
    counts = dict.fromkeys([*SCRIPTS, OTHER, INVALID], 0)
    for document in documents:
        # An invalid byte b becomes the lone surrogate U+DC00 + b, which no valid UTF-8 decodes to.
        text = document.decode("utf-8", "surrogateescape")
        points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
        is_invalid = (points >= 0xDC80) & (points <= 0xDCFF)
        widths = 1 + (points >= 0x80).astype(np.int64) + (points >= 0x800) + (points >= 0x10000)
        widths[is_invalid] = 0
        left = len(document) - int(is_invalid.sum())
        for name, ranges in SCRIPTS.items():
            inside = np.zeros(len(points), dtype=bool)
            for first, last in ranges:
                inside |= (points >= first) & (points <= last)
            num_bytes = int(widths[inside].sum())
            counts[name] += num_bytes
            left -= num_bytes
        counts[OTHER] += left
        counts[INVALID] += int(is_invalid.sum())
    total = max(sum(counts.values()), 1)
    return {name: count / total for name, count in counts.items()}


def describe(store: Store) -> str:
    """Return the text that `inspect` prints about a store."""
    numbers = sample_numbers(store.num_documents)
    sample = [store.document(number)[: SAMPLED_BYTES // len(numbers)] for number in numbers]
    lengths = [store.document_length(number) for number in numbers]
    entropies = measure_entropies(np.frombuffer(store.separator.join((*sample, b"")), np.uint8))
    separators = store.num_documents * len(store.separator)
    rows = [
        ("language", store.language),
        ("documents", f"{store.num_documents:,}"),
        ("bytes", f"{store.num_bytes:,} (separators: {separators:,})"),
        ("shards", f"{len(store.shards):,}"),
        ("fingerprint", store.fingerprint),
        ("mean length", f"{(store.num_bytes - separators) / store.num_documents:,.1f} bytes"),
        ("median length", f"{np.median(lengths):,.0f} bytes (sample)"),
        ("longest", f"{max(shard.longest for shard in store.shards):,} bytes"),
        *((cause, f"{count:,} when prepared") for cause, count in sorted(store.problems.items())),
        ("sample", f"{len(sample):,} documents, {sum(map(len, sample)):,} bytes"),
        *((f"  {name}", f"{share:.2%}") for name, share in script_shares(sample).items()),
        (
            "  entropy",
            f"{entropies.unigram:.3f} bits a byte (of pairs, given the first: {entropies.bigram:.3f})",
        ),
    ]
    lines = [str(store.path), *(f"  {name:<16} {value}" for name, value in rows)]
    for document in sample[:: max(len(sample) // SHOWN_DOCUMENTS, 1)][:SHOWN_DOCUMENTS]:
        text = document[: 4 * SHOWN_CHARACTERS].decode("utf-8", "replace")
        lines.append(
            f"  | {escape_unprintable(text[:SHOWN_CHARACTERS])}{'…' if len(text) > SHOWN_CHARACTERS else ''}"
        )
    return "\n".join(lines)


def verify(store: Store) -> None:
    """Read the whole store again; raise `UserError` with the names of shards that have changed."""
    damaged = []
    with tqdm(total=store.num_bytes, unit="B", unit_scale=True, desc="verify", disable=None) as progress:
        for shard, intact in store.verify():
            progress.update(shard.bytes)
            if not intact:
                damaged.append(shard.name)
    if damaged:
        raise UserError(
            f"{store.path}: {len(damaged)} of {len(store.shards)} shards are not what was written "
            f"({', '.join(damaged[:10])}): copy the store again, or prepare the text again with --overwrite"
        )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `kebyt5-xm inspect`."""
    parser.add_argument("stores", nargs="+", type=Path, metavar="STORE")
    parser.add_argument("--verify", action="store_true", help="read every byte again and compare the digests")


def run(args: argparse.Namespace) -> None:
    """Run `kebyt5-xm inspect`."""
    for path in args.stores:
        store = Store(path)
        print(describe(store))
        if args.verify:
            verify(store)
            print(f"  verified         {len(store.shards):,} shards are what was written")
