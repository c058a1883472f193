"""Metrics: the contract, refused sources and options, and figures computed by hand."""

import math
import re
import sys
import unicodedata
from pathlib import Path
from types import ModuleType

import jsonargparse
import numpy as np
import pytest
from metric_answers import ENTITIES, LABELS, PEOPLE, TEXTS, labelled, numbers

import kebyt5_xm.metrics as all_metrics
from kebyt5_xm.errors import UserError
from kebyt5_xm.metrics import (
    AUPRC,
    BLEU,
    Accuracy,
    Answer,
    CharacterErrorRate,
    CharacterF1,
    ChrF,
    CIDEr,
    EntityF1,
    ExactMatch,
    MacroF1,
    Malformed,
    Metric,
    MicroF1,
    Pearson,
    RougeL,
    RougeW,
    Spearman,
    ThresholdF1,
    VQAAccuracy,
    WordErrorRate,
    difference,
    resample,
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
    (AUPRC(), labelled()),
    (ThresholdF1(), numbers()),
    (ThresholdF1(2.5), numbers()),
    (Malformed(), TEXTS),
    (Malformed("number"), numbers()),
    (Malformed("label", labels=["이순신은 한산도에서 싸웠다.", "같은 말"]), TEXTS[:1] + TEXTS[9:10]),
    (VQAAccuracy(), PEOPLE),
]
CAPTIONS = [(CIDEr(), TEXTS), (CIDEr("characters"), TEXTS)]


class TestContract(MetricContract):
    def make(self) -> Metric:
        raise NotImplementedError("the fixtures below replace it")

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


class TestCaptionContract(TestContract):
    independent = False

    @pytest.fixture(params=CAPTIONS, ids=lambda case: case[0].name)
    def case(self, request: pytest.FixtureRequest):
        return request.param


