"""Tokens/s of Decoder compared with the stock pipeline: python benchmarks/generation_speed.py [--device cuda]

pipeline   pipeline("text-generation")(header, …): transformers' loop
Decoder    the same call with custom_generate=Decoder(tokenizer)

Models are untrained and the end token is switched off, so that all rows have the same length. The two alternate; × is
the median over the rounds of the first one's time divided by the second's. The second table compares free decoding with
strict bars (an untrained model meets more states of them than a trained one). The last is the time for 200 tunes with
the lengths of the corpus (lognormal, median 172 characters, 95 % under 338), some beyond the context.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from math import log
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, TextGenerationPipeline, set_seed
from transformers.utils import logging

from generation.decoding import Decoder
from generation.logits_processors import StrictBars
from modeling.models import model_config, new_model
from modeling.shapes import ARCHITECTURE_OF, SIZES, shape_of
from preprocessing.tokens import BOUNDARY, PAD, build_tokenizer, build_vocabulary
from training.measurements import hardware

CONTEXT = 256
HEADER = "X:1\nM:6/8\nL:1/8\nK:G\n"
TEXT = "\n" + "".join(map(chr, range(ord(" "), ord(" ") + 81)))  # 85 with the special tokens, as in the corpus
NEW = 200  # tokens; they fit the context together with the header
SAMPLING: dict[str, dict[str, Any]] = {
    "greedy": {"do_sample": False},
    "temperature 1": {"do_sample": True, "top_k": 0},
    "temperature 0.9, top-p 0.95": {"do_sample": True, "top_k": 0, "temperature": 0.9, "top_p": 0.95},
}
TUNES, MEDIAN, RARE = 200, 172, 338

Way = Callable[[], object]


class EndAt(LogitsProcessor):
    """Ends row i after exactly lengths[i] new tokens."""

    def __init__(self, lengths: Tensor, prompt: int, end: int) -> None:
        self.lengths, self.prompt, self.end = lengths, prompt, end

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        scores[:, self.end] = torch.where(input_ids.shape[1] - self.prompt < self.lengths, -torch.inf, 1e9)
        return scores


def make_pipeline(architecture: str, size: str, device: torch.device) -> TextGenerationPipeline:
    """Return the stock pipeline with an untrained model."""
    tokenizer = build_tokenizer(build_vocabulary([TEXT]), CONTEXT)
    boundary, pad = tokenizer.convert_tokens_to_ids([BOUNDARY, PAD])
    torch.manual_seed(0)
    shape = shape_of(architecture, size, len(tokenizer), CONTEXT)
    model = new_model(
        model_config(architecture, shape, vocabulary_size=len(tokenizer), context=CONTEXT, boundary=boundary, pad=pad)
    ).eval()
    model.generation_config.eos_token_id = None
    return TextGenerationPipeline(model=model, tokenizer=tokenizer, device=device)


def measure(ways: dict[str, Way], rounds: int, device: torch.device) -> dict[str, list[float]]:
    """Return the seconds that each way takes in every round; the ways alternate."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for each in range(rounds + 1):  # the first warms up
        for name, way in ways.items():
            set_seed(each)
            start = time.perf_counter()
            way()
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - start)
    return {name: taken[1:] for name, taken in seconds.items()}


def print_line(cells: list[object], ways: dict[str, Way], tokens: int, rounds: int, device: torch.device) -> None:
    """Print the tokens/s of two ways, and how much faster the second is."""
    first, second = measure(ways, rounds, device).values()
    speeds = [f"{tokens / statistics.median(taken):,.0f}" for taken in (first, second)]
    times = statistics.median(one / other for one, other in zip(first, second, strict=True))
    print(f"| {' | '.join(map(str, [*cells, *speeds]))} | {times:.2f} |", flush=True)


