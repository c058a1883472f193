"""The check of CTC losses: whether the first recordings have enough frames for their transcripts."""

from collections.abc import Iterator, Mapping

from kebyt5_xm.commands.doctor.findings import Finding
from kebyt5_xm.data.datamodule import DataModule
from kebyt5_xm.errors import UserError
from kebyt5_xm.model.ctc import CTC
from kebyt5_xm.training.ctc_check import find_problem, fit_of, sources_of


def check_ctc(heads: Mapping[str, CTC], data: DataModule) -> Iterator[Finding]:
    """Yield a finding for every source from which a head learns, or one for sources that are wrong."""
    for name, ctc in heads.items():
        key = f"model.modalities.{name}.ctc"
        try:
            sources = sources_of(name, ctc, data)
        except UserError as error:
            yield Finding(f"{name}: ctc", "FAILED", str(error), f"change {key}.sources")
            continue
        for source in sources:
            fit = fit_of(source, name, ctc, data)
            if problem := find_problem(fit, name, source, ctc):
                yield Finding(f"{name}: ctc", "FAILED", problem, f"change {key}")
                continue
            fitting = fit.with_one_medium - fit.too_short
            found = (
                f"{fitting} of {fit.with_one_medium} recordings of '{source}' have enough frames for their "
                f"transcripts ({fit.needed} per slot would do for all, {ctc.frames_per_slot} are set)"
            )
            yield Finding(f"{name}: ctc", "ok", found)
