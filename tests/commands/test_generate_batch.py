"""`kebyt5-xm generate` for many inputs, as JSON, as a stream and interactively."""

import builtins
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_model import SPECS, picture, tiny_model, write_files

from kebyt5_xm.commands import cli
from kebyt5_xm.commands.generate import batch as batch_module
from kebyt5_xm.commands.generate.output import AnswerFile, model_digest
from kebyt5_xm.data.media.opening import Excerpt, open_audio
from kebyt5_xm.errors import UserError
from kebyt5_xm.model.cross_modal import CrossModalT5


@pytest.fixture(scope="module")
def model() -> CrossModalT5:
    return tiny_model()


@pytest.fixture(scope="module")
def exported(tmp_path_factory, model) -> str:
    folder = tmp_path_factory.mktemp("exported")
    model.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch) -> Path:
    """A folder with media and a table of four rows, the second of which names a missing file."""
    write_files(tmp_path)
    rows = [
        {"picture": name, "word": word} for name, word in zip("abcd", ("개", "새", "말", "소"), strict=True)
    ]
    for row in rows:
        row["picture"] += ".png"
        if row["word"] != "새":
            picture(ord(row["word"])).save(tmp_path / row["picture"])
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (tmp_path / "rows.jsonl").write_text(lines, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(path: str = "out.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


TABLE = ["--file", "rows.jsonl", "--prompt", r"{picture:image}{{x}} {word}:\n", "--max-length", "9"]


def test_rows_of_a_table_are_answered_once_and_failures_again(folder, exported, model, capsys):
    command = [exported, *TABLE, "--out", "out.jsonl", "--batch-size", "3"]
    with pytest.raises(
        UserError, match=r"1 of 4 inputs have no answer; the first is row 1: .*b\.png.*no such file"
    ):
        cli.run("generate", command)
    rows = {row["row"]: row for row in read()}
    assert "error" in rows[1]
    for number, word in ((0, "개"), (2, "말"), (3, "소")):
        image = folder / f"{'abcd'[number]}.png"
        expected = model.answer([image, f"{{x}} {word}:\n"], max_new_tokens=9)
        assert rows[number] == {"row": number, "answer": expected}
    picture(9).save("b.png")
    asked = []
    answers = batch_module.describe_answers
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            batch_module, "describe_answers", lambda *given: asked.append(given[1]) or answers(*given)
        )
        cli.run("generate", command)
        cli.run("generate", command)
    assert [len(batch) for batch in asked] == [1], "only the row that failed"
    assert sorted(row["row"] for row in read()) == [0, 1, 2, 3]
    assert not any("error" in row for row in read())
    assert "4 answers in out.jsonl, 0 of them new" in capsys.readouterr().err


def test_rows_may_take_excerpts_of_their_recordings(folder, exported, model):
    waveform, rate = open_audio("b.wav")
    rows = [{"sound": "b.wav", "at": 0.05, "lasts": 0.1}, {"sound": "b.wav", "at": "x"}, {"sound": "b.wav"}]
    Path("sounds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    prompt = ["--prompt", "{sound:speech} en:", "--max-length", "9", "--out", "out.jsonl"]
    command = [exported, "--file", "sounds.jsonl", *prompt]
    with pytest.raises(UserError, match=r"1 of 3 .* row 1: column 'at' is 'x', expected seconds"):
        cli.run("generate", [*command, "--offset", "at", "--duration", "lasts"])
    found = {row["row"]: row.get("answer") for row in read()}
    for number, samples in ((0, waveform[400:1200]), (2, waveform)):
        assert found[number] == model.answer([(samples, rate), " en:"], max_new_tokens=9)
    excerpt = Excerpt(Path("b.wav"), 0.05, 0.1)
    assert model.answer([excerpt, " en:"], max_new_tokens=9) == found[0]
    with pytest.raises(UserError, match="of another duration and offset"):
        cli.run("generate", command)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--file", "rows.jsonl", "--offset", "wrd"], r"`offset: wrd`.*did you mean 'word'"),
        (["--file", "rows.jsonl", "--duration", "word"], r"\{picture:image\}, which is no recording"),
        (["--file", "a.png", "--offset", "word"], "--offset or --duration without a table"),
        (["--duration", "word"], "found --duration without --file"),
    ],
)
def test_excerpts_that_cannot_be_meant_are_refused(folder, exported, options, words):
    with pytest.raises(UserError, match=words):
        cli.run("generate", [exported, "--prompt", "{picture:image}", *options])


