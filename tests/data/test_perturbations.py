"""Perturbations: the same damage every time, more of it at each strength, and nothing else changed."""

import unicodedata

import numpy as np
import pytest
from PIL import Image
from rapidfuzz.distance import Levenshtein

from kebyt5_xm.data.perturbations import Perturbation, make_generator
from kebyt5_xm.data.perturbations.keyboard import NEIGHBOURS, compose_syllables, split_syllable
from kebyt5_xm.data.perturbations.media import BandLimit, Blur, Jpeg, Noise
from kebyt5_xm.data.perturbations.text import ByteNoise, Jamo, MissingSpaces, Typos, find_look_alikes
from kebyt5_xm.evaluation.robustness import PERTURBATIONS

TEXT = (
    "대한민국의 수도는 어디입니까? What is the capital of Korea? ㅋㅋ 값이 왜 그래 1997 漢字 カタカナ\n" * 13
)
RATE = 8000


def picture(size: int = 61) -> Image.Image:
    rough = np.random.default_rng(5).integers(0, 256, (7, 11, 3), dtype=np.uint8)
    return Image.fromarray(rough).resize((size + 10, size), resample=3)


def recording() -> tuple[np.ndarray, int]:
    time = np.arange(4001) / RATE
    waves = [np.sin(2 * np.pi * hertz * time) for hertz in (307, 1511, 2503, 3607)]
    return np.sum(waves, axis=0, dtype=np.float64).astype(np.float32) * 0.1, RATE


def item(perturbation: Perturbation):
    return {"text": TEXT, "image": picture(), "audio": recording()}[perturbation.kind]


def plain(item) -> bytes:
    if isinstance(item, tuple):
        return item[0].tobytes()
    return item if isinstance(item, bytes) else item.encode() if isinstance(item, str) else item.tobytes()


def amount(perturbation: Perturbation, before, after) -> float:
    """Return the amount of change."""
    if perturbation.kind == "audio":
        return float(np.square(before[0] - after[0], dtype=np.float64).mean())
    if perturbation.kind == "image":
        return float(np.abs(np.asarray(before, dtype=np.float64) - np.asarray(after)).mean())
    return Levenshtein.distance(plain(before), plain(after))


each_perturbation = pytest.mark.parametrize("perturbation", PERTURBATIONS, ids=lambda p: p.name)


@each_perturbation
def test_the_same_damage_every_time_and_another_for_every_row_and_place(perturbation):
    strength = perturbation.strengths[-2]
    given = item(perturbation)
    untouched = plain(given)
    once, again, other_row, other_place, other_seed = (
        plain(perturbation.apply(given, strength, make_generator(*key)))
        for key in ((1, 2, 0), (1, 2, 0), (1, 3, 0), (1, 2, 1), (2, 2, 0))
    )
    assert plain(given) == untouched != once
    assert once == again
    drawn = not isinstance(perturbation, Blur | Jpeg | BandLimit)
    assert len({once, other_row, other_place, other_seed}) == (4 if drawn else 1)


@each_perturbation
def test_more_damage_with_every_strength(perturbation):
    assert 3 <= len(perturbation.strengths) <= 5
    given = item(perturbation)
    amounts = [
        amount(perturbation, given, perturbation.apply(given, strength, make_generator(0, 7, 0)))
        for strength in perturbation.strengths
    ]
    assert amounts == sorted(amounts)
    fresh = [n for n in amounts if n > 0]
    assert len(set(fresh)) == len(fresh) >= 2


@pytest.mark.parametrize("perturbation", [p for p in PERTURBATIONS if p.kind == "text"], ids=lambda p: p.name)
def test_no_strength_no_damage_to_text(perturbation):
    for text in (TEXT, "", "ㄱㅏ ㅗㅏ가ㅏ", "한글"):
        assert plain(perturbation.apply(text, 0.0, make_generator(1, 1, 1))) == text.encode()


@pytest.mark.parametrize("perturbation", [p for p in PERTURBATIONS if p.kind == "text"], ids=lambda p: p.name)
def test_a_stronger_one_damages_what_a_weaker_one_does_and_more(perturbation):
    weak, strong = (perturbation.apply(TEXT, strength, make_generator(0, 7, 0)) for strength in (0.1, 0.2))
    assert amount(perturbation, TEXT, weak) > 0
    assert amount(perturbation, weak, strong) < 0.75 * amount(perturbation, TEXT, strong)


