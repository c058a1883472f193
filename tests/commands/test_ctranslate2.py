"""Text models for CTranslate2: it writes the same bytes as ours, and the card's code runs."""

import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tiny_model import SHAPE, tiny_model

from kebyt5_xm.commands import cli
from kebyt5_xm.errors import UserError
from kebyt5_xm.model.backbone import Backbone
from kebyt5_xm.model.cross_modal import CrossModalT5
from kebyt5_xm.model.decoding import greedy_decode
from kebyt5_xm.model.origin import record
from kebyt5_xm.model.runs.checkpoint_reading import MODEL_PREFIX

pytest.importorskip("ctranslate2")
LENGTH = 43
PROMPTS = ("안녕하세요", "x", "The quick brown fox", "".join(chr(0xAC00 + n * n % 11172) for n in range(401)))
"""The last one has more ids than the 1,024 at which CTranslate2 cuts inputs by default."""


@pytest.fixture(scope="module")
def model() -> CrossModalT5:
    """A text model whose answers are long: the logit of the end is 0."""
    found = tiny_model(specs={})
    with torch.no_grad():
        found.backbone.lm_head.weight[1] = 0
    return found


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, model: CrossModalT5) -> Path:
    path = tmp_path_factory.mktemp("runs") / "answers"
    (path / "checkpoints").mkdir(parents=True)
    (path / "config.yaml").write_text(yaml.safe_dump({"model": {"backbone": {"shape": SHAPE}}}))
    record(Backbone(shape=SHAPE), path / "backbone")
    (path / "backbone" / "NOTICE").write_text("for research only\n")
    state = {MODEL_PREFIX + key: tensor for key, tensor in model.state_dict().items()}
    torch.save({"state_dict": state, "global_step": 7}, path / "checkpoints" / "step=7.ckpt")
    return path


@pytest.fixture(scope="module")
def converted(run: Path) -> Path:
    out = run.parent / "converted"
    cli.run("export", [str(run), "--out", str(out), "--format", "ctranslate2"])
    return out


def card_code(folder: Path) -> str:
    found = re.findall(r"^```python\n(.*?)^```$", (folder / "README.md").read_text("utf-8"), re.DOTALL | re.M)
    assert len(found) == 1
    return found[0]


def run_card(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run the card's code in its folder and return its names."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv(
        "CT2_USE_MKL", os.environ.get("CT2_USE_MKL", "1")
    )  # the code sets it; removed afterwards
    names: dict[str, Any] = {}
    exec(card_code(folder), names)
    return names


def ours(model: CrossModalT5, prompt: str) -> list[int]:
    """Return the ids of the greedy answer, up to its end."""
    with torch.no_grad():
        states = model.encode(torch.tensor([[*(byte + 3 for byte in prompt.encode()), 1]])).last_hidden_state
        assert states is not None
        ids = greedy_decode(model, states, None, LENGTH)[0].tolist()
    return ids[: ids.index(1)] if 1 in ids else ids


def test_its_greedy_bytes_are_ours(
    model: CrossModalT5, converted: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = run_card(converted, monkeypatch)
    assert capsys.readouterr().out  # the code's own example
    for prompt in PROMPTS:
        written = names["generate"]([byte + 3 for byte in prompt.encode()], LENGTH)
        assert written == ours(model, prompt)
        assert len(written) == LENGTH


def test_the_card_and_the_terms_are_those_of_the_folder(converted: Path) -> None:
    card = (converted / "README.md").read_text("utf-8")
    assert yaml.safe_load(card.split("---")[1])["library_name"] == "ctranslate2"
    assert "# converted" in card
    assert "T5ForConditionalGeneration.from_pretrained" not in card
    assert (converted / "NOTICE").read_text() == "for research only\n"
    about = json.loads((converted / "config.json").read_text())["kebyt5_xm"]
    assert (about["format"], about["dtype"]) == ("ctranslate2", "float32")
    assert not (converted / "model.safetensors").exists()


@pytest.mark.slow
def test_int8_weights_answer_in_another_process(run: Path, converted: Path, tmp_path: Path) -> None:
    out = tmp_path / "small"
    cli.run("export", [str(run), "--out", str(out), "--format", "ctranslate2", "--dtype", "int8"])
    assert (out / "model.bin").stat().st_size < 0.4 * (converted / "model.bin").stat().st_size
    count = f"""
import sys
found = [generate([byte + 3 for byte in text.encode()], 1) for text in {[chr(n) * 5 for n in range(48, 90)]}]
sys.stdout.write("\\n" + repr((translator.compute_type, found)))
"""
    answers = {}
    for folder in (converted, out):
        code = card_code(folder) + count
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "CT2_VERBOSE": "1"},
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
        )
        if platform.machine() == "x86_64":  # oneDNN is wrong on processors without VNNI
            assert "GEMM_S8 backend: MKL" in done.stderr
        answers[folder] = eval(done.stdout.splitlines()[-1])
    assert answers[out][0].startswith("int8")
    same = sum(a == b for a, b in zip(answers[out][1], answers[converted][1], strict=True))
    assert same > 0.6 * len(answers[out][1])


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--format", "transformers", "--dtype", "int8"], "--format ctranslate2"),
        (["--format", "ctranslate2", "--lora", "apart"], "--lora merged"),
    ],
)
def test_options_that_do_not_go_together(run: Path, tmp_path: Path, options: list[str], error: str) -> None:
    with pytest.raises(UserError, match=error):
        cli.run("export", [str(run), "--out", str(tmp_path / "out"), *options])
    assert not list(tmp_path.iterdir())


def test_a_cross_modal_run_is_refused(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "run"
    other.mkdir()
    (other / "config.yaml").write_text("model: {modalities: {picture: {}}}\n")
    with pytest.raises(UserError, match=r"picture.*text model"):
        cli.run("export", [str(other), "--out", str(tmp_path / "out"), "--format", "ctranslate2"])


def test_only_an_export_is_overwritten(run: Path, converted: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--overwrite"):
        cli.run("export", [str(run), "--out", str(converted), "--format", "ctranslate2"])
    (tmp_path / "config.json").write_text("no JSON")
    with pytest.raises(UserError, match="not an export"):
        cli.run("export", [str(run), "--out", str(tmp_path), "--format", "ctranslate2", "--overwrite"])
    cli.run("export", [str(run), "--out", str(converted), "--format", "ctranslate2", "--overwrite"])
    with pytest.raises(UserError, match="CTranslate2"):
        CrossModalT5.from_pretrained(converted)
