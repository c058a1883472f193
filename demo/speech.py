"""Numbers from 0 to 99 in words of four languages, spoken by espeak-ng; the held-out voices are not in training."""

import ctypes
import subprocess
import sys
import wave
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from demo.folder import Manifests, content_hash, write_manifests
from demo.text import LANGUAGES
from kebyt5_xm.errors import UserError

DIGIT_WORDS = {
    "ko": ["영", "일", "이", "삼", "사", "오", "육", "칠", "팔", "구"],
    "en": ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"],
    "zh": ["零", "一", "二", "三", "四", "五", "六", "七", "八", "九"],
    # In kana: espeak-ng reads no kanji in Japanese.
    "ja": ["ぜろ", "いち", "に", "さん", "よん", "ご", "ろく", "なな", "はち", "きゅう"],
}
TEN = {"ko": "십", "zh": "十", "ja": "じゅう"}
ENGLISH_TEENS = [
    *("ten", "eleven", "twelve", "thirteen", "fourteen"),
    *("fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
]
ENGLISH_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]

SAMPLE_RATE = 16000  # Hz of the files; espeak-ng speaks at 22050
ESPEAK_LANGUAGES = {"ko": "ko", "en": "en-us", "zh": "cmn", "ja": "ja"}
TRAIN_VOICES = ("m1", "m3", "m6", "f1", "f2", "f5")  # espeak-ng's variants: m are lower voices, f higher ones
HELD_OUT_VOICES = ("m4", "f3")
WORDS_PER_MINUTE = (140, 200)  # espeak-ng's default is 175
PITCH = (35, 65)  # of 0 to 99; its default is 50

# From espeak-ng's public header, speak_lib.h.
AUDIO_OUTPUT_SYNCHRONOUS = 2
POS_CHARACTER = 1
CHARS_UTF8 = 1
PARAMETER_RATE = 1
PARAMETER_PITCH = 3
EE_OK = 0
SYNTH_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


def number_words(number: int, language: str) -> str:
    """Return a number from 0 to 99 in words: 23 is 이십삼, twenty-three, 二十三, にじゅうさん."""
    assert 0 <= number < 100
    digits = DIGIT_WORDS[language]
    tens, ones = divmod(number, 10)
    if tens == 0:
        return digits[ones]
    if language == "en":
        if tens == 1:
            return ENGLISH_TEENS[ones]
        return ENGLISH_TENS[tens - 2] + (f"-{digits[ones]}" if ones else "")
    # Ten alone is 십, 十, じゅう, without a one before it.
    return (digits[tens] if tens > 1 else "") + TEN[language] + (digits[ones] if ones else "")


def write_speech(
    folder: Path, num_numbers: int = 100, train_voices: Sequence[str] = TRAIN_VOICES
) -> Manifests:
    """Write audio/LANGUAGE-VOICE-NN.wav (16 kHz, mono, 16 bit), train.jsonl and heldout.jsonl; return the manifests.

    Columns: audio, transcript (0 to `num_numbers` - 1 in words; Japanese in kana), language (ko, en, zh, ja),
    voice, number, seconds. In training, six voices say every number, or `train_voices`, variants of espeak-ng; in the
    held-out part two others take turns. Speed and pitch vary from clip to clip. The files are the same to the byte on
    one machine: espeak-ng runs in a small process of its own (without torch), since it repeats itself only from the
    start of a process.
    Raises UserError if espeakng-loader is not installed.
    """
    command = [sys.executable, "-m", "demo.speech", str(folder.resolve()), str(num_numbers), *train_voices]
    speaker = subprocess.run(
        command, cwd=Path(__file__).parents[1], capture_output=True, text=True, encoding="utf-8", check=False
    )
    if speaker.returncode == 2:
        raise UserError(speaker.stderr.strip())
    if speaker.returncode != 0:
        raise RuntimeError(f"espeak-ng's process ended with {speaker.returncode}: {speaker.stderr}")
    counts = [int(count) for count in speaker.stdout.split()]
    return Manifests(folder / "train.jsonl", folder / "heldout.jsonl", *counts)


