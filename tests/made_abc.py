"""Tunes of a header and a body, for tests of what reads ABC."""

from preprocessing.transposition import Transposable


def tune(body: str, key: str = "C", metre: str = "4/4", unit: str = "1/8") -> str:
    return f"X:1\nM:{metre}\nL:{unit}\nK:{key}\n{body}"


def transpose(text: str, semitones: int) -> str:
    return Transposable(text).transposed(semitones)
