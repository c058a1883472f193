"""The report of one run: its files, drawn as one page."""

from kebyt5_xm.evaluation import SHOWN_EXAMPLES
from kebyt5_xm.evaluation.report.charts import MAX_ROWS
from kebyt5_xm.evaluation.report.configuration import configuration, costs
from kebyt5_xm.evaluation.report.curves import curves, robustness_charts
from kebyt5_xm.evaluation.report.data_used import epochs, skips
from kebyt5_xm.evaluation.report.examples import examples
from kebyt5_xm.evaluation.report.media import MediaShelf, Opener
from kebyt5_xm.evaluation.report.pages import render, sections
from kebyt5_xm.evaluation.report.recorded import read_record
from kebyt5_xm.evaluation.report.scores import (
    list_main_metrics,
    list_main_uses,
    list_uses,
    malformed,
    score_charts,
    use_rows,
)
from kebyt5_xm.evaluation.report.text_ability import BASELINES, text_course, text_rows
from kebyt5_xm.model.runs.run import Run


def draw(
    run: Run, media: Opener | None = None, *, examples_shown: int = SHOWN_EXAMPLES, language: str = "en"
) -> str:
    """Return the page of a run, in Korean and English.

    Args:
        run: whose files are read; of those that are absent the page says what is missing.
        media: finds the media of predictions; without it only their references are shown.
        examples_shown: of each source, wrong ones first.
        language: shown first, `ko` or `en`.

    Raises `UserError` for a file that is not what training or an evaluation wrote.
    """
    record = read_record(run, examples_shown)
    evaluation = record.evaluation
    sources = evaluation.sources if evaluation else {}
    uses = [source.modality_use for source in sources.values() if source.modality_use]
    return render(
        "report.html.j2",
        language=language,
        title=f"{record.name} · kebyt5-xm",
        sections=sections("report"),
        record=record,
        evaluation=evaluation,
        main_metrics=list_main_metrics(evaluation),
        malformed=malformed(record),
        score_charts=score_charts(evaluation) if evaluation else [],
        MAX_ROWS=MAX_ROWS,
        examples=examples(record, MediaShelf(media)),
        parts=record.text_parts,
        text_rows=text_rows,
        text_course=text_course(record),
        BASELINES=BASELINES,
        uses=list_uses(evaluation),
        main_uses=list_main_uses(evaluation),
        use_rows=use_rows,
        use_examples=sorted({use.num_examples for use in uses if use.modalities}),
        robustness=[
            (name, source.robustness, robustness_charts(source.robustness))
            for name, source in sources.items()
            if source.robustness
        ],
        curves=curves(record),
        configuration=configuration(record),
        epochs=epochs,
        skips=skips(record),
        costs=costs(record),
    )
