"""The cleaning policy: which fields a model sees, in which order and spelling, and what is not a tune."""

import re

from preprocessing.notation import COMMENT, FIELD, Verdict, canonical_key, default_unit_length

FIELD_ORDER = "XTRMLQK"  # X first and K last are the standard's rule (ABC 2.1, section 2.2.1)
BODY_FIELDS = "KLMV"  # what changes the sound; lyrics, remarks and part names are left out
MIN_NOTES = 8  # shorter ones are exercises and fragments
MAX_ERRORS_PER_NOTE = 0.05

CHORD_SYMBOL = re.compile(r'"[A-G][#b]?[a-z0-9#b+()/A-G]{0,10}"')
QUOTED = re.compile(r'"[^"\n]*"')
INLINE = re.compile(r"\[([A-Za-z]):[ \t]*([^\]\n]*)\]")
BLANKS = re.compile(r"[ \t]+")
PRINTABLE = re.compile(r"[^\x20-\x7e\n]")


def clean_tune(raw: str, keep_fields: str) -> tuple[str, dict[str, str]]:
    """Return the tune as a model sees it and its first title, key, metre and rhythm.

    Kept header fields stand in the standard's order, the key in canonical spelling, M: and L: always written out,
    X: always 1. In the body, comments, lyrics, remarks, fingerings, spacers and blanks that say nothing are dropped,
    and lines joined by a backslash are one line.
    """
    header: dict[str, str] = {}
    body: list[str] = []
    for line in raw.split("\n"):
        line = COMMENT.sub("", line).strip()
        match = FIELD.match(line)
        if match and "K" not in header:
            header.setdefault(match[1], BLANKS.sub(" ", match[2]).strip())
        elif match:
            if match[1] in BODY_FIELDS:
                body.append(f"{match[1]}:{_spell(match[1], match[2])}\n")
        elif "K" in header and line:
            body.append(line.removesuffix("\\") if line.endswith("\\") else line + "\n")
    metre = header.get("M") or "none"
    written = {
        **header,
        "X": "1",
        "M": metre,
        "L": header.get("L") or str(default_unit_length(metre)),
        "K": _spell("K", header.get("K", "")),
    }
    lines = [f"{letter}:{written[letter]}" for letter in FIELD_ORDER if letter in keep_fields and letter in written]
    text = "\n".join([*lines, _clean_body("".join(body))])
    details = {"title": header.get("T", ""), "key": written["K"], "metre": metre, "rhythm": header.get("R", "").lower()}
    return text, details


def _spell(letter: str, value: str) -> str:
    value = BLANKS.sub(" ", value).strip()
    return (canonical_key(value) or value or "none") if letter == "K" else value


def _clean_body(body: str) -> str:
    body = QUOTED.sub(lambda match: match[0] if CHORD_SYMBOL.fullmatch(match[0]) else "", body)
    body = INLINE.sub(lambda m: f"[{m[1]}:{_spell(m[1], m[2])}]" if m[1] in BODY_FIELDS else "", body)
    body = PRINTABLE.sub("", body.replace("\t", " ").replace("`", ""))
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
