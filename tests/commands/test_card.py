"""The model cards of an export: every sentence is true of its run, the metadata is the hub's, and the code runs."""

import argparse
import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from card_run import write_run
from huggingface_hub import ModelCard, ModelCardData
from tiny_model import write_files

from kebyt5_xm.commands.export import export
from kebyt5_xm.commands.export.card import CARDS
from kebyt5_xm.commands.export.export import export_run
from kebyt5_xm.commands.export.metadata import licence_metadata, pipeline_tag
from kebyt5_xm.commands.export.sources import SourceFacts, list_sources
from kebyt5_xm.commands.export.usage import text_code
from kebyt5_xm.data.sources.template import Template
from kebyt5_xm.errors import UserError
from kebyt5_xm.model.cross_modal import CrossModalT5
from kebyt5_xm.model.origin import Origin
from kebyt5_xm.model.runs.run import Run


def cards(folder: Path) -> dict[str, str]:
    return {language: (folder / name).read_text(encoding="utf-8") for name, language in CARDS.items()}


def python(card: str) -> str:
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    return code


@pytest.fixture
def out(tmp_path: Path) -> Path:
    export_run(write_run(tmp_path), tmp_path / "model")
    return tmp_path / "model"


def test_the_card_says_what_this_run_did_and_nothing_of_others(out: Path):
    for card in cards(out).values():
        text = card.partition("\n---\n")[2]
        for fact in (
            r'`{picture:image} {language} "{{설명}}":\n`',
            *("`{caption}`", r"`{recording:speech}{question}\n`", "`{answer}`", "25.0 %", "75.0 %"),
            *("`ko`, `en`", "2,231", "12,347", "4 x abacus", "2031-07-05", "torch 9.8.7", "DDPStrategy"),
            *(
                "0.0500 (180 s)",
                "captions",
                "`heldout.jsonl`",
                "`feedbeef`",
                "1.2345",
                "encoders.stems.PatchEncoder",
            ),
            "| captions | exact_match | 0.8125 | 0.6543 ",
        ):
            assert fact in text, fact
        for absent in (
            "denois",
            "sentinel",
            "stores",
            "chunk",
            "조각",
            "저장소",
            "bigram",
            "None",
            "/tmp",
            "tokenizer",
        ):
            assert absent not in text, absent
        assert "0 0 0" not in text  # values of free text
    english, korean = cards(out)["en"], cards(out)["ko"]
    assert "one of 2 labels" in english
    assert "At step 97, with 95 % intervals" in english
    assert "At step 89, during training" in english
    assert "Objective: the target text after its prompt." in english
    digests = re.findall(r"rows, digest `(\w+)`", english)
    assert len(digests) == 2
    assert re.findall(r"행, 다이제스트 `(\w+)`", korean) == digests


def test_both_languages_state_the_same_figures_and_code(out: Path):
    english, korean = cards(out)["en"], cards(out)["ko"]
    assert python(english) == python(korean)
    figures = [sorted(set(re.findall(r"\d[\d,.]*\d", card))) for card in (english, korean)]
    assert figures[0] == figures[1]
    headings = [
        [len(mark) for mark in re.findall(r"^(#+) ", card, re.MULTILINE)] for card in (english, korean)
    ]
    assert headings[0] == headings[1]
    assert "README.ko.md" in english
    assert "(README.md)" in korean
    assert re.search("[가-힣]", re.sub(r"```.*?```|`[^`]*`", "", korean, flags=re.DOTALL))


def test_the_metadata_is_that_of_the_hub(out: Path):
    for name in CARDS:
        content = yaml.safe_load((out / name).read_text(encoding="utf-8").split("---")[1])
        data = ModelCardData(**content, ignore_metadata_errors=False)
        assert data.to_dict() == ModelCard.load(out / name).data.to_dict()
        assert (data.library_name, data.pipeline_tag) == ("kebyt5-xm", "any-to-any")
        assert data.metrics == ["exact_match", "cer"]
        assert data.eval_results is not None
        exact, error = data.eval_results
        assert (exact.dataset_name, exact.metric_type, exact.metric_value) == (
            "captions",
            "exact_match",
            0.8125,
        )
        assert exact.metric_args == {"confidence": 0.95, "low": 0.6543, "high": 0.9321, "examples": 5}
        assert error.metric_args == {"examples": 5}  # its interval is unknown
        for absent in ("co2_eq_emissions", "license", "base_model", "datasets", "language"):
            assert absent not in content


