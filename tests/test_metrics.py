"""Every metric keeps the contract; what does not fit is refused; figures of cases counted by hand."""

import math
import unicodedata

import numpy as np
import pytest
from metric_answers import ENTITIES, LABELS, TEXTS, labelled, numbers

import kebyt5_xm.metrics as all_metrics
from kebyt5_xm.errors import UserError
from kebyt5_xm.metrics import (
    BLEU,
    Accuracy,
    Answer,
    CharacterErrorRate,
    CharacterF1,
    ChrF,
    EntityF1,
    ExactMatch,
    MacroF1,
    Metric,
    MicroF1,
    Pearson,
    RougeL,
    RougeW,
    Spearman,
    WordErrorRate,
    difference,
    score,
)
from kebyt5_xm.metrics.contract import MetricContract

CASES = [
    (Accuracy(), labelled()),
    (MacroF1(), labelled()),
    (MicroF1(), labelled()),
    (MicroF1(ignore=["no_relation", "없음!"]), labelled()),
    (ExactMatch(), TEXTS),
    (ExactMatch("korquad"), TEXTS),
    (ExactMatch("klue"), TEXTS),
    (CharacterF1(), TEXTS),
    (CharacterErrorRate(), TEXTS),
    (CharacterErrorRate("removed", "removed", "ignored"), TEXTS),
    (WordErrorRate(), TEXTS),
    (WordErrorRate("removed"), TEXTS),
    (BLEU(), TEXTS),
    (BLEU("char", lowercase=True), TEXTS),
    (ChrF(), TEXTS),
    (ChrF(2, spaces=True), TEXTS),
    (RougeL(), TEXTS),
    (RougeL("characters", "removed", "ignored"), TEXTS),
    (RougeW(), TEXTS),
    (Pearson(), numbers()),
    (Spearman(), numbers()),
    (EntityF1(), ENTITIES),
    (EntityF1("macro"), ENTITIES),
    (EntityF1("macro", tags=["PS", "LC", "OG", "DT", "TI", "QT"]), ENTITIES),
]


class TestContract(MetricContract):
    def make(self) -> Metric:
        raise NotImplementedError("the fixtures below stand for it")

    answers = make

    @pytest.fixture(params=CASES, ids=lambda case: case[0].name)
    def case(self, request: pytest.FixtureRequest):
        return request.param

    @pytest.fixture
    def metric(self, case) -> Metric:
        return case[0]

    @pytest.fixture
    def given(self, case) -> list[Answer]:
        return list(case[1])


def test_every_metric_is_in_the_contract_test() -> None:
    kinds = {
        kind
        for kind in vars(all_metrics).values()
        if isinstance(kind, type) and issubclass(kind, Metric) and not kind.__abstractmethods__
    }
    assert kinds == {type(metric) for metric, _ in CASES}


def test_options_that_change_a_figure_change_its_name() -> None:
    names = [metric.name for metric, _ in CASES if not getattr(metric, "tags", None)]
    assert len(names) == len(set(names))
    assert CharacterErrorRate("removed").name == "character_error_rate_without_spaces"
    assert WordErrorRate().name == "word_error_rate"
    assert (BLEU().name, ChrF().name, RougeL().name) == ("bleu", "chrf", "rouge_l")


# -- by hand -------------------------------------------------------------------------------------------


def figure(metric: Metric, *pairs: tuple[str, str | tuple[str, ...]]) -> float:
    return metric([Answer(text, (right,) if isinstance(right, str) else right) for text, right in pairs])


def test_hangul_in_either_spelling_is_the_same() -> None:
    decomposed = unicodedata.normalize("NFD", "한글")
    assert decomposed != "한글"
    for metric in (ExactMatch(), CharacterF1(), RougeL()):
        assert figure(metric, (decomposed, "한글")) == 1
    assert figure(CharacterErrorRate(), (decomposed, "한글")) == 0
    assert figure(BLEU("char"), (decomposed * 4, "한글" * 4)) == pytest.approx(100)


def test_error_rates_are_over_the_length_of_all_references() -> None:
    # 1 of 7 characters, then 2 of 2: a mean of rates would be 4 / 7.
    pairs = ("나는 밥을 먹", "나는 떡을 먹"), ("", "응응")
    assert figure(CharacterErrorRate(), *pairs) == pytest.approx(3 / 9)
    assert figure(CharacterErrorRate("removed"), *pairs) == pytest.approx(3 / 7)
    assert figure(WordErrorRate(), *pairs) == pytest.approx(2 / 4)


def test_spaces_punctuation_and_case_count_as_asked() -> None:
    pair = "Seoul에  갔다!", "seoul 에 갔다"
    # One replaced letter, one missing space, one sign too many, of 10 characters, of which 8 are no spaces.
    assert figure(CharacterErrorRate(), pair) == pytest.approx(3 / 10)
    assert figure(CharacterErrorRate("removed"), pair) == pytest.approx(2 / 8)
    assert figure(CharacterErrorRate("removed", "removed"), pair) == pytest.approx(1 / 8)
    assert figure(CharacterErrorRate("removed", "removed", "ignored"), pair) == 0
    assert figure(WordErrorRate("removed", "ignored"), pair) == pytest.approx(2 / 3)


