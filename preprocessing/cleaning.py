"""The cleaning policy: which fields a model sees, in which order and spelling, and what is not a tune."""

import re
from dataclasses import dataclass

from preprocessing.notation import COMMENT, FIELD, Verdict, canonical_key, default_unit_length

FIELD_ORDER = "XTRMLQK"  # X first and K last are the standard's rule (ABC 2.1, section 2.2.1)
BODY_FIELDS = "KLMV"  # what changes the sound; lyrics, remarks and part names are left out
MIN_NOTES = 8  # shorter ones are exercises and fragments
MAX_ERRORS_PER_NOTE = 0.05

QUALITY = r"(?:maj|min|dim|aug|sus|add|m|M|[+\-°#b()]|\d)*"
CHORD_SYMBOL = re.compile(rf'"[A-G][#b]?{QUALITY}(?:/[A-Ga-g][#b+]?)?"')
QUOTED = re.compile(r'"[^"\n]*"')
INLINE = re.compile(r"\[([A-Za-z]):[ \t]*([^\]\n]*)\]")
SPACER = re.compile(r'(^[A-Za-z]:.*$|"[^"\n]*"|![^!\n]*!|\[[A-Za-z]:[^\]\n]*\])|y\d*', re.MULTILINE)
BLANKS = re.compile(r"[ \t]+")
UNPRINTABLE = re.compile(r"[^\x20-\x7e\n]")


@dataclass(frozen=True)
class CleanTune:
    """A tune as the policy leaves it: `header` by letter, in the standard's order, and the body."""

    header: dict[str, str]
    body: str
    title: str

    def text(self, keep_fields: str) -> str:
        """Return the tune with the header fields of `keep_fields` alone."""
        lines = [f"{letter}:{value}" for letter, value in self.header.items() if letter in keep_fields]
        return "\n".join([*lines, self.body])


def clean_tune(raw: str) -> CleanTune:
    """Return a tune cleaned.

    The header has the fields of FIELD_ORDER, the key in canonical spelling, M: and L: always written out, X: always 1.
    In the body, comments, lyrics, remarks, fingerings, spacers and blanks that say nothing are dropped, and lines
    joined by a backslash are one line.
    """
    found: dict[str, str] = {}
    body: list[str] = []
    for line in raw.split("\n"):
        line = COMMENT.sub("", line).strip()
        match = FIELD.match(line)
        if match and "K" not in found:
            found.setdefault(match[1], BLANKS.sub(" ", match[2]).strip())
        elif match:
            if match[1] in BODY_FIELDS:
                joined = "\n" if body and not body[-1].endswith("\n") else ""
                body.append(f"{joined}{match[1]}:{_spell(match[1], match[2])}\n")
        elif "K" in found and line:
            body.append(line.removesuffix("\\") if line.endswith("\\") else line + "\n")
    metre = found.get("M") or "none"
    unit = found.get("L") or str(default_unit_length(metre))
    written = {**found, "X": "1", "M": metre, "L": unit, "K": _spell("K", found.get("K", ""))}
    header = {letter: written[letter] for letter in FIELD_ORDER if letter in written}
    return CleanTune(header, _clean_body("".join(body)), found.get("T", ""))


def _spell(letter: str, value: str) -> str:
    value = BLANKS.sub(" ", value).strip()
    return (canonical_key(value) or value or "none") if letter == "K" else value


def _clean_body(body: str) -> str:
    body = QUOTED.sub(lambda match: match[0] if CHORD_SYMBOL.fullmatch(match[0]) else "", body)
    body = INLINE.sub(lambda m: f"[{m[1]}:{_spell(m[1], m[2])}]" if m[1] in BODY_FIELDS else "", body)
    body = SPACER.sub(lambda match: match[1] or "", body)
    body = UNPRINTABLE.sub("", body.replace("\t", " ").replace("`", ""))
    lines = (BLANKS.sub(" ", line).strip() for line in body.split("\n"))
    return "\n".join(line for line in lines if line)


def reason_to_drop(verdict: Verdict) -> str | None:
    """Return why a tune is not music a model should learn, or None if it is."""
    if verdict.key is None:
        return "no K: field"
    if not verdict.pitches:
        return "no notes"
    if len(verdict.pitches) < MIN_NOTES:
        return f"fewer than {MIN_NOTES} notes"
    if len(verdict.errors) > MAX_ERRORS_PER_NOTE * len(verdict.pitches):
        return "not readable as ABC"
    return None
