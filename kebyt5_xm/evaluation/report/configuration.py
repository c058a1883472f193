"""What was trained, on what it was built, and with which settings."""

from typing import Any

import yaml
from markupsafe import Markup

from kebyt5_xm.evaluation.report.markup import EMPTY, Child, code, data, element, join, say
from kebyt5_xm.evaluation.report.numbers import number
from kebyt5_xm.evaluation.report.recorded import Record, section
from kebyt5_xm.evaluation.report.tables import facts, folded, table
from kebyt5_xm.model.origin import Origin


def configuration(record: Record) -> Markup:
    """Return the settings that decide most, the modalities, and the whole merged recipe."""
    whole = yaml.safe_dump(record.config, allow_unicode=True, sort_keys=False, width=100)
    return join(
        [
            facts((name, value) for name, value in _facts(record) if value),
            _modalities(record),
            folded(say("합쳐진 레시피 전체 (config.yaml)", "The whole merged recipe (config.yaml)"))
            if not record.config
            else folded(
                say("합쳐진 레시피 전체 (config.yaml)", "The whole merged recipe (config.yaml)"),
                element("pre", whole, lang="", tabindex=0),
            ),
        ]
    )


def _facts(record: Record) -> list[tuple[Child, Child]]:
    config, results, shape = record.config, record.results, record.backbone
    model, trainer = section(config, "model"), section(config, "trainer")
    backbone = section(model, "backbone")
    origin = Origin.read(shape)
    start = (
        data(" ← ".join(origin.started_from))
        if origin.started_from
        else say("처음부터 (무작위 가중치)", "from scratch")
    )
    return [
        (say("시작점", "Started from"), start if shape else EMPTY),
        (say("시작점의 라이선스", "Licence of the start"), data(origin.licence) if origin.licence else EMPTY),
        (say("백본의 모양", "Shape of the backbone"), _shape(shape)),
        (say("매개변수", "Parameters"), _parameters(results)),
        (say("최적화 단계", "Optimizer steps"), _of(results.get("steps"))),
        (
            say("전체 배치 (예제)", "Global batch (examples)"),
            _of(section(config, "data").get("global_batch_size") or results.get("global_batch_size")),
        ),
        (say("옵티마이저", "Optimizer"), _class(model.get("optimizer"))),
        (say("학습률 일정", "Schedule"), _class(model.get("schedule"))),
        (say("백본 고정", "Backbone frozen"), say("예", "yes") if backbone.get("frozen") else EMPTY),
        (say("드롭아웃", "Dropout"), _of(backbone.get("dropout"))),
        (say("정밀도", "Precision"), _of(results.get("precision") or trainer.get("precision"))),
        (say("분산 방식", "Strategy"), _of(results.get("strategy") or trainer.get("strategy"))),
        (say("난수 시드", "Seed"), _of(config.get("seed_everything"))),
    ]


def _shape(shape: dict[str, Any]) -> Child:
    keys = ("d_model", "num_layers", "num_decoder_layers", "num_heads")
    if any(key not in shape for key in keys):
        return EMPTY
    width, layers, decoder_layers, heads = (str(shape[key]) for key in keys)
    return say(
        "너비 {}, 인코더 {}층, 디코더 {}층, 헤드 {}개",
        "width {}, {} encoder and {} decoder layers, {} heads",
        width,
        layers,
        decoder_layers,
        heads,
    )


def _parameters(results: dict[str, Any]) -> Child:
    total, training = results.get("parameters"), results.get("trainable_parameters")
    if not isinstance(total, int):
        return EMPTY
    if not isinstance(training, int) or training == total:
        return number(total)
    return say("{} (학습 {})", "{} ({} train)", number(total), number(training))


def _modalities(record: Record) -> Markup:
    blocks = section(section(record.config, "model"), "modalities")
    rows = []
    for name, block in blocks.items():
        encoder, adapter = section(block, "encoder"), section(block, "adapter")
        frozen = section(encoder, "init_args").get("frozen")
        state = (
            say("고정", "frozen")
            if frozen
            else say("기본값", "as by default")
            if frozen is None
            else say("학습", "trains")
        )
        rows.append([data(name), _class(encoder), state, _class(adapter)])
    if not rows:
        return EMPTY
    header = [
        say("모달리티", "Modality"),
        say("인코더", "Encoder"),
        say("인코더의 가중치", "Its weights"),
        say("어댑터", "Adapter"),
    ]
    return element("h3", say("모달리티", "Modalities")) + table(header, rows)


def _class(block: Any) -> Markup:
    """Return a class with its arguments, of switches those that are on; the recipe below has its module and all."""
    if not isinstance(block, dict) or "class_path" not in block:
        return code(block) if isinstance(block, str) else EMPTY
    name = str(block["class_path"]).rpartition(".")[2]
    given = {
        k: v
        for k, v in section(block, "init_args").items()
        if v is not None and v is not False and k != "frozen"
    }
    return code(f"{name}({', '.join(f'{key}={_value(value)}' for key, value in given.items())})")


def _value(value: Any) -> str:
    told = f"{value:g}" if isinstance(value, float) else str(value)
    return told if len(told) <= 60 else told[:59] + "…"


def _of(value: Any) -> Child:
    if value is None:
        return EMPTY
    return number(value) if isinstance(value, int) and not isinstance(value, bool) else data(_value(value))
