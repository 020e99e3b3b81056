"""The pipeline "abc-generation"; this file and what it imports are packed with a model.

tunes = pipeline("abc-generation", model="data/best_model", trust_remote_code=True)
tunes(key="Dmix", metre="6/8", n=3, temperature=0.9, seed=1)
"""

import re
from functools import cached_property
from typing import Any

import torch
from transformers import AutoModelForCausalLM, GenerationConfig, LogitsProcessorList, Pipeline
from transformers.pipelines import PIPELINE_REGISTRY

from .decoding import Decoder
from .logits_processors import HeaderFields, StrictBars
from .quality import score_tune
from .notation import FIELD, FIELD_ORDER, bar_length, canonical_key, read_unit_length, split_tunes
from .text_fields import spell_rhythm

TASK = "abc-generation"
FREE, STRICT = "free", "strict"
HEADER_FIELDS = "XRMLK"  # of a model that does not state those that it was trained on
LETTERS = {"title": "T", "rhythm": "R", "metre": "M", "unit_length": "L", "key": "K"}
SAMPLING: dict[str, Any] = {
    "n": 1, "temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "seed": None, "bars": FREE,
    "max_characters": 1000, "max_time": None, "tunes_per_batch": 64,
}  # fmt: skip
LIMITS: dict[str, tuple[type, float, float]] = {  # type, least and greatest value
    "n": (int, 1, 1e6), "number": (int, 0, 1e9), "max_characters": (int, 1, 1e6), "tunes_per_batch": (int, 1, 1e4),
    "seed": (int, 0, 2**63 - 1), "top_k": (int, 0, 1e9),
    "temperature": (float, 1e-4, 1e4), "top_p": (float, 1e-9, 1), "min_p": (float, 0, 1),
    "max_time": (float, 1e-9, 1e9),
}  # fmt: skip
MAX_SHOWN = 80  # characters of a value in an error
COMMENT_LINE = re.compile(r"%.*\n")
FIELD_LINE = re.compile(rf"{FIELD.pattern}\n")
TO_LAST_BAR_LINE = re.compile(r".*\nK:.*(?:\|[]|:]*(?:\[?[1-9])?|::+|\[[1-9])(?=[^]|:[1-9])", re.DOTALL)

Fields = list[tuple[str, str]]  # letters and values


