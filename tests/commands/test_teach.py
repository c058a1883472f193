"""`kebyt5-xm teach`: models of transformers and of this project answer a manifest."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import tiny_teachers
import torch
from tiny_model import picture, tiny_model, write_files

from kebyt5_xm.commands import cli
from kebyt5_xm.commands.generate.output import AnswerFile
from kebyt5_xm.commands.teach.transformers_teacher import TransformersTeacher
from kebyt5_xm.data import Manifest
from kebyt5_xm.errors import UserError

TEXTS = ["ab", "가나다라마바사", "x", "what is this?", "둘"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("exported")
    tiny_model().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def causal(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_teachers.save(tmp_path_factory.mktemp("causal"), *tiny_teachers.causal_model())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with media and a manifest of five rows."""
    write_files(tmp_path)
    (tmp_path / "images").mkdir()
    rows = []
    for number, text in enumerate(TEXTS):
        picture(number).save(tmp_path / "images" / f"{number}.png")
        rows.append({"image": f"images/{number}.png", "question": text, "nested": {"n": [number]}})
    write(tmp_path / "rows.jsonl", rows)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def read(path: str = "out.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def teach(model: str, *options: str, out: str = "out.jsonl", prompt: str = "{question}") -> None:
    given = ["--manifest", "rows.jsonl", "--out", out, "--prompt", prompt, "--max-new-tokens", "11"]
    cli.run("teach", [model, *given, *options])


def log_probability(model: Any, prompt: list[int], answer: list[int]) -> float:
    """Return the log-probability of an answer, of one prompt without padding, in one pass."""
    with torch.no_grad():
        if model.config.is_encoder_decoder:
            before = torch.tensor([[0, *answer[:-1]]])
            logits = model(input_ids=torch.tensor([prompt]), decoder_input_ids=before).logits[0]
        else:
            logits = model(input_ids=torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
    return float(logits.log_softmax(-1)[torch.arange(len(answer)), torch.tensor(answer)].sum())


@pytest.mark.parametrize("make", [tiny_teachers.causal_model, tiny_teachers.seq2seq_model])
def test_answers_of_a_batch_are_those_of_each_prompt_alone(make) -> None:
    model, tokenizer = make()
    teacher = TransformersTeacher("tiny", model, tokenizer, 13)
    found = teacher.answer([[text] for text in TEXTS])
    for text, answer in zip(TEXTS, found, strict=True):
        prompt = tokenizer(text)["input_ids"]
        options = {"do_sample": False, "max_new_tokens": 13, "pad_token_id": 0}
        ids = model.generate(input_ids=torch.tensor([prompt]), **options)[0].tolist()
        new = ids[1:] if model.config.is_encoder_decoder else ids[len(prompt) :]
        end = model.config.eos_token_id
        new = new[: new.index(end) + 1] if end in new else new
        assert answer.answer == tokenizer.decode(new, skip_special_tokens=True).strip()
        assert answer.num_tokens == len(new)
        assert answer.finish_reason == ("stop" if end in new else "length")
        assert answer.log_probability == pytest.approx(log_probability(model, prompt, new), abs=1e-4)
        assert answer.confidence == pytest.approx(math.exp(answer.log_probability / len(new)))
    assert len({answer.num_tokens for answer in found}) > 1, "answers of one length test too little"


def test_the_output_has_every_column_and_is_a_manifest(folder: Path, causal: str) -> None:
    teach(causal, "--batch-size", "2")
    rows, given = read(), read("rows.jsonl")
    assert [row["row"] for row in rows] == [0, 1, 2, 3, 4]
    assert [{name: row[name] for name in given[0]} for row in rows] == given
    source = Manifest(path="out.jsonl", prompt="{image:image} {question}", target="{answer}")
    table = source.prompts(held_out=False)
    assert table is not None
    assert [table.target_text(number) for number in range(5)] == [row["answer"] for row in rows]


@pytest.mark.parametrize("kept", [1.0, 0.55, 0.0])
def test_a_killed_command_goes_on_to_the_same_bytes(folder: Path, causal: str, kept: float) -> None:
    teach(causal, "--batch-size", "3")
    raw = Path("out.jsonl").read_bytes()
    Path("out.jsonl").write_bytes(raw[: int(kept * len(raw))])  # cut inside a line, and inside a batch
    teach(causal, "--batch-size", "3")
    assert Path("out.jsonl").read_bytes() == raw


def test_rows_without_an_answer_are_not_written_and_tried_again(folder: Path, exported: str) -> None:
    lost = folder / "images" / "1.png"
    raw = lost.read_bytes()
    lost.unlink()
    with pytest.raises(UserError, match=r"1 of 5 inputs have no answer; the first is row 1: .*1\.png"):
        teach(exported, prompt="{image:image} {question}")
    assert [row["row"] for row in read()] == [0, 2, 3, 4]
    lost.write_bytes(raw)
    teach(exported, prompt="{image:image} {question}")
    assert sorted(row["row"] for row in read()) == [0, 1, 2, 3, 4]


def test_our_models_see_images_and_give_what_answer_gives(folder: Path, exported: str) -> None:
    model = tiny_model()
    teach(exported, prompt=r"{image:image}\n{question}")
    for row in read():
        segments = [folder / row["image"], f"\n{row['question']}"]
        expected = model.answer(segments, details=True, max_new_tokens=11, temperature=0)
        assert row["answer"] == expected.text
        assert row["num_tokens"] == len(expected.ids)
        assert row["log_probability"] == pytest.approx(expected.log_probability, abs=1e-3)
        assert row["confidence"] == pytest.approx(expected.confidence, rel=1e-4)
    labels = ["--label", "개", "--label", "고양이"]
    teach(exported, *labels, out="labels.jsonl", prompt=r"{image:image}\n{question}")
    for row in read("labels.jsonl"):
        probabilities = model.classify([folder / row["image"], f"\n{row['question']}"], ["개", "고양이"])
        assert row["answer"] == max(probabilities, key=lambda word: probabilities[word])
        assert row["confidence"] == pytest.approx(max(probabilities.values()), rel=1e-4)


def test_chat_templates_are_the_users_words(folder: Path, tmp_path: Path, causal: str) -> None:
    model, tokenizer = tiny_teachers.causal_model()
    with pytest.raises(UserError, match="no chat template"):
        teach(causal, "--chat")
    tokenizer.chat_template = tiny_teachers.CHAT
    chat = tiny_teachers.save(tmp_path / "chat", model, tokenizer)
    teach(chat, "--chat", out="chat.jsonl")
    write(folder / "rows.jsonl", [{"question": f"<user>{text}</><assistant>"} for text in TEXTS])
    teach(chat, out="plain.jsonl")
    assert [row["answer"] for row in read("chat.jsonl")] == [row["answer"] for row in read("plain.jsonl")]


def test_a_prompt_longer_than_the_positions_is_said(folder: Path, causal: str) -> None:
    write(folder / "rows.jsonl", [{"question": "a" * 50}, {"question": "a" * 51}])
    with pytest.raises(UserError, match=r"row 1: the prompt has 51 tokens with 11 .* at most 61 positions"):
        teach(causal)
    assert [row["row"] for row in read()] == [0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--prompt", "{qestion}"], "the column 'qestion'.*did you mean 'question'"),
        (["--prompt", "{image:image}"], "place for 'image', but .* reads text alone"),
        (["--source", "x"], "--prompt with --source"),
        (["--label", "a", "--label", "b"], "found labels for"),
        (["--batch-size", "0"], "expected 1 or more"),
        (["--prefix", "nes", "--manifest", "clash.jsonl"], "found a column 'nesrow' in 'clash.jsonl'"),
        (["--manifest", "empty.jsonl"], "empty.jsonl"),
        (["--out", "other/out.jsonl"], "column 'image'.*write it to"),
        (["--out", "rows.jsonl"], "which this command did not write"),
    ],
)
def test_what_cannot_be_meant_is_refused(folder: Path, causal: str, options, words, capsys) -> None:
    (folder / "other").mkdir()
    write(folder / "clash.jsonl", [{"nesrow": 1, "question": "a"}])
    (folder / "empty.jsonl").touch()
    before = Path("rows.jsonl").read_bytes()
    command = ["teach", causal, "--manifest", "rows.jsonl", "--out", "out.jsonl", "--prompt", "{question}"]
    with pytest.raises(SystemExit) as ended:
        cli.main([*command, *options])
    assert ended.value.code == 2
    message = capsys.readouterr().err.strip()
    assert message.startswith("error: ")
    assert "\n" not in message
    assert re.search(words, message)
    assert Path("rows.jsonl").read_bytes() == before


def test_a_file_of_generate_and_one_of_another_model_are_refused(
    folder: Path, causal: str, exported: str
) -> None:
    teach(causal)
    with pytest.raises(UserError, match=r"of another .*model"):
        teach(exported)
    with pytest.raises(UserError, match=r"of another .*max_length"):
        cli.run(
            "generate", [exported, "--file", "rows.jsonl", "--prompt", "{question}", "--out", "out.jsonl"]
        )


def test_a_model_with_code_of_its_own_is_not_run(folder: Path) -> None:
    strange = folder / "strange"
    strange.mkdir()
    auto = {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"}
    (strange / "config.json").write_text(json.dumps({"model_type": "strange", "auto_map": auto}))
    (strange / "code.py").write_text("raise SystemExit('code of a stranger was run')")
    with pytest.raises(UserError, match=r"cannot load '.*strange'.*without code of its own"):
        teach(str(strange))


def test_rows_of_a_table_that_json_cannot_hold_are_named(folder: Path, causal: str) -> None:
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table({"question": ["a"], "raw": [b"\xff"]})
    pyarrow.parquet.write_table(table, folder / "rows.parquet")
    with pytest.raises(UserError, match="column 'raw' is of type bytes"):
        teach(causal, "--manifest", "rows.parquet")


def test_answers_wait_for_each_other(folder: Path, causal: str) -> None:
    teach(causal)
    settings = json.loads(Path(".out.jsonl.settings.json").read_text())
    with AnswerFile(Path("out.jsonl"), "row", settings), pytest.raises(UserError, match="another process"):
        teach(causal)
