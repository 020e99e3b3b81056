"""Tunes by the pipeline "abc-generation"; this file travels to the Hub beside a model.

tunes = pipeline("abc-generation", model="data/best_model", trust_remote_code=True)
tunes(key="Dmix", metre="6/8", n=3, temperature=0.9, seed=1)
"""

import re
from functools import cached_property
from typing import Any

import torch
from transformers import AutoModelForCausalLM, GenerationConfig, LogitsProcessorList, Pipeline
from transformers.pipelines import PIPELINE_REGISTRY

from .bars import HeaderFields, StrictBars, whole_bars
from .decoding import Decoder
from .quality import score_tune
from .notation import FIELD, FIELD_ORDER, bar_length, canonical_key, read_unit_length, split_tunes
from .text_fields import spell_rhythm

TASK = "abc-generation"
FREE, STRICT = "free", "strict"
AT_ONCE = 64  # tunes in a batch
HEADER_FIELDS = "XRMLK"  # of a model that does not say which it has seen: those that a corpus keeps by default
NUMBERS: dict[str, tuple[type, float, float]] = {  # their kind, and the least and the most that they may be
    "n": (int, 1, 1e6), "number": (int, 0, 1e9), "max_characters": (int, 1, 1e6), "at_once": (int, 1, 1e4),
    "seed": (int, 0, 2**63 - 1), "top_k": (int, 0, 1e9),
    "temperature": (float, 1e-4, 1e4), "top_p": (float, 1e-9, 1), "min_p": (float, 0, 1),
    "max_time": (float, 1e-9, 1e9),
}  # fmt: skip
LONGEST_SHOWN = 80
LETTERS = {"title": "T", "rhythm": "R", "metre": "M", "unit_length": "L", "key": "K"}
REMARK = re.compile(r"%.*\n")
FIELD_LINE = re.compile(rf"{FIELD.pattern}\n")


