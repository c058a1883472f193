"""Published files become the right rows with their lines; damaged files are refused by file and line."""

import json
import pickle
from pathlib import Path
from typing import Any

import published
import pytest

from kebyt5_xm.data import Manifest
from kebyt5_xm.data.layouts import (
    LINE,
    AlignedText,
    Delimited,
    JsonDocuments,
    KlueNer,
    KoreanCaptions,
    KsponSpeech,
    Layout,
    Squad,
    Transcripts,
    VisualQuestions,
)
from kebyt5_xm.data.media.bad_sample import MediaError
from kebyt5_xm.data.media.opening import open_audio
from kebyt5_xm.data.sources.manifest import open_rows
from kebyt5_xm.errors import UserError


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sets")
    published.write_sets(folder)
    return folder


def rows(path: Path, layout: Layout) -> list[dict[str, Any]]:
    table = open_rows(path, layout)
    return [table.row(index) for index in range(len(table))]


@pytest.mark.parametrize(
    ("path", "layout", "expected"),
    [
        (
            "nsmc/ratings_train.txt",
            Delimited(),
            {2: {"id": "9976972", "document": '그는 "최고" 라고 했다', "label": "1"}, 3: {"document": None}},
        ),
        (
            "KorNLI/xnli.dev.ko.tsv",
            Delimited(),
            {1: {"sentence2": '그는 "여기" 있다.', "gold_label": "contradiction"}},
        ),
        (
            "KorSTS/sts-dev.tsv",
            Delimited(),
            {1: {"score": "2.46666666666667", "sentence2": "비행기가 1대 뜬다."}},
        ),
        (
            "klue/ynat-v1.1/ynat-v1.1_dev.json",
            JsonDocuments(),
            {0: {"label": "IT과학", "annotations.annotators": ["08", "13"]}},
        ),
        (
            "klue/klue-sts-v1.1/klue-sts-v1.1_dev.json",
            JsonDocuments(),
            {0: {"labels.label": 3.7, "labels.real-label": 3.7142857142857144, "labels.binary-label": 1}},
        ),
        (
            "klue/klue-re-v1.1/klue-re-v1.1_dev.json",
            JsonDocuments(),
            {1: {"subject_entity.word": "장영실", "object_entity.start_idx": 5, "label": "per:title"}},
        ),
        (
            "klue/klue-mrc-v1.1/klue-mrc-v1.1_dev.json",
            Squad(impossible="답 없음"),
            {
                0: {
                    "answers": ["측우기", "비를 재는 기구"],
                    "answer": "측우기",
                    "id": "klue-mrc-v1_dev_00000",
                },
                1: {"question": "누가 반대했나?", "answers": ["답 없음"], "answer": "답 없음"},
            },
        ),
        (
            "KorQuAD/KorQuAD_v1.0_dev.json",
            Squad(),
            {2: {"title": "서곡", "context": "그는 교향곡을 썼다.", "answer": "교향곡", "id": "652-0-0"}},
        ),
        (
            "klue/klue-ner-v1.1/klue-ner-v1.1_dev.tsv",
            KlueNer(),
            {
                0: {
                    "id": "klue-ner-v1_train_00000-nsmc",
                    "sentence": "이순신은 한산도에 갔다.",
                    "entities": "이순신=PS; 한산도=LC",
                },
                1: {"sentence": "비가 온다", "entities": "없음"},
                2: {"sentence": "서울시청 #", "entities": "서울=LC; 시청=OG"},
            },
        ),
        (
            "TED2020",
            AlignedText({"ko": "TED2020.ko-zh_cn.ko", "zh": "TED2020.ko-zh_cn.zh_cn"}),
            {1: {"ko": "비가 온다", "zh": "下雨了"}},
        ),
        (
            "zeroth_korean/train_data_01",
            Transcripts(),
            {
                0: {"id": "105_003_0000", "text": "인사를 나누었다"},
                3: {"audio": "train_data_01/003/106/106_003_0001.flac"},
            },
        ),
        (
            "LibriSpeech/dev-clean",
            Transcripts(),
            {2: {"audio": "dev-clean/84/121123/84-121123-0002.flac", "text": "THE DOOR WAS OPEN"}},
        ),
        (
            "KsponSpeech/KsponSpeech_scripts/dev.trn",
            KsponSpeech(),
            {
                0: {
                    "audio": "KsponSpeech_01/KsponSpeech_0001/KsponSpeech_000000.pcm",
                    "text": "아 그래서 70% 라니까.",
                }
            },
        ),
        (
            "COCO/MSCOCO_train_val_Korean.json",
            KoreanCaptions(folder="val2014"),
            {
                1: {"image": "val2014/COCO_val2014_000000000002.jpg", "caption": "새 2마리"},
                3: {"id": 3, "captions": ["새가 나무에 앉아 있다.", "새 3마리"]},
            },
        ),
        (
            "KVQA/KVQA_annotations_val.json",
            VisualQuestions(),
            {0: {"answer": "새", "answers": ["나무", "새", "새", "모르겠다"], "question": "무엇이 보이니?"}},
        ),
    ],
)
def test_rows_as_published(
    sets: Path, path: str, layout: Layout, expected: dict[int, dict[str, Any]]
) -> None:
    found = rows(sets / path, layout)
    for number, values in expected.items():
        assert {name: found[number][name] for name in values} == values


