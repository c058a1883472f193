"""The Trainer of transformers trains, saves and resumes a cross-modal model, in a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest
from tiny_model import tiny_model

PROGRAM = """
import sys

import kebyt5_xm.auto
import torch
from transformers import AutoModelForSeq2SeqLM, AutoProcessor, Trainer, TrainingArguments
from kebyt5_xm.vocabulary import EOS_ID, encode

folder, out = sys.argv[1:]
processor = AutoProcessor.from_pretrained(folder)
rows = [{"text": "가" * (1 + number), "target": "나" * (1 + number % 3)} for number in range(8)]


def collate(rows):
    batch = processor([[row["text"]] for row in rows])
    labels = [torch.tensor([*encode(row["target"]).tolist(), EOS_ID]) for row in rows]
    batch["labels"] = torch.nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=-100)
    return batch


def train(name, resume=None, **options):
    model = AutoModelForSeq2SeqLM.from_pretrained(folder)
    arguments = TrainingArguments(
        f"{out}/{name}", remove_unused_columns=False, report_to=[], use_cpu=True, disable_tqdm=True,
        optim="sgd", learning_rate=0.01, max_grad_norm=0.0, lr_scheduler_type="constant", **options,
    )
    trainer = Trainer(model, arguments, collate, rows, rows, processing_class=processor)
    trainer.train(resume_from_checkpoint=resume)
    trainer.save_model(f"{out}/{name}/final")
    saved = AutoModelForSeq2SeqLM.from_pretrained(f"{out}/{name}/final")
    assert all(tensor.equal(saved.state_dict()[key]) for key, tensor in model.state_dict().items())
    assert model.backbone.shared.weight is model.backbone.encoder.embed_tokens.weight
    AutoProcessor.from_pretrained(f"{out}/{name}/final")
    return model.state_dict()


whole = train("whole", max_steps=1, per_device_train_batch_size=8, save_strategy="no")
parts = train(
    "parts", max_steps=1, per_device_train_batch_size=2, gradient_accumulation_steps=4, save_strategy="no"
)
assert all(tensor.allclose(parts[key], atol=1e-5) for key, tensor in whole.items())  # one step, however it is cut
options = {"per_device_train_batch_size": 2, "save_steps": 2, "max_steps": 4}
best = {"load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 2}
straight = train("straight", **options, **best)
resumed = train("resumed", f"{out}/straight/checkpoint-2", **options)
assert all(tensor.allclose(resumed[key], atol=1e-6) for key, tensor in straight.items())
"""


@pytest.mark.slow
def test_a_trainer_trains_saves_and_resumes(tmp_path: Path):
    folder = tmp_path / "model"
    model = tiny_model()
    model.save_pretrained(folder)
    model.processor.save_pretrained(folder)
    words = [sys.executable, "-W", "error::UserWarning", "-c", PROGRAM, str(folder), str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "missing keys" not in done.stderr
