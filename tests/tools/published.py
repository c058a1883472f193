"""A few rows of each data set that `configs/finetune/` names, with the published file names and format.

The sentences are invented; files, keys, order and oddities follow the published data.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

REVIEWS = [("재미있다", 1), ("지루한 영화", 0), ('그는 "최고" 라고 했다', 1), ("", 0), ("돈이 아깝다", 0)]


def write_sets(folder: Path) -> None:
    """Write all data sets under `folder`, with the paths that the recipes name."""
    for write in (
        write_nsmc,
        write_klue,
        write_kornlu,
        write_korquad,
        write_translation,
        write_zeroth,
        write_ksponspeech,
        write_librispeech,
        write_images,
        write_plain,
    ):
        write(folder)


def write_nsmc(folder: Path) -> None:
    rows = [f"{9976970 + n}\t{text}\t{label}" for n, (text, label) in enumerate(REVIEWS)]
    for name in ("ratings_train.txt", "ratings_test.txt"):
        write_lines(folder / "nsmc" / name, ["id\tdocument\tlabel", *rows])


def write_klue(folder: Path) -> None:
    for part in ("train", "dev"):
        write_json(
            folder / f"klue/ynat-v1.1/ynat-v1.1_{part}.json",
            [
                {
                    "guid": f"ynat-v1_{part}_{n:05}",
                    "title": title,
                    "predefined_news_category": topic,
                    "label": topic,
                    "annotations": {
                        "annotators": ["08", "13"],
                        "annotations": {"first-scope": [topic, "세계"], "second-scope": [None, None]},
                    },
                    "url": "",
                    "date": "2016.06.30. 오전 10:36",
                }
                for n, (title, topic) in enumerate(
                    [
                        ("새 전화기가 나온다", "IT과학"),
                        ("금리가 올랐다", "경제"),
                        ("두 팀이 비겼다", "스포츠"),
                    ]
                )
            ],
        )
        write_json(
            folder / f"klue/klue-sts-v1.1/klue-sts-v1.1_{part}.json",
            [
                {
                    "guid": f"klue-sts-v1_{part}_{n:05}",
                    "source": "airbnb-rtt",
                    "sentence1": "숙소가 아주 넓어요.",
                    "sentence2": second,
                    "labels": {"label": label, "real-label": label + 1 / 70, "binary-label": int(label >= 3)},
                    "annotations": {
                        "agreement": "0:0:0:2:5:0",
                        "annotators": ["07", "13"],
                        "annotations": [3, 4],
                    },
                }
                for n, (second, label) in enumerate(
                    [("방이 매우 넓습니다.", 3.7), ("역에서 멀어요.", 0.3), ("숙소가 넓어요.", 4.6)]
                )
            ],
        )
        write_json(
            folder / f"klue/klue-nli-v1.1/klue-nli-v1.1_{part}.json",
            [
                {
                    "guid": f"klue-nli-v1_{part}_{n:05}",
                    "genre": "NSMC",
                    "premise": "아이가 마당에서 논다.",
                    "hypothesis": hypothesis,
                    "gold_label": label,
                    "author": label,
                    "label2": label,
                    "label3": label,
                }
                for n, (hypothesis, label) in enumerate(
                    [
                        ("아이가 밖에 있다.", "entailment"),
                        ("아이가 잔다.", "contradiction"),
                        ("덥다.", "neutral"),
                    ]
                )
            ],
        )
        write_lines(folder / f"klue/klue-ner-v1.1/klue-ner-v1.1_{part}.tsv", NER.splitlines())
        write_json(
            folder / f"klue/klue-re-v1.1/klue-re-v1.1_{part}.json",
            [
                {
                    "guid": f"klue-re-v1_{part}_{n:05}",
                    "sentence": "장영실은 조선의 과학자이다.",
                    "subject_entity": {"word": "장영실", "start_idx": 0, "end_idx": 2, "type": "PER"},
                    "object_entity": {"word": word, "start_idx": 5, "end_idx": 6, "type": "LOC"},
                    "label": label,
                    "source": "wikipedia",
                }
                for n, (word, label) in enumerate(
                    [("조선", "per:origin"), ("과학자", "per:title"), ("조선", "no_relation")]
                )
            ],
        )
        questions = [
            {
                "question": "무엇을 만들었나?",
                "answers": [
                    {"text": "측우기", "answer_start": 5},
                    {"text": "비를 재는 기구", "answer_start": 9},
                ],
                "question_type": 1,
                "is_impossible": False,
                "guid": f"klue-mrc-v1_{part}_00000",
            },
            {
                "question": "누가 반대했나?",
                "answers": [],
                "plausible_answers": [{"text": "장영실", "answer_start": 0}],
                "question_type": 3,
                "is_impossible": True,
                "guid": f"klue-mrc-v1_{part}_00001",
            },
        ]
        paragraphs = [{"context": "장영실은 측우기를 만들었다. 비를 재는 기구이다.", "qas": questions}]
        entry = {"title": "측우기", "paragraphs": paragraphs, "news_category": None, "source": "wikipedia"}
        write_json(
            folder / f"klue/klue-mrc-v1.1/klue-mrc-v1.1_{part}.json",
            {"version": f"v1.1_{part}", "data": [entry]},
        )


NER = """\
## klue-ner
## a remark
##
## on the file
##\twith a tab
## klue-ner-v1_train_00000-nsmc\t<이순신:PS>은 <한산도:LC>에 갔다.
이\tB-PS
순\tI-PS
신\tI-PS
은\tO
 \tO