class AbcGenerationPipeline(Pipeline):
    """Generate whole tunes with a GPT or an LSTM of this project.

    A call takes a prompt, any beginning of a tune (by default none), or a list of prompts, and by keyword
        key, metre, rhythm, unit_length, title: header fields (`"Dmix"`, `"6/8"`, `"jig"`, `"1/8"`). Those that the
            model knows are forced where it writes its header, so it chooses the others to go with them; those that it
            has never seen (T: in general) are only written into the result.
        number: the X: field of the result.
        n: how many tunes a prompt.
        temperature, top_p, top_k, min_p: of the sampling, as in transformers; nothing is cut off by default.
        seed: decides the tunes; without one it is drawn, and stands in the settings of the result.
        bars: "strict" lets a bar end only when it is full; "free" (the default) is the model alone.
        max_characters: a tune that is longer is cut at its last bar line.
        max_time: seconds for tunes that are written together (`at_once`); what is then unfinished is cut likewise.

    It returns for each prompt a list of dictionaries:
        abc: one tune, with its header.
        ended: True if the model ended it itself.
        verdict: what :func:`score_tune` says of it.
        settings: all that decided it.

    Raises ValueError with one line for a setting or prompt that cannot be used.
    """

    _load_tokenizer = True  # type: ignore[assignment]
    tokenizer: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.device.type == "cpu":
            self.model.float()  # weights kept in half precision are slower there

    def __call__(self, prompt: str | list[str] = "", **settings: Any) -> Any:  # type: ignore[override]
        """Return the tunes of a prompt, or of each of a list of prompts."""
        texts = [prompt] if isinstance(prompt, str) else prompt
        if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"prompt {shown(prompt)}: give a text, or a list of texts")
        if "batch_size" in settings:
            raise ValueError("batch_size is for prompts, which come one after another: at_once is for tunes of one")
        return super().__call__(prompt, **settings)

    def _sanitize_parameters(self, **settings: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        groups: tuple[dict[str, Any], ...] = ({}, {}, {})
        sampling = (
            *("n", "temperature", "top_p", "top_k", "min_p", "seed", "bars", "max_characters", "max_time", "at_once"),
        )
        owners = dict.fromkeys((*LETTERS, "number"), 0) | dict.fromkeys(sampling, 1)
        for name, value in settings.items():
            if name not in owners:
                raise ValueError(f"{name} is no setting of {TASK}: there are {', '.join(owners)}")
            check_setting(name, value)
            groups[owners[name]][name] = value
        return groups  # type: ignore[return-value]

    @property
    def header_fields(self) -> str:
        """The header fields that the model was trained on."""
        return getattr(self.model.config, "header_fields", HEADER_FIELDS)

    @cached_property
    def strict_bars(self) -> StrictBars:
        """What lets bars end only when they are full; it gets faster with every tune that it has seen."""
        return StrictBars(self.tokenizer, self.header_fields)

    def preprocess(  # type: ignore[override]
        self, prompt: str, number: int = 1, **given: str | None
    ) -> dict[str, Any]:
        """Split what the model is fed from what only the result shows."""
        fields = {LETTERS[name]: value.strip() for name, value in given.items() if value}
        begun, rest = split_header(prompt)
        if "K" in fields:
            fields["K"] = canonical_key(fields["K"]) or fields["K"]  # `A dorian` as the corpus spells it
        if "R" in fields:
            fields["R"] = spell_rhythm(fields["R"]) or fields["R"]  # `Slip Jig` likewise
        letters = {letter for letter, _ in begun}
        in_music = bool(rest) and ("K" in letters or not FIELD.match(f"{rest}:"))  # not in the midst of a field
        if in_music and "K" not in letters | fields.keys():
            raise ValueError(f"the prompt {shown(prompt)} is music without a key: put a header before it, or give key")
        if twice := sorted(letters & fields.keys()):
            raise ValueError(f"the prompt has {twice[0]}: already, and it is given besides")
        known = [field for field in begun if field[0] in self.header_fields and field[0] != "X"]
        held = [field for field in begun if field[0] not in self.header_fields and field[0] != "X"]
        held += [field for field in fields.items() if field[0] not in self.header_fields]
        forced = {letter: value for letter, value in fields.items() if letter in self.header_fields}
        if in_music:
            known, forced = [*known, *forced.items()], {}
        text = "".join(f"{letter}:{value}\n" for letter, value in [("X", "1"), *sorted(known, key=place)]) + rest
        if strange := "".join(sorted(set(text) - self.tokenizer.get_vocab().keys())):
            raise ValueError(f"the model does not know the characters {shown(strange)} of {shown(text)}")
        ids = self.tokenizer(text, return_tensors="pt")["input_ids"]
        settings = {"prompt": prompt, **{name: value for name, value in given.items() if value}}
        settings["number"] = dict(begun).get("X") or str(number)
        return {"input_ids": ids, "forced": forced, "held": held, "settings": settings}

    def _forward(  # type: ignore[override]
        self,
        inputs: dict[str, Any],
        n: int = 1,
        temperature: float = 1.0,
        top_p: float = 1.0,
        top_k: int = 0,
        min_p: float = 0.0,
        seed: int | None = None,
        bars: str = FREE,
        max_characters: int = 1000,
        max_time: float | None = None,
        at_once: int = AT_ONCE,
    ) -> dict[str, Any]:
        ids, tokenizer = inputs["input_ids"], self.tokenizer
        if ids.shape[1] > max_characters:
            raise ValueError(f"the prompt is longer than the {max_characters} characters that a tune may have")
        seed = int(torch.seed() % 2**31) if seed is None else seed
        processors = LogitsProcessorList()
        if bars == STRICT:
            processors.append(self.strict_bars)
        if inputs["forced"]:
            processors.append(HeaderFields(inputs["forced"], tokenizer))
        rows: list[torch.Tensor] = []
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            for done in range(0, n, at_once):
                config = GenerationConfig(
                    do_sample=True,
                    temperature=float(temperature),  # it refuses whole numbers
                    top_p=top_p,
                    top_k=top_k,
                    min_p=min_p or None,
                    max_new_tokens=max_characters - ids.shape[1] + 2,  # neither of the tokens at the ends is written
                    max_time=max_time,
                    num_return_sequences=min(at_once, n - done),
                    eos_token_id=tokenizer.eos_token_id,
                    pad_token_id=tokenizer.pad_token_id,
                )
                rows += self.model.generate(  # type: ignore[operator]
                    ids,
                    attention_mask=torch.ones_like(ids),
                    generation_config=config,
                    logits_processor=processors,
                    custom_generate=Decoder(tokenizer),
                )
        settings = {
            **inputs["settings"],
            "n": n,
            "temperature": temperature,
            "top_p": top_p,
            "top_k": top_k,
            "min_p": min_p,
            "seed": seed,
            "bars": bars,
            "max_characters": max_characters,
            "max_time": max_time,
            "at_once": at_once,
        }
        return {"rows": rows, "given": ids.shape[1], "held": inputs["held"], "settings": settings}

    def postprocess(self, outputs: dict[str, Any]) -> list[dict[str, Any]]:  # type: ignore[override]
        """Return the tunes, finished and judged."""
        tunes = []
        for row, ids in enumerate(outputs["rows"]):
            ended = bool((ids[outputs["given"] :] == self.tokenizer.eos_token_id).any())
            text = self.tokenizer.decode(ids, skip_special_tokens=True)
            abc = finish(text, ended, outputs["settings"]["number"], outputs["held"])
            settings = {**outputs["settings"], "row": row}
            tunes.append({"abc": abc, "ended": ended, "verdict": score_tune(abc, ended), "settings": settings})
        return tunes


def shown(prompt: object) -> str:
    """Return what was given for a prompt or a setting as an error's line shows it."""
    text = repr(prompt)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"


def check_setting(name: str, value: Any) -> None:
    """Raise ValueError with one line if a setting of the pipeline cannot be used."""
    if name in NUMBERS:
        kind, least, most = NUMBERS[name]
        if value is None and name in ("seed", "max_time"):
            return
        kinds = (int,) if kind is int else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds) or not least <= value <= most:
            whole = "a whole number" if kind is int else "a number"
            raise ValueError(f"{name} {shown(value)}: must be {whole} from {least:,} to {most:,}")
    if name in LETTERS and value is not None and not (isinstance(value, str) and value.isprintable()):
        raise ValueError(f"{name} {shown(value)}: one line of text")
    if name == "key" and value and canonical_key(value) is None:
        raise ValueError(f"key {shown(value)}: no key of ABC such as D, F#m, Bb or Amix")
    if name == "metre" and value and value != "none" and bar_length(value) is None:
        raise ValueError(f"metre {shown(value)}: no metre of ABC such as 6/8, 4/4, C or none")
    if name == "unit_length" and value and read_unit_length(value) is None:
        raise ValueError(f"unit_length {shown(value)}: no length of ABC such as 1/8")
    if name == "bars" and value not in (FREE, STRICT):
        raise ValueError(f"bars {shown(value)}: {FREE} or {STRICT}")