class AbcGenerationPipeline(Pipeline):
    """Generate whole tunes with a GPT or an LSTM of this project.

    A call takes a prompt, any beginning of a tune (by default none), or a list of prompts, and by keyword
        key, metre, rhythm, unit_length, title: header fields (`"Dmix"`, `"6/8"`, `"jig"`, `"1/8"`). Fields that the
            model was trained on are forced while it writes the header, so that it chooses the others to match; fields
            that it was not trained on (usually T:) are only added to the result.
        number: the X: field of the result.
        n: number of tunes for each prompt.
        temperature, top_p, top_k, min_p: sampling, as in transformers; nothing is cut off by default.
        seed: decides the tunes; by default it is drawn, and reported in the settings of the result.
        bars: "strict" lets a bar end only when it is full; "free" (the default) does not restrict the model.
        max_characters: a longer tune is cut at its last bar line.
        max_time: seconds for each batch of tunes; what is unfinished then is cut at its last bar line.
        tunes_per_batch: tunes that are generated together.

    It returns for each prompt a list of dictionaries:
        abc: one tune, with its header.
        ended: True if the model ended it.
        verdict: that of `score_tune`.
        settings: all that decided it.

    Raises ValueError with a one-line message for a setting or prompt that cannot be used.
    """

    _load_tokenizer = True  # type: ignore[assignment]
    tokenizer: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.device.type == "cpu":
            self.model.float()  # half precision is slower there

    def __call__(self, prompt: str | list[str] = "", **settings: Any) -> Any:  # type: ignore[override]
        """Return the tunes of a prompt, or of each of a list of prompts."""
        prompts = [prompt] if isinstance(prompt, str) else prompt
        if not isinstance(prompts, list) or not prompts or not all(isinstance(each, str) for each in prompts):
            raise ValueError(f"prompt {shown(prompt)}: give a text, or a list of texts")
        if "batch_size" in settings:
            raise ValueError("batch_size: prompts are not batched; tunes_per_batch is for the tunes of one prompt")
        return super().__call__(prompt, **settings)

    def _sanitize_parameters(self, **settings: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        names = [*LETTERS, "number", *SAMPLING]
        for name, value in settings.items():
            if name not in names:
                raise ValueError(f"{name} is no setting of {TASK}: there are {', '.join(names)}")
            check_setting(name, value)
        sampling = {name: value for name, value in settings.items() if name in SAMPLING}
        return {name: value for name, value in settings.items() if name not in SAMPLING}, sampling, {}

    @property
    def header_fields(self) -> str:
        """The header fields that the model was trained on."""
        return getattr(self.model.config, "header_fields", HEADER_FIELDS)

    @cached_property
    def strict_bars(self) -> StrictBars:
        """The processor for strict bars; kept, as it gets faster with every tune."""
        return StrictBars(self.tokenizer, self.header_fields)

    def preprocess(  # type: ignore[override]
        self, prompt: str, number: int = 1, **given: str | None
    ) -> dict[str, Any]:
        """Return the ids of the prompt, the fields to force and those to add to the result, and the settings."""
        fields = {LETTERS[name]: value.strip() for name, value in given.items() if value}
        if "K" in fields:
            fields["K"] = canonical_key(fields["K"]) or fields["K"]  # spelled as in the corpus
        if "R" in fields:
            fields["R"] = spell_rhythm(fields["R"]) or fields["R"]
        written, rest = split_header(prompt)
        letters = {letter for letter, _ in written}
        is_music = bool(rest) and ("K" in letters or not FIELD.match(f"{rest}:"))  # or else an unfinished field
        if is_music and "K" not in letters | fields.keys():
            raise ValueError(f"the prompt {shown(prompt)} is music without a key: put a header before it, or give key")
        if twice := sorted(letters & fields.keys()):
            raise ValueError(f"{twice[0]}: is in the prompt and among the settings")
        written = [field for field in written if field[0] != "X"]
        known = [field for field in written if field[0] in self.header_fields]
        forced = {letter: value for letter, value in fields.items() if letter in self.header_fields}
        added = [field for field in [*written, *fields.items()] if field[0] not in self.header_fields]
        if is_music:
            known, forced = [*known, *forced.items()], {}
        text = "".join(f"{letter}:{value}\n" for letter, value in [("X", "1"), *sorted(known, key=_order)]) + rest
        if unknown := "".join(sorted(set(text) - self.tokenizer.get_vocab().keys())):
            raise ValueError(f"the model does not know the characters {shown(unknown)} of {shown(text)}")
        ids = self.tokenizer(text, return_tensors="pt")["input_ids"]
        settings = {"prompt": prompt, **{name: value for name, value in given.items() if value}}
        settings["number"] = dict(split_header(prompt)[0]).get("X") or str(number)
        return {"input_ids": ids, "forced": forced, "added": added, "settings": settings}

    def _forward(  # type: ignore[override]
        self, inputs: dict[str, Any], **sampling: Any
    ) -> dict[str, Any]:
        settings = SAMPLING | sampling
        ids, tokenizer, longest = inputs["input_ids"], self.tokenizer, settings["max_characters"]
        if ids.shape[1] > longest:
            raise ValueError(f"the prompt is longer than the {longest} characters that a tune may have")
        if settings["seed"] is None:
            settings["seed"] = int(torch.seed() % 2**31)
        processors = LogitsProcessorList()
        if settings["bars"] == STRICT:
            processors.append(self.strict_bars)
        if inputs["forced"]:
            processors.append(HeaderFields(inputs["forced"], tokenizer))
        rows: list[torch.Tensor] = []
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(settings["seed"])
            while len(rows) < settings["n"]:
                config = GenerationConfig(
                    do_sample=True,
                    temperature=float(settings["temperature"]),  # it refuses whole numbers
                    top_p=settings["top_p"],
                    top_k=settings["top_k"],
                    min_p=settings["min_p"] or None,
                    max_new_tokens=longest - ids.shape[1] + 2,  # the boundary tokens are no characters
                    max_time=settings["max_time"],
                    num_return_sequences=min(settings["tunes_per_batch"], settings["n"] - len(rows)),
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
        settings = inputs["settings"] | settings
        return {"rows": rows, "prompt_length": ids.shape[1], "added": inputs["added"], "settings": settings}

    def postprocess(self, outputs: dict[str, Any]) -> list[dict[str, Any]]:  # type: ignore[override]
        """Return the finished tunes with their verdicts."""
        tunes = []
        for row, ids in enumerate(outputs["rows"]):
            ended = bool((ids[outputs["prompt_length"] :] == self.tokenizer.eos_token_id).any())
            text = self.tokenizer.decode(ids, skip_special_tokens=True)
            abc = finish_tune(text, ended, outputs["settings"]["number"], outputs["added"])
            settings = {**outputs["settings"], "row": row}
            tunes.append({"abc": abc, "ended": ended, "verdict": score_tune(abc, ended), "settings": settings})
        return tunes


def shown(value: object) -> str:
    """Return a prompt or a setting as an error shows it."""
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"


def check_setting(name: str, value: Any) -> None:
    """Raise ValueError with a one-line message if a setting of the pipeline cannot be used."""
    if value is None and name in (*LETTERS, "seed", "max_time"):
        return
    if name in LIMITS:
        kind, least, most = LIMITS[name]
        kinds = (int,) if kind is int else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds) or not least <= value <= most:
            number = "a whole number" if kind is int else "a number"
            raise ValueError(f"{name} {shown(value)}: must be {number} from {least:,} to {most:,}")
    if name in LETTERS and not (isinstance(value, str) and value.isprintable()):
        raise ValueError(f"{name} {shown(value)}: give one line of text")
    if name == "key" and value and canonical_key(value) is None:
        raise ValueError(f"key {shown(value)}: no key of ABC such as D, F#m, Bb or Amix")
    if name == "metre" and value and value != "none" and bar_length(value) is None:
        raise ValueError(f"metre {shown(value)}: no metre of ABC such as 6/8, 4/4, C or none")
    if name == "unit_length" and value and read_unit_length(value) is None:
        raise ValueError(f"unit_length {shown(value)}: no length of ABC such as 1/8")
    if name == "bars" and value not in (FREE, STRICT):
        raise ValueError(f"bars {shown(value)}: {FREE} or {STRICT}")


def split_header(text: str) -> tuple[Fields, str]:
    """Return the whole header lines at the beginning of a text, without comments, and the text that follows."""
    fields: Fields = []
    rest = text.lstrip()
    while "K" not in dict(fields) and (match := FIELD_LINE.match(rest) or COMMENT_LINE.match(rest)):
        if match.re is FIELD_LINE:
            fields.append((match[1], match[2].partition("%")[0].strip()))
        rest = rest[match.end() :]
    return fields, rest


def _order(field: tuple[str, str]) -> float:
    """Return the position of a field in a header: those that the corpus does not order are before L:."""
    return FIELD_ORDER.index(field[0]) if field[0] in FIELD_ORDER else FIELD_ORDER.index("R") + 0.5


def cut_at_bar_line(text: str) -> str:
    """Return an unfinished tune up to its last bar line that something follows."""
    match = TO_LAST_BAR_LINE.match(text)
    return match[0] if match else text


def finish_tune(text: str, ended: bool, number: str, added: Fields) -> str:
    """Return the first tune of a model's text with its number and added fields, cut at a bar line if not ended."""
    text = next(split_tunes(text), text)
    (first, *others), music = split_header(text if ended else cut_at_bar_line(text))
    for field in added:
        later = [i for i, other in enumerate(others) if _order(other) > _order(field)]
        others.insert(later[0] if later else len(others), field)
    header = [(first[0], number), *others]
    return "".join(f"{letter}:{value}\n" for letter, value in header) + music.rstrip() + "\n"


PIPELINE_REGISTRY.register_pipeline(
    TASK, pipeline_class=AbcGenerationPipeline, pt_model=AutoModelForCausalLM, type="text"
)
from .header_fields import __name__ as _header_fields
from .abc_lexer import __name__ as _abc_lexer
from .abc_fields import __name__ as _abc_fields
from .abc_voice import __name__ as _abc_voice
from .abc_transcript import __name__ as _abc_transcript
from .abc_reader import __name__ as _abc_reader
from .bar_automaton import __name__ as _bar_automaton
from .bar_state import __name__ as _bar_state
