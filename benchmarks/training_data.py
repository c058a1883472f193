"""The two trainings that `benchmarks.training` measures, each with the same ids for every contestant.

- `mixed`: texts of 30 to 1,500 bytes (log-uniform, like captions and documents) with targets of 40, for a tiny T5.
  The texts are what transformers' sampler for batches of similar length gives: every eighth batch of 16 among the 50
  that it sorts together. All contestants train on these texts again and again.
- `demo`: denoising of 8 x 255 bytes, with the model and recipe of `configs/demo/text.yaml`.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from kebyt5_xm.data.text.denoising import SpanDenoising
from kebyt5_xm.vocabulary import BYTE_OFFSET, EOS_ID

DEMO_RECIPE = Path(__file__).parents[1] / "configs" / "demo" / "text.yaml"
TINY = {"d_model": 128, "d_ff": 256, "num_heads": 4, "num_layers": 3, "num_decoder_layers": 2, "d_kv": 32}


@dataclass(frozen=True)
class Sizes:
    """How much is trained.

    Texts have `shortest` to `longest` bytes, drawn `num_texts` times; every `stride`-th batch of `rows` is kept.
    `row_length` is the number of positions of a packed row, and `rows_of_micro_batch` the number of such rows.
    `demo_steps` are the steps of a turn of the demo, whose store has `corpus_bytes`.
    """

    shape: dict[str, int]
    shortest: int = 30
    longest: int = 1500
    target: int = 40
    num_texts: int = 20_000
    rows: int = 16
    stride: int = 8
    row_length: int = 1536
    rows_of_micro_batch: int = 8
    micro_batches: int = 4
    demo_steps: int = 20
    corpus_bytes: int = 2_000_000

    @classmethod
    def read(cls, folder: Path) -> "Sizes":
        """Read what `write` wrote."""
        return cls(**json.loads((folder / "sizes.json").read_text(encoding="utf-8")))

    def write(self, folder: Path) -> None:
        """Write the sizes and the data of both trainings into a folder."""
        from benchmarks.store import make_documents  # imports more than contestants need
        from kebyt5_xm.data.text.store_writer import StoreWriter

        (folder / "sizes.json").write_text(json.dumps(asdict(self)), encoding="utf-8")
        lengths = self.draw_lengths()
        np.save(folder / "lengths.npy", lengths)
        rows = ({"text": "x" * length, "answer": "y" * self.target} for length in lengths.ravel())
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        documents = make_documents(self.corpus_bytes)
        with StoreWriter(folder / "store", "ko") as store:
            for document in documents:
                store.write(document)

    def draw_lengths(self) -> NDArray[np.int64]:
        """Return the bytes of the texts in transformers' batches of similar length [batches, rows]."""
        from transformers.trainer_pt_utils import LengthGroupedSampler

        draw = np.random.default_rng(0)
        drawn = draw.uniform(np.log(self.shortest), np.log(self.longest), self.num_texts)
        lengths = np.exp(drawn).astype(np.int64)
        order = np.asarray(list(LengthGroupedSampler(self.rows, lengths=lengths.tolist())))
        sorted_together = min(50, self.num_texts // (4 * self.rows))  # the sampler's own number of batches
        batches = order[: sorted_together * self.rows].reshape(-1, self.rows)
        return lengths[batches[self.stride // 2 :: self.stride]]


def read_examples(folder: Path, target: int) -> list[dict[str, list[int]]]:
    """Return the texts as transformers' datasets hold them: lists of ids, as its tokenizer for bytes gives."""
    input_id, target_id = (ord(letter) + BYTE_OFFSET for letter in "xy")
    return [
        {"input_ids": [input_id] * length + [EOS_ID], "labels": [target_id] * target + [EOS_ID]}
        for length in np.load(folder / "lengths.npy").ravel().tolist()
    ]


def demo() -> dict[str, Any]:
    """Return the recipe of the demo's text pretraining."""
    return yaml.safe_load(DEMO_RECIPE.read_text(encoding="utf-8"))


def demo_shape() -> dict[str, int]:
    return demo()["model"]["backbone"]["shape"]


def demo_batch_size() -> int:
    return demo()["data"]["global_batch_size"]


def demo_objective() -> SpanDenoising:
    arguments = dict(demo()["data"]["sources"]["text"]["init_args"])
    return SpanDenoising(inputs_length=arguments["inputs_length"], noise_density=arguments["noise_density"])
