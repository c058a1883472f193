"""A run with modalities: exported, used as a start for training, and prompted on the command line."""

import copy
import json
from pathlib import Path

import pytest
import torch
import yaml
from tiny_model import SHAPE, SPECS, picture, tiny_model, write_files

from encoders.stems import LogMelEncoder, PatchEncoder
from kebyt5_xm.adapters import Linear
from kebyt5_xm.commands import cli, generate
from kebyt5_xm.commands.export.export import export_backbone
from kebyt5_xm.commands.prompt import fill_prompt, parse_prompt
from kebyt5_xm.errors import UserError
from kebyt5_xm.model.backbone import Backbone, backbone_hash
from kebyt5_xm.model.cross_modal import CrossModalT5
from kebyt5_xm.model.modality import Modality
from kebyt5_xm.model.origin import record
from kebyt5_xm.model.processor import CrossModalProcessor
from kebyt5_xm.model.runs.checkpoint_reading import MODEL_PREFIX
from kebyt5_xm.training.task import Task

GIVEN = [("image", "a.png"), ("audio", "b.wav"), ("image", "c.png")]


@pytest.fixture(scope="module")
def model() -> CrossModalT5:
    return tiny_model()


@pytest.fixture(scope="module")
def run(tmp_path_factory, model) -> Path:
    """A finished run with one checkpoint."""
    path = tmp_path_factory.mktemp("runs") / "run-a"
    (path / "checkpoints").mkdir(parents=True)
    specs = copy.deepcopy(SPECS)
    specs["image"]["encoder"]["init_args"]["image_size"] = [16, 24]  # as YAML has it
    recipe = {
        "model": {
            "backbone": {"shape": SHAPE},
            "modalities": {name: {**spec, "weights": None} for name, spec in specs.items()},
            "slot_bias": "shared",
        },
        "data": {"sources": {}},
    }
    (path / "config.yaml").write_text(yaml.safe_dump(recipe))
    record(Backbone(shape=SHAPE), path / "backbone")
    state = {MODEL_PREFIX + key: tensor for key, tensor in model.state_dict().items()}
    torch.save({"state_dict": state, "global_step": 7}, path / "checkpoints" / "step=7.ckpt")
    return path


@pytest.fixture(scope="module")
def exported(run) -> Path:
    out = run.parent / "out"
    cli.run("export", [str(run), "--out", str(out)])
    return out


def same(model: CrossModalT5, other: CrossModalT5) -> bool:
    before, after = model.state_dict(), other.state_dict()
    return before.keys() == after.keys() and all(before[k].equal(after[k]) for k in before)


def test_export_holds_the_whole_model(run, exported, model):
    assert same(CrossModalT5.from_pretrained(exported), model)
    assert same(CrossModalT5.from_pretrained(run), model)
    found = {str(p.relative_to(exported)) for p in exported.rglob("*") if p.is_file()}
    assert found == {
        *("README.md", "README.ko.md", "config.json", "digests.json", "generation_config.json"),
        *("model.safetensors", "processor_config.json"),
        *(
            f"adapters/{n}/{f}"
            for n in SPECS
            for f in ("adapter.json", "adapter.safetensors", "digests.json", "encoder.safetensors")
        ),
    }
    content = json.loads((exported / "config.json").read_text())
    assert content["kebyt5_xm"]["backbone_hash"] == backbone_hash(model.backbone)
    assert content["byte_rms"] == model.byte_rms()
    card = (exported / "README.md").read_text()
    assert "| speech | audio | `encoders.stems.LogMelEncoder` |" in card
    assert "T5ForConditionalGeneration" not in card
    code = card.split("```python")[1].split("```")[0]
    assert 'Path("a.png"), Path("b.wav")' in code
    compile(code, "README.md", "exec")
    CrossModalProcessor.from_pretrained(exported)  # without a warning: the preprocessing is the same
    cli.run("export", [str(run), "--out", str(exported), "--overwrite", "--dtype", "float32"])


@pytest.mark.parametrize("start", ["run", "exported"])
def test_stage_two_starts_from_stage_one_by_yaml(start, run, exported, model):
    def task(**weights: str | None) -> Task:
        modalities = {
            "image": Modality(lambda: PatchEncoder((16, 24), 8, 12), _adapter(modality_vector=True)),
            "speech": Modality(lambda: LogMelEncoder(13, 4, 8000, 11), _adapter(begin_end=True)),
        }
        for name, folder in weights.items():
            modalities[name].weights = folder
        return Task(Backbone(weights=str({"run": run, "exported": exported}[start])), modalities)

    adapters = {name: str(exported / "adapters" / name) for name in SPECS}
    fresh, both = task(), task(**adapters)
    for started in (fresh, both):
        started.setup("fit")
    assert both.model is not None
    assert fresh.model is not None
    assert same(both.model, model)
    assert not same(fresh.model, model)
    other = Task(Backbone(shape=SHAPE), task(**adapters).modalities)
    with pytest.raises(UserError, match=backbone_hash(model.backbone)):
        other.setup("fit")


def _adapter(**options: bool):
    return lambda in_dim, d_model: Linear(in_dim, d_model, **options)


