"""The real signatures accept every YAML under configs/, merged as the commands in its header say.

The parser of `train.py` is built once and only parses: no weight, store or device is touched.
"""

import itertools
import re
import shlex
import warnings
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
import yaml

from kebyt5_xm.training import cli as training
from kebyt5_xm.training.callbacks.forgetting import Forgetting
from kebyt5_xm.training.from_recipes import build_task
from kebyt5_xm.training.parser import Parser
from kebyt5_xm.training.recipe_check import TOP

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "configs").rglob("*.yaml"))
COMMAND = re.compile(r"(?:python|torchrun [^#\n]*?) ?train\.py (fit|validate|test) ((?:[^#\n ]| (?! ))*)")
"""A command of train.py; a comment follows after two spaces."""


class Built(Exception):
    """Carries the finished parser out of LightningCLI's constructor."""


class ParserAlone(training.TrainingCLI):
    def parse_arguments(self, parser: Any, args: Any) -> NoReturn:
        raise Built(parser)


@pytest.fixture(scope="module")
def parser() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "TrainingCLI", ParserAlone)
        with pytest.raises(Built) as built:
            training.main(["fit"])
    return built.value.args[0]


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(str(ROOT))


def header(path: str) -> str:
    lines = (ROOT / path).read_text(encoding="utf-8").splitlines()
    end = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    return "\n".join(lines[:end])


def commands(text: str) -> list[list[str]]:
    """Return the arguments to train.py of every command in a text."""
    text = re.sub(r"\\\n#? *", "", text)  # continued lines
    return [[kind, *shlex.split(rest)] for kind, rest in COMMAND.findall(text)]


def files(words: list[str]) -> list[str]:
    return [after for word, after in itertools.pairwise(words) if word in ("-c", "--config")]


def parse(parser: Any, words: list[str], folder: Path) -> Any:
    try:
        return parser.parse_args(training.merge_arguments(words, folder))[words[0]]
    except SystemExit:
        pytest.fail(f"train.py {' '.join(words)} is refused; its message is on stderr")


@pytest.mark.parametrize("path", CONFIGS)
def test_header_and_signatures(parser: Any, path: str, tmp_path: Path) -> None:
    text = header(path)
    found = commands(text)
    assert found, "the header has no command of train.py"
    assert any(path in files(words) for words in found), "no command in the header names the file itself"
    for words in found:
        assert [name for name in files(words) if not (ROOT / name).is_file()] == []
        config = parse(parser, words, tmp_path)
        assert config["run_dir"] != "runs/unnamed"
    if not text.startswith("# Overlay"):
        assert re.search(r"^# hardware +\S", text, re.MULTILINE), "a recipe's header says its hardware"


TUNING = re.findall(
    r"```yaml\n(.*?)```", (ROOT / "docs" / "tuning.md").read_text(encoding="utf-8"), re.DOTALL
)


@pytest.mark.parametrize("block", TUNING, ids=range(len(TUNING)))
def test_blocks_of_the_page_on_tuning(parser: Any, block: str, tmp_path: Path) -> None:
    (tmp_path / "block.yaml").write_text(block, encoding="utf-8")
    words = ["fit", "-c", "configs/pretrain/mini.yaml"]
    config, plain = (
        parse(parser, [*words, *more], tmp_path) for more in (["-c", str(tmp_path / "block.yaml")], [])
    )
    assert any(config[key] != plain[key] for key in ("model", "ema"))


def test_a_number_of_torchvision_is_written_as_it_is_read(parser: Any, tmp_path: Path) -> None:
    """Its transforms take `Number | Sequence`; RUN/config.yaml must have it too."""
    affine = {"class_path": "torchvision.transforms.v2.RandomAffine", "init_args": {"degrees": 7}}
    init_args = {"path": "a.jsonl", "prompt": "{a:image}", "target": "{b}", "augment": {"image": [affine]}}
    source = {"class_path": "kebyt5_xm.data.Manifest", "init_args": init_args}
    block = tmp_path / "block.yaml"
    block.write_text(yaml.safe_dump({"data": {"sources": {"photos": source}}}), encoding="utf-8")
    words = ["fit", "-c", "configs/pretrain/mini.yaml", "-c", str(block)]
    config = parser.parse_args(training.merge_arguments(words, tmp_path))
    assert "degrees: 7\n" in parser.dump(config)


