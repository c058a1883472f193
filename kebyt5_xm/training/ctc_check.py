"""Checks CTC losses against the recipe's sources: before training, since later nothing shows what is wrong."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from kebyt5_xm.data.datamodule import DataModule
from kebyt5_xm.data.inputs import Example
from kebyt5_xm.errors import UserError, did_you_mean
from kebyt5_xm.model.cross_modal import CrossModalT5
from kebyt5_xm.model.ctc import CTC
from kebyt5_xm.training.ctc_loss import frames_needed
from kebyt5_xm.vocabulary import BYTE_OFFSET

ROWS = 16
"""First rows of each source that are looked at."""

PROBED = 1000
"""Features of a recording whose slots are asked for their extent; any number will do."""


@dataclass(frozen=True)
class Fit:
    """How many of a source's first rows CTC can learn, and the frames per slot that the most demanding row needs."""

    rows: int
    with_one_medium: int
    too_short: int
    needed: int

    @classmethod
    def of(cls, examples: list[Example], modality: str, frames_per_slot: int) -> "Fit":
        """Return the counts for a source's first examples; those that could not be made count as rows alone."""
        single, short, needed = 0, 0, 1
        for example in examples:
            counts = [medium.count for medium in example.media if medium.modality == modality]
            if len(counts) != 1:
                continue
            frames = frames_needed((example.target_ids[:-1] - BYTE_OFFSET).tolist())
            single += 1
            short += frames > counts[0] * frames_per_slot
            needed = max(needed, -(-frames // counts[0]))
        return cls(len(examples), single, short, needed)


def check_model(
    heads: Mapping[str, CTC], model: CrossModalT5, parameters: Iterable[tuple[str, bool]]
) -> None:
    """Raise `UserError` for a head of a modality without time, and for one whose gradient trains only itself.

    `parameters` are (name, whether it trains).
    """
    training = [name for name, trains in parameters if trains]
    for name in heads:
        module, key = model.modality(name), f"model.modalities.{name}"
        if module.encoder.media == "image":
            raise UserError(
                f"{key}.ctc is set, but '{name}' is a modality of images, which have no order in time; take ctc out"
            )
        if module.adapter.slot_extent((PROBED,)) is None:
            raise UserError(
                f"{key}.ctc reads slots in the order of time, but those of {type(module.adapter).__name__} have "
                "none; take ctc out, or use an adapter such as kebyt5_xm.adapters.FrameStacking"
            )
        read = (f"modalities.{name}.", "backbone.shared.", "backbone.encoder.")
        if not any(parameter.startswith(read) for parameter in training):
            raise UserError(
                f"{key}.ctc trains nothing but its own head: the encoder and the adapter of '{name}' and the encoder "
                "of the backbone are frozen; take ctc out, or let one of them train"
            )


def sources_of(name: str, ctc: CTC, data: DataModule) -> list[str]:
    """Return the sources whose targets a modality's head learns. Raises `UserError` for names that are wrong."""
    key = f"model.modalities.{name}.ctc.sources"
    feeding = [source for source, found in data.sources.items() if name in found.modalities]
    if ctc.sources is None:
        if len(feeding) > 1:
            raise UserError(
                f"{key} is not given, but several sources feed '{name}': {', '.join(feeding)}; name those whose "
                "targets are transcripts of the recording, not answers or translations"
            )
        return feeding
    for source in ctc.sources:
        if source not in feeding:
            raise UserError(
                f"{key} names '{source}', expected sources that feed '{name}': "
                f"{', '.join(feeding) or 'there are none'}{did_you_mean(source, feeding)}"
            )
    return ctc.sources


def transcript_parts(heads: Mapping[str, CTC], data: DataModule) -> dict[str, frozenset[int]]:
    """Return modality -> the numbers of the mixture's parts whose targets its head learns."""
    mixture = data.training
    return {
        name: frozenset(
            number
            for number in range(len(mixture.parts))
            if any(mixture.source(number) is data.sources[source] for source in sources_of(name, ctc, data))
        )
        for name, ctc in heads.items()
    }


def check_transcripts(heads: Mapping[str, CTC], data: DataModule) -> None:
    """Raise `UserError` if a head's sources are wrong, or if it can learn hardly any of their first rows."""
    for name, ctc in heads.items():
        for source in sources_of(name, ctc, data):
            fit = fit_of(source, name, ctc, data)
            if problem := find_problem(fit, name, source, ctc):
                raise UserError(problem)


def fit_of(source: str, name: str, ctc: CTC, data: DataModule) -> Fit:
    """Return how many of a source's first training rows the head of a modality can learn."""
    return Fit.of(data.sources[source].first(ROWS, data.seed), name, ctc.frames_per_slot)


def find_problem(fit: Fit, name: str, source: str, ctc: CTC) -> str | None:
    """Return why CTC cannot learn from a source, and the remedy; None if it can."""
    key = f"model.modalities.{name}.ctc"
    if not fit.with_one_medium:
        return (
            f"{key}: none of the first {fit.rows} rows of '{source}' has exactly one '{name}', which CTC needs; "
            f"leave the source out of {key}.sources, or take ctc out"
        )
    if 2 * fit.too_short > fit.with_one_medium:
        return (
            f"{key}: {fit.too_short} of {fit.with_one_medium} recordings at the start of '{source}' have fewer "
            f"frames than their transcripts need; set frames_per_slot to {fit.needed} (it is {ctc.frames_per_slot}), "
            "or make more slots: a lower stride of the encoder, a lower stack of the adapter"
        )
    return None
