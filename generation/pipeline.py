"""The pipeline "abc-generation" as it is where this project is installed: MIDI, scores and sound besides.

What makes those starts programs and writes files, so it does not travel to the Hub. Importing this module makes
transformers know the task.
"""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM
from transformers.pipelines import PIPELINE_REGISTRY

from generation.abc_pipeline import TASK, AbcGenerationPipeline
from generation.rendering import missing, render
from generation.travel import add_pipeline

KINDS = {"midi": "mid", "svg": "svg", "wav": "wav"}  # as the file's suffix says


class RenderingPipeline(AbcGenerationPipeline):
    """An :class:`AbcGenerationPipeline` with one more setting and all that travels beside a saved model.

        render: of "midi", "svg" and "wav", what to make beside the text.

    To each tune's dictionary `render` adds `midi` (bytes), `svg` (text), `wav` (bytes), None where one could not be
    made, and `messages` that say why, a line each.
    """

    def _sanitize_parameters(self, **settings: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        wanted = settings.pop("render", None)
        groups = super()._sanitize_parameters(**settings)
        if wanted is not None:
            if isinstance(wanted, str) or set(wanted) - KINDS.keys():
                raise ValueError(f"render {wanted!r}: a list of {', '.join(KINDS)}")
            groups[2]["render"] = wanted
        return groups

    def postprocess(  # type: ignore[override]
        self, outputs: dict[str, Any], render: Sequence[str] = ()
    ) -> list[dict[str, Any]]:
        """Return the tunes, finished, judged and rendered."""
        tunes = super().postprocess(outputs)
        return [{**tune, **rendered(tune["abc"], render)} for tune in tunes] if render else tunes

    def save_pretrained(self, save_directory: str | PathLike[str], **kwargs: Any) -> None:
        """Save model, tokenizer and all files that the pipeline needs where this project is not installed."""
        self.model.save_pretrained(save_directory, **kwargs)
        self.tokenizer.save_pretrained(save_directory, **kwargs)
        add_pipeline(Path(save_directory))


def rendered(abc: str, wanted: Sequence[str]) -> dict[str, Any]:
    """Return a tune in the formats asked for, None where one could not be made, and `messages` that say why."""
    suffixes = [KINDS[name] for name in wanted]
    files, failures = render(abc, suffixes)
    made: dict[str, Any] = {name: files.get(KINDS[name]) for name in wanted}
    if made.get("svg") is not None:
        made["svg"] = made["svg"].decode()
    return {**made, "messages": [*failures, *(line for kind, line in missing().items() if kind in suffixes)]}


PIPELINE_REGISTRY.supported_tasks.pop(TASK, None)  # what abc_pipeline.py registers for where it stands alone
PIPELINE_REGISTRY.register_pipeline(TASK, pipeline_class=RenderingPipeline, pt_model=AutoModelForCausalLM, type="text")