@pytest.mark.parametrize("words", commands((ROOT / "docs" / "pretraining.md").read_text()), ids=" ".join)
def test_commands_of_the_page_on_pretraining(parser: Any, words: list[str], tmp_path: Path) -> None:
    parse(parser, words, tmp_path)


GATES = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "forgetting.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("gate", GATES)
def test_gates_of_the_page_on_forgetting(parser: Any, gate: str, tmp_path: Path) -> None:
    path = tmp_path / "gate.yaml"
    path.write_text(gate)
    config = parse(parser, ["fit", "-c", "configs/pretrain/mini.yaml", "-c", str(path)], tmp_path)
    Forgetting(**config["forgetting"]).check()


@pytest.mark.parametrize(
    ("gate", "words"),
    [("null", []), ("{action: stop}", ["--forgetting.tolerance", "0.3"])],
)
def test_forgetting_is_reset_by_null_and_changed_by_options(
    parser: Any, gate: str, words: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "gate.yaml"
    path.write_text(f"forgetting: {gate}")
    config = parse(parser, ["fit", "-c", "configs/pretrain/mini.yaml", "-c", str(path), *words], tmp_path)
    if words:
        assert (config["forgetting"]["action"], config["forgetting"]["tolerance"]) == ("stop", 0.3)
    else:
        assert config["forgetting"] in (None, Forgetting())


def test_a_refused_recipe_fails_here(parser: Any, tmp_path: Path) -> None:
    """The tests above rely on this: parsing checks the arguments of classes."""
    path = tmp_path / "wrong.yaml"
    path.write_text("data: {sources: {text: {init_args: {inputs_lenght: 1024}}}}")
    with pytest.raises(pytest.fail.Exception):
        parse(parser, ["fit", "-c", "configs/pretrain/mini.yaml", "-c", str(path)], tmp_path)


def test_the_keys_of_the_early_check_are_those_of_the_parser(parser: Any) -> None:
    actions = parser._subcommands_action._name_parser_map["fit"]._actions
    keys = {action.dest.split(".")[0] for action in actions} - {"help", "config", "print_config"}
    assert keys | {"weights_only"} == set(TOP)


SOURCE = "data: {{sources: {{s: {{class_path: kebyt5_xm.data.Manifest, init_args: {{{}}}}}}}}}"
GIVEN = (
    "path: no, prompt: yes, target: 1.0, references: on, weight: 1e-1, epochs: 3, allow_remote: yes, labels: "
)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of jsonargparse, in calls from Lightning
@pytest.mark.parametrize(
    ("labels", "found"),
    [
        ("[no, yes, 1.0, 1e3, 012, 2020-01-01]", ["no", "yes", "1.0", "1e3", "012", "2020-01-01"]),
        (
            "{0: no, true: on, 1.0: y, null: x, 1:30: 7}",
            {"0": "no", "true": "on", "1.0": "y", "null": "x", "1:30": "7"},
        ),
    ],
)
def test_the_type_decides_what_a_value_is(parser: Any, labels: str, found: Any, tmp_path: Path) -> None:
    """RUN/config.yaml gives the same values when it is read again."""
    path = tmp_path / "norway.yaml"
    path.write_text(SOURCE.format(GIVEN + labels))
    for _ in range(2):
        parsed = parse(parser, ["fit", "-c", "configs/pretrain/mini.yaml", "-c", str(path)], tmp_path)
        given = parsed["data"]["sources"]["s"]["init_args"]
        assert (given["path"], given["prompt"], given["target"], given["references"]) == (
            "no",
            "yes",
            "1.0",
            "on",
        )
        assert (given["weight"], given["epochs"], given["allow_remote"]) == (0.1, 3, True)
        assert given["labels"] == found
        fit = parser._subcommands_action._name_parser_map["fit"]
        path.write_text(fit.dump(parsed, skip_none=False, skip_link_targets=True), encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            SOURCE.format("path: a, prompt: b, target: c, weight: heavy"),
            r"data\.sources\.s\.init_args\.weight: "
            "expected float or list, found heavy",
        ),
        (SOURCE.format("path: a, prompt: b, target: c, epochs: 1.5"), "epochs: expected int, found 1.5"),
        (
            "model: {groups: {g: {pattern: a, lr: quick}}}",
            r"model\.groups\.g\.lr: expected float, found quick",
        ),
        ("model: {backbone: {dropout: high}}", r"model\.backbone\.dropout: expected float, found high"),
        (
            "data: {sources: {text: {init_args: {boundaries: bite}}}}",
            r"init_args\.boundaries: expected .*'byte', 'character'.*found bite; did you mean 'byte'\?",
        ),
        (
            "trainer: {logger: {class_path: lightning.pytorch.loggers.CSVLogger, init_args: {save_dir: no}}}",
            r"trainer\.logger\.init_args\.save_dir: expected .*str.*, found False; quote it for a text",
        ),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_with_its_place(
    parser: Any, text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text("# a remark\n" + text)
    files = ("configs/pretrain/mini.yaml", str(path))
    recipes = Parser.of(files).recipes
    monkeypatch.setattr(type(parser), "recipes", recipes)
    with pytest.raises(SystemExit):
        parser.parse_args(training.merge_arguments(["fit", "-c", files[0], "-c", files[1]], tmp_path))
    assert re.search(rf"error: .*wrong\.yaml line 2: .*{message}", capsys.readouterr().err)


def test_keys_on_the_command_line_are_texts_too(parser: Any, tmp_path: Path) -> None:
    options = "--data.sources.text.init_args."
    words = [f"{options}stores={{no: a, 1.0: b, ko: c}}", f"{options}weight=1e-1"]
    given = parse(parser, ["fit", "-c", "configs/pretrain/mini.yaml", *words], tmp_path)
    text = given["data"]["sources"]["text"]["init_args"]
    assert (text["stores"], text["weight"]) == ({"no": "a", "1.0": "b", "ko": "c"}, 0.1)


@pytest.mark.parametrize("prompt", ["{q}", "{q}:", "{a} {b}", "Answer:", "{image:image} {q}", "yes", "1.0"])
def test_a_prompt_on_the_command_line_stays_a_text(parser: Any, prompt: str, tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(SOURCE.format("path: a, prompt: b, target: c"))
    words = [
        "-c",
        "configs/pretrain/mini.yaml",
        "-c",
        str(path),
        f"--data.sources.s.init_args.prompt={prompt}",
    ]
    given = parse(parser, ["fit", *words], tmp_path)
    assert given["data"]["sources"]["s"]["init_args"]["prompt"] == prompt


@pytest.mark.parametrize(
    ("optimizer", "rate", "decay"),
    [
        (None, 1e-2, 0.0),
        ({"class_path": "torch.optim.AdamW"}, 1e-3, 1e-2),
        ({"class_path": "torch.optim.AdamW", "init_args": {"lr": 3e-4}}, 3e-4, 1e-2),
        ({"class_path": "kebyt5_xm.optimizers.RMSScaledAdamW", "init_args": {"lr": 0.02}}, 0.02, 0.0),
    ],
)
def test_another_optimizer_keeps_its_defaults(optimizer, rate, decay, tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"q": "a"}\n', encoding="utf-8")
    options = {"path": str(tmp_path / "rows.jsonl"), "prompt": "{q}", "target": "{q}"}
    sources = {"s": {"class_path": "kebyt5_xm.data.Manifest", "init_args": options}}
    recipe = {"model": {"backbone": {"size": "mini"}}, "data": {"sources": sources}}
    if optimizer is not None:
        recipe["model"]["optimizer"] = optimizer
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's own calls of jsonargparse
        task, _ = build_task([str(path)], False)
    (group,) = task.optimization.optimizer([torch.nn.Parameter(torch.ones(2, 3))]).param_groups
    assert (group["lr"], group["weight_decay"]) == (rate, decay)
