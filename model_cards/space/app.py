"""The demo's page: two models write a tune each, side by side; the study's figures; what the study is.

Runs as a Space does, `python app.py` in the staged folder (model_cards/demo_folder.py). It imports only files beside it
and packages of requirements.txt. The page loads nothing from other sites.
"""

from base64 import b64encode
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
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
MAX_WAITING = 64  # requests; later ones are asked to try again
SEEDS = 2**31

THEME = gr.themes.Base(
    font=["Iowan Old Style", "Palatino Linotype", "Palatino", "Georgia", "serif"],
    font_mono=["ui-monospace", "Menlo", "Consolas", "monospace"],
).set(
    body_background_fill="#fdfcf8",
    body_background_fill_dark="#171614",
    body_text_color="#23211d",
    body_text_color_dark="#e9e5dc",
)  # the colours until page.css is loaded

studio = Studio(FOLDER)


def write(
    first: Any, second: Any, key: Any, metre: Any, temperature: Any, seed: Any, strict: Any
) -> Iterator[tuple[Any, Any, Any]]:
    """Yield the status and two tunes, each tune as soon as it is written.

    The arguments are what a visitor sent, unchecked: the studio checks them.
    """
    written: list[dict[str, Any] | None] = [None, None]
    verdicts = []
    key, metre = ("" if text is None else text for text in (key, metre))  # an emptied field sends None
    for index, name in enumerate((first, second)):
        try:
            tune = studio.write(name, key, metre, temperature, seed, strict)
        except ValueError as error:
            yield {"error": str(error)}, gr.skip(), gr.skip()
            return
        written[index] = describe_tune(name, tune)
        verdicts.append(f"{name}: {tune.verdict}")
        yield {"status": ". ".join(verdicts)}, written[0], written[1]


def describe_tune(name: str, tune: Tune) -> dict[str, Any]:
    """Return what the browser gets of a tune; tune.js shows all of it as text."""
    return asdict(tune) | {
        "name": name,
        "score": sanitize(tune.abc),
        "bits": f"{tune.bits_per_character:.2f}",
        "midi": b64encode(tune.midi).decode() if tune.midi else None,
        "settings": {key: str(value) for key, value in tune.settings.items()},
    }


def defaults(names: list[str]) -> tuple[str, str]:
    """Return the GPT and the LSTM of the largest size that both have, else the first and the last model."""
    both = [name for name in names if name.startswith("GPT ") and f"LSTM {name[4:]}" in names]
    return (both[-1], f"LSTM {both[-1][4:]}") if both else (names[0], names[-1])


def links(study: dict[str, Any]) -> str:
    """Return where the models and the tunes of a study on the Hub are, as HTML."""
    if study["namespace"] is None:
        return ""
    models = sorted({model["model"] for model in study["models"]})
    tunes = study["training"]["repository"]
    targets = [*((name, name) for name in models), (f"datasets/{tunes}", tunes)]
    named = (f'<a href="https://huggingface.co/{quote(path)}">{escape(name)}</a>' for path, name in targets)
    return f"<h2>On the Hub</h2><p>Models and tunes: {', '.join(named)}.</p>"


html = partial(gr.HTML, apply_default_css=False)
scripted = partial(html, head=HEAD)  # its js_on_load fills its template in the browser

with gr.Blocks(title="Music scaling laws", analytics_enabled=False) as demo:
    html(
        "<h1>Two models, one tune each</h1><p>Small language models write folk tunes, one character at a time. "
        "Ask two of them for the same, and see and hear what size and architecture change.</p>",
        elem_classes="top",
    )
    with gr.Tabs():
        with gr.Tab("Write"):
            left, right = defaults(studio.names)
            with gr.Column(elem_classes="request"):
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
            status = scripted(
                html_template='<p role="status"></p><p role="alert"></p>',
                js_on_load="showStatus(element, props, watch)",
                elem_classes="status",
            )
            with gr.Row(elem_classes="tunes"):
                article, show = "<article></article>", "showTunes(element, props, watch)"
                tunes = [scripted(html_template=article, js_on_load=show, min_width=320) for _ in range(2)]
        with gr.Tab("Figures"):
            show = "showFigures(element, props.value)"
            scripted(studio.figures, html_template="<div></div>", js_on_load=show, elem_id="figures")
        with gr.Tab("About"):
            about = (FOLDER / "about.html").read_text(encoding="utf-8")
            licence = f"<p>{escape(studio.study['licence'])}</p>"
            html(about + licence + links(studio.study), elem_classes="about")
    new_seed.click(None, outputs=seed, js=f"() => Math.floor(Math.random() * {SEEDS})", api_visibility="private")
    arguments = [first, second, key, metre, temperature, seed, strict]
    generate.click(
        write,
        arguments,
        [status, *tunes],
        api_name="write",
        show_progress="minimal",
        show_progress_on=tunes,
        preprocess=False,  # Gradio's checks end in a traceback
    )
    demo.queue(max_size=MAX_WAITING, default_concurrency_limit=1)

if __name__ == "__main__":
    demo.launch(
        theme=THEME,
        css_paths=FOLDER / "page.css",
        allowed_paths=[str(script) for script in SCRIPTS],
        app_kwargs={"middleware": [Middleware(RequestFilter, values=len(arguments))]},
        max_threads=8,
        share=False,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        enable_monitoring=False,
        run_history=False,
        footer_links=[],
    )
