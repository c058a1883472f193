"""The probes of a source, beside its metrics: whether each modality is used, and what damage to the input costs."""

from collections.abc import Sequence
from typing import Any

from tqdm import tqdm

from kebyt5_xm.data.datamodule import DataModule
from kebyt5_xm.data.inputs import Example
from kebyt5_xm.data.sources.manifest_source import Manifest
from kebyt5_xm.evaluation.answering import Written
from kebyt5_xm.evaluation.held_out import HeldOut
from kebyt5_xm.evaluation.judging import Judging
from kebyt5_xm.evaluation.modality_use import measure_modality_use
from kebyt5_xm.evaluation.robustness import measure_robustness
from kebyt5_xm.model.cross_modal import CrossModalT5


def probed(
    model: CrossModalT5, data: DataModule, number: int, num_examples: int, with_robustness: bool
) -> dict[str, Any]:
    """Return what the probes found for validation part `number`, by the fields of a `SourceEvaluation`.

    Over its first `num_examples` held-out examples; of fewer than one, and of a source without slots whose robustness
    is not asked for, nothing.
    """
    source = data.validation.source(number)
    answering = Judging(data).answering(number)
    with_use = isinstance(source, Manifest) and bool(source.prompt.modalities)
    if not isinstance(source, Manifest) or answering is None or num_examples < 1:
        return {}
    if not with_use and not with_robustness:
        return {}

    def respond(examples: Sequence[Example]) -> list[Written]:
        bar.update(len(examples))
        return answering.respond(model, examples, source.maker.interfaces, data.micro_batch_size)

    found: dict[str, Any] = {}
    with tqdm(unit=" answers", desc=data.validation.names[number], disable=None) as bar:
        held_out = HeldOut.answered(source, respond, num_examples)
        if with_use:
            found["modality_use"] = measure_modality_use(held_out, bar.set_postfix_str)
        if with_robustness:
            found["robustness"] = measure_robustness(held_out, tell=bar.set_postfix_str)
    return found
