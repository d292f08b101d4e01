"""The page, in Gradio."""

import html
from pathlib import Path
from typing import Any

import gradio as gr
import pandas as pd
from pandas.io.formats.style import Styler

from clvp_train.demo.session import DemoSession, Row
from clvp_train.errors import UserError
from clvp_train.tortoise.audio import SAMPLE_RATE

EXAMPLE = "The light was divided from the darkness."
FORMATS = {
    "rank": "{}",
    "score": "{:.4f}",
    "percentile": "{:.1f}",
    "log p": "{:.2f}",
    "seconds": "{:.1f}",
    "finished": "{}",
}
WORDS = """# CLVP picks the best
Tortoise draws {count} ways to say a sentence; the trained CLVP says how well each of them does. The sound is the DVAE's, with
phases by Griffin-Lim: enough to be understood."""
LEGEND = """Choose a row to hear it. **score**: cosine similarity of text and codes · **percentile**: per cent of true pairs
that score lower · **log p**: in nats a code, by Tortoise's own model · **finished**: it stopped by itself"""
# fonts of the machine: a page that fetches none
THEME = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["system-ui", "sans-serif"])
CSS = Path(__file__).with_name("page.css")


def make_page(studio: DemoSession) -> gr.Blocks:
    """Everything that a visitor sees and can do. Candidates drawn for one visitor stay theirs."""
    with gr.Blocks(title="CLVP", analytics_enabled=False, delete_cache=(600, 3600)) as page:
        gr.Markdown(WORDS.format(count=studio.num_candidates))
        drawn = gr.State()
        text = gr.Textbox(EXAMPLE, label="Sentence", lines=2, max_lines=4, elem_id="sentence")
        with gr.Row(equal_height=True):
            voice = gr.Dropdown(list(studio.latents), value=next(iter(studio.latents)), label="Voice", min_width=90)
            seed = gr.Number(0, label="Seed", precision=0, minimum=0, min_width=90)
            button = gr.Button("Draw", variant="primary", scale=0, min_width=110, elem_id="draw")
        told = gr.HTML(padding=False, elem_id="told")
        with gr.Column(visible=False, elem_id="results") as results:
            with gr.Row(visible=studio.is_audible):
                best, worst, chosen = _player("best"), _player("worst"), _player("chosen", autoplay=True)
            table = gr.Dataframe(
                headers=list(FORMATS),
                interactive=False,
                show_label=False,
                label="Candidates",
                max_height=2000,
                buttons=[],
                elem_id="table",
            )
            gr.Markdown(LEGEND)

        def draw(text: str, voice: str, seed: int | None, progress: gr.Progress = gr.Progress()):
            done = 0

            def count(_):
                nonlocal done
                done += 1
                progress((done, studio.num_candidates), desc="drawing", unit="candidates")

            hidden = {results: gr.Column(visible=False), drawn: None}
            try:
                rows = studio.draw(text, voice, seed or 0, count)
            except UserError as error:
                return hidden | {told: f'<div role="alert">{html.escape(str(error))}</div>'}
            return {
                told: "",
                drawn: rows,
                results: gr.Column(visible=True),
                table: _cells(rows),
                best: _play(studio, rows, 1, "Best"),
                worst: _play(studio, rows, len(rows), "Worst"),
                chosen: gr.Audio(None, visible=False),
            }

        def choose(rows: list[Row], event: gr.SelectData):
            rank = int(event.row_value[0])  # a visitor may have sorted the table
            return _play(studio, rows, rank, "Chosen")

        outputs = [told, drawn, results, table, best, worst, chosen]
        gr.on(
            [button.click, text.submit],
            draw,
            [text, voice, seed],
            outputs,
            show_progress_on=told,
            api_visibility="private",
        )
        table.select(choose, drawn, chosen, show_progress_on=chosen, api_visibility="private")
    return page


def _player(name: str, autoplay: bool = False) -> gr.Audio:
    settings: dict[str, Any] = {"interactive": False, "buttons": ["download"], "min_width": 240}
    settings |= {"waveform_options": gr.WaveformOptions(show_recording_waveform=False)}
    return gr.Audio(elem_id=name, autoplay=autoplay, **settings)


def _play(studio: DemoSession, rows: list[Row], rank: int, name: str) -> gr.Audio:
    sound = (SAMPLE_RATE, studio.speak(rows[rank - 1].candidate)) if studio.is_audible else None
    return gr.Audio(sound, label=f"{name}: rank {rank}", visible=True)


def _cells(rows: list[Row]) -> Styler:
    """Numbers, so that the columns sort, in few digits."""
    cells = [
        (rank, row.score, row.percentile, row.log_probability, row.seconds, "yes" if row.candidate.finished else "no")
        for rank, row in enumerate(rows, start=1)
    ]
    return pd.DataFrame(cells, columns=list(FORMATS)).style.format(FORMATS, na_rep="–")
