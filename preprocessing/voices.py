"""Voices bar by bar: a line holds the same bar of every voice, `[V:1]…|[V:2]…|`.

So a model that reads left to right sees what sounds together side by side, as in the interleaved ABC of NotaGen
(https://arxiv.org/abs/2502.18008) and the SMT-ABC of MuPT (https://arxiv.org/abs/2404.06393). It stays plain ABC.
"""

import re
from dataclasses import dataclass
from itertools import zip_longest

from preprocessing.abc_lexer import FIELD, TOKEN

KEY_LINE = re.compile(r"^K:.*\n?", re.MULTILINE)
VOICE = re.compile(r"(?:^|\[)V:[ \t]*([^\s\]]+)", re.MULTILINE)
SOUNDS = ("note", "rest", "bar_rest")

Words = list[tuple[str, str]]  # kind (a group of TOKEN) and text


class VoicesError(Exception):
    """Voices that cannot be put bar by bar. The text is the reason, alike for all tunes that share it."""


@dataclass
class _WrittenBar:
    """A bar of one voice: its text, and of that the bar lines before its first note and after its last."""

    text: str = ""
    opening: str = ""
    closing: str = ""
    sounds: bool = False


def interleave_voices(text: str) -> str:
    """Return a cleaned tune with its voices bar by bar, or a tune of one voice as it is.

    The order inside each voice stays, so that it sounds as before. Field lines become inline fields of
    their voice, the properties of voices come first, and `Z4` is written as four bars. A voice that ends early is
    missing from the last lines.
    Raises VoicesError where the voices' repeats or endings fall on different bars, or where the voice of some music is
    unclear.
    """
    key_line = KEY_LINE.search(text)
    if key_line is None or len(set(VOICE.findall(text, key_line.end()))) < 2:
        return text
    voices, properties = _split_voices(text[key_line.end() :])
    common = voices.pop("")
    if any(kind in SOUNDS for kind, _ in common):
        raise VoicesError("music before the first voice")
    bars = {name: _split_bars(words) for name, words in voices.items()}
    _check_repeats(list(bars.values()))
    lines = ["".join(word for _, word in common).strip()]
    if properties:  # then of every voice, for the order of these lines is that of the voices
        lines += [f"V:{name} {properties.get(name, '')}".strip() for name in bars]
    for row in zip_longest(*bars.values()):
        lines.append("".join(f"[V:{name}]{bar.text.strip()}" for name, bar in zip(bars, row, strict=True) if bar))
    return text[: key_line.end()] + "\n".join(line for line in lines if line)


def _split_voices(body: str) -> tuple[dict[str, Words], dict[str, str]]:
    """Return the words of each voice, those before the first as voice "", and the voices' properties."""
    voices: dict[str, Words] = {"": []}
    properties: dict[str, str] = {}
    name = ""
    for line in body.split("\n"):
        for kind, word in _words(line):
            if kind != "inline" or word[1] != "V":
                voices[name].append((kind, word))
                continue
            name, _, words = word[3:-1].strip().partition(" ")
            voices.setdefault(name, [])
            if words and words != properties.get(name):
                if any(kind in SOUNDS for kind, _ in voices[name]):
                    raise VoicesError("a voice that changes its properties")
                properties[name] = words
    return voices, properties


def _words(line: str) -> Words:
    """Return a line's words: a field line as an inline field, `Z4` as four bars, the line's end as a blank."""
    if FIELD.match(line):
        return [("inline", f"[{line}]")]
    words: Words = []
    place = 0
    for match in TOKEN.finditer(line):
        kind, word = match.lastgroup or "", match[0]
        place += len(word)
        if kind == "bar_rest":
            words += ([(kind, word[0]), ("bar", "|")] * max(1, int(word[1:] or 1)))[:-1]
        else:
            words.append((kind, word))
    if place < len(line):
        raise VoicesError("text that is not ABC")
    return [*words, ("space", " ")]


def _split_bars(words: Words) -> list[_WrittenBar]:
    bars = [_WrittenBar()]
    for kind, word in words:
        bar = bars[-1]
        if kind == "bar" and bar.sounds:
            bar.closing, numbers = _split_ending(word)
            bar.text += bar.closing
            bars.append(_WrittenBar(numbers, numbers))
        elif kind == "bar" and len(bars) > 1 and not bar.text.strip() and not any(_repeat(word)[1:]):
            bars[-2].text += bar.text + word  # a second bar line
            bars[-2].closing += word
            bar.text = ""
        else:
            bar.text += word
            bar.sounds |= kind in SOUNDS
            bar.opening += word if kind == "bar" else ""
    if len(bars) > 1 and not bars[-1].sounds:
        rest = bars.pop()
        bars[-1].text += rest.text
        bars[-1].closing += rest.opening
    return bars


def _check_repeats(voices: list[list[_WrittenBar]]) -> None:
    """Raise VoicesError unless all voices repeat the same bars; `|:` at the very start may be left out."""
    signs = [
        [_repeat(bar.closing + (after.opening if after else "")) for bar, after in zip_longest(bars, bars[1:])]
        for bars in voices
    ]
    for row in zip_longest(*signs):
        if len({sign for sign in row if sign is not None}) > 1:
            raise VoicesError("voices that disagree about repeats")


def _split_ending(signs: str) -> tuple[str, str]:
    """Return a bar line and what it says of endings: `:|` and `[2` of `:|2`."""
    bare = signs.rstrip("0123456789,.-[")
    numbers = signs[len(bare) :].lstrip("[")
    return bare, "[" * bool(numbers) + numbers


def _repeat(signs: str) -> tuple[bool, bool, str]:
    """Return what the signs between two bars say: a repeat ends, a repeat starts, and the numbers of an ending."""
    bare, numbers = _split_ending(signs)
    return bare.startswith(":"), bare.endswith(":"), numbers
