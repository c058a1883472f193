"""Exports: transformers 4.57 and 5 load them with the same logits, and the model card is true and its code runs."""

import argparse
import json
import re
from pathlib import Path

import pytest
import torch
import yaml
from exported import load_with_4, load_with_5

from kebyt5_xm.commands.export import export
from kebyt5_xm.commands.export.export import export_backbone, export_run
from kebyt5_xm.durable import ASIDE_SUFFIX
from kebyt5_xm.errors import UserError
from kebyt5_xm.model.backbone import Backbone, backbone_hash
from kebyt5_xm.model.origin import Origin, record
from kebyt5_xm.model.runs.checkpoint_reading import BACKBONE_PREFIX
from kebyt5_xm.model.runs.run import Run

SHAPE = {"d_model": 13, "d_ff": 17, "num_heads": 3, "num_layers": 5, "num_decoder_layers": 2, "d_kv": 7}


def tiny(seed: int = 3):
    torch.manual_seed(seed)
    return Backbone(shape=SHAPE).build()


@pytest.fixture
def run(tmp_path) -> Run:
    """A finished run that started from a hub model, with two checkpoints."""
    path = tmp_path / "run-a"
    (path / "checkpoints").mkdir(parents=True)
    recipe = {
        "seed_everything": 29,
        "model": {
            "backbone": {"weights": "someone/tiny-byt5", "dropout": 0.1, "frozen": False},
            "optimizer": {"class_path": "kebyt5_xm.optimizers.RMSScaledAdamW", "init_args": {"lr": 0.0137}},
        },
        "data": {
            "global_batch_size": 23,
            "sources": {
                "captions": {"class_path": "kebyt5_xm.data.Manifest", "init_args": {"path": "c.jsonl"}},
                "little": {
                    "class_path": "kebyt5_xm.data.Denoising",
                    "init_args": {"stores": {"en": "/secret/en-store"}, "weight": 0.5, "inputs_length": 256},
                },
                "text": {
                    "class_path": "kebyt5_xm.data.Denoising",
                    "init_args": {"stores": {"ko": "/secret/ko-store"}, "mean_noise_span_length": 31.0},
                },
            },
        },
        "trainer": {"max_steps": 101, "precision": "bf16-mixed", "gradient_clip_val": None},
    }
    (path / "config.yaml").write_text(yaml.safe_dump(recipe))
    origin = {"started_from": ["someone/tiny-byt5"], "licence": "cc-by-nc-4.0", "denoising": {}}
    record(Backbone(shape=SHAPE, dropout=0.1), path / "backbone")
    config = json.loads((path / "backbone" / "config.json").read_text()) | {"kebyt5_xm": origin}
    (path / "backbone" / "config.json").write_text(json.dumps(config))
    (path / "backbone" / "NOTICE").write_text("for research and education only\n")
    (path / "backbone" / "origin").mkdir()
    (path / "backbone" / "origin" / "README.md").write_text("their card")
    for name, seed, step in (("best", 5, 89), ("step=97", 7, 97)):
        state = {BACKBONE_PREFIX + key: tensor for key, tensor in tiny(seed).state_dict().items()}
        torch.save({"state_dict": state, "global_step": step}, path / "checkpoints" / f"{name}.ckpt")
    (path / "metrics.csv").write_text(
        "step,metric,value\n89,val/loss/text/ko,1.2345\n89,val/bits_per_byte/text/ko,1.7811\n"
        "89,baseline/unigram/text/ko,5.4321\n97,val/loss/text/ko,9.8765\n"
    )
    results = {
        "train_seconds": 5400,
        "bytes_per_second": 12347,
        "hardware": "4 x abacus",
        "date": "2031-07-05",
    }
    (path / "results.json").write_text(
        json.dumps(results | {"precision": "bf16-mixed", "strategy": "DDPStrategy"})
    )
    return Run(path)


