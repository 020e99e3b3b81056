"""A complete study in a moment: records of the committed study around models that were never trained."""

import shutil
from dataclasses import replace
from math import log
from pathlib import Path

import torch
from conftest import made_tunes
from made_models import BUILD
from small_runs import with_config

from files import read_json, write_json
from generation.quality_vs_size import analyse
from generation.study import CELLS, plan_cells
from model_cards.results import QUALITY, QUALITY_VS_SIZE
from modeling.models import new_model
from preprocessing.blocks import Block
from training.evaluation import held_out_losses
from training.record import BASELINE, BEST, FINISHED, run_folder, write_record
from training.runs_table import read_runs_table
from training.saving import save_model

PUBLISHED = Path(__file__).parent.parent / "results"
MAIN_BUDGET = 8_000_000
SIZES = ("15k", "30k")
SEEDS = (0, 1)
CONTEXT = 64
TUNE = "X:1\nM:4/4\nL:1/8\nK:C\nC2EG c2ec|C2EG {}4|]\n"


def committed_records():
    """The finished records of the committed study at its main budget: those of the ladders, the best model's last."""
    rows = [row for row in read_runs_table(PUBLISHED / "runs.parquet") if row.record.status == FINISHED]
    ladders = [row.record for row in rows if row.arm in ("ladders", "tiny", "largest")]
    main = [record for record in ladders if record.config.tokens == MAIN_BUDGET]
    return main + [row.record for row in rows if row.arm == "best"]


def made_corpus(folder, build_from):
    """Random tunes that have every character of the cards' examples."""
    text = made_tunes(200).replace("K:Am", "K:Dmix").replace("M:4/4", "M:6/8", 100)
    return build_from(folder, [Block("made", "made.abc", text.encode())])


def made_results(root, corpus):
    """Write a study to `root`: two sizes of both architectures with two seeds each, and the best model."""
    shutil.copytree(corpus.folder, root / "processed_music_data")
    records = committed_records()
    for record in records:
        config = record.config
        if config.init_from is None and config.size in SIZES and config.seed in SEEDS:
            write_run(run_folder(root, config), record, config.size, corpus)
    write_run(root / BEST, records[-1], SIZES[0], corpus)
    shutil.copytree(PUBLISHED / BEST / "samples", root / BEST / "samples")
    for name in ("comparison_analysis", "generation_analysis"):
        shutil.copytree(PUBLISHED / name, root / name, ignore=shutil.ignore_patterns("tunes"))
    (root / "GPT_analysis").mkdir()
    (root / "GPT_analysis" / "page.html").touch()
    write_json(root / QUALITY_VS_SIZE, analyse(read_json(root / QUALITY), 20, 0, "free"))
    shutil.copyfile(PUBLISHED / BASELINE, root / BASELINE)
    for cell in plan_cells(root, [0.8, 0.9, 1.0], "free"):
        tunes = [{"abc": TUNE.format(note), "ended": True} for note in "FGA"]
        write_json((root / QUALITY).parent / CELLS / f"{cell.name}.json", {"tunes": tunes})
    return root


def write_run(folder, record, size, corpus):
    """Write a run's folder: an untrained model, and the record with the losses that it has."""
    torch.manual_seed(record.config.seed)
    tokenizer = corpus.tokenizer()
    config = BUILD[record.config.architecture](
        size, len(tokenizer), CONTEXT, tokenizer.eos_token_id, tokenizer.pad_token_id
    )
    model = new_model(config).eval()
    save_model(config, model.state_dict(), corpus, folder)
    losses = {}
    for split in ("validation", "test") if record.test_loss is not None else ("validation",):
        found = held_out_losses(model, corpus, split, CONTEXT).whole
        losses |= {
            f"{split}_loss": found.loss,
            f"{split}_loss_standard_error": found.standard_error,
            f"{split}_bits_per_character": found.loss / log(2),
        }
    record = with_config(record, context=CONTEXT)
    write_record(folder, replace(record, n_params=model.num_parameters(), **losses))


def files_of(folder):
    """The files of a folder (path → content)."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