class Espeak:
    """espeak-ng through its C interface."""

    def __init__(self) -> None:
        import espeakng_loader

        self.library = ctypes.CDLL(espeakng_loader.get_library_path())
        data = espeakng_loader.get_data_path().encode()
        self.sample_rate = self.library.espeak_Initialize(AUDIO_OUTPUT_SYNCHRONOUS, 0, data, 0)
        assert self.sample_rate > 0, f"espeak-ng found no voices under {data}"
        self.library.espeak_ng_SetRandSeed(
            ctypes.c_long(1)
        )  # otherwise the breath of some voices depends on the clock
        self.pieces: list[NDArray[np.int16]] = []
        self.callback = SYNTH_CALLBACK(self._receive)  # a reference, since C holds none that Python counts
        self.library.espeak_SetSynthCallback(self.callback)

    def _receive(self, samples: "ctypes._Pointer[ctypes.c_short]", count: int, events: int | None) -> int:
        if count > 0:
            self.pieces.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0  # go on

    def say(self, text: str, voice: str, words_per_minute: int, pitch: int) -> NDArray[np.int16]:
        """Return the samples [time] of `text`; `voice` is a language and a variant, such as "ko+f2"."""
        self.pieces.clear()
        raw = text.encode()
        results = [
            self.library.espeak_SetVoiceByName(voice.encode()),
            self.library.espeak_SetParameter(PARAMETER_RATE, words_per_minute, 0),
            self.library.espeak_SetParameter(PARAMETER_PITCH, pitch, 0),
            self.library.espeak_Synth(
                raw, ctypes.c_size_t(len(raw) + 1), 0, POS_CHARACTER, 0, CHARS_UTF8, None, None
            ),
            self.library.espeak_Synchronize(),
        ]
        assert results == [EE_OK] * 5, f"espeak-ng refused '{text}' by {voice}: {results}"
        return np.concatenate(self.pieces)


def _resample(samples: NDArray[np.int16], sample_rate: int) -> NDArray[np.int16]:
    """Resample samples [time] to SAMPLE_RATE by removing the frequencies above half of it."""
    common = int(np.gcd(SAMPLE_RATE, sample_rate))
    blocks = -(-len(samples) // (sample_rate // common))
    before, after = blocks * (sample_rate // common), blocks * (SAMPLE_RATE // common)
    spectrum = np.fft.rfft(samples, before)[: after // 2 + 1]
    resampled = np.fft.irfft(spectrum, after) * (after / before)
    return np.rint(resampled).clip(-32768, 32767).astype(np.int16)


def _speak_all(folder: Path, num_numbers: int, train_voices: Sequence[str]) -> Manifests:
    espeak = Espeak()
    (folder / "audio").mkdir(parents=True, exist_ok=True)

    def speak(number: int, language: str, voice: str) -> dict:
        name = f"audio/{language}-{voice}-{number:02}.wav"
        random_bits = content_hash(name)
        transcript = number_words(number, language)
        samples = espeak.say(
            transcript,
            f"{ESPEAK_LANGUAGES[language]}+{voice}",
            words_per_minute=WORDS_PER_MINUTE[0]
            + random_bits % (WORDS_PER_MINUTE[1] - WORDS_PER_MINUTE[0] + 1),
            pitch=PITCH[0] + (random_bits >> 32) % (PITCH[1] - PITCH[0] + 1),
        )
        samples = _resample(samples, espeak.sample_rate)
        with wave.open(str(folder / name), "wb") as file:
            file.setparams((1, 2, SAMPLE_RATE, len(samples), "NONE", "not compressed"))
            file.writeframes(samples.astype("<i2").tobytes())
        return {
            "audio": name,
            "transcript": transcript,
            "language": language,
            "voice": voice,
            "number": number,
            "seconds": round(len(samples) / SAMPLE_RATE, 4),
        }

    train, heldout = [], []
    for language in LANGUAGES:
        for number in range(num_numbers):
            train.extend(speak(number, language, voice) for voice in train_voices)
            heldout.append(speak(number, language, HELD_OUT_VOICES[number % len(HELD_OUT_VOICES)]))
    return write_manifests(folder, train, heldout)


if __name__ == "__main__":
    try:
        manifests = _speak_all(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
    except ModuleNotFoundError as error:
        sys.stderr.write(f"the demo's speech needs {error.name}; run: pip install 'kebyt5-xm[demo]'")
        sys.exit(2)
    print(manifests.train_rows, manifests.heldout_rows)
