"""Answers of each kind of task for the tests of metrics: right, wrong and malformed ones."""

import unicodedata

import numpy as np

from kebyt5_xm.metrics import Answer

LABELS = ("부정", "긍정", "중립", "no_relation", "없음!")

TEXTS = [
    Answer("이순신은 한산도에서 싸웠다.", ("이순신은 한산도에서 싸웠다.",)),
    Answer(
        "이순신 장군이 한산도 앞바다에서 크게 이겼다",
        ("이순신 장군은 한산도 앞바다에서 크게 이겼다.", "그는 이겼다"),
    ),
    Answer(unicodedata.normalize("NFD", "한글"), ("한글",)),
    Answer("나는  밥을 먹었다 ", ("나는 밥을 먹었다",)),
    Answer("", ("아무 말도 하지 않았다", "침묵")),
    Answer("\ufffd\ufffd 강아지", ("강아지가 공원에서 뛰논다", "공원의 강아지 한 마리", "개가 공원에 있다")),
    Answer("The cat sat on the mat.", ("the cat sat on a mat", "A cat is sitting on the mat.")),
    Answer("猫が座っている", ("猫がマットに座っている。",)),
    Answer("他们在公园里踢足球", ("孩子们在公园里踢足球", "他们在踢足球")),
    Answer("같은 말 같은 말 같은 말 같은 말", ("같은 말",)),
    Answer("《난중일기》(1592)", ("난중일기", "'난중일기'")),
    Answer("삼천 원입니다 고객님", ("3천 원입니다, 고객님!",)),
    Answer("오늘 서울의 날씨는 맑고 바람이 분다", ("오늘 서울 날씨는 흐리고 바람이 많이 분다",)),
]

ENTITIES = [
    Answer("이순신=PS; 한산도=LC", ("이순신=PS; 한산도=LC",)),
    Answer("이순신=LC; 한산도=LC", ("이순신=PS; 한산도=LC",)),
    Answer("한산도=LC; 한산도=LC", ("한산도=LC; 한산도=LC; 한산도=LC",)),
    Answer("없음", ("없음",)),
    Answer("", ("1592년=DT",)),
    Answer("서울", ("서울=LC",)),
    Answer("삼성전자=OG; =PS; 서울=", ("삼성전자=OG", "삼성=OG")),
    Answer("a=b=QT; 둘=QT;", ("a=b=QT; 둘=QT",)),
    Answer("세 시=TI; 없음", ("없음",)),
    Answer("세 시=XX", ("세 시=TI",)),
    Answer("삼성=OG", ("삼성전자=OG", "삼성=OG")),
]

PEOPLE = [
    Answer("a dog", ("dog",) * 6 + ("puppy",) * 2 + ("The dog.", "cat")),
    Answer("puppy", ("dog",) * 7 + ("puppy",) * 2 + ("cat",)),
    Answer("Two", ("2",) * 10),
    Answer("2.50", ("2.5",) * 9 + ("2.50",)),
    Answer("1000", ("1,000",) * 3 + ("천",) * 7),
    Answer("don't know", ("dont know",) * 4 + ("yes",) * 6),
    Answer("빨간색", ("빨강", "빨간색", "붉은색", "빨간색")),
    Answer("빨강", ("빨강", "빨간색")),
    Answer("강아지", ("강아지",)),
    Answer("", ("none", "0", "없다")),
    Answer("\ufffd", ("사람",) * 10),
]


def sentences(count: int = 61, seed: int = 23) -> list[Answer]:
    """Return sentences of Hangul words with replaced, missing and repeated words and letters; 1 to 3 references."""
    draw = np.random.default_rng(seed)
    letters = [chr(code) for code in draw.integers(0xAC00, 0xD7A4, 19)] + ["。", ",", "A", "a", "7"]
    words = ["".join(draw.choice(letters, draw.integers(1, 6))) for _ in range(31)]

    def corrupt(sentence: list[str]) -> str:
        kept = [
            str(draw.choice(words)) if chance < 0.1 else word
            for word, chance in zip(sentence, draw.random(len(sentence)), strict=True)
            if chance < 0.9
        ]
        text = list(" ".join(kept))
        return "".join(letter * int(draw.choice([0, 1, 1, 1, 1, 1, 1, 1, 2])) for letter in text)

    answers = []
    for _ in range(count):
        sentence = [str(word) for word in draw.choice(words, draw.integers(1, 14))]
        others = [corrupt(sentence) or "가" for _ in range(draw.integers(0, 3))]
        answers.append(Answer(corrupt(sentence), (" ".join(sentence), *others)))
    return answers


def numbers(count: int = 17, seed: int = 3) -> list[Answer]:
    """Return answers to numbers from 0 to 5 with a random error; two answers are words."""
    draw = np.random.default_rng(seed)
    right = draw.uniform(0, 5, count).round(1)
    written = [str(value) for value in (right + draw.normal(0, 1, count)).round(1)]
    written[3], written[11] = "세 점", "3.5점"
    return [Answer(text, (str(value),)) for text, value in zip(written, right, strict=True)]


def labelled(count: int = 97, seed: int = 7) -> list[Answer]:
    """Return label answers, about half of them right, with the probabilities of all labels."""
    draw = np.random.default_rng(seed)
    answers = []
    for right in draw.choice(LABELS[:4], count, p=[0.5, 0.2, 0.2, 0.1]):
        chances = draw.dirichlet(np.ones(len(LABELS))).round(2) + 0.5 * (np.asarray(LABELS) == right)
        probabilities = dict(zip(LABELS, (chances / chances.sum()).tolist(), strict=True))
        answers.append(
            Answer(max(probabilities, key=probabilities.__getitem__), (str(right),), probabilities)
        )
    return answers