class TestDocumentedContract(TestContract):
    """The metrics that docs/metrics.md shows how to write."""

    @pytest.fixture(params=["FirstWords", "LengthError"])
    def case(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
        source = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
        blocks = re.findall(r"```python\n(.*?)```", source, re.DOTALL)
        assert len(blocks) == 2
        module = ModuleType("my_metrics")
        monkeypatch.setitem(sys.modules, module.__name__, module)
        for block in blocks:
            exec(block, vars(module))
        test = module.TestFirstWords()
        assert module.FirstWords(3).name == "first_3_words"
        with pytest.raises(UserError, match="compares 2 words, found '가' in held-out example 2"):
            module.FirstWords(2).check([["가 나"], ["가"]], None)
        if request.param == "FirstWords":
            return test.make(), test.answers()
        return module.LengthError(), TEXTS


def test_the_guide_names_every_metric() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
    for metric, _ in CASES + CAPTIONS:
        assert f"`{type(metric).__name__}`" in guide
        if type(metric)().name == metric.name:
            assert f"`{metric.name}`" in guide


@pytest.mark.parametrize("metric", [case[0] for case in CASES + CAPTIONS], ids=lambda metric: metric.name)
def test_a_recipe_can_name_it(metric: Metric) -> None:
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--metrics", type=list[Metric])
    given = {"class_path": f"kebyt5_xm.metrics.{type(metric).__name__}", "init_args": vars(metric)}
    made = parser.instantiate(parser.parse_object({"metrics": [given]})).metrics
    assert (type(made[0]), vars(made[0]), made[0].name) == (type(metric), vars(metric), metric.name)


def test_every_metric_is_in_the_contract_test() -> None:
    kinds = {
        kind
        for kind in vars(all_metrics).values()
        if isinstance(kind, type) and issubclass(kind, Metric) and not kind.__abstractmethods__
    }
    assert kinds == {type(metric) for metric, _ in CASES + CAPTIONS}


def test_options_that_change_a_figure_change_its_name() -> None:
    names = [metric.name for metric, _ in CASES + CAPTIONS if not getattr(metric, "tags", None)]
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


def test_options_for_spaces_punctuation_and_case() -> None:
    pair = "Seoul에  갔다!", "seoul 에 갔다"
    # One replaced letter, one missing space, one extra punctuation mark; 10 characters, 8 of them not spaces.
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
    long = "가나" * 150  # difflib's autojunk would ignore characters that are frequent in more than 200
    assert figure(RougeW(), ("다" + long, "라마" + long)) == pytest.approx(2 * 300 / (301 + 302))


def test_ignored_labels() -> None:
    pairs = [("a", "a"), ("none", "none"), ("a", "none"), ("none", "b"), ("a", "b")]
    # Without `none`: one hit; two false alarms of a; two misses of b.
    assert figure(MicroF1(ignore=["none"]), *pairs) == pytest.approx(2 / (2 + 2 + 2))
    assert figure(MicroF1(), *pairs) == figure(Accuracy(), *pairs) == pytest.approx(2 / 5)
    assert figure(MacroF1(), *pairs) == pytest.approx((2 / 4 + 2 / 4 + 0) / 3)
    assert math.isnan(figure(MicroF1(ignore=["a"]), ("a", "a")))


def test_an_answer_outside_the_labels_is_a_miss_and_not_a_label() -> None:
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
    # XX is a tag with an F1 of zero, or with `tags` a false alarm of both LC and PS.
    assert figure(EntityF1("macro"), *pairs) == pytest.approx((0 + 1 + 2 / 3) / 3)
    assert figure(EntityF1("macro", tags=["PS", "LC"]), *pairs) == pytest.approx((2 / 3 + 2 / 4) / 2)


def test_an_entity_may_contain_the_separator_of_its_tag() -> None:
    metric = EntityF1(tags=["QT"])
    metric.check([["1+1=2=QT"]], None)
    assert figure(metric, ("1+1=2=QT; 2=QT", "1+1=2=QT")) == pytest.approx(2 / 3)


def test_texts_without_entities() -> None:
    for average in ("micro", "macro"):
        assert math.isnan(figure(EntityF1(average), ("없음", "없음"), ("", "없음")))
        assert figure(EntityF1(average), ("부산", "없음")) == 0
        assert figure(EntityF1(average, none="none"), ("none; 나=PS", "나=PS")) < 1


@pytest.mark.parametrize("metric", [Pearson(), Spearman()])
def test_an_answer_that_is_not_a_number_counts_as_the_farthest(metric: Metric) -> None:
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


def test_the_f1_of_numbers_at_a_threshold() -> None:
    pairs = [("3", "3.0"), ("2.9", "4"), ("5", "1"), ("0", "2"), ("높음", "4"), ("높음", "1")]
    # One hit; a miss and a false alarm by numbers, and one of each by texts that are not numbers.
    assert figure(ThresholdF1(), *pairs) == pytest.approx(2 / (2 + 2 + 2))


def test_the_share_of_malformed_answers() -> None:
    assert figure(Malformed(), ("가\ufffd", "가"), ("", "가"), ("1", "가")) == pytest.approx(1 / 3)
    assert figure(Malformed("number"), ("1.5", "2"), ("1,5", "2"), ("", "2")) == pytest.approx(2 / 3)
    assert figure(Malformed("label", ["가", "나"]), ("나 ", "가"), ("다", "가")) == pytest.approx(1 / 2)
    assert Malformed("label")([Answer("다", ("가",), {"가": 0.5, "나": 0.5})]) == 1


@pytest.mark.parametrize(
    ("agree", "people", "expected"),
    [
        (0, 10, 0),
        (1, 10, (1 * 0 + 9 / 3) / 10),
        (2, 10, (2 / 3 + 8 * 2 / 3) / 10),
        (3, 10, (3 * 2 / 3 + 7) / 10),
        (4, 10, 1),
        (3, 4, (3 * 2 / 3 + 1) / 4),
        (2, 3, (2 * 1 / 2 + 1) / 3),
        (3, 3, 1),
        (1, 2, 1 / 2),
        (1, 1, 1),
    ],
)
def test_vqa_accuracy_leaves_each_person_out_once(agree: int, people: int, expected: float) -> None:
    references = ("개",) * agree + ("고양이",) * (people - agree)
    assert figure(VQAAccuracy(), ("개", references)) == pytest.approx(expected)
    left_out = [references[:one] + references[one + 1 :] for one in range(people)]
    if people > 3:
        found = np.mean([min(others.count("개") / 3, 1) for others in left_out])
        assert found == pytest.approx(expected)


def test_vqa_answers_are_normalised() -> None:
    for text, right in (
        ("A  dog!", "dog"),
        ("two", "2"),
        ("2.50", "2.50"),
        ("1,000", "1000"),
        ("don't", "dont"),
    ):
        assert figure(VQAAccuracy(), (text, right)) == 1
    assert figure(VQAAccuracy(), ("2.5", "25")) == 0


def test_ngrams_of_all_examples_score_zero_in_cider() -> None:
    assert figure(CIDEr(), ("개 한 마리", "개 한 마리"), ("새 두 마리", "새 두 마리")) == pytest.approx(
        10 * 3 / 4  # no 4-grams in three words
    )
    assert figure(CIDEr(), ("마리", "개 한 마리"), ("마리", "새 두 마리")) == 0
    assert figure(CIDEr(), ("개 개 개 개", "개"), ("새", "새")) < figure(CIDEr(), ("개", "개"), ("새", "새"))


def test_labels_without_positives_have_no_curve() -> None:
    answers = [Answer("a", ("a",), {"a": 0.9, "b": 0.1}), Answer("b", ("a",), {"a": 0.2, "b": 0.8})]
    assert AUPRC()(answers) == 1
    with pytest.raises(UserError, match="found 0 of 2 in answer 3"):
        AUPRC()([*answers, Answer("a", ("a",))])


def test_a_resample_counts_only_the_labels_in_it() -> None:
    answers = [Answer("a", ("a",)), Answer("a", ("b",)), Answer("c", ("c",))]
    counts = np.array([[1, 0, 2], [1, 1, 0], [0, 3, 0]])
    assert MacroF1().resampled(answers, counts) == pytest.approx([1, (2 / 3 + 0) / 2, 0])
    entities = [Answer("가=A", ("가=A",)), Answer("", ("나=B",)), Answer("없음", ("없음",))]
    found = EntityF1("macro").resampled(entities, np.array([[1, 0, 2], [1, 1, 1], [0, 0, 3]]))
    assert found == pytest.approx([1, 1 / 2, np.nan], nan_ok=True)


# -- refusals --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "metric",
    [
        CharacterErrorRate(),
        WordErrorRate(),
        BLEU(),
        ChrF(),
        CharacterF1(),
        RougeL(),
        CIDEr(),
        VQAAccuracy(),
        ExactMatch(),
    ],
)
def test_an_empty_reference_is_refused_with_its_number(metric: Metric) -> None:
    metric.check([["가"], ["나", "다"]], None)
    metric.check([], None)
    with pytest.raises(
        UserError, match=r"without .*, found 2 in 4 held-out examples, the first in example 2"
    ):
        metric.check([["가"], ["나", " "], ["다"], [""]], None)
    if isinstance(metric, ExactMatch):
        metric.check([["부정"]], LABELS)
        return
    with pytest.raises(UserError, match=r"the answers of this source are its 5 labels.*use Accuracy"):
        metric.check([["부정"]], LABELS)