def test_the_code_of_the_card_answers_the_prompts_of_the_run(out: Path, monkeypatch: pytest.MonkeyPatch):
    code = python(cards(out)["en"])
    write_files(out)  # a.png and b.wav, which the code names
    monkeypatch.chdir(out)
    printed: list[Any] = []
    exec(code, {"print": printed.append})
    assert len(printed) == 2
    assert printed[0] in ("네", "아니오")
    asked: list[Any] = []
    monkeypatch.setattr(
        CrossModalT5, "answer", lambda self, segments, **kwargs: asked.append((segments, kwargs))
    )
    exec(code, {})
    assert asked == [
        ([Path("b.wav"), "...\n"], {"labels": ["네", "아니오"]}),
        ([Path("a.png"), ' ko "{설명}":\n'], {}),
    ]


def test_figures_of_another_checkpoint_or_file_are_not_stated(tmp_path: Path):
    run = write_run(tmp_path)
    with (tmp_path / "captions.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"picture": "a.png", "language": "fr", "caption": "dessin"}\n')
    evaluation = json.loads((run.path / "evaluation.json").read_text())
    (run.path / "evaluation.json").write_text(json.dumps(evaluation | {"step": 3}))
    export_run(run, tmp_path / "changed")
    card = cards(tmp_path / "changed")["en"]
    assert "`fr`" not in card
    assert 'language = "..."' in card
    assert "3 rows" in card  # as recorded
    assert "0.8125" not in card
    assert "model-index" not in card


def test_a_bare_run_says_what_is_not_recorded(tmp_path: Path):
    import torch

    run = write_run(tmp_path)
    for name in ("results.json", "evaluation.json", "metrics.csv"):
        (run.path / name).unlink()
    checkpoint = run.path / "checkpoints" / "best.ckpt"
    state = torch.load(checkpoint, weights_only=True)
    torch.save({key: value for key, value in state.items() if key != "DataModule"}, checkpoint)
    export_run(Run(run.path), tmp_path / "bare")
    english, korean = cards(tmp_path / "bare").values()
    assert english.count("rows not recorded, digest not recorded") == 2
    assert korean.count("행 수 기록 없음, 다이제스트 기록 없음") == 2
    assert "No validation was recorded." in english
    assert "versions that were not recorded" in english
    assert "Share of the examples drawn:** not recorded" in english
    assert "Examples seen:** 2,231" in english  # steps x global batch


def test_emissions_are_stated_if_the_power_is_known(tmp_path: Path):
    run = write_run(tmp_path)
    parser = argparse.ArgumentParser()
    export.add_arguments(parser)

    def exported(*words: str) -> str:
        export.run(parser.parse_args([str(run.path), "--out", str(tmp_path / "out"), "--overwrite", *words]))
        return cards(tmp_path / "out")["en"]

    assert "kWh" not in exported()
    with_power = exported("--watts", "250")
    assert "0.05 kWh (250 W stated, 0.2 device hours)" in with_power
    assert "co2_eq" not in with_power
    with_both = exported("--watts", "250", "--grams-per-kwh", "400")
    assert "20 g CO2 equivalent, at 400 g per kWh" in with_both
    emissions = yaml.safe_load(with_both.split("---")[1])["co2_eq_emissions"]
    assert (emissions["emissions"], emissions["hardware_used"]) == (20.0, "4 x abacus")
    for words, message in (
        (["--grams-per-kwh", "400"], "--grams-per-kwh without --watts"),
        (["--watts", "-3"], "found --watts -3, expected a number above 0"),
        (["--watts", "nan"], "expected a number above 0"),
    ):
        with pytest.raises(UserError, match=message):
            exported(*words)


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        (Origin([], None, {}), {}),
        (Origin(["run-a"], None, {}), {}),
        (Origin(["a/b"], "apache-2.0", {}), {"license": "apache-2.0"}),
        (
            Origin(["run-a", "a/b"], None, {}),
            {"license": "other", "license_name": "see-notice", "license_link": "https://huggingface.co/a/b"},
        ),
        (
            Origin(["a/b"], "other", {}, "research-only", "https://example.org/terms"),
            {
                "license": "other",
                "license_name": "research-only",
                "license_link": "https://example.org/terms",
            },
        ),
    ],
)
def test_licences(origin: Origin, expected: dict[str, str]):
    assert licence_metadata(origin) == expected


