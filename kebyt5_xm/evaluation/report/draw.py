"""Draws the report of one run as one page."""

from kebyt5_xm.evaluation import SHOWN_EXAMPLES
from kebyt5_xm.evaluation.report.baselines import METHODS, compare_baselines, heading, how_fitted, not_better
from kebyt5_xm.evaluation.report.charts import MAX_ROWS
from kebyt5_xm.evaluation.report.configuration import (
    count_epochs,
    describe_configuration,
    list_costs,
    list_skips,
)
from kebyt5_xm.evaluation.report.curves import draw_curves, robustness_charts
from kebyt5_xm.evaluation.report.examples import show_examples
from kebyt5_xm.evaluation.report.media import MediaRenderer, Opener
from kebyt5_xm.evaluation.report.pages import list_sections, render
from kebyt5_xm.evaluation.report.record import read_record
from kebyt5_xm.evaluation.report.scores import (
    chart_scores,
    count_malformed,
    list_main_metrics,
    list_main_uses,
    list_uses,
    use_rows,
)
from kebyt5_xm.evaluation.report.selections import list_selections
from kebyt5_xm.evaluation.report.text_ability import BASELINES, chart_text_change, text_rows
from kebyt5_xm.model.runs.run import Run


def draw(
    run: Run, media: Opener | None = None, *, examples_shown: int = SHOWN_EXAMPLES, language: str = "en"
) -> str:
    """Return the page of a run, in Korean and English.

    Args:
        run: where the files are read. The page says which ones are missing.
        media: opens the media of predictions; without it only their references are shown.
        examples_shown: examples of each source, wrong ones first.
        language: the language shown first, `ko` or `en`.

    Raises `UserError` for a file that neither training nor an evaluation wrote.
    """
    record = read_record(run, examples_shown)
    evaluation = record.evaluation
    sources = evaluation.sources if evaluation else {}
    without = {"curves": None} if run.evaluated_model else {}  # nothing was trained here
    compared = compare_baselines(evaluation)
    uses = [source.modality_use for source in sources.values() if source.modality_use]
    return render(
        "report.html.j2",
        language=language,
        title=f"{record.name} · kebyt5-xm",
        sections=list_sections("report", **without),
        record=record,
        evaluation=evaluation,
        main_metrics=list_main_metrics(evaluation),
        malformed=count_malformed(record),
        score_charts=chart_scores(evaluation) if evaluation else [],
        MAX_ROWS=MAX_ROWS,
        compared=compared,
        not_better=not_better(compared),
        METHODS=METHODS,
        method_headings=[heading(method) for method in METHODS],
        how_fitted=how_fitted,
        selections=list_selections(record),
        examples=show_examples(record, MediaRenderer(media)),
        parts=record.text_parts,
        text_rows=text_rows,
        text_change_chart=chart_text_change(record),
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
        curves=draw_curves(record),
        configuration=describe_configuration(record),
        epochs=count_epochs,
        skips=list_skips(record),
        costs=list_costs(record),
    )
