"""Any model, trained further on other tunes: training/finetune.py --model data/best_model --corpus data/mine/corpus

Build the corpus with the model's characters: preprocessing/run.py --vocabulary MODEL. Prints the validation loss before
and after.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import cli
from cli import UserError, option
from modeling.loading import load_config, load_model, load_tokenizer, model_sha256
from modeling.shapes import ARCHITECTURE_OF, Shape
from preprocessing.corpus import Corpus
from training.arguments import TINY, ExecutionArguments
from training.best import with_warmup
from training.config import RunConfig
from training.costs import print_costs
from training.evaluation import held_out_losses
from training.execution import AUTO
from training.planning import PlannedRun, check_context, plan_run, resolve_precision
from training.processes import launched, say
from training.record import FINE_TUNED
from training.workers import report_failures, training_in


@dataclass
class FineTuningArguments:
    """The model, the corpus and how it is trained."""

    model: str = option("data/best_model", "the model to train further, a folder or a Hub id")
    corpus: str = option("data/processed_music_data", "the corpus folder")
    output_dir: str = option("data", "the folder that gets the folder fine_tuned_model")
    epochs: float = option(4.0, "passes over the corpus; for many tunes, or a GPT, 8 are better", least=0.01, most=1e6)
    learning_rate_factor: float = option(
        0.5, "peak learning rate, times the rule's; for many tunes 1 is better", least=TINY, most=1e6
    )
    dropout: float = option(0.0, "dropout", least=0, most=0.99)
    batch_size: int = option(4, "sequences in a step", least=1, most=2**20)
    context: int = option(256, "characters in a sequence", least=2, most=2**20)
    weight_decay: float = option(0.1, "decoupled, on matrices only", least=0, most=1e6)
    precision: str = option(
        AUTO, "auto: bf16 for models at least 128 wide where the processor has it", [AUTO, "fp32", "tf32", "bf16"]
    )


def plan_fine_tuning(tuning: FineTuningArguments, corpus: Corpus) -> PlannedRun:
    """Return the run that trains a model further on another corpus.

    Raises UserError if the model cannot be loaded, is not one that this project trains, or has another vocabulary or a
    shorter longest sequence than the corpus.
    """
    source = tuning.model
    try:
        built = load_config(source)  # before its weights are fetched, which may be many gigabytes
        model = load_model(source)
        vocabulary = load_tokenizer(source).get_vocab()
    except UserError as error:
        raise UserError(f"--model {error}") from None
    if vocabulary != corpus.vocabulary:
        raise UserError(
            f"{corpus.folder} has another vocabulary than {source}: "
            f"build it with preprocessing/run.py --vocabulary {source}"
        )
    longest = getattr(built, "n_positions", tuning.context)
    if tuning.context > longest:
        raise UserError(f"--context {tuning.context}: {source} takes {longest} characters at most")
    check_context(tuning.context, corpus)
    if built.model_type == "gpt2":
        shape = Shape(built.n_layer, built.n_embd, built.n_head, built.n_embd, built.initializer_range)
        options = {"activation": built.activation_function}
    else:
        shape = Shape(built.num_hidden_layers, built.hidden_size, 0, built.embedding_size, built.embedding_std)
        options = {"forget_bias": built.forget_bias}
    config = RunConfig(
        architecture=ARCHITECTURE_OF[built.model_type],
        size=Path(source).name,
        **asdict(shape),
        corpus=corpus.digest(),
        n_keys=corpus.n_keys,
        precision=resolve_precision(tuning.precision, shape.width),
        dropout=tuning.dropout,
        batch_size=tuning.batch_size,
        context=tuning.context,
        weight_decay=tuning.weight_decay,
        init_from=source,
        init_sha256=model_sha256(source),
        **options,
    )
    # At first with the rule's learning rate.
    run = plan_run(config, Path(tuning.output_dir) / FINE_TUNED, corpus, score_test=True)
    if run.n_params != model.num_parameters():
        raise UserError(f"--model {source}: has {model.num_parameters()} parameters, not {run.n_params} as its shape")
    learning_rate = float(f"{tuning.learning_rate_factor * run.config.learning_rate:.3g}")
    tokens = round(tuning.epochs * (len(corpus.tokens("train")) - 1))
    return replace(run, config=with_warmup(replace(run.config, learning_rate=learning_rate), tokens))


def loss_before(config: RunConfig, corpus: Corpus) -> float:
    """Return the validation loss of the model that a fine-tuning starts from, in nats per character."""
    model = load_model(str(config.init_from))
    return held_out_losses(model, corpus, "validation", config.context, config.stateful).whole.loss


def run(tuning: FineTuningArguments, execution: ExecutionArguments) -> None:
    """Train the model further, or print what it will cost."""
    corpus, root = Corpus.open(tuning.corpus), Path(tuning.output_dir)
    with launched():
        planned = plan_fine_tuning(tuning, corpus)
        if execution.dry_run:
            print_costs([planned], corpus, 1, "fine-tuning")
            return
        with training_in(root, corpus, execution) as train:
            [result] = train([planned], "fine-tuning", 1)
            report_failures([result])
        assert result.record is not None
        folder, before, after = root / FINE_TUNED, loss_before(planned.config, corpus), result.record.validation_loss
        say(f"{folder}: validation loss {before:.4f} before, {after:.4f} after, in nats per character")
        say(f"tunes: python generation/run.py --model {folder} --corpus {tuning.corpus}")


def main() -> None:
    """Run the command."""
    cli.main(run, FineTuningArguments, ExecutionArguments, about=__doc__)


if __name__ == "__main__":
    main()