def test_a_kill_at_any_byte_loses_and_repeats_nothing(tmp_path, monkeypatch):
    rows = [{"row": n, "answer": f"답 {n}\n"} for n in range(5)]
    whole = tmp_path / "whole.jsonl"
    with AnswerFile(whole, "row", {"a": 1}) as file:
        for row in rows:
            file.write([row])
    raw = whole.read_bytes()
    path = tmp_path / "out.jsonl"
    settings = tmp_path / ".out.jsonl.settings.json"
    for cut in range(len(raw) + 1):
        path.write_bytes(raw[:cut])
        settings.write_text('{"a": 1}')
        with AnswerFile(path, "row", {"a": 1}) as file:
            assert file.done == set(range(raw[:cut].count(b"\n")))
            file.write([row for row in rows if row["row"] not in file.done])
        assert path.read_bytes() == raw
    path.unlink()
    for cut in range(9):  # a kill while the settings were written
        settings.write_text('{"a": 1}'[:cut])
        with AnswerFile(path, "row", {"a": 2}) as file:
            assert not file.done
    assert {found.name for found in tmp_path.iterdir()} == {
        *("whole.jsonl", ".whole.jsonl.settings.json", "out.jsonl", ".out.jsonl.settings.json")
    }


def test_an_interrupted_command_goes_on_with_the_same_samples(folder, exported, monkeypatch):
    picture(9).save("b.png")
    command = [exported, *TABLE, "--temperature", "2", "--seed", "5", "--batch-size", "1"]
    cli.run("generate", [*command, "--out", "whole.jsonl"])
    answers, calls = batch_module.describe_answers, []

    def killed(*given: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return answers(*given)

    monkeypatch.setattr(batch_module, "describe_answers", killed)
    with pytest.raises(KeyboardInterrupt):
        cli.run("generate", [*command, "--out", "out.jsonl"])
    assert len(read()) == 2
    cli.run("generate", [*command, "--out", "out.jsonl"])
    assert read() == read("whole.jsonl")
    assert len(calls) == 5
    monkeypatch.setattr(batch_module, "describe_answers", answers)
    Path("same.jsonl").write_text('{"word": "x"}\n' * 4)
    command = [exported, "--file", "same.jsonl", "--prompt", "{word}", "--temperature", "5", "--seed", "5"]
    cli.run("generate", [*command, "--batch-size", "1", "--out", "same-answers.jsonl", "--max-length", "20"])
    assert len({row["answer"] for row in read("same-answers.jsonl")}) > 1, "each batch draws on its own"


def test_answers_of_other_settings_are_not_mixed(folder, exported, tmp_path_factory):
    picture(9).save("b.png")
    command = [exported, *TABLE, "--out", "out.jsonl"]
    cli.run("generate", command)
    before = Path("out.jsonl").read_bytes()
    other = tmp_path_factory.mktemp("other")
    tiny_model(seed=5).save_pretrained(other)
    for changed, name in (
        ([*command, "--max-length", "8"], "max_length"),
        ([*command, "--prompt", "{picture:image}"], "prompt"),
        ([str(other), *command[1:]], "model"),
        ([*command, "--json"], "json"),
    ):
        with pytest.raises(UserError, match=f"of another {name}, expected the same command"):
            cli.run("generate", changed)
    with open("rows.jsonl", "a") as file:
        file.write('{"picture": "a.png", "word": "x"}\n')
    with pytest.raises(UserError, match="of another table"):
        cli.run("generate", command)
    assert Path("out.jsonl").read_bytes() == before
    with (
        AnswerFile(Path("locked.jsonl"), "row", {}),
        pytest.raises(UserError, match="another process that writes"),
    ):
        AnswerFile(Path("locked.jsonl"), "row", {}).__enter__()
    Path("mine.txt").write_text("precious")
    for place, message in (("mine.txt", "did not write"), (".", "a folder"), ("gone/x", "no folder gone")):
        with pytest.raises(UserError, match=message):
            cli.run("generate", [exported, *TABLE, "--out", place])
    assert Path("mine.txt").read_text() == "precious"
    Path("out.jsonl").unlink()  # the remedy
    cli.run("generate", command)
    assert len(read()) == 5


def test_a_pattern_of_files(folder, exported, model, capsys):
    picture(9).save("b.png")
    cli.run(
        "generate", [exported, "--prompt", "{image} ko:", "--file", "[ab].png", "c.png", "--max-length", "7"]
    )
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["file"] for row in rows] == ["a.png", "b.png", "c.png"]
    expected = model.answer([[Path(row["file"]), " ko:"] for row in rows], max_new_tokens=7)
    assert [row["answer"] for row in rows] == expected
    cli.run("generate", [exported, "--prompt", " ko:", "--file", "b.wav", "--max-length", "7", "--json"])
    (row,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    details = model.answer([Path("b.wav"), " ko:"], max_new_tokens=7, details=True)
    assert (row["answer"], row["finish_reason"]) == (details.text, details.finish_reason)
    assert [word["text"] for word in row["words"]] == [word.text for word in details.words]
    cli.run("generate", [exported, "--prompt", " ko:", "--file", "a.png", "--label", "개", "--label", "새"])
    (row,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert row["probabilities"] == pytest.approx(
        model.classify([Path("a.png"), " ko:"], ["개", "새"]), abs=1e-5
    )


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "int8"])
def test_answers_of_every_dtype_go_to_a_file(folder, exported, dtype):
    command = [
        exported,
        "--file",
        "a.png",
        "--prompt",
        "{image} ko:",
        "--max-length",
        "5",
        "--out",
        "out.jsonl",
    ]
    cli.run("generate", [*command, "--dtype", dtype])
    cli.run("generate", [*command, "--dtype", dtype])
    assert len(read()) == 1
    with pytest.raises(UserError, match="of another dtype"):
        cli.run("generate", command)