def print_cell(pipe: TextGenerationPipeline, architecture: str, batch: int, device: torch.device) -> None:
    """Print the time for TUNES tunes with the lengths of the corpus."""
    tokenizer: Any = pipe.tokenizer
    torch.manual_seed(0)
    lengths = (MEDIAN * torch.exp(torch.randn(TUNES) * log(RARE / MEDIAN) / 1.645)).int().to(device)
    prompt = len(tokenizer(HEADER)["input_ids"])

    def cell() -> None:
        for part in lengths.split(batch):
            pipe(
                HEADER,
                custom_generate=Decoder(tokenizer),
                num_return_sequences=len(part),
                max_new_tokens=int(lengths.max()) + 1,
                eos_token_id=tokenizer.eos_token_id,
                logits_processor=[EndAt(part, prompt, tokenizer.eos_token_id)],
                **SAMPLING["temperature 0.9, top-p 0.95"],
            )

    [taken] = measure({"Decoder": cell}, 1, device).values()
    shared = (
        architecture,
        torch.get_num_threads(),
        batch,
        f"{int(lengths.sum()):,}",
        f"{statistics.median(taken):.1f}",
    )
    print(f"| {' | '.join(map(str, shared))} |", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--architectures", nargs="+", default=[*ARCHITECTURE_OF.values()], choices=[*ARCHITECTURE_OF.values()]
    )
    parser.add_argument("--size", default="tiny", choices=list(SIZES))
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 16])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--cell_batch", type=int, default=50, help=f"of the {TUNES} tunes; 0: no last table")
    options = parser.parse_args()
    logging.set_verbosity_error()
    device = options.device
    pipes = {name: make_pipeline(name, options.size, device) for name in options.architectures}
    print(f"{hardware(device)}; Python {platform.python_version()}, ", end="")
    print(", ".join(f"{name} {version(name)}" for name in ("torch", "transformers")))
    print(f"{NEW} characters after a header of {len(HEADER)}; tokens/s, medians of {options.rounds} rounds; ", end="")
    print(", ".join(f"{name} {pipe.model.num_parameters():,}" for name, pipe in pipes.items()))
    print("\n| | threads | batch | sampling | pipeline | Decoder | × |\n|---|---|---|---|---|---|---|")
    for name, pipe in pipes.items():
        for threads in options.threads:
            torch.set_num_threads(threads)
            for batch in options.batches:
                for sampling, settings in SAMPLING.items():
                    if batch > 1 and not settings["do_sample"]:
                        continue  # generate refuses equal rows
                    call = {"num_return_sequences": batch, "max_new_tokens": NEW, **settings}
                    own = {**call, "custom_generate": Decoder(pipe.tokenizer)}
                    ways: dict[str, Way] = {
                        "pipeline": lambda pipe=pipe, call=call: pipe(HEADER, **call),
                        "Decoder": lambda pipe=pipe, own=own: pipe(HEADER, **own),
                    }
                    print_line([name, threads, batch, sampling], ways, NEW * batch, options.rounds, device)
    print("\n| | threads | batch | free | strict bars | × |\n|---|---|---|---|---|---|")
    for name, pipe in pipes.items():
        strict = StrictBars(pipe.tokenizer)
        for batch in options.batches:
            own = {"num_return_sequences": batch, "max_new_tokens": NEW, **SAMPLING["temperature 1"]}
            own["custom_generate"] = Decoder(pipe.tokenizer)
            bars: dict[str, Way] = {
                "free": lambda pipe=pipe, own=own: pipe(HEADER, **own),
                "strict": lambda pipe=pipe, own=own, strict=strict: pipe(HEADER, logits_processor=[strict], **own),
            }
            print_line([name, torch.get_num_threads(), batch], bars, NEW * batch, options.rounds, device)
    if options.cell_batch:
        print(f"\n{TUNES} tunes, temperature 0.9, top-p 0.95\n\n| | threads | batch | characters | seconds |")
        print("|---|---|---|---|---|")
        for name, pipe in pipes.items():
            print_cell(pipe, name, options.cell_batch, device)


if __name__ == "__main__":
    main()
