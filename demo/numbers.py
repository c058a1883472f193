"""How the numbers 0 to 99 are said in Korean, English, Chinese and Japanese."""

DIGITS = {
    "ko": ["영", "일", "이", "삼", "사", "오", "육", "칠", "팔", "구"],
    "en": ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"],
    "zh": ["零", "一", "二", "三", "四", "五", "六", "七", "八", "九"],
    # In kana, since espeak-ng reads no kanji in Japanese.
    "ja": ["ぜろ", "いち", "に", "さん", "よん", "ご", "ろく", "なな", "はち", "きゅう"],
}
TEN = {"ko": "십", "zh": "十", "ja": "じゅう"}
ENGLISH_TEENS = [
    *("ten", "eleven", "twelve", "thirteen", "fourteen"),
    *("fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
]
ENGLISH_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
LANGUAGES = tuple(DIGITS)


def number_words(number: int, language: str) -> str:
    """Return a number from 0 to 99 in words: 23 is 이십삼, twenty-three, 二十三, にじゅうさん."""
    assert 0 <= number < 100
    digits = DIGITS[language]
    tens, ones = divmod(number, 10)
    if tens == 0:
        return digits[ones]
    if language == "en":
        if tens == 1:
            return ENGLISH_TEENS[ones]
        return ENGLISH_TENS[tens - 2] + (f"-{digits[ones]}" if ones else "")
    # Ten alone is 십, 十, じゅう, without a one before it.
    return (digits[tens] if tens > 1 else "") + TEN[language] + (digits[ones] if ones else "")