@pytest.mark.parametrize(
    ("version", "load"),
    [pytest.param("4.57", load_with_4, marks=pytest.mark.slow), ("5.", load_with_5)],
)
def test_transformers_loads_an_export(tmp_path, version, load):
    model = tiny()
    export_backbone(model, tmp_path / "full", denoising={})
    export_backbone(tiny().bfloat16(), tmp_path / "half", denoising={})
    full, half = load(tmp_path / "full", tmp_path / "half")
    assert full["version"].startswith(version)
    assert full["problems"] == half["problems"] == []
    assert full["untied"]
    assert full["one_embedding"]
    assert full["generation"] == [1, 0]
    assert full["tokenizer"] == ["ByT5Tokenizer", 384, 259]
    assert full["special"] == [0, 1, 2]
    assert [full["dtype"], half["dtype"]] == ["torch.float32", "torch.bfloat16"]
    ids = torch.tensor(full["ids"])
    assert ids.tolist() == [[byte + 3 for byte in "한국어 text".encode()] + [1]]
    logits = model.eval()(input_ids=ids, decoder_input_ids=ids[:, :5]).logits
    torch.testing.assert_close(torch.tensor(full["logits"]), logits, rtol=0, atol=1e-4)
    torch.testing.assert_close(torch.tensor(half["logits"]), logits, rtol=0, atol=0.1)


def test_export_of_a_run(run, tmp_path):
    out = tmp_path / "exports" / "my-model"
    export_run(run, out)
    config = json.loads((out / "config.json").read_text())
    assert config["tie_word_embeddings"] is False
    assert config["dropout_rate"] == 0.1
    assert config["torch_dtype"] == "float32"
    assert config["kebyt5_xm"] == {
        "denoising": {
            "inputs_length": 1024,
            "noise_density": 0.15,
            "mean_noise_span_length": 31.0,
            "sentinels": "descending",
            "boundaries": "byte",
        },
        "backbone_hash": backbone_hash(tiny(5)),
        "started_from": ["someone/tiny-byt5"],
        "licence": "cc-by-nc-4.0",
    }
    assert backbone_hash(Backbone(weights=str(out)).build()) == backbone_hash(tiny(5))  # the best checkpoint
    assert (out / "NOTICE").read_text() == "for research and education only\n"
    assert (out / "origin" / "README.md").read_text() == "their card"
    assert [path.name for path in out.parent.iterdir()] == ["my-model"]


def run_command(*words: str) -> None:
    parser = argparse.ArgumentParser()
    export.add_arguments(parser)
    export.run(parser.parse_args(words))


def test_command_chooses_checkpoint_and_dtype(run, tmp_path, capsys):
    out = tmp_path / "out"
    last = str(run.path / "checkpoints" / "step=97.ckpt")
    for choice in (
        [str(run.path), "--checkpoint", "last"],
        [str(run.path), "--checkpoint", last],
        [last, "--dtype", "bfloat16"],
    ):
        run_command(*choice, "--out", str(out), "--overwrite")
        expected = tiny(7).bfloat16() if "--dtype" in choice else tiny(7)
        config = json.loads((out / "config.json").read_text())
        assert config["kebyt5_xm"]["backbone_hash"] == backbone_hash(expected)
        assert f"exported {last} to {out}" in capsys.readouterr().out
    assert config["torch_dtype"] == "bfloat16"
    with pytest.raises(UserError, match="expected best, last or an existing checkpoint"):
        run_command(str(run.path), "--checkpoint", "newest", "--out", str(out))


