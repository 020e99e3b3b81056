"""The demo's page: two models write a tune each, side by side; the study's figures; what all of it is.

Runs as a Space does, `python app.py` in the staged folder (model_cards/demo.py): it imports what lies beside it, and
nothing of the project's installation. The page loads nothing from elsewhere.
"""

from base64 import b64encode
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gradio as gr
from request_filter import RequestFilter
from starlette.middleware import Middleware
from studio import Studio, Tune

from generation.rendering import sanitize

FOLDER = Path(__file__).resolve().parent
SCRIPTS = [FOLDER / name for name in ("vendor/abcjs/abcjs-basic-min.js", "generation/page.js", "tune.js", "figures.js")]
HEAD = "".join(f'<script src="gradio_api/file={quote(str(script))}"></script>' for script in SCRIPTS)

KEYS = ["C", "G", "D", "A", "F", "Bb", "Am", "Em", "Dm", "Gm", "Ador", "Edor", "Dmix", "Amix"]
METRES = ["4/4", "2/4", "3/4", "6/8", "9/8", "2/2"]
ANY = ("any", "")
WAITING = 64  # requests; who comes later is asked to try again
SEEDS = 2**31

PAPER = gr.themes.Base(
    font=["Iowan Old Style", "Palatino Linotype", "Palatino", "Georgia", "serif"],
    font_mono=["ui-monospace", "Menlo", "Consolas", "monospace"],
).set(
    body_background_fill="#fdfcf8",
    body_background_fill_dark="#171614",
    body_text_color="#23211d",
    body_text_color_dark="#e9e5dc",
)  # what is there before page.css is

studio = Studio(FOLDER)


def write(
    first: Any, second: Any, key: Any, metre: Any, temperature: Any, seed: Any, strict: Any
) -> Iterator[tuple[Any, Any, Any]]:
    """Yield what is said and the two tunes, each as soon as it is written.

    The arguments are what a visitor sent, whatever that is: the studio checks them.
    """
    shown: list[dict[str, Any] | None] = [None, None]
    said = []
    key, metre = ("" if text is None else text for text in (key, metre))  # what an emptied field sends
    for place, name in enumerate((first, second)):
        try:
            tune = studio.write(name, key, metre, temperature, seed, strict)
        except ValueError as error:  # of what was asked for, in one line
            yield {"error": str(error)}, gr.skip(), gr.skip()
            return
        shown[place] = to_show(name, tune)
        said.append(f"{name}: {tune.verdict}")
        yield {"line": ". ".join(said)}, shown[0], shown[1]


def to_show(name: str, tune: Tune) -> dict[str, Any]:
    """Return what the browser is sent of a tune; tune.js shows all of it as text."""
    return {
        "name": name,
        "abc": tune.abc,
        "score": sanitize(tune.abc),
        "valid": tune.valid,
        "verdict": tune.verdict,
        "bits": f"{tune.bits_per_character:.2f}",
        "nearest": tune.nearest,
        "copied": tune.copied,
        "notes": [[round(start, 3), round(length, 3), pitch] for start, length, pitch in tune.notes],
        "midi": b64encode(tune.midi).decode() if tune.midi else None,
        "messages": tune.messages,
        "settings": {key: str(value) for key, value in tune.settings.items()},
    }


def defaults(names: list[str]) -> tuple[str, str]:
    """Return the GPT and the LSTM of the largest size that both have, the last in the list, else the outermost two."""
    both = [name for name in names if name.startswith("GPT ") and f"LSTM {name[4:]}" in names]
    return (both[-1], f"LSTM {both[-1][4:]}") if both else (names[0], names[-1])


def shared(study: dict[str, Any]) -> str:
    """Return where the models and the tunes of a study on the Hub are, as HTML."""
    if study["namespace"] is None:
        return ""
    models = sorted({model["model"] for model in study["models"]})
    tunes = study["training"]["repository"]
    links = [*((name, name) for name in models), (f"datasets/{tunes}", tunes)]
    named = (f'<a href="https://huggingface.co/{quote(path)}">{escape(name)}</a>' for path, name in links)
    return f"<h2>Where it is</h2><p>The models and the tunes on the Hub: {', '.join(named)}.</p>"


with gr.Blocks(title="Music scaling laws", analytics_enabled=False) as demo:
    gr.HTML(
        "<h1>Two models, one tune each</h1><p>Small language models write folk tunes, one character at a time. "
        "Ask two of them for the same, and see and hear what size and architecture change.</p>",
        apply_default_css=False, elem_classes="top",
    )  # fmt: skip
    with gr.Tabs():
        with gr.Tab("Write"):
            left, right = defaults(studio.names)
            with gr.Column(elem_classes="wish"):
                with gr.Row():
                    first = gr.Dropdown(studio.names, value=left, label="First model", min_width=220)
                    second = gr.Dropdown(studio.names, value=right, label="Second model", min_width=220)
                with gr.Row():
                    key = gr.Dropdown([ANY, *KEYS], value="", label="Key", allow_custom_value=True, min_width=140)
                    metre = gr.Dropdown([ANY, *METRES], value="", label="Metre", allow_custom_value=True, min_width=140)
                    temperature = gr.Slider(0.1, 1.5, 0.9, step=0.05, label="Temperature", min_width=200, buttons=[])
                with gr.Row():
                    seed = gr.Number(1, precision=0, label="Seed", min_width=130, elem_classes="seed")
                    new_seed = gr.Button("New seed", min_width=110, elem_classes="new-seed")
                    strict = gr.Checkbox(label="Every bar must add up", min_width=200, elem_classes="strict")
                    generate = gr.Button("Generate", variant="primary", min_width=180, elem_classes="generate")
            said = gr.HTML(
                html_template='<p role="status"></p><p role="alert"></p>', js_on_load="showSaid(element, props, watch)",
                head=HEAD, apply_default_css=False, elem_classes="said",
            )  # fmt: skip
            with gr.Row(elem_classes="tunes"):
                tunes = [
                    gr.HTML(
                        html_template="<article></article>", js_on_load="showTunes(element, props, watch)",
                        head=HEAD, apply_default_css=False, min_width=320,
                    )
                    for _ in range(2)
                ]  # fmt: skip
        with gr.Tab("Figures"):
            gr.HTML(
                studio.figures, html_template="<div></div>", js_on_load="showFigures(element, props.value)",
                head=HEAD, apply_default_css=False, elem_id="figures",
            )  # fmt: skip
        with gr.Tab("About"):
            about = (FOLDER / "about.html").read_text(encoding="utf-8")
            licence = f"<p>{escape(studio.study['licence'])}</p>"
            gr.HTML(about + licence + shared(studio.study), apply_default_css=False, elem_classes="about")
    new_seed.click(None, outputs=seed, js=f"() => Math.floor(Math.random() * {SEEDS})", api_visibility="private")
    wish = [first, second, key, metre, temperature, seed, strict]
    generate.click(
        write, wish, [said, *tunes], api_name="write", show_progress="minimal", show_progress_on=tunes,
        preprocess=False,  # Gradio's own checks end in a traceback
    )  # fmt: skip
    demo.queue(max_size=WAITING, default_concurrency_limit=1)

if __name__ == "__main__":
    demo.launch(
        theme=PAPER,
        css_paths=FOLDER / "page.css",
        allowed_paths=[str(script) for script in SCRIPTS],
        app_kwargs={"middleware": [Middleware(RequestFilter, values=len(wish))]},
        max_threads=8,
        share=False,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        enable_monitoring=False,
        run_history=False,
        footer_links=[],
    )
