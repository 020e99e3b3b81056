"""The pipeline "abc-generation"; this file and what it imports are packed with a model.

tunes = pipeline("abc-generation", model="data/best_model", trust_remote_code=True)
tunes(key="Dmix", metre="6/8", n=3, temperature=0.9, seed=1)
"""

import re
from functools import cached_property
from typing import Any, NamedTuple

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
MAX_SHOWN = 80  # characters of a value in an error
COMMENT_LINE = re.compile(r"%.*\n")
FIELD_LINE = re.compile(rf"{FIELD.pattern}\n")
TO_LAST_BAR_LINE = re.compile(r".*\nK:.*(?:\|[]|:]*(?:\[?[1-9])?|::+|\[[1-9])(?=[^]|:[1-9])", re.DOTALL)

Fields = list[tuple[str, str]]  # letters and values


class Setting(NamedTuple):
    """A setting of a call; None is allowed if it is the default. `letter` is that of a header field."""

    default: Any
    about: str
    kind: type = str
    least: float = 0
    most: float = 0
    letter: str = ""
    choices: tuple[str, ...] = ()


SETTINGS = {
    "key": Setting(None, "key of the tunes, such as D, F#m or Amix (default: the model chooses)", letter="K"),
    "metre": Setting(None, "metre, such as 6/8 or C", letter="M"),
    "rhythm": Setting(None, "rhythm, such as jig", letter="R"),
    "unit_length": Setting(None, "unit note length, such as 1/8", letter="L"),
    "title": Setting(None, "title of all tunes", letter="T"),
    "number": Setting(1, "X: field of the tunes", int, 0, 1e9),
    "n": Setting(1, "number of tunes for each prompt", int, 1, 1e6),
    "temperature": Setting(1.0, "sampling temperature", float, 1e-4, 1e4),
    "top_p": Setting(1.0, "sample from the likeliest characters that together have this probability", float, 1e-9, 1),
    "top_k": Setting(0, "sample from this number of the likeliest characters; 0: from all", int, 0, 1e9),
    "min_p": Setting(
        0.0, "sample from characters with at least this share of the likeliest one's probability", float, 0, 1
    ),
    "seed": Setting(None, "seed of the sampling", int, 0, 2**63 - 1),
    "bars": Setting(FREE, "strict: a bar ends only when it is full", choices=(FREE, STRICT)),
    "max_characters": Setting(1000, "a longer tune is cut at its last bar line", int, 1, 1e6),
    "max_time": Setting(
        None, "seconds for each batch of tunes; the unfinished are cut at a bar line", float, 1e-9, 1e9
    ),
    "tunes_per_batch": Setting(64, "tunes that are generated together", int, 1, 1e4),
}
LETTERS = {name: setting.letter for name, setting in SETTINGS.items() if setting.letter}
SAMPLING = {name: row.default for name, row in SETTINGS.items() if name not in (*LETTERS, "number")}


class AbcGenerationPipeline(Pipeline):
    """Generate whole tunes with a GPT or an LSTM of this project.

    A call takes a prompt, any beginning of a tune (by default none), or a list of prompts, and SETTINGS by keyword.
    Header fields that the model was trained on are forced while it writes the header, so that it chooses the others to
    match; fields that it was not trained on (usually T:) are only added to the result. Sampling is that of
    transformers. A seed that is not given is drawn, and reported in the settings of the result.

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
        for name, value in settings.items():
            if name not in SETTINGS:
                raise ValueError(f"{name} is no setting of {TASK}: there are {', '.join(SETTINGS)}")
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
    default, _, kind, least, most, letter, choices = SETTINGS[name]
    if value is None and default is None:
        return
    if kind is not str:
        kinds = (int,) if kind is int else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds) or not least <= value <= most:
            number = "a whole number" if kind is int else "a number"
            raise ValueError(f"{name} {shown(value)}: must be {number} from {least:,} to {most:,}")
    if choices and value not in choices:
        raise ValueError(f"{name} {shown(value)}: {' or '.join(choices)}")
    if letter and not (isinstance(value, str) and value.isprintable()):
        raise ValueError(f"{name} {shown(value)}: give one line of text")
    if name == "key" and value and canonical_key(value) is None:
        raise ValueError(f"key {shown(value)}: no key of ABC such as D, F#m, Bb or Amix")
    if name == "metre" and value and value != "none" and bar_length(value) is None:
        raise ValueError(f"metre {shown(value)}: no metre of ABC such as 6/8, 4/4, C or none")
    if name == "unit_length" and value and read_unit_length(value) is None:
        raise ValueError(f"unit_length {shown(value)}: no length of ABC such as 1/8")


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