def test_nothing_is_overwritten_or_left_half_made(run, tmp_path, monkeypatch):
    out = tmp_path / "out"
    export_run(run, out)
    before = backbone_hash(Backbone(weights=str(out)).build())
    with pytest.raises(UserError, match="exists and is not empty"):
        export_run(run, out)

    def full(*_, **__):
        raise OSError("no space left")

    last = Run(run.path, run.last)
    with monkeypatch.context() as patch:
        patch.setattr("safetensors.torch.save_file", full)
        for folder in (out, tmp_path / "other"):
            with pytest.raises(OSError, match="no space left"):
                export_run(last, folder, overwrite=True)
    assert backbone_hash(Backbone(weights=str(out)).build()) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "run-a"]

    move = Path.rename

    def interrupted(old, new):
        if new == out and not old.name.endswith(ASIDE_SUFFIX):
            raise KeyboardInterrupt
        return move(old, new)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", interrupted)
        with pytest.raises(KeyboardInterrupt):
            export_run(last, out, overwrite=True)
    assert backbone_hash(Backbone(weights=str(out)).build()) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "run-a"]
    export_run(last, out, overwrite=True)
    assert backbone_hash(Backbone(weights=str(out)).build()) == backbone_hash(tiny(7))

    precious = tmp_path / "precious"
    precious.mkdir()
    export_run(run, precious)  # an empty folder may be used
    (precious / "config.json").write_text("{}")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter-1.txt").write_text("years of work")
    for folder in (precious, tmp_path / "thesis"):
        with pytest.raises(UserError, match="not an export of this project"):
            export_run(run, folder, overwrite=True)