def test_a_licence_with_a_name_reaches_the_card(tmp_path: Path):
    about = {
        "started_from": ["etri/byte"],
        "licence": "other",
        "licence_name": "research-only",
        "licence_link": "https://example.org/terms",
    }
    run = write_run(tmp_path, about)
    (run.backbone / "NOTICE").write_text("research only\n")
    export_run(run, tmp_path / "out")
    data = ModelCard.load(tmp_path / "out" / "README.md").data.to_dict()
    assert (data["license"], data["license_name"]) == ("other", "research-only")
    assert (data["license_link"], data["base_model"]) == ("https://example.org/terms", "etri/byte")
    config = json.loads((tmp_path / "out" / "config.json").read_text())["kebyt5_xm"]
    assert config["licence_name"] == "research-only"
    assert "other (research-only); see NOTICE" in cards(tmp_path / "out")["en"]


def test_tasks_of_the_hub():
    kinds = ([], ["image"], ["audio", "audio"], ["image", "audio"], ["array"])
    tags = [pipeline_tag(media) for media in kinds]
    assert tags == [
        "text-generation",
        "image-text-to-text",
        "audio-text-to-text",
        "any-to-any",
        "text-generation",
    ]


@pytest.mark.parametrize(
    ("prompt", "call"),
    [
        ("번역: {ko}\n", 'ko = "..."\nprint(answer(f"번역: {ko}\\n"))'),
        ('"{{a}}" \\', 'print(answer("\\"{a}\\" \\\\"))'),
        ("{a.b} {class} {model}", 'print(answer(f"{a_b} {column_class} {column_model}"))'),
    ],
)
def test_prompts_of_text_models_become_python(prompt: str, call: str):
    source = SourceFacts("s", "kebyt5_xm.data.Manifest", [], Template(prompt), Template("{x}"))
    code = text_code({}, [source], lora_apart=False)
    assert call in code
    compile(code, "card", "exec")


def test_a_share_that_changes_over_the_steps_is_not_one_number():
    blocks = {
        name: {"class_path": "kebyt5_xm.data.Manifest", "init_args": {"path": f"{name}.jsonl", "prompt": "x"}}
        for name in ("photos", "pages")
    }
    run: Any = SimpleNamespace(config={"data": {"sources": blocks}}, results=dict)
    constant = {
        f"parts.{name}": f"7 rows, share {share}, abc" for name, share in (("photos", 0.25), ("pages", 0.75))
    }
    assert [(s.name, s.share, s.weights) for s in list_sources(run, constant)] == [
        ("pages", 0.75, None),
        ("photos", 0.25, None),
    ]
    found = list_sources(run, constant | {"weights.photos": "1 at step 0, 4 at step 500"})
    assert [(s.name, s.share, s.weights) for s in found] == [
        ("photos", None, "1 at step 0, 4 at step 500"),
        ("pages", None, None),
    ]


def test_the_code_of_updates_kept_apart_loads_them_first():
    source = SourceFacts("s", "kebyt5_xm.data.Manifest", [], Template("{a}"), Template("{b}"))
    code = text_code({"sentinels": "descending"}, [source], lora_apart=True)
    assert code.index("PeftModel.from_pretrained") < code.index("model.generate")
    assert "generate(input_ids=" in code  # peft's generate takes keywords alone


def test_an_export_without_its_card_is_still_an_export(out: Path):
    shutil.copytree(out, out.parent / "copy", ignore=shutil.ignore_patterns("README*"))
    assert CrossModalT5.from_pretrained(out.parent / "copy").num_parameters() > 0
