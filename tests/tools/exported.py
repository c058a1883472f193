"""Loads exports with transformers 4.57 and with the installed version."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

COMPAT = Path(sys.prefix) / "compat-transformers-4.57"

LOAD = """
import json
import torch, transformers
from transformers import AutoTokenizer, T5ForConditionalGeneration

def load(folder, **options):
    model, info = T5ForConditionalGeneration.from_pretrained(folder, output_loading_info=True, **options)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = torch.tensor([tokenizer("한국어 text").input_ids])
    embedding = model.shared.weight.data_ptr()
    return {
        "version": transformers.__version__,
        "problems": [str(value) for value in info.values() if value],
        "untied": model.lm_head.weight.data_ptr() != embedding,
        "one_embedding": all(s.embed_tokens.weight.data_ptr() == embedding for s in (model.encoder, model.decoder)),
        "dtype": str(model.dtype),
        "generation": [model.generation_config.eos_token_id, model.generation_config.decoder_start_token_id],
        "tokenizer": [type(tokenizer).__name__, len(tokenizer), tokenizer.convert_tokens_to_ids("<extra_id_0>")],
        "special": [tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id],
        "ids": ids.tolist(),
        "logits": model.eval()(input_ids=ids, decoder_input_ids=ids[:, :5]).logits.float().tolist(),
    }
"""


def load_with_4(*folders: Path) -> list[dict]:
    """Load exports with transformers 4.57, in one process of its own."""
    if not (COMPAT / "transformers").is_dir():
        pytest.fail(f"{COMPAT} is missing; `make install` puts transformers 4.57 there")
    calls = [
        f"load({str(folder)!r}, dtype='auto')" for folder in folders
    ]  # 5 takes the file's dtype by itself
    done = subprocess.run(
        [sys.executable, "-c", f"{LOAD}\nprint(json.dumps([{', '.join(calls)}]))"],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(COMPAT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def load_with_5(*folders: Path) -> list[dict]:
    names: dict = {}
    exec(LOAD, names)
    return [names["load"](folder) for folder in folders]
