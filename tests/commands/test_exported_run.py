"""A trained run, exported, and used as a stranger would: by the Auto classes and by the code of its card."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_media
import tiny_run
from huggingface_hub import ModelCard

from kebyt5_xm.training.recipes import overlay

PROGRAM = """
import sys

import kebyt5_xm.auto
from transformers import AutoConfig, AutoModel, AutoModelForSeq2SeqLM, AutoProcessor, pipeline

folder, image = sys.argv[1:]
assert AutoConfig.from_pretrained(folder).model_type == "kebyt5_xm"
processor = AutoProcessor.from_pretrained(folder)
inputs = processor([("image", image), " 설명: "])
answers = [
    auto_class.from_pretrained(folder, dtype=dtype).generate(**inputs, max_new_tokens=7).tolist()
    for auto_class in (AutoModel, AutoModelForSeq2SeqLM)
    for dtype in ("auto", "float32")
]
assert all(answer == answers[0] for answer in answers)
pipe = pipeline("any-to-any", model=folder)
(record,) = pipe(text=" 설명: ", images=image, max_new_tokens=7, return_full_text=False)
print(record["generated_text"] == processor.post_process_multimodal_output(AutoModel.from_pretrained(folder)
      .generate(**inputs, max_new_tokens=7))[0])
"""


def run(*words: str, folder: Path | None = None) -> str:
    done = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, check=False, cwd=folder, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip()


@pytest.mark.slow
def test_a_trained_run_is_used_by_a_stranger(tmp_path: Path):
    tiny_run.write_stores(tmp_path)
    tiny_media.write_media(tmp_path)
    contents = overlay(tiny_run.recipe(tmp_path, "run"), tiny_media.image_overlay(tmp_path))
    assert tiny_run.fit(tmp_path, "run", contents) == [0], tiny_run.log_of(tmp_path, "run")
    out = tmp_path / "out"
    run("-m", "kebyt5_xm", "export", str(tmp_path / "run"), "--out", str(out))

    assert run("-c", PROGRAM, str(out), str(tmp_path / "3.png")) == "True"
    card = ModelCard.load(out / "README.md")
    for fact in (
        *(
            "13 rows, digest",
            "` {picture:image} 설명:  `",
            "`{caption}`",
            "`images.jsonl`, 3 examples, digest",
        ),
        *("Trained with kebyt5-xm", "the last 0.05 of every store", "| captions | ", "| text/ko | "),
        *(f"max_steps:** {tiny_run.STEPS}", f"Examples seen:** {tiny_run.STEPS * tiny_run.GLOBAL_BATCH}"),
        "Objective: span denoising, and the target text after its prompt.",
    ):
        assert fact in card.text, fact
    assert "not recorded" not in card.text
    (code,) = re.findall(r"```python\n(.*?)```", card.text, re.DOTALL)
    shutil.copy(tmp_path / "3.png", out / "a.png")
    run("-c", code, folder=out)

    weights = out / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-3])
    failed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=out, timeout=300
    )
    assert re.search(r"model.safetensors' has the digest \w+, expected \w+ of digests.json", failed.stderr)