def split_header(text: str) -> tuple[list[tuple[str, str]], str]:
    """Return the whole header lines that a text begins with, as letters and values, and what follows; no remarks."""
    fields: list[tuple[str, str]] = []
    rest = text.lstrip()
    while "K" not in dict(fields) and (match := FIELD_LINE.match(rest) or REMARK.match(rest)):
        if match.re is FIELD_LINE:
            fields.append((match[1], match[2].partition("%")[0].strip()))
        rest = rest[match.end() :]
    return fields, rest


def place(field: tuple[str, str]) -> float:
    """Return where a header field stands: those without a place of their own before L:, as remarks do."""
    return FIELD_ORDER.index(field[0]) if field[0] in FIELD_ORDER else FIELD_ORDER.index("R") + 0.5


def finish(text: str, ended: bool, number: str, held: list[tuple[str, str]]) -> str:
    """Return what a model wrote as one tune with its number and held-back fields, cut at a bar line if not ended."""
    text = next(split_tunes(text), text)
    fields, music = split_header(text if ended else whole_bars(text))
    first, *others = fields
    for field in held:
        later = [i for i, other in enumerate(others) if place(other) > place(field)]
        others.insert(later[0] if later else len(others), field)
    header = [(first[0], number), *others]
    return "".join(f"{letter}:{value}\n" for letter, value in header) + music.rstrip() + "\n"


PIPELINE_REGISTRY.register_pipeline(
    TASK, pipeline_class=AbcGenerationPipeline, pt_model=AutoModelForCausalLM, type="text"
)