def test_the_command_answers_as_the_model_does(run, exported, model, tmp_path, capsys):
    image, audio = write_files(tmp_path)
    expected = model.answer([image, audio, " ko:"], max_new_tokens=11)
    assert expected == model.answer([picture(5), audio, " ko:"], max_new_tokens=11)
    files = ["--image", str(image), "--audio", str(audio), "--max-length", "11"]
    for source, prompt in ((exported, " ko:"), (run / "checkpoints" / "step=7.ckpt", "{image}{audio} ko:")):
        cli.run("generate", [str(source), "--prompt", prompt, *files])
        assert capsys.readouterr().out == expected + "\n"
    beams = model.answer([audio, " ko: ", image], max_new_tokens=11, num_beams=3)
    named = ["--media", f"speech={audio}", "--image", str(image), "--max-length", "11", "--num-beams", "3"]
    cli.run("generate", [str(exported), "--prompt", "{speech} ko: {image}", *named])
    assert capsys.readouterr().out == beams + "\n"
    assert beams != expected

    plain = tmp_path / "plain"
    export_backbone(model.backbone, plain, denoising={})
    cli.run("generate", [str(plain), "--prompt", "나라", "--max-length", "7"])
    assert capsys.readouterr().out == model.answer("나라", max_new_tokens=7) + "\n"
    for dtype, name in (("fp32", "float32"), ("bf16", "bfloat16"), ("int8", "int8")):
        expected = CrossModalT5.from_pretrained(plain, dtype=name).answer("나라", max_new_tokens=7)
        cli.run("generate", [str(plain), "--prompt", "나라", "--max-length", "7", "--dtype", dtype])
        assert capsys.readouterr().out == f"{expected}\n"
    refused = [
        (
            [str(plain), "--prompt", "x", "--dtype", "int8", "--device", "cuda"],
            "found --dtype int8 with --device cuda, expected --device cpu.*use bf16",
        ),
        ([str(plain), "--image", str(image)], "no modality 'image'.*takes text alone"),
        ([str(plain)], "neither a --prompt nor a file"),
        ([str(plain), "--image", "gone.png"], "found no file 'gone.png'"),
        ([str(plain), "--prompt", "x", "--max-length", "0"], "expected 1 or more"),
        ([str(plain), "--media", str(image)], "expected --media NAME=PATH"),
        ([str(plain), "--image", str(tmp_path)], "found a folder '.*', expected a file"),
        ([str(plain), "--prompt", "x", "--device", "cuda:97"], "cannot compute on 'cuda:97'.*expected cpu"),
        ([str(plain), "--prompt", "x", "--device", "meta"], "cannot compute on 'meta'"),
        ([str(exported), "--media", f"speach={audio}"], "no modality 'speach'; did you mean 'speech'"),
        ([str(exported), "--prompt", "{image}", "--media", f"imge={image}"], "no modality 'imge'; did you"),
    ]
    for args, message in refused:
        with pytest.raises(UserError, match=message):
            cli.run("generate", args)


def test_labels_are_printed_with_their_probabilities(exported, model, tmp_path, capsys):
    image, _ = write_files(tmp_path)
    expected = model.classify([image, " ko:"], ["개", "고양이"])
    given = [
        str(exported),
        "--image",
        str(image),
        "--prompt",
        "{image} ko:",
        "--label",
        "개",
        "--label",
        "고양이",
    ]
    cli.run("generate", given)
    printed = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    assert {label: float(p) for p, label in printed} == pytest.approx(expected, abs=1e-4)
    assert float(printed[0][0]) >= float(printed[1][0])
    with pytest.raises(UserError, match="expected one of them"):
        cli.run("generate", [*given, "--num-beams", "2"])


def segments(prompt: str, given: list[tuple[str, str]], **modalities: str) -> list:
    """`modalities` are the names of a model's for kinds or places; without any, names stay."""

    def named(name: str) -> str:
        if name in modalities or not modalities:
            return modalities.get(name, name)
        raise UserError(f"the model has no modality '{name}'")

    return fill_prompt(parse_prompt(prompt), given, named)


def test_segments_stand_where_the_prompt_says():
    assert segments(" ko:", GIVEN) == [*GIVEN, " ko:"]
    assert segments("", GIVEN[:1]) == GIVEN[:1]
    image, audio, second = GIVEN
    assert segments("x {image}{image} y{audio}", GIVEN) == ["x ", image, second, " y", audio]
    assert segments("{eye}?", [("eye", "a")]) == [("eye", "a"), "?"]
    with pytest.raises(UserError, match=r"placeholder {image}.*--image PATH"):
        segments("{image}{image}{image}{audio}", GIVEN)
    with pytest.raises(UserError, match=r"no placeholder for 'b.wav'; put {audio}"):
        segments("{image}{image}", GIVEN)
    assert generate.segments("{{image}}: {image}", GIVEN[:1]) == ["{image}: ", image]


def test_a_prompt_is_written_as_in_a_recipe():
    assert segments(r"안녕\n답:\t\\n \frac", []) == ["안녕\n답:\t\\n \\frac"]
    assert segments("HTML: {{image}} }}", []) == ["HTML: {image} }"]
    photo, sound = ("image", "a.png"), ("audio", "b.wav")
    names = {"image": "photo", "photo": "photo", "audio": "speech", "speech": "speech"}
    expected = [("photo", "a.png"), "\n", ("speech", "b.wav"), " ko:"]
    assert segments(r"{picture:photo}\n{sound:speech} ko:", [sound, photo], **names) == expected
    assert segments(r"{image}\n{audio} ko:", [sound, photo], **names) == expected
    for prompt, message in (
        (
            "{picture} ko:",
            r"the placeholder {picture}: the model has no modality 'picture'.*{{picture}} for braces",
        ),
        ("{picture:imge}", r"{picture:imge}: the model has no modality 'imge'"),
        ("{a", r"found '{' at character 0.*write {{ or }}"),
        ("{}", "found '{' at character 0"),
        ("x \udce9", "--prompt is not valid UTF-8 from character 2"),
    ):
        with pytest.raises(UserError, match=message):
            segments(prompt, [photo], **names)
    with pytest.raises(
        UserError, match=r"placeholder {imge} and no file is left for it; did you mean 'image'"
    ):
        segments("{imge}{image}", [photo])