def test_one_row_per_caption_or_per_image(sets: Path) -> None:
    path = sets / "COCO/MSCOCO_train_val_Korean.json"
    assert len(rows(path, KoreanCaptions())) == 8
    assert len(rows(path, KoreanCaptions("image"))) == 4
    assert len(rows(path, KoreanCaptions("image", folder="train2014/"))) == 2
    with pytest.raises(UserError, match="no rows"):
        rows(path, KoreanCaptions(folder="val"))


@pytest.mark.parametrize(
    ("given", "spelled", "said"),
    [
        ("b/ 아/ (70%)/(칠 십 퍼센트) 라니까. n/", "아 70% 라니까.", "아 칠 십 퍼센트 라니까."),
        ("o/ 그+ 그게 뭐* 였지? l/", "그 그게 뭐 였지?", "그 그게 뭐 였지?"),
        ("(1/2)/(이분의 일) u/", "1/2", "이분의 일"),
        ("(C++)/(씨 플+ 플러스)를", "C++를", "씨 플 플러스를"),
        ("(3) / (세) 개", "3 개", "세 개"),
        ("hello/ blob/", "hello blob", "hello blob"),
        ("n/ b/", None, None),
        ("(웃음) 네", None, None),
        ("(아/(어)", None, None),
    ],
)
def test_marks_are_removed_from_transcripts(given: str, spelled: str | None, said: str | None) -> None:
    assert KsponSpeech().plain(given) == spelled
    assert KsponSpeech(spelling="pronunciation").plain(given) == said


def test_punctuation_is_removed_on_request() -> None:
    assert KsponSpeech(punctuation="removed").plain("음, (3.5)/(삼 점 오) 맞지?") == "음 3 5 맞지"


def test_visual_questions_in_two_files(tmp_path: Path) -> None:
    questions = [
        {"image_id": 17, "question": "무엇?", "question_id": 170},
        {"image_id": 19, "question": "?", "question_id": 190},
    ]
    answers = [
        {"question_id": 170, "image_id": 17, "answers": [{"answer": 2, "answer_id": 1}, {"answer": "둘"}]}
    ]
    published.write_json(tmp_path / "questions.json", {"questions": questions})
    published.write_json(tmp_path / "annotations.json", {"annotations": answers})
    layout = VisualQuestions("annotations.json", "train2014/COCO_train2014_{image_id:012d}.jpg")
    assert rows(tmp_path / "questions.json", layout) == [
        {
            "image": "train2014/COCO_train2014_000000000017.jpg",
            "question": "무엇?",
            "answers": ["2", "둘"],
            "answer": "2",
        },
        {
            "image": "train2014/COCO_train2014_000000000019.jpg",
            "question": "?",
            "answers": None,
            "answer": None,
        },
    ]