def test_one_answer_as_json_and_as_a_stream(folder, exported, model, capsys):
    command = [exported, "--prompt", "{image} ko:", "--image", "a.png", "--max-length", "11"]
    segments = [Path("a.png"), " ko:"]
    text = model.answer(segments, max_new_tokens=11)
    cli.run("generate", [*command, "--stream"])
    assert capsys.readouterr().out == text + "\n"
    cli.run("generate", [*command, "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["answer"] == text
    assert 0 < found["confidence"] <= 1
    cli.run("generate", [*command, "--n", "3"])
    assert capsys.readouterr().out == "".join(
        f"{t}\n" for t in model.answer(segments, n=3, max_new_tokens=11)
    )
    cli.run("generate", [*command, "--n", "2", "--json"])
    answers = json.loads(capsys.readouterr().out)["answers"]
    assert [answer["text"] for answer in answers] == model.answer(segments, n=2, max_new_tokens=11)
    sampled = [*command, "--temperature", "3", "--seed"]
    drawn = []
    for seed in ("1", "1", "2", "3"):
        cli.run("generate", [*sampled, seed])
        drawn.append(capsys.readouterr().out)
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) > 1


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bare_command_asks(folder, exported, model, capsys, monkeypatch):
    lines = [exported, "{image} ko:", "a.png", "{imge}", r"나라\n", "{image}", "gone.png", ""]
    asked: list[str] = []

    def answer(question: str) -> str:
        asked.append(question)
        return lines[len(asked) - 1]

    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr(builtins, "input", answer)
    cli.run("generate", ["--max-length", "7"])
    printed = capsys.readouterr().out
    assert model.answer([Path("a.png"), " ko:"], max_new_tokens=7) + "\n" in printed
    assert model.answer("나라\n", max_new_tokens=7) + "\n" in printed
    assert "{imge}: " not in printed
    assert "error: the model has no modality 'imge'; did you mean 'image'" in printed
    assert "error: cannot use gone.png: there is no such file" in printed
    assert len(asked) == len(lines)
    assert asked[2] == "file for {image}> "
    monkeypatch.setattr(builtins, "input", lambda _: (_ for _ in ()).throw(EOFError))
    cli.run("generate", [exported])


def test_options_that_do_not_fit_are_refused_before_the_model_is_read(folder, monkeypatch):
    one, table = ["MODEL", "--prompt", "x"], ["MODEL", *TABLE]
    for args, message in (
        ([*one, "--stream", "--json"], "--stream with --json"),
        ([*one, "--stream", "--n", "2"], "--stream with --n"),
        ([*one, "--stream", "--num-beams", "2"], "--stream with --num-beams"),
        ([*one, "--label", "a", "--label", "b", "--temperature", "1"], "--label with --temperature"),
        ([*one, "--label", "a", "--label", "b", "--n", "2"], "--label with --n"),
        ([*one, "--label", "a", "--label", "b", "--stream"], "--label with --stream"),
        ([*one, "--temperature", "1", "--num-beams", "2"], "--temperature with --num-beams"),
        ([*one, "--temperature", "-1"], "--temperature -1.0"),
        ([*one, "--temperature", "nan"], "--temperature nan"),
        ([*one, "--seed", "1"], "--seed without --temperature"),
        ([*one, "--n", "0"], "--n 0"),
        ([*one, "--out", "x"], "--out without --file"),
        ([*one, "--allow-outside"], "--allow-outside without --file"),
        ([*table, "--stream"], "--stream with --file"),
        ([*table, "--image", "a.png"], "--file with --image"),
        ([*table, "--batch-size", "0"], "--batch-size 0"),
        (["MODEL", "--file", "rows.jsonl"], "a table without --prompt"),
        (["MODEL", "--file", "rows.jsonl", "--prompt", "{wrd}"], "column 'wrd'.*did you mean 'word'"),
        (["MODEL", "--file", "*.gif", "--prompt", "x"], r"no file '\*.gif'"),
        (["MODEL", "--file", ".", "--prompt", "x"], "a folder '.', expected files"),
        (["MODEL", "--file", "a.png", "rows.jsonl", "--prompt", "x"], "the table 'rows.jsonl' among"),
        (["MODEL", "--file", "a.png", "--prompt", "{image}{image}"], "2 placeholders, expected at most one"),
        (["MODEL", "--file", "a.png", "--allow-outside"], "--allow-outside without a table"),
        (["--file", "a.png"], "found no MODEL"),
    ):
        with pytest.raises(UserError, match=message):
            cli.run("generate", args)
    Path("a.csv").write_text("x")
    with pytest.raises(UserError, match="expected images, recordings or arrays, or a table"):
        cli.run("generate", ["MODEL", "--file", "a.csv", "--prompt", "x"])


def test_media_of_a_table_stay_in_its_folder_unless_allowed(folder, exported, capsys):
    (folder / "tables").mkdir()
    Path("tables/rows.jsonl").write_text('{"picture": "../a.png"}\n')
    command = [exported, "--file", "tables/rows.jsonl", "--prompt", "{picture:image}", "--max-length", "5"]
    with pytest.raises(UserError, match="it leaves the manifest's folder"):
        cli.run("generate", command)
    capsys.readouterr()
    cli.run("generate", [*command, "--allow-outside"])
    assert "answer" in json.loads(capsys.readouterr().out)
    with pytest.raises(UserError, match="no modality 'imge'; did you mean 'image'"):
        cli.run("generate", [*command, "--prompt", "{picture:imge}"])


def test_the_digest_tells_checkpoints_apart(model):
    before = model_digest(tiny_model())
    assert before == model_digest(model)
    other = tiny_model()
    other.backbone.shared.weight.data[7] += 1e-3
    assert model_digest(other) != before
    assert model_digest(tiny_model({"image": SPECS["image"]})) != before
