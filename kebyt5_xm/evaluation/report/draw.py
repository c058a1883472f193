"""The report of one run: its files, drawn as one page."""

from markupsafe import Markup

from kebyt5_xm.evaluation.report import DEFAULT_EXAMPLES
from kebyt5_xm.evaluation.report.configuration import configuration
from kebyt5_xm.evaluation.report.costs import costs
from kebyt5_xm.evaluation.report.curves import curves
from kebyt5_xm.evaluation.report.data_used import data_used
from kebyt5_xm.evaluation.report.examples import examples
from kebyt5_xm.evaluation.report.frame import Section, page
from kebyt5_xm.evaluation.report.kept import kept
from kebyt5_xm.evaluation.report.markup import data, join, say
from kebyt5_xm.evaluation.report.media import MediaShelf, Opener
from kebyt5_xm.evaluation.report.numbers import number
from kebyt5_xm.evaluation.report.recorded import Record, read_record
from kebyt5_xm.evaluation.report.robustness import robustness
from kebyt5_xm.evaluation.report.scores import scores
from kebyt5_xm.evaluation.report.summary import summary
from kebyt5_xm.evaluation.report.uses import uses
from kebyt5_xm.model.runs.run import Run


def draw(
    run: Run, media: Opener | None = None, *, examples_shown: int = DEFAULT_EXAMPLES, language: str = "en"
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
    sections = [
        Section("summary", say("요약", "Summary"), summary(record)),
        Section("metrics", say("지표와 구간", "Metrics with intervals"), scores(record)),
        Section(
            "examples", say("출력과 정답", "Outputs and references"), examples(record, MediaShelf(media))
        ),
        Section("text", say("글 실력의 유지", "Text ability"), kept(record)),
        Section("modalities", say("모달리티 사용", "Use of modalities"), uses(record)),
        Section("robustness", say("강건성", "Robustness"), robustness(record)),
        Section("curves", say("학습 곡선", "Curves"), curves(record)),
        Section("configuration", say("설정", "Configuration"), configuration(record)),
        Section("data", say("데이터와 건너뜀", "Data and skips"), data_used(record)),
        Section("cost", say("속도, 메모리, 비용", "Speed, memory, cost"), costs(record)),
    ]
    return page(
        f"{record.name} · kebyt5-xm",
        data(record.name),
        _under(record),
        sections,
        language,
    )


def _under(record: Record) -> Markup:
    evaluation, results = record.evaluation, record.results
    told = [say("실행 {}", "run {}", data(record.path))]
    if results.get("date"):
        told.append(say("학습 끝 {}", "trained until {}", data(results["date"])))
    if evaluation and evaluation.checkpoint:
        told.append(say("체크포인트 {}", "checkpoint {}", data(evaluation.checkpoint)))
    if evaluation and evaluation.step is not None:
        told.append(say("{}단계", "step {}", number(evaluation.step)))
    if evaluation and evaluation.date:
        told.append(say("평가 {}", "evaluated {}", data(evaluation.date)))
    return join(told, " · ")