def test_a_row_names_its_line_and_its_file(sets: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.tsv"
    path.write_text("a\tb\n\n1\t2\n3\n5\t6\n", encoding="utf-8")
    table = open_rows(path, Delimited())
    assert [table.line(index) for index in range(3)] == [3, 4, 5]
    assert table.columns == ("a", "b")
    assert table.row(1) == {"a": None, "b": None}
    source = Manifest(str(path), "{a}", "{b}", format=Delimited())
    assert source.training.measure(1) == "column 'b' is null"
    folder = sets / "zeroth_korean" / "train_data_01"
    table = open_rows(folder, Transcripts())
    assert table.place(3) == (str(folder / "003" / "106" / "106_003.trans.txt"), 2)
    ner = open_rows(sets / "klue/klue-ner-v1.1/klue-ner-v1.1_dev.tsv", KlueNer())
    assert (len(ner), ner.line(0), ner.line(1)) == (3, 6, 21)


def test_quoted_fields(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('﻿"a",b\r\n"1, ""one""\n2",x\r\n3,y\r\n', encoding="utf-8")
    layout = Delimited(delimiter=",", quoting="minimal")
    assert rows(path, layout) == [{"a": '1, "one"\n2', "b": "x"}, {"a": "3", "b": "y"}]
    assert open_rows(path, layout).line(1) == 4


def test_another_encoding_and_columns_without_a_header(tmp_path: Path) -> None:
    path = tmp_path / "rows.txt"
    path.write_bytes("가||나\n다||라\n".encode("cp949"))
    assert rows(path, Delimited("||", columns=["x", "y"], encoding="cp949"))[1] == {"x": "다", "y": "라"}


def test_media_must_be_inside_the_root_of_the_layout(sets: Path) -> None:
    lists = sets / "KsponSpeech" / "KsponSpeech_scripts"
    source = Manifest(str(lists / "dev.trn"), "{audio:speech}", "{text}", format=KsponSpeech())
    audio = source.training.rows.row(1)["audio"]
    waveform, rate = open_audio(source.training.readable(audio))
    assert (len(waveform), rate) == (3001 + 211, 16_000)
    with pytest.raises(MediaError, match="leaves the manifest's folder"):
        source.training.readable("../KVQA/KVQA_annotations_val.json")
    here = open_rows(lists / "dev.trn", KsponSpeech(root="."))
    assert here.root == lists
    assert here.fingerprint != source.training.rows.fingerprint, (
        "a length table of the one is not that of the other"
    )


def test_a_pattern_opens_as_one_table_in_every_worker(sets: Path) -> None:
    table = pickle.loads(pickle.dumps(open_rows(sets / "KorNLI" / "*train.ko.tsv", Delimited())))
    assert len(table) == 6
    assert table.place(3) == (str(sets / "KorNLI" / "snli_1.0_train.ko.tsv"), 2)
    assert table.columns == ("sentence1", "sentence2", "gold_label")
    lists = open_rows(sets / "KsponSpeech/KsponSpeech_scripts/*.trn", KsponSpeech())
    assert lists.root == sets / "KsponSpeech"


def test_a_change_in_any_file_rebuilds_the_rows(tmp_path: Path) -> None:
    published.write_zeroth(tmp_path)
    folder = tmp_path / "zeroth_korean" / "train_data_01"
    before = open_rows(folder, Transcripts()).fingerprint
    published.write_lines(folder / "003/106/106_003.trans.txt", ["106_003_0000 다르다", "106_003_0001"])
    after = open_rows(folder, Transcripts())
    assert after.fingerprint != before
    assert [after.row(index)["text"] for index in (2, 3)] == ["다르다", None]


class JsonRows(Layout):
    """Yields the rows of a JSON file unchanged."""

    def read(self, path: Path):
        yield from json.loads(path.read_text("utf-8"))


def test_one_odd_value_does_not_fail_a_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.txt"
    lone = "\ud800"
    given = [
        {"n": 1, "late": None, "text": "a", "list": []},
        {"n": 2.5, "text": lone, "list": [1]},
        {"n": 3, "text": 7, "list": ["b", None], "late": 5, LINE: 17},
    ]
    path.write_text(json.dumps([*given, *[{"n": 1 << 70}] * 1500]), "utf-8")
    found = rows(path, JsonRows())
    assert [row["text"] for row in found[:3]] == ["a", None, "7"]
    assert [row["list"] for row in found[:4]] == [[], ["1"], ["b", None], None]
    assert [row["late"] for row in found[:3]] == [None, None, 5]
    assert [found[n]["n"] for n in (0, 1, -1)] == ["1", "2.5", str(1 << 70)]
    table = open_rows(path, JsonRows())
    assert [table.line(index) for index in (1, 2, 3)] == [2, 17, 4]


def test_a_single_value_in_a_column_of_lists_becomes_a_list(tmp_path: Path) -> None:
    path = tmp_path / "rows.txt"
    path.write_text(json.dumps([*[{"a": 5}] * 1100, {"a": ["b"]}, {"a": "c"}, {"a": None}]), "utf-8")
    assert [row["a"] for row in rows(path, JsonRows())][-4:] == [["5"], ["b"], ["c"], None]


@pytest.mark.parametrize("value", [{"a": [{"b": 1}]}, {"a": {"b": 1}}])
def test_unsupported_column_types_are_refused(tmp_path: Path, value: dict[str, Any]) -> None:
    path = tmp_path / "rows.txt"
    path.write_text(json.dumps([{"a": "x"}, value]), "utf-8")
    with pytest.raises(UserError, match=r"column 'a' of .*rows\.txt"):
        rows(path, JsonRows())


MRC = {"data": [{"title": "t", "paragraphs": [{"context": "c", "qas": []}]}]}


@pytest.mark.parametrize(
    ("layout", "content", "message"),
    [
        (
            Delimited(),
            "a\tb\n1\n2\n3\t4\n",
            r"line 2 of .* has 1 fields, expected 2 \(a, b\).*in 2 of 3 lines",
        ),
        (Delimited(), "a\ta\n1\t2\n", r"line 1 of .* names the columns.*each once"),
        (Delimited(), "a\tb\n", "no rows"),
        (Delimited(), "", "no rows"),
        (Delimited(), b"a\tb\n1\t\xb0\xa1\n", r"line 2 of .* is not utf-8 \(byte 2"),
        (Delimited(",", "minimal"), 'a,b\n1,2\n"3,4\n', r"line 3 of .*quoting: none"),
        (JsonDocuments(), '[\n{"a": 1},\n{"b" 2}]', r"line 3 of .* is not JSON"),
        (JsonDocuments(), '{"a": 1}\n{"a": 2}\n', r"line 2 of .* is not JSON.*remove `format`"),
        (JsonDocuments(), b'[\n{"a": "\xb0"}]', r"line 2 of .* is not UTF-8"),
        (JsonDocuments(), '{"rows": []}', r"JSON dict in .*array of objects among rows; name one as the key"),
        (JsonDocuments("row"), '{"rows": []}', r"no 'row' in .* among rows; did you mean 'rows'"),
        (
            JsonDocuments("a.b"),
            '{"a": {"b": [7]}}',
            r"entry 1 of a\.b in .* is a JSON int, expected an object",
        ),
        (JsonDocuments(), "[" * 99_999, "nested too deeply"),
        (Squad(), '[{"guid": 1}]', r"no 'data' in"),
        (Squad(), '{"data": [{"title": "t"}]}', r"no 'paragraphs' in entry 1 of data in"),
        (
            Squad(),
            json.dumps({"data": [{"paragraphs": [{}]}]}),
            r"no 'qas' in entry 1 of paragraphs in entry 1 of data",
        ),
        (Squad(), json.dumps(MRC), "no rows"),
        (KlueNer(), "가\tO\n", r"line 1 of .* is '가\\tO', expected '## ID"),
        (KlueNer(), "## a\tx\n가 O\n", r"line 2 of .*'CHARACTER<tab>TAG'"),
        (KlueNer(), "## a\tx\n가\tLC\n", r"line 2 of .* has the tag 'LC', expected O, B-TYPE"),
        (KsponSpeech(), "a.pcm :: 네\nb.pcm 네\n", r"line 2 of .* is 'b\.pcm 네', expected 'PATH :: TEXT'"),
        (KoreanCaptions(), '[{"file_path": "a.jpg"}]', r"entry 1 in .* has the keys file_path, expected"),
        (VisualQuestions(), '[{"image_id": 7}]', r"entry 1 in .* has the keys image_id.*`image`"),
        (
            VisualQuestions("absent.json"),
            "[]",
            r"found no absent\.json in .*expected the files of VisualQuestions",
        ),
        (AlignedText({"a": "a", "b": "b"}), "x", r"found no a in"),
        (Transcripts(), "x", "no matching file"),
    ],
)
def test_damaged_files_are_refused_with_file_and_line(
    tmp_path: Path, layout: Layout, content: str | bytes, message: str
) -> None:
    path = tmp_path / "published"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message) as refused:
        open_rows(path, layout)
    assert "\n" not in str(refused.value)
    assert str(tmp_path) in str(refused.value)


def test_aligned_files_of_unequal_length(tmp_path: Path) -> None:
    published.write_lines(tmp_path / "c" / "x.ko", ["가", "", "다"])
    published.write_lines(tmp_path / "c" / "x.en", ["a", "b"])
    layout = AlignedText({"ko": "x.ko", "en": "x.en"})
    with pytest.raises(UserError, match=r"x\.en ends before line 3"):
        open_rows(tmp_path / "c", layout)
    published.write_lines(tmp_path / "c" / "x.en", ["a", "b", "c"])
    assert rows(tmp_path / "c", layout)[1] == {"ko": None, "en": "b"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Delimited(delimiter=""), "one character"),
        (lambda: Delimited(delimiter="||", quoting="minimal"), "one character"),
        (lambda: Delimited(encoding="base64"), "utf-8 or cp949"),
        (lambda: KsponSpeech(encoding="cp94"), "utf-8 or cp949"),
        (lambda: AlignedText({"ko": "x"}), "two or more"),
        (lambda: VisualQuestions(image="{id}.jpg"), "path with {image_id}"),
    ],
)
def test_invalid_settings_are_refused(make: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()


def test_entities_with_a_semicolon_are_skipped_and_i_tags_may_begin_entities(tmp_path: Path) -> None:
    path = tmp_path / "rows.tsv"
    tagged = [("a", "B-PS"), (";", "I-PS"), ("b", "I-PS")]
    lines = [
        "## 1\tx",
        *("\t".join(pair) for pair in tagged),
        "",
        "## 2\tx",
        "가\tI-LC",
        "나\tI-OG",
        "다\tB-OG",
        "",
        "## 3\tx",
        "가\tB-LC",
        "나\tO",
        "다\tI-LC",
    ]
    published.write_lines(path, lines)
    assert [row["entities"] for row in rows(path, KlueNer())] == [
        None,
        "가=LC; 나=OG; 다=OG",
        "가=LC; 다=LC",
    ]