한\tB-LC
산\tI-LC
도\tI-LC
에\tO
 \tO
갔\tO
다\tO
.\tO

## klue-ner-v1_train_00001-wikitree\t비가 온다
비\tO
가\tO
 \tO
온\tO
다\tO
\t
## klue-ner-v1_train_00002-wikitree\t<서울:LC><시청:OG> #
서\tB-LC
울\tI-LC
시\tB-OG
청\tI-OG
 \tO
#\tO
"""


def write_kornlu(folder: Path) -> None:
    rows = [
        f"그는 {n}시에 떠났다.\t{second}\t{label}"
        for n, (second, label) in enumerate(
            [("그는 갔다.", "entailment"), ('그는 "여기" 있다.', "contradiction"), ("그는 젊다.", "neutral")]
        )
    ]
    for name in ("multinli.train", "snli_1.0_train", "xnli.dev", "xnli.test"):
        write_lines(folder / "KorNLI" / f"{name}.ko.tsv", ["sentence1\tsentence2\tgold_label", *rows])
    columns = "genre\tfilename\tyear\tid\tscore\tsentence1\tsentence2"
    rows = [
        f"main-captions\tMSRvid\t2012test\t{n:04}\t{score}\t비행기가 이륙한다.\t비행기가 {n}대 뜬다."
        for n, score in enumerate(["5.000", "2.46666666666667", "0.600"])
    ]
    for part in ("train", "dev", "test"):
        write_lines(folder / "KorSTS" / f"sts-{part}.tsv", [columns, *rows])


def write_korquad(folder: Path) -> None:
    for part in ("train", "dev"):
        questions = [
            {
                "answers": [{"text": "교향곡", "answer_start": 4}],
                "id": f"65{n}-0-0",
                "question": "무엇을 썼는가?",
            }
            for n in range(3)
        ]
        paragraphs = [{"qas": questions, "context": "그는 교향곡을 썼다."}]
        write_json(
            folder / f"KorQuAD/KorQuAD_v1.0_{part}.json",
            {"version": f"KorQuAD_v1.0_{part}", "data": [{"paragraphs": paragraphs, "title": "서곡"}]},
        )


def write_translation(folder: Path) -> None:
    lines = {
        "ko": ["안녕하세요", "비가 온다", "고맙습니다"],
        "en": ["hello", "it rains", "thank you"],
        "ja": ["こんにちは", "雨が降る", "ありがとう"],
        "zh_cn": ["你好", "下雨了", "谢谢"],
    }
    for part in ("train", "dev"):
        for language in ("ko", "en"):
            write_lines(
                folder / f"korean-english-park/korean-english-park.{part}.{language}", lines[language]
            )
    for pair, languages in (("ja-ko", ("ja", "ko")), ("ko-zh_cn", ("ko", "zh_cn"))):
        for language in languages:
            write_lines(folder / f"TED2020/TED2020.{pair}.{language}", lines[language])
    for code, language in (("kor_Hang", "ko"), ("jpn_Jpan", "ja"), ("zho_Hans", "zh_cn")):
        write_lines(folder / f"flores200_dataset/dev/{code}.dev", lines[language])


def write_zeroth(folder: Path) -> None:
    for part in ("train_data_01", "test_data_01"):
        for speaker in ("105", "106"):
            place = folder / "zeroth_korean" / part / "003" / speaker
            names = [f"{speaker}_003_{n:04}" for n in range(2)]
            write_lines(place / f"{speaker}_003.trans.txt", [f"{name} 인사를 나누었다" for name in names])
            for n, name in enumerate(names):
                write_flac(place / f"{name}.flac", n)


def write_librispeech(folder: Path) -> None:
    for part in ("train-clean-100", "dev-clean"):
        place = folder / "LibriSpeech" / part / "84" / "121123"
        names = [f"84-121123-{n:04}" for n in range(3)]
        write_lines(place / "84-121123.trans.txt", [f"{name} THE DOOR WAS OPEN" for name in names])
        for n, name in enumerate(names):
            write_flac(place / f"{name}.flac", n)


KSPON = [
    "b/ 아/ 그래서 (70%)/(칠 십 퍼센트) 라니까. n/",
    "o/ 그+ 그게 뭐* 였지? l/",
    "(2시)/(두 시)에 보자!",
]


def write_ksponspeech(folder: Path) -> None:
    root = folder / "KsponSpeech"
    for part in ("train", "dev"):
        lines = []
        for n, transcript in enumerate(KSPON):
            name = f"KsponSpeech_01/KsponSpeech_0001/KsponSpeech_{n:06}.pcm"
            lines.append(f"{name} :: {transcript}")
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(make_samples(n).tobytes() + b"\0" * (n % 2))
        write_lines(root / "KsponSpeech_scripts" / f"{part}.trn", lines)


def write_images(folder: Path) -> None:
    entries = [
        {
            "file_path": f"{part}2014/COCO_{part}2014_{n:012}.jpg",
            "captions": ["a bird on a tree"],
            "id": n,
            "caption_ko": ["새가 나무에 앉아 있다.", f"새 {n}마리"],
        }
        for n, part in enumerate(["train", "train", "val", "val"])
    ]
    write_json(folder / "COCO/MSCOCO_train_val_Korean.json", entries)
    for entry in entries:
        write_jpeg(folder / "COCO" / entry["file_path"], entry["id"])
    for part in ("train", "val"):
        questions = [
            {
                "image": f"KVQA_190712_{n:05}.jpg",
                "source": "kvqa",
                "answers": [
                    {"answer": word, "answer_confidence": "yes"} for word in ("나무", "새", "새", "모르겠다")
                ],
                "question": "무엇이 보이니?",
                "answerable": "1",
                "answer_type": "other",
            }
            for n in range(3)
        ]
        write_json(folder / f"KVQA/KVQA_annotations_{part}.json", questions)
        for question in questions:
            write_jpeg(folder / "KVQA/images" / question["image"], 7)


def write_plain(folder: Path) -> None:
    """The recipes over plain JSON lines."""
    for part in ("train", "heldout"):
        rows = [{"image": f"{n}.jpg", "text": f"제{n}조"} for n in range(3)]
        write_lines(folder / f"ocr/{part}.jsonl", [json.dumps(row, ensure_ascii=False) for row in rows])
        rows = [
            {"image": f"{n}.jpg", "question": "몇 마리니?", "answer": "둘", "answers": ["둘", "두 마리"]}
            for n in range(3)
        ]
        write_lines(folder / f"vqa/{part}.jsonl", [json.dumps(row, ensure_ascii=False) for row in rows])
        rows = [{"question": f"{n}.flac", "answer": "서울"} for n in range(3)]
        write_lines(folder / f"spoken_qa/{part}.jsonl", [json.dumps(row, ensure_ascii=False) for row in rows])
    for n in range(3):
        write_jpeg(folder / f"ocr/{n}.jpg", n)
        write_jpeg(folder / f"vqa/{n}.jpg", n)
        write_flac(folder / f"spoken_qa/{n}.flac", n)


def write_lines(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1), encoding="utf-8")


def make_samples(seed: int) -> np.ndarray:
    """Return about a fifth of a second at 16 kHz."""
    return (np.random.default_rng(seed).standard_normal(3001 + 211 * seed) * 3000).astype("<i2")


def write_flac(path: Path, seed: int) -> None:
    import soundfile

    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, make_samples(seed), 16_000)


def write_jpeg(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (19, 23, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