def test_a_run_without_checkpoint_or_record(run, tmp_path):
    (run.path / "backbone" / "config.json").unlink()
    with pytest.raises(UserError, match=r"backbone' holds no config.json"):
        export_run(run, tmp_path / "out")
    for path in (run.path / "checkpoints").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="no checkpoint yet"):
        export_run(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_card_is_filled_from_the_run(run, tmp_path):
    export_run(run, tmp_path / "my-model")
    card = (tmp_path / "my-model" / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front["license"] == "cc-by-nc-4.0"
    assert front["base_model"] == "someone/tiny-byt5"
    assert front["language"] == ["en", "ko"]
    headings = re.findall(r"^#+ (.*)$", card, re.MULTILINE)
    for heading in (
        *("my-model", "Model Details", "Uses", "Direct Use", "Downstream Use", "Out-of-Scope Use"),
        *("Bias, Risks, and Limitations", "Recommendations", "How to Get Started with the Model"),
        *("Training Details", "Training Data", "Training Procedure", "Preprocessing"),
        *(
            "Training Hyperparameters",
            "Speeds, Sizes, Times",
            "Evaluation",
            "Testing Data",
            "Factors",
            "Metrics",
        ),
        *("Results", "Environmental Impact", "Technical Specifications", "Model Architecture and Objective"),
        *("Compute Infrastructure", "Hardware", "Software", "Citation"),
    ):
        assert heading in headings
    for fact in (
        *(
            "12,347",
            "Hours used:** 1.50",
            "4 x abacus",
            "2031-07-05",
            "bf16-mixed",
            "DDPStrategy",
            "ko-store",
        ),
        *("0.0137", "RMSScaledAdamW", "seed:** 29", "max_steps:** 101", "global_batch_size:** 23", "2,047"),
        *(
            "| text/ko | 1.2345 | 1.7811 | 5.4321 |",
            "At step 89",
            "in 6 spans (mean length 31)",
            "chunks of 1197 bytes",
        ),
        f"{sum(p.numel() for p in tiny().parameters()):,} parameters",
    ):
        assert fact in card
    for absent in ("More Information", "None", "/secret", "9.8765", "gradient_clip_val"):
        assert absent not in card


def test_card_of_a_bare_run_says_what_is_not_recorded(run, tmp_path):
    (run.path / "results.json").unlink()
    (run.path / "metrics.csv").unlink()
    (run.path / "config.yaml").write_text("model: {backbone: {size: mini}}\n")
    export_run(run, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "Hours used:** not recorded" in card
    assert "No validation was recorded" in card
    assert "sentinel" not in card
    assert "None" not in card
    exec(snippet(card), {"__builtins__": __builtins__, "print": lambda text: None} | at(tmp_path / "out"))


def snippet(card: str) -> str:
    found = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert len(found) == 1
    return found[0].replace('folder = "."', "folder = FOLDER")


def at(folder: Path) -> dict[str, str]:
    return {"FOLDER": str(folder)}


@pytest.mark.parametrize("sentinels", ["descending", "extra_id"])
def test_snippet_of_the_card_restores_spans_with_the_convention_trained(
    run, tmp_path, monkeypatch, sentinels
):
    from transformers import T5ForConditionalGeneration

    from kebyt5_xm.vocabulary import encode, sentinel_ids

    recipe = yaml.safe_load((run.path / "config.yaml").read_text())
    recipe["data"]["sources"]["text"]["init_args"]["sentinels"] = sentinels
    (run.path / "config.yaml").write_text(yaml.safe_dump(recipe))
    export_run(run, tmp_path / "out")
    code = snippet((tmp_path / "out" / "README.md").read_text())
    assert "kebyt5_xm" not in code
    exec(code, at(tmp_path / "out"))  # runs as it stands, whatever an untrained model answers

    first, second = sentinel_ids(sentinels, 2)
    seen = []

    def generate(self, input_ids, **options):
        seen.extend(input_ids[0].tolist())
        return torch.tensor([[0, first, *encode("서울"), second, *encode("흐")[:2], 1, first, 99]])

    monkeypatch.setattr(T5ForConditionalGeneration, "generate", generate)
    printed = []
    exec(code, {"print": printed.append} | at(tmp_path / "out"))
    assert printed == [["서울", "\ufffd"]]
    pieces = ["대한민국의 수도는 ", "이고, 한강이 ", "."]
    assert seen == [*encode(pieces[0]), first, *encode(pieces[1]), second, *encode(pieces[2]), 1]


def test_licence_and_limits_are_carried_through_runs_and_exports(tmp_path, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    repo = tmp_path / "cache" / "models--someone--tiny-byt5"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text("0123abc")
    snapshot = repo / "snapshots" / "0123abc"
    export_backbone(tiny(), snapshot, denoising={})
    config = json.loads((snapshot / "config.json").read_text())
    del config["kebyt5_xm"]  # as others publish it
    (snapshot / "config.json").write_text(json.dumps(config))
    (snapshot / "README.md").write_text(
        "---\nlicense: other\nextra_gated_prompt: Research only.\n---\n# Theirs\n"
    )
    (snapshot / "LICENSE").write_text("their terms")

    record(Backbone(weights="someone/tiny-byt5"), tmp_path / "first" / "backbone")
    denoising = {"sentinels": "descending"}
    first = tmp_path / "first" / "backbone"
    export_backbone(
        tiny(), tmp_path / "export", denoising=denoising, cards={"README.md": "ours"}, origin=first
    )
    second = tmp_path / "second"
    record(Backbone(weights=str(tmp_path / "export")), second)

    found = Origin.read(json.loads((second / "config.json").read_text()))
    assert found == Origin(["export", "someone/tiny-byt5"], "other", denoising)
    notice = (second / "NOTICE").read_text()
    assert "trained further from those of export." in notice
    assert "someone/tiny-byt5 (https://huggingface.co/someone/tiny-byt5)" in notice
    assert "Research only." in notice
    assert (second / "origin" / "LICENSE").read_text() == "their terms"
    assert "# Theirs" in (second / "origin" / "README.md").read_text()

    (snapshot / "README.md").unlink()
    (snapshot / "LICENSE").unlink()
    record(Backbone(weights="someone/tiny-byt5"), tmp_path / "third")
    assert "could not be read when training began" in (tmp_path / "third" / "NOTICE").read_text()
    before = (second / "config.json").read_bytes()
    record(Backbone(shape=SHAPE), second)  # a run that is continued keeps what it started from
    assert (second / "config.json").read_bytes() == before


def test_its_own_output_layer_survives_tying(tmp_path):
    """lm-evaluation-harness ties weights after loading; docs/engines.md sets the option that prevents harm."""
    from transformers import T5ForConditionalGeneration

    export_backbone(tiny(), tmp_path / "full", denoising={})
    model = T5ForConditionalGeneration.from_pretrained(tmp_path / "full").eval()
    head = model.lm_head.weight.detach().clone()
    model.config.tie_word_embeddings = False
    model.tie_weights()
    assert model.lm_head.weight.equal(head)
    assert not model.lm_head.weight.equal(model.shared.weight)