def test_the_best_of_several_references_counts() -> None:
    assert figure(CharacterErrorRate(), ("가나", ("라마바사", "가다"))) == pytest.approx(1 / 2)
    assert figure(CharacterF1(), ("가나", ("라마바사", "가다"))) == pytest.approx(1 / 2)
    assert figure(RougeL(), ("가 나", ("라", "가 다"))) == pytest.approx(1 / 2)
    assert figure(ExactMatch(), ("가", ("나", "가"))) == 1


def test_character_f1_is_korquads() -> None:
    """Characters as a multiset, without spaces, brackets, quotes and ASCII punctuation, in lower case."""
    assert figure(CharacterF1(), ("《난중 일기》(An)", "난중일기 an.")) == 1
    assert figure(CharacterF1(), ("1592년 5월", "1592년")) == pytest.approx(2 * 5 / (7 + 5))
    assert figure(ExactMatch("korquad"), ("《난중일기》", "난중일기")) == 1
    assert figure(ExactMatch("klue"), ("《난중일기》", "난중일기")) == 0
    assert figure(ExactMatch("klue"), ("'난중일기'!", "난중일기")) == 1


def test_rouge() -> None:
    assert figure(RougeL(), ("가 다 나", "가 나 다 라")) == pytest.approx(2 * 2 / (3 + 4))
    assert figure(RougeL("characters"), ("가다 나", "가나다라")) == pytest.approx(2 * 2 / (3 + 4))
    assert figure(RougeW(), ("가나라마", "가나다라마바")) == pytest.approx(2 * 2 / (4 + 6))
    assert figure(RougeW(), ("", ""), ("가", "")) == pytest.approx(1 / 2)
    long = "가나" * 150  # difflib leaves out what is frequent in more than 200, unless told otherwise
    assert figure(RougeW(), (long, long)) == 1


def test_labels_that_are_ignored() -> None:
    pairs = [("a", "a"), ("none", "none"), ("a", "none"), ("none", "b"), ("a", "b")]
    # Without `none`: one hit; two false alarms of a; two misses of b.
    assert figure(MicroF1(ignore=["none"]), *pairs) == pytest.approx(2 / (2 + 2 + 2))
    assert figure(MicroF1(), *pairs) == figure(Accuracy(), *pairs) == pytest.approx(2 / 5)
    assert figure(MacroF1(), *pairs) == pytest.approx((2 / 4 + 2 / 4 + 0) / 3)
    assert math.isnan(figure(MicroF1(ignore=["a"]), ("a", "a")))


def test_an_answer_that_is_no_label_is_a_miss_and_no_label() -> None:
    chances = {"a": 0.5, "b": 0.5}
    answers = [Answer("a", ("a",), chances), Answer("b", ("b",), chances), Answer("ㅁㅁ", ("b",), chances)]
    assert MacroF1()(answers) == pytest.approx((1 + 2 / 3) / 2)
    assert MicroF1()(answers) == pytest.approx(4 / 5)  # two hits, one miss
    assert Accuracy()(answers) == pytest.approx(2 / 3)


def test_entities_are_multisets_of_text_and_tag() -> None:
    pairs = (
        ("이순신=PS; 서울=LC; 서울=LC", "이순신=PS; 서울=LC; 한산도=LC"),
        ("없음", ""),
        ("부산", "부산=LC"),
    )
    # PS: one hit. LC: one hit, one false alarm, two misses. One malformed piece.
    assert figure(EntityF1(), *pairs) == pytest.approx(4 / (4 + 2 + 2))
    assert figure(EntityF1("macro"), *pairs) == pytest.approx((2 / 3 + 2 / 6) / 2)


def test_a_tag_that_is_not_listed_is_malformed() -> None:
    pairs = ("이순신=XX; 서울=LC", "이순신=PS; 서울=LC"), ("나=PS", "나=PS")
    # XX a tag of its own with an F1 of zero, or a false alarm of LC and PS each.
    assert figure(EntityF1("macro"), *pairs) == pytest.approx((0 + 1 + 2 / 3) / 3)
    assert figure(EntityF1("macro", tags=["PS", "LC"]), *pairs) == pytest.approx((2 / 3 + 2 / 4) / 2)


def test_entities_where_there_are_none() -> None:
    for average in ("micro", "macro"):
        assert math.isnan(figure(EntityF1(average), ("없음", "없음"), ("", "없음")))
        assert figure(EntityF1(average), ("부산", "없음")) == 0
        assert figure(EntityF1(average, none="none"), ("none; 나=PS", "나=PS")) < 1


