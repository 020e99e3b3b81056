"""Best model → tunes: python generation/run.py

Writes each tune as .abc with its settings and its verdict, and samples.json with the share of valid tunes beside the
share among tunes that people wrote (the test split, judged by the same code).
"""

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from tqdm import tqdm
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

import modeling  # noqa: F401 — registers the LSTM with the Auto classes
from door import DoorError, check_output, open_door, read_arguments, read_json, whole_folder, write_json, write_text
from generation.quality import score_tune, shares
from preprocessing.cleaning import FIELD_ORDER
from preprocessing.corpus import Corpus

transformers_logging.disable_progress_bar()  # the door has one bar, its own

SAMPLES = "samples.json"


@dataclass
class GenerationArguments:
    """What is generated and where it goes."""

    model: str = field(default="data/best_model", metadata={"help": "a folder that from_pretrained loads"})
    corpus: str = field(
        default="data/processed_music_data", metadata={"help": "the corpus folder, for the human baseline"}
    )
    output_dir: str = field(default="data/best_model/samples", metadata={"help": "where the tunes go"})
    temperatures: list[float] = field(
        default_factory=lambda: [0.8, 0.9, 1.0], metadata={"help": "sampling temperatures"}
    )
    prompts: list[str] = field(
        default_factory=lambda: ["M:6/8 L:1/8 K:G", "M:4/4 L:1/8 K:D", "M:3/4 L:1/4 K:F", "M:2/4 L:1/16 K:Am"],
        metadata={"help": "headers to begin with, fields separated by blanks"},
    )
    n: int = field(
        default=20, metadata={"help": "tunes per temperature without a prompt, and as many over the prompts"}
    )
    max_characters: int = field(default=800, metadata={"help": "longest tune; a GPT stops at its context"})
    seed: int = field(default=0, metadata={"help": "of the sampling"})

    def __post_init__(self) -> None:
        if self.n < 1 or self.max_characters < 1:
            raise DoorError("--n and --max_characters must be at least 1")
        for temperature in self.temperatures:
            if not temperature > 0:
                raise DoorError(f"--temperatures {temperature}: must be above 0")
        for prompt in self.prompts:
            header(prompt)


def header(prompt: str) -> str:
    """Return the header that a prompt such as `M:6/8 L:1/8 K:G` stands for, fields in the corpus's order."""
    fields = dict(part.split(":", 1) for part in prompt.split() if ":" in part)
    if "K" not in fields or set(fields) - set(FIELD_ORDER):
        raise DoorError(f"--prompts {prompt!r}: fields such as 'M:6/8 L:1/8 K:G', the key among them")
    fields["X"] = "1"
    return "".join(f"{letter}:{fields[letter]}\n" for letter in FIELD_ORDER if letter in fields)


