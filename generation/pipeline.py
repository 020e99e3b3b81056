"""The pipeline "abc-generation" with MIDI, scores and sound, where this project is installed.

Rendering starts programs and writes files, so this module is not packed with a model. Importing it registers the task.
"""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM
from transformers.pipelines import PIPELINE_REGISTRY

from generation.abc_pipeline import TASK, AbcGenerationPipeline
from generation.packing import add_pipeline
from generation.rendering import missing_programs, render

SUFFIXES = {"midi": "mid", "svg": "svg", "wav": "wav"}


class RenderingPipeline(AbcGenerationPipeline):
    """An `AbcGenerationPipeline` that can also render tunes and save itself with all the code that it needs.

    The setting `render` is a list of "midi", "svg" and "wav". It adds to each tune's dictionary `midi` (bytes), `svg`
    (text), `wav` (bytes), None where one could not be made, and `messages`: why.
    """

    def _sanitize_parameters(self, **settings: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        formats = settings.pop("render", None)
        groups = super()._sanitize_parameters(**settings)
        if formats is not None:
            if isinstance(formats, str) or set(formats) - SUFFIXES.keys():
                raise ValueError(f"render {formats!r}: give a list of {', '.join(SUFFIXES)}")
            groups[2]["render"] = formats
        return groups

    def postprocess(  # type: ignore[override]
        self, outputs: dict[str, Any], render: Sequence[str] = ()
    ) -> list[dict[str, Any]]:
        """Return the finished tunes with their verdicts, rendered."""
        tunes = super().postprocess(outputs)
        return [{**tune, **_rendered(tune["abc"], render)} for tune in tunes] if render else tunes

    def save_pretrained(self, save_directory: str | PathLike[str], **kwargs: Any) -> None:
        """Save model, tokenizer and the code that the pipeline needs where this project is not installed."""
        self.model.save_pretrained(save_directory, **kwargs)
        self.tokenizer.save_pretrained(save_directory, **kwargs)
        add_pipeline(Path(save_directory))


def _rendered(abc: str, formats: Sequence[str]) -> dict[str, Any]:
    """Return a tune in some formats, None where one could not be made, and `messages`: why."""
    files, errors = render(abc, [SUFFIXES[name] for name in formats])
    made: dict[str, Any] = {name: files.get(SUFFIXES[name]) for name in formats}
    if made.get("svg") is not None:
        made["svg"] = made["svg"].decode()
    missing = missing_programs()
    return {**made, "messages": [*errors, *(missing[SUFFIXES[name]] for name in formats if SUFFIXES[name] in missing)]}


PIPELINE_REGISTRY.supported_tasks.pop(TASK, None)  # replaces the registration by abc_pipeline.py
PIPELINE_REGISTRY.register_pipeline(TASK, pipeline_class=RenderingPipeline, pt_model=AutoModelForCausalLM, type="text")
