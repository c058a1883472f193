"""The probes of a source: whether the model uses each modality, and how robust it is to damaged inputs."""

from collections.abc import Sequence
from typing import Any

from tqdm import tqdm

from kebyt5_xm.data.datamodule import DataModule
from kebyt5_xm.data.inputs import Example
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

    They are measured on its first `num_examples` held-out examples. The result is empty if there are none, if the
    source has no prompts or metrics, and if it has no slots and `with_robustness` is False.
    """
    source = data.validation.source(number)
    answering = Judging(data).answering(number)
    prompts = data.validation.prompts(number)
    if prompts is None or answering is None or num_examples < 1:
        return {}
    with_use = bool(prompts.prompt.modalities)
    if not with_use and not with_robustness:
        return {}

    def respond(examples: Sequence[Example]) -> list[Written]:
        bar.update(len(examples))
        return answering.respond(model, examples, prompts.interfaces, data.micro_batch_size)

    num_rows = data.validation.parts[number].num_rows
    found: dict[str, Any] = {}
    with tqdm(unit=" answers", desc=data.validation.names[number], disable=None) as bar:
        held_out = HeldOut.answered(prompts, source.metrics, respond, num_examples, num_rows)
        if with_use:
            found["modality_use"] = measure_modality_use(held_out, bar.set_postfix_str)
        if with_robustness:
            found["robustness"] = measure_robustness(held_out, tell=bar.set_postfix_str)
    return found