def test_the_strength_is_a_share():
    raw = TEXT.encode()
    written = ByteNoise().apply(TEXT, 0.1, make_generator(0, 7, 0))
    changed = sum(a != b for a, b in zip(raw, written, strict=True))
    assert changed == pytest.approx(0.1 * len(raw), rel=0.15)
    letters = "the quick brown fox jumps over a lazy dog".replace(" ", "") * 61
    typed = Typos().apply(letters, 0.1, make_generator(0, 7, 0))
    # A swap counts as two edits; the second stroke of a swap is not drawn again.
    assert Levenshtein.distance(letters, typed) == pytest.approx(0.1 * 1.25 * len(letters), rel=0.15)


def test_every_syllable_is_typed_and_composed_again():
    syllables = [chr(code) for code in range(0xAC00, 0xD7A4)]
    order = np.random.default_rng(3)
    for _ in range(3):
        order.shuffle(syllables)
        text = "".join(syllables)
        assert compose_syllables("".join("".join(split_syllable(syllable)) for syllable in text)) == text


@pytest.mark.parametrize(
    ("keys", "shown"),
    [
        ("ㄱㅏㄴㅏ", "가나"),
        ("ㄷㅏㄹㄱ", "닭"),
        ("ㄷㅏㄹㄱㅣ", "달기"),
        ("ㄷㅏㄹㄱㅇㅣ", "닭이"),
        ("ㄱㅗㅏㄴ", "관"),
        ("ㅏㄱㅗ", "ㅏ고"),
        ("ㄱㄱㄱㅏ", "ㄱㄱ가"),
        ("ㅇㅏㄸㅡ", "아뜨"),
        ("ㄱㅏㅃ", "가ㅃ"),
    ],
)
def test_keys_are_composed_as_an_input_method_does(keys, shown):
    assert compose_syllables(keys) == shown


def test_neighbours_lie_around_a_key_in_both_alphabets():
    assert set(NEIGHBOURS["g"]) == set("tyfhvb")
    assert set(NEIGHBOURS["ㅎ"]) == set("ㅅㅛㄹㅗㅍㅠ")  # the same keys
    assert set(NEIGHBOURS["P"]) == set("OL")
    assert set(NEIGHBOURS["ㄲ"]) == set("ㄸㅆㅇㄹ")  # Shift stays down
    assert all(key in NEIGHBOURS[beside] for key in "qazplm" for beside in NEIGHBOURS[key])


def test_typos_are_in_letters_alone():
    typed = Typos().apply(TEXT, 0.5, make_generator(0, 1, 0))
    kept = [[c for c in text if c in "0123456789漢字カタナ?\n "] for text in (TEXT, typed)]
    assert kept[0] == kept[1]
    assert typed != TEXT
    only = Typos().apply("1997年 漢字", 1.0, make_generator(0, 1, 0))
    assert only == "1997年 漢字"


class FixedDraws:
    """Draws all keystrokes from `first` on, always the same kind of typo, and the first neighbouring key."""

    def __init__(self, action: int, first: int = 0) -> None:
        self.action, self.first = action, first

    def random(self, size: int) -> np.ndarray:
        return np.where(np.arange(size) < self.first, 0.9, 0.0)

    def integers(self, bound: int, size: int) -> np.ndarray:
        assert bound == 4
        return np.full(size, self.action)


@pytest.mark.parametrize(
    ("action", "typed"),
    [
        pytest.param(0, "ㄱ다ㅑ gtaqpo", id="inserted"),
        pytest.param(1, " ", id="left out"),
        pytest.param(2, "댜 tqo", id="replaced"),
        pytest.param(3, "ㅏㄱ agp", id="swapped"),
    ],
)
def test_the_four_kinds_of_typos(action, typed):
    first = {key: NEIGHBOURS[key][0] for key in "ㄱㅏgap"}
    assert first == {"ㄱ": "ㄷ", "ㅏ": "ㅑ", "g": "t", "a": "q", "p": "o"}
    assert Typos().apply("가 gap", 0.5, FixedDraws(action)) == typed  # pyright: ignore[reportArgumentType]


def test_what_is_not_typed_key_by_key_stays_where_it_is():
    swapping, replacing = FixedDraws(3), FixedDraws(2, first=8)
    assert Typos().apply("g1 가漢", 0.5, swapping) == "g1 ㅏㄱ漢"  # pyright: ignore[reportArgumentType]
    # Single jamo that were there before are not drawn into syllables.
    text = "ㄱㅏ ㅗㅏ각g"
    assert Typos().apply(text, 0.5, replacing) == text[:-1] + "t"  # pyright: ignore[reportArgumentType]


