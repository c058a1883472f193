"""Decides which parameters train, by `frozen`, `model.lora` and `model.groups`, before weights are loaded.

1. Everything trains except a backbone or an encoder with `frozen: true`.
2. LoRA freezes the base weights of its part (the backbone, an encoder or an adapter). Its updates train.
3. `frozen` of a group decides on the parameters that match: true freezes them, false lets them train. The last match
   with `frozen` wins. Parameters that rule 1 freezes, and the base weights of layers with LoRA, stay frozen.
"""

from dataclasses import dataclass
from fnmatch import fnmatchcase

from kebyt5_xm.errors import UserError
from kebyt5_xm.model.cross_modal import CrossModalT5
from kebyt5_xm.model.lora import LORA_SUFFIXES, LoRA, find_targets, part_of
from kebyt5_xm.training.groups import Group


@dataclass(frozen=True)
class TrainingChoice:
    """Which parameters train, by name, and which modules get a LoRA."""

    base: dict[str, bool]
    """Name -> whether it trains, for the model's parameters without LoRA."""
    lora: dict[str, LoRA]
    """Module name -> its LoRA."""

    def parameters(self) -> list[tuple[str, bool]]:
        """Return (name, whether it trains) of all parameters, LoRA's included."""
        return [*self.base.items(), *((name, True) for name in _lora_parameters(self.lora))]

    def apply(self, model: CrossModalT5) -> None:
        """Freeze and unfreeze parameters of the model that `decide` was given, now with weights, and add LoRA."""
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(self.base[name])
        if not self.lora:
            return
        from kebyt5_xm.model.lora_layer import inject

        inject(model, self.lora)
        for name in model.modalities:
            module = model.modality(name)
            if any(part_of(place) == f"modalities.{name}.encoder" for place in self.lora):
                module.encoder_changed = True


def decide(
    model: CrossModalT5, backbone_frozen: bool, lora: dict[str, LoRA], groups: dict[str, Group]
) -> TrainingChoice:
    """Return what trains. The model may still be without weights.

    Raises `UserError` for a pattern of `lora` that matches no layer, and for options that contradict each other.
    """
    places = find_targets(model, lora)
    encoders = {f"modalities.{name}.encoder": model.modality(name).encoder for name in model.modalities}
    frozen_parts = {part for part, encoder in encoders.items() if encoder.has_fixed_features}
    frozen_parts |= {"backbone"} if backbone_frozen else set()
    in_eval_mode = {part for part, encoder in encoders.items() if encoder.frozen}
    for place, name in places.items():
        if part_of(place) in in_eval_mode and lora[name].dropout:
            raise UserError(
                f"model.lora.{name} has a dropout of {lora[name].dropout} in '{place}', whose encoder has `frozen: "
                "true` and so stays in eval mode, without dropout; set the dropout to 0 there, or frozen to false"
            )
    free = {n: p.requires_grad and part_of(n) not in frozen_parts for n, p in model.named_parameters()}
    adapted = {part_of(place) for place in places}
    base = {name: trains and part_of(name) not in adapted for name, trains in free.items()}
    choice = TrainingChoice(base, {place: lora[name] for place, name in places.items()})
    for name, group in groups.items():
        if group.frozen is True:
            base |= dict.fromkeys(_find_frozen(name, group, choice), False)
        elif group.frozen is False:
            base |= _find_unfrozen(name, group, choice, free, frozen_parts)
    return choice


def _find_frozen(name: str, group: Group, choice: TrainingChoice) -> list[str]:
    """Return the parameters that `frozen: true` of a group freezes; `assign` refuses a pattern without any."""
    for added in _lora_parameters(choice.lora):
        if fnmatchcase(added, group.pattern):
            raise UserError(
                f"model.groups.{name}: frozen is true and the pattern '{group.pattern}' matches '{added}', which "
                "model.lora adds to be trained; drop one of them"
            )
    matched = [parameter for parameter in choice.base if fnmatchcase(parameter, group.pattern)]
    if matched and not any(choice.base[parameter] for parameter in matched):
        raise UserError(
            f"model.groups.{name}: frozen is true, but all that '{group.pattern}' matches is frozen already; drop "
            "the group"
        )
    return matched


def _find_unfrozen(
    name: str, group: Group, choice: TrainingChoice, free: dict[str, bool], frozen_parts: set[str]
) -> dict[str, bool]:
    found = {}
    for parameter in choice.base:
        if not fnmatchcase(parameter, group.pattern):
            continue
        if part_of(parameter) in frozen_parts:
            raise UserError(
                f"model.groups.{name}: frozen is false, but '{parameter}' is in {part_of(parameter)}, which has "
                "`frozen: true`; set that to false, or take the group's `frozen` out"
            )
        if parameter.rpartition(".")[0] in choice.lora:
            raise UserError(
                f"model.groups.{name}: frozen is false, but model.lora adds an update to '{parameter}', which "
                "stays frozen; give a pattern that leaves it out, or drop the LoRA there"
            )
        found[parameter] = free[parameter]
    return found


def _lora_parameters(lora: dict[str, LoRA]) -> list[str]:
    return [f"{place}.{added}" for place in lora for added in LORA_SUFFIXES]
