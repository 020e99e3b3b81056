"""Data sets on the Hub as a source: pinned to a commit, read as a stream."""

from collections.abc import Iterator
from contextlib import contextmanager

from cli import UserError
from preprocessing.blocks import Block, Reading
from preprocessing.tables import NoTextColumnError, row_blocks

HUB = "hub:"


def hub_fingerprint(source: str) -> dict[str, str]:
    """Return `hub:OWNER/NAME:CONFIG` → the commit's sha. Raises UserError if the data set cannot be had."""
    repository, config = _repository_and_config(source)
    with _hub_errors(source):
        from datasets import get_dataset_config_names
        from huggingface_hub import HfApi

        sha = HfApi().dataset_info(repository, timeout=30).sha
        configs = get_dataset_config_names(repository, revision=sha)
    config = config or ("default" if "default" in configs or len(configs) != 1 else configs[0])
    if config not in configs:
        raise UserError(f"--source {source}: name one of its configs, {HUB}{repository}:CONFIG ({', '.join(configs)})")
    return {f"{HUB}{repository}:{config}": str(sha)}


def read_hub(source: str, inputs: dict[str, str], reading: Reading, text_column: str | None) -> Iterator[Block]:
    """Yield the rows of a data set at the commit in `inputs`, its fingerprint. Raises UserError."""
    ((name, sha),) = inputs.items()
    repository, config = _repository_and_config(name)
    with _hub_errors(source):
        from datasets import load_dataset
        from huggingface_hub import HfApi

        card = HfApi().dataset_info(repository, revision=sha, timeout=30).card_data
        licence = card.get("license") if card is not None else None
        reading.licences[repository] = str(licence or "not stated on its card")
        splits = load_dataset(repository, config, revision=sha, streaming=True)
        for split, rows in splits.items():
            reading.files += 1
            yield from row_blocks(rows, split, repository, reading, text_column)


def _repository_and_config(source: str) -> tuple[str, str | None]:
    repository, _, config = source.removeprefix(HUB).partition(":")
    return repository, config or None


@contextmanager
def _hub_errors(source: str) -> Iterator[None]:
    """Turn what the Hub's client raises into a UserError."""
    from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError
    from huggingface_hub import errors

    try:
        yield
    except NoTextColumnError as error:
        raise UserError(f"--source {source}: {error}; name it with --text_column") from None
    except errors.OfflineModeIsEnabled:
        raise UserError(f"--source {source}: HF_HUB_OFFLINE is set; unset it, or name local files") from None
    except errors.HFValidationError:
        raise UserError(f"--source {source}: not a name on the Hub; write {HUB}OWNER/NAME") from None
    except (errors.RepositoryNotFoundError, DatasetNotFoundError):
        raise UserError(f"--source {source}: the Hub has no such data set, or it needs `hf auth login`") from None
    except (errors.HTTPError, OSError, ValueError, DatasetGenerationError) as error:  # type: ignore[attr-defined]
        cause = " ".join(str(error).split())[:200]
        raise UserError(f"--source {source}: the Hub gives no data ({cause}); try the same command again") from None
