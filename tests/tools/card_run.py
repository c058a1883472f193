"""A finished run of images and recordings, written by hand, for the cards of its export."""

import json
from pathlib import Path
from typing import Any

import torch
import yaml
from tiny_model import SPECS, tiny_model, write_files

from kebyt5_xm.data.sources.manifest import open_rows
from kebyt5_xm.model.runs.run import Run
from kebyt5_xm.model.t5 import saved_config

STEP = 97
PROMPT = '{picture:image} {language} "{{설명}}":\n'
CAPTIONS = {
    "class_path": "kebyt5_xm.data.Manifest",
    "init_args": {"prompt": PROMPT, "target": "{caption}", "weight": 1.0},
}
ANSWERS = {
    "class_path": "kebyt5_xm.data.Manifest",
    "init_args": {
        "prompt": "{recording:speech}{question}\n",
        "target": "{answer}",
        "labels": ["네", "아니오"],
    },
}
RESULTS = {
    "train_seconds": 180.0,
    "device_hours": 0.2,
    "bytes_per_second": 12347,
    "hardware": "4 x abacus",
    "date": "2031-07-05",
    "precision": "32-true",
    "strategy": "DDPStrategy",
    "held_out": {"captions": {"rows": 5, "digest": "feedbeef"}},
    "software": {"torch": "9.8.7"},
}
EVALUATION = {
    "step": STEP,
    "confidence": 0.95,
    "sources": {
        "captions": {
            "examples": 5,
            "metrics": {
                "exact_match": {"value": 0.8125, "low": 0.6543, "high": 0.9321, "higher_is_better": True},
                "character_error_rate": {"value": 0.0625, "low": None, "high": None},
            },
        }
    },
}


def write_run(folder: Path, about: dict[str, Any] | None = None) -> Run:
    """Write captions.jsonl and answers.jsonl into `folder`, and the run of a model trained on them."""
    write_files(folder)
    captions = [{"picture": "a.png", "language": word, "caption": "그림"} for word in ("ko", "en", "ko")]
    answers = [{"recording": "b.wav", "question": f"{n} " * 30, "answer": "네"} for n in range(2)]
    for name, rows in (("captions", captions), ("answers", answers)):
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    run = folder / "run"
    (run / "checkpoints").mkdir(parents=True)
    model = tiny_model()
    sources = {}
    for name, source in (("captions", CAPTIONS), ("answers", ANSWERS)):
        init_args = {**source["init_args"], "path": str(folder / f"{name}.jsonl")}
        sources[name] = {**source, "init_args": init_args}
    sources["captions"]["init_args"]["validation"] = str(folder / "heldout.jsonl")
    recipe = {
        "seed_everything": 29,
        "model": {"modalities": json.loads(json.dumps(SPECS)), "backbone": {"dropout": 0.0}},
        "data": {"sources": sources, "global_batch_size": 23},
        "trainer": {"max_steps": 101},
    }
    (run / "config.yaml").write_text(yaml.safe_dump(recipe, allow_unicode=True), encoding="utf-8")
    (run / "results.json").write_text(json.dumps(RESULTS))
    (run / "evaluation.json").write_text(json.dumps(EVALUATION))
    (run / "metrics.csv").write_text("step,metric,value\n89,val/loss/captions,1.2345\n")
    (run / "backbone").mkdir()
    fields = saved_config(model.backbone.config) | {
        "kebyt5_xm": about or {"started_from": [], "licence": None}
    }
    (run / "backbone" / "config.json").write_text(json.dumps(fields))
    digests = {name: open_rows(str(folder / f"{name}.jsonl"), None).fingerprint for name in sources}
    description = {
        "seed": 29,
        "parts.captions": f"3 rows, share 0.250000, {digests['captions']}",
        "parts.answers": f"2 rows, share 0.750000, {digests['answers']}, 4 epochs",
    }
    state = {
        "state_dict": {f"model.{key}": tensor for key, tensor in model.state_dict().items()},
        "global_step": STEP,
        "DataModule": {"next_index": 2231, "description": description},
    }
    torch.save(state, run / "checkpoints" / "best.ckpt")
    return Run(run)
