"""The delete gate of a run or a saved model: what its recipe or config.json says, and its weights.

Its tensors are among the model's, in a checkpoint as in an export; a plain T5 has no place for them.
"""

from typing import Any

from torch import Tensor

from kebyt5_xm.errors import UserError
from kebyt5_xm.model.configuration import GATE
from kebyt5_xm.model.delete_gate import PREFIX
from kebyt5_xm.model.model_files import Pretrained
from kebyt5_xm.model.pretrained import RunBackbone, open_pretrained
from kebyt5_xm.model.runs.run import Run, model_tensors


def run_gate(run: Run) -> dict[str, Any] | None:
    """Return what a model's config says of the gate of a run, None if it has none."""
    gate = (run.config.get("model") or {}).get(GATE)
    return {"layer": gate["layer"]} if gate else None


def saved_gate(source: Pretrained) -> dict[str, Any] | None:
    """Return what a model's config says of the gate of a run or a saved model, None if it has none."""
    return run_gate(source.run) if isinstance(source, RunBackbone) else source.content.get(GATE)


def gate_tensors(source: Pretrained) -> dict[str, Tensor]:
    """Return the weights of the gate of a run or a saved model by their names in the gate."""
    is_run = isinstance(source, RunBackbone)
    tensors = model_tensors(source.run.checkpoint()) if is_run else source.all_tensors()
    return {key.removeprefix(PREFIX): t for key, t in tensors.items() if key.startswith(PREFIX)}


def check_start(weights: str | None, gate: dict[str, Any] | None) -> bool:
    """Return whether the model in `weights` has the gate that a recipe asks for, whose weights training starts from.

    Raises `UserError` if it has another one, or if the recipe has none.
    """
    found = None if weights is None else saved_gate(open_pretrained(weights))
    if found is None:
        return False
    if gate is None:
        refuse_gate(
            found, f"the model of weights '{weights}'", f"set model.{GATE}: {{layer: {found['layer']}}}"
        )
    elif gate != found:
        raise UserError(
            f"model.{GATE}.layer is {gate['layer']}, but the gate of weights '{weights}' is after layer "
            f"{found['layer']}; give that number"
        )
    return True


def refuse_gate(gate: dict[str, Any] | None, what: str, remedy: str) -> None:
    """Raise `UserError` if there is a gate: `what` names its model, `remedy` what to do."""
    if gate is not None:
        raise UserError(
            f"{what} has a delete gate after encoder layer {gate['layer']}, so it is no plain T5; {remedy}"
        )