def test_a_reference_that_is_empty_once_normalised_is_refused() -> None:
    CharacterErrorRate().check([["?!"]], None)
    for metric in (CharacterErrorRate(punctuation="removed"), CharacterF1(), RougeL(punctuation="removed")):
        with pytest.raises(UserError, match="the first in example 1"):
            metric.check([["?!"]], None)


@pytest.mark.parametrize("metric", [Accuracy(), MacroF1(), MicroF1(), AUPRC()])
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
        (ThresholdF1(), [["높음"]], "ThresholdF1 needs one number as reference"),
        (ThresholdF1(7), [["5"], ["0"]], "no reference of at least 7 in 2 held-out examples"),
        (Malformed("number"), [["높음"]], "Malformed needs one number"),
        (Malformed("label"), [["가"]], "expects labels, found none"),
        (Malformed("label", ["가", "나"]), [["가"], ["다"]], "'다' as reference of held-out example 2"),
        (CIDEr(), [["개 한 마리", "강아지"]], "found a single example"),
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
    with pytest.raises(UserError, match="found labels, but Malformed expects a number"):
        Malformed("number", labels=["가"])
    with pytest.raises(UserError, match="found spaces: remove, expected one of kept, removed; did you mean"):
        CharacterErrorRate(spaces="remove")  # type: ignore[arg-type]


def test_klue_metrics_accept_an_empty_reference() -> None:
    for metric in (ExactMatch("klue"), RougeW()):
        metric.check([["가"], [""]], None)
        assert figure(metric, ("", ""), ("가", "")) == 1 / 2


@pytest.mark.parametrize("metric", [Pearson(), ThresholdF1()])
def test_a_reference_that_is_not_a_number_raises(metric: Metric) -> None:
    with pytest.raises(UserError, match="found '두 점' in held-out example 2"):
        figure(metric, ("1", "1"), ("2", "두 점"), ("3", "3"))


# -- intervals -------------------------------------------------------------------------------------------


def test_intervals_have_the_nominal_coverage() -> None:
    """The coverage of 95 % intervals over 300 samples of 101 answers is 0.95 +- 0.013 (one sigma), and a little lower
    with the percentile method."""
    draw, counts, covered = np.random.default_rng(11), resample(101, 500), 0
    for _ in range(300):
        answers = [Answer("가" if right else "나", ("가",)) for right in draw.random(101) < 0.7]
        found = score(ExactMatch(), answers, counts)
        covered += found.low <= 0.7 <= found.high
    assert 0.90 <= covered / 300 <= 0.98


def test_a_difference_is_judged_on_the_same_examples() -> None:
    """A few examples are better: the paired interval excludes zero, while the separate intervals overlap."""
    draw = np.random.default_rng(13)
    right = draw.random(97) < 0.5
    first = [Answer("가" if good else "나", ("가",)) for good in right]
    second = [Answer("가" if good or n % 11 == 0 else "나", ("가",)) for n, good in enumerate(right)]
    gain = difference(ExactMatch(), second, first)
    assert gain.value > 0
    assert gain.low > 0
    assert score(ExactMatch(), second).low < score(ExactMatch(), first).high