def load(folder: str) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Load model and tokenizer. Raises DoorError if the folder holds none or a damaged one."""
    if not (Path(folder) / "config.json").is_file():
        raise DoorError(f"{folder} holds no model: train one with accelerate launch training/run.py --part best")
    try:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        return model.eval(), PreTrainedTokenizerFast.from_pretrained(folder)
    except (OSError, SafetensorError, ValueError) as error:
        line = " ".join(str(error).split())
        raise DoorError(
            f"{folder}: the model cannot be loaded ({line}): delete the folder and train it again"
        ) from None


@torch.inference_mode()
def sample(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    prompt: str,
    temperature: float,
    n: int,
    longest: int,
    seed: int,
) -> list[tuple[str, bool]]:
    """Return `n` sampled tunes of at most `longest` characters, each with whether the model ended it itself."""
    torch.manual_seed(seed)
    inputs = tokenizer(prompt, return_tensors="pt").to(model.device)
    room = getattr(model.config, "n_positions", None)
    given = inputs["input_ids"].shape[1]
    if tokenizer.unk_token_id in inputs["input_ids"]:
        raise DoorError(f"--prompts {prompt!r}: a character in it is not in the model's vocabulary")
    new = longest if room is None else min(longest, room - given)
    if new < 1:
        raise DoorError(f"the prompt {prompt!r} is as long as the model's context ({room} characters)")
    outputs = model.generate(  # type: ignore[operator]  # GenerationMixin's, which the base class does not name
        **inputs, do_sample=True, temperature=temperature, top_k=0, max_new_tokens=new, num_return_sequences=n
    )
    ended = (outputs[:, given:] == tokenizer.eos_token_id).any(dim=1).tolist()
    return list(zip(tokenizer.batch_decode(outputs, skip_special_tokens=True), ended, strict=True))


def cells(arguments: GenerationArguments) -> Iterator[dict[str, Any]]:
    """Yield the settings of each call: every temperature, unprompted and with each prompt."""
    each = -(-arguments.n // max(1, len(arguments.prompts)))
    for temperature in arguments.temperatures:
        yield {"temperature": temperature, "prompt": "", "n": arguments.n}
        for prompt in arguments.prompts:
            yield {"temperature": temperature, "prompt": header(prompt), "n": each}


def generate(arguments: GenerationArguments) -> list[dict[str, Any]]:
    """Return one row a tune: text, settings, verdict."""
    model, tokenizer = load(arguments.model)
    torch.set_num_threads(1)  # a step is too small to share between threads
    rows = []
    for i, cell in enumerate(tqdm(list(cells(arguments)), desc="generating", unit=" cells")):
        seed = arguments.seed + i
        tunes = sample(model, tokenizer, cell["prompt"], cell["temperature"], cell["n"], arguments.max_characters, seed)
        for text, ended in tunes:
            settings = {"temperature": cell["temperature"], "prompt": cell["prompt"], "seed": seed}
            rows.append({"text": text, **settings, **score_tune(text, ended)})
    return rows


def summarise(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the shares of each temperature, unprompted and prompted."""
    table = []
    for temperature in sorted({row["temperature"] for row in rows}):
        for prompted in (False, True):
            chosen = [row for row in rows if row["temperature"] == temperature and bool(row["prompt"]) == prompted]
            if chosen:
                table.append({"temperature": temperature, "prompted": prompted, **shares(chosen)})
    return table


def as_abc(row: dict[str, Any], name: str, model: str) -> str:
    """Return a tune as a file: comments with its settings and verdict, then the tune."""
    prompt = " ".join(row["prompt"].split()) or "none"
    lines = [
        f"% {name}: generated by {model}, temperature {row['temperature']}, seed {row['seed']}, prompt {prompt}",
        f"% parses: {row['parses']}; bars that add up: {100 * row['good_bars_share']:.0f} % of {row['bars']}; "
        f"ended by itself: {row['ended']}; valid: {row['valid']}",
    ]
    return "\n".join([*lines, row["text"].strip("\n"), ""])


def digest(arguments: GenerationArguments) -> str:
    """Return the hash of the weights and of the settings that decide the samples."""
    weights = Path(arguments.model) / "model.safetensors"
    settings = {k: v for k, v in asdict(arguments).items() if k not in ("model", "output_dir", "corpus")}
    content = weights.read_bytes() if weights.is_file() else b""
    return hashlib.sha256(content + repr(settings).encode()).hexdigest()


def main() -> None:
    arguments = read_arguments(GenerationArguments, __doc__ or "")
    folder = Path(arguments.output_dir)
    check_output(folder, mark=SAMPLES)
    identity = digest(arguments)
    if (folder / SAMPLES).is_file() and read_json(folder / SAMPLES).get("identity") == identity:
        print(f"{folder}: finished already, nothing to do")
        return
    rows = generate(arguments)
    human = Corpus.open(arguments.corpus).tunes("test")["text"]
    result: dict[str, Any] = {
        "identity": identity,
        "settings": asdict(arguments),
        "shares": summarise(rows),
        "human": shares([score_tune(text, ended=True) for text in human]),
        "samples": [],
    }
    with whole_folder(folder, mark=SAMPLES) as temporary:
        for i, row in enumerate(rows):
            kind = "prompted" if row["prompt"] else "unprompted"
            name = f"{i:03d}_{kind}_t{row['temperature']:.2g}"
            write_text(temporary / f"{name}.abc", as_abc(row, name, arguments.model))
            result["samples"].append({"file": f"{name}.abc", **row})
        write_json(temporary / SAMPLES, result)
    valid = sum(row["valid"] for row in rows)
    people = result["human"]["valid"]
    print(f"{folder}: {len(rows)} tunes, {valid} valid; of {people['total']} test tunes {people['count']} are")


if __name__ == "__main__":
    open_door(main)
