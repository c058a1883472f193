"""Encoding rate of `vocabulary.encode` and of transformers' `ByT5Tokenizer`, on 10 MB of ko/en/zh/ja text.

python -m benchmarks.bytes

Both give the same ids (checked here). Measured as 10,000 documents of 1 kB, one call each, and as one string.
"""

from collections.abc import Callable

import numpy as np
from transformers.models.byt5.tokenization_byt5 import ByT5Tokenizer

from benchmarks.report import measure_seconds, write_report
from benchmarks.store import SENTENCES
from kebyt5_xm.data.randomness import hash64, map_to_range
from kebyt5_xm.vocabulary import decode, encode

NUM_DOCUMENTS, SENTENCES_EACH = 10_000, 13
DEMANDED_RATIO = 200


def main() -> None:
    picks = map_to_range(
        hash64(0, np.arange(NUM_DOCUMENTS)[:, None], np.arange(SENTENCES_EACH)), len(SENTENCES)
    )
    documents = ["".join(SENTENCES[pick] for pick in row) for row in picks]
    text = "".join(documents)
    megabytes = len(text.encode()) / 1e6
    tokenizer = ByT5Tokenizer()

    def peer(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    def each(encode_one: Callable[[str], object]) -> None:
        for document in documents:
            encode_one(document)

    assert all(encode(document).tolist() == peer(document) for document in documents[:97])
    ids = encode(text)
    times = measure_seconds(
        {
            "ours_documents": lambda: each(encode),
            "peer_documents": lambda: each(peer),
            "ours_string": lambda: encode(text),
            "peer_string": lambda: peer(text),
            "decode_string": lambda: decode(ids),
        },
        turns=2,  # the peer takes ten seconds per call
    )
    write_report(
        "bytes",
        {
            "text_mb": megabytes,
            "documents": {
                "encode_mb_per_s": megabytes / times["ours_documents"],
                "ByT5Tokenizer_mb_per_s": megabytes / times["peer_documents"],
                "ratio_encode_to_ByT5Tokenizer": times["peer_documents"] / times["ours_documents"],
            },
            "one_string": {
                "encode_mb_per_s": megabytes / times["ours_string"],
                "decode_mb_per_s": megabytes / times["decode_string"],
                "ByT5Tokenizer_mb_per_s": megabytes / times["peer_string"],
                "ratio_encode_to_ByT5Tokenizer": times["peer_string"] / times["ours_string"],
            },
        },
        demanded={
            "documents.ratio_encode_to_ByT5Tokenizer": DEMANDED_RATIO,
            "one_string.ratio_encode_to_ByT5Tokenizer": DEMANDED_RATIO,
        },
    )


if __name__ == "__main__":
    main()