def test_composing_gives_decomposed_text_back():
    for strength in Jamo.strengths:
        written = Jamo().apply(TEXT, strength, make_generator(0, 1, 0))
        assert written != TEXT
        assert unicodedata.normalize("NFC", written) == unicodedata.normalize("NFC", TEXT)
    assert Jamo().apply("값a", 1.0, make_generator(0, 1, 0)) == "\u1100\u1161\u11b9a"


def test_spaces_go_and_nothing_else():
    written = MissingSpaces().apply(TEXT, 0.5, make_generator(0, 1, 0))
    assert written.replace(" ", "") == TEXT.replace(" ", "")
    assert 0.35 < written.count(" ") / TEXT.count(" ") < 0.65
    assert MissingSpaces().apply("a b\n c", 1.0, make_generator(0, 1, 0)) == "ab\nc"


def test_look_alikes_are_other_characters():
    assert set(find_look_alikes("o")) == {"о", "ο", "ｏ"}  # Cyrillic, Greek, full-width
    assert find_look_alikes("대") == ("머", "ㄷㅐ")
    assert find_look_alikes("水") == ("⽔",)
    assert find_look_alikes("각")[-1] == "ㄱㅏㄱ"
    assert not find_look_alikes(" ")
    assert not find_look_alikes("\n")
    known = [chr(code) for code in (*range(0x21, 0x7F), *range(0x3131, 0x314F), *range(0x4E00, 0xA000))]
    for character in known:
        for other in find_look_alikes(character):
            assert character not in other
            assert not other.isascii()


def test_byte_noise_may_be_invalid_utf8():
    written = ByteNoise().apply(TEXT, 0.1, make_generator(0, 1, 0))
    with pytest.raises(UnicodeDecodeError):
        written.decode()
    every_byte = ByteNoise().apply("\0" * 9973, 1.0, make_generator(0, 1, 0))
    assert set(every_byte) == set(range(1, 256))  # any byte but the one that was there


def test_blur_grows_with_the_image():
    edges = []
    for size in (112, 448):
        pixels = np.zeros((size, size, 3), dtype=np.uint8)
        pixels[:, size // 2 :] = 255
        blurred = np.asarray(
            Blur().apply(Image.fromarray(pixels), 6.0, make_generator(0, 1, 0)), dtype=np.float64
        )
        edges.append(blurred[size // 2, :: size // 112, 0][45:68])
    assert np.abs(edges[0] - edges[1]).max() < 25  # of 255; half a pixel of the small one is about 14
    assert edges[0].min() < 10 < 245 < edges[0].max()
    given = picture()
    assert Blur().apply(given, 0, make_generator(0, 1, 0)) is given


def test_jpeg_keeps_the_size_and_skips_images_too_large_for_it():
    given = picture()
    for quality in Jpeg.strengths:
        saved = Jpeg().apply(given, quality, make_generator(0, 1, 0))
        assert (saved.mode, saved.size) == ("RGB", given.size)
    long = Image.new("RGB", (65_501, 1))
    assert Jpeg().apply(long, 7, make_generator(0, 1, 0)) is long


@pytest.mark.parametrize("decibels", Noise.strengths)
def test_noise_has_its_signal_to_noise_ratio(decibels):
    waveform, rate = recording()
    noisy, after = Noise().apply((waveform, rate), decibels, make_generator(0, 1, 0))
    assert (noisy.dtype, noisy.shape, after) == (np.float32, waveform.shape, rate)
    noise = noisy.astype(np.float64) - waveform
    assert 10 * np.log10(np.square(waveform).mean() / np.square(noise).mean()) == pytest.approx(
        decibels, abs=0.3
    )


def test_silence_stays_silence():
    silence = np.zeros(997, dtype=np.float32)
    assert not Noise().apply((silence, RATE), 0, make_generator(0, 1, 0))[0].any()


def test_a_band_limit_takes_what_is_above_it_and_keeps_what_is_below():
    waveform, rate = recording()
    limited, after = BandLimit().apply((waveform, rate), 2000, make_generator(0, 1, 0))
    assert (limited.dtype, limited.shape, after) == (np.float32, waveform.shape, rate)
    before, left = (np.abs(np.fft.rfft(w)) for w in (waveform, limited))
    hertz = np.fft.rfftfreq(len(waveform), 1 / rate)
    assert left[hertz > 2001].max() < 1e-3 < 1 < before[hertz > 2001].max()
    np.testing.assert_allclose(left[hertz < 1999], before[hertz < 1999], atol=1e-3)
    given = recording()
    assert BandLimit().apply(given, 7000, make_generator(0, 1, 0)) is given