@pytest.mark.parametrize("metric", [Pearson(), Spearman()])
def test_what_is_no_number_counts_as_the_farthest(metric: Metric) -> None:
    right = ["0", "1", "3", "4.5", "5"]
    good = ["0.5", "1", "2", "4", "5"]
    for place, farthest in enumerate(["5", "5", "0", "0", "0"]):
        worse, worst = list(good), list(good)
        worse[place], worst[place] = "", farthest
        assert figure(metric, *zip(worse, right, strict=True)) == figure(
            metric, *zip(worst, right, strict=True)
        )
        assert figure(metric, *zip(worse, right, strict=True)) < figure(
            metric, *zip(good, right, strict=True)
        )
    assert figure(metric, *zip(["3"] * 5, right, strict=True)) == 0
    assert math.isnan(figure(metric, ("3", "2"), ("2", "2")))
    for text in ("nan", "inf", "1_0", "3.", "٣", "3 점"):
        assert figure(metric, ("1", "1"), ("2", "2"), (text, "3")) < 1


# -- refusals --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "metric", [CharacterErrorRate(), WordErrorRate(), BLEU(), ChrF(), CharacterF1(), RougeL()]
)
def test_an_empty_reference_is_refused_with_its_number(metric: Metric) -> None:
    metric.check([["가"], ["나", "다"]], None)
    metric.check([], None)
    with pytest.raises(
        UserError, match=r"without .*, found 2 in 4 held-out examples, the first in example 2"
    ):
        metric.check([["가"], ["나", " "], ["다"], [""]], None)
    with pytest.raises(UserError, match=r"the answers of this source are its 5 labels.*use Accuracy"):
        metric.check([["부정"]], LABELS)


def test_a_reference_that_is_empty_once_normalised_is_refused() -> None:
    CharacterErrorRate().check([["?!"]], None)
    for metric in (CharacterErrorRate(punctuation="removed"), CharacterF1(), RougeL(punctuation="removed")):
        with pytest.raises(UserError, match="the first in example 1"):
            metric.check([["?!"]], None)


@pytest.mark.parametrize("metric", [Accuracy(), MacroF1(), MicroF1()])
def test_a_source_without_labels_is_refused(metric: Metric) -> None:
    metric.check([["부정"]], LABELS)
    with pytest.raises(UserError, match="needs a source with labels"):
        metric.check([["부정"]], None)


@pytest.mark.parametrize(
    ("metric", "references", "message"),
    [
        (Pearson(), [["1"], ["두 점"]], "one number as reference.*'두 점' in held-out example 2"),
        (Spearman(), [["1"], ["1", "2"]], "found '1', '2' in held-out example 2"),
        (Pearson(), [["2"], ["2.0"]], "needs references that differ, found 2 in all 2"),
        (EntityF1(), [["나=PS"], ["나=PS; 서울"]], "'서울' in the reference of held-out example 2"),
        (EntityF1(tags=["PS", "LC"]), [["나=PSS"]], "'나=PSS'.*tags among PS, LC; did you mean 'PS'"),
    ],
)
def test_references_that_do_not_fit_are_refused(metric: Metric, references: list, message: str) -> None:
    with pytest.raises(UserError, match=message):
        metric.check(references, None)


def test_options_that_do_not_exist_are_refused() -> None:
    with pytest.raises(UserError, match=r"ignores 'no_relations'.*did you mean 'no_relation'"):
        MicroF1(ignore=["no_relations"]).check([], LABELS)
    with pytest.raises(UserError, match="'ko-mecab', as it needs MeCab"):
        BLEU("ko-mecab")
    with pytest.raises(UserError, match="'flores200', as it downloads a model"):
        BLEU("flores200")
    with pytest.raises(UserError, match="did you mean 'char'"):
        BLEU("chars")
    with pytest.raises(UserError, match="found spaces: remove, expected one of kept, removed; did you mean"):
        CharacterErrorRate(spaces="remove")  # type: ignore[arg-type]


# -- intervals -------------------------------------------------------------------------------------------


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    """95 % intervals of 300 samples of 101: the share that holds the truth is 0.95 +- 0.013 at one sigma, and the
    percentile method is known to fall a little short."""
    draw = np.random.default_rng(11)
    covered = 0
    for _ in range(300):
        answers = [Answer("가" if right else "나", ("가",)) for right in draw.random(101) < 0.7]
        found = score(ExactMatch(), answers)
        covered += found.low <= 0.7 <= found.high
    assert 0.90 <= covered / 300 <= 0.98


def test_a_difference_is_judged_on_the_same_examples() -> None:
    """One answer better on each of some examples: the paired interval leaves zero out, those of the two overlap."""
    draw = np.random.default_rng(13)
    right = draw.random(97) < 0.5
    first = [Answer("가" if good else "나", ("가",)) for good in right]
    second = [Answer("가" if good or n % 11 == 0 else "나", ("가",)) for n, good in enumerate(right)]
    gain = difference(ExactMatch(), second, first)
    assert gain.value > 0
    assert gain.low > 0
    assert score(ExactMatch(), second).low < score(ExactMatch(), first).high
