"""The page, made with Gradio."""

import html
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
import pandas as pd
from pandas.io.formats.style import Styler

from clvp_train.demo.session import DemoSession, Row
from clvp_train.errors import UserError
from clvp_train.tortoise import Candidate
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
INTRODUCTION = """# CLVP re-ranking demo
Tortoise samples {count} candidates for a sentence, and the trained CLVP ranks them. The audio is decoded by the DVAE
and Griffin-Lim, which is intelligible but far below the quality of Tortoise's diffusion decoder."""
LEGEND = """Select a row to play it. **score**: cosine similarity of text and codes · **percentile**: percentage of
true pairs that score lower · **log p**: nats per code under Tortoise's autoregressive model ·
**finished**: the candidate ended with a stop token"""
# system fonts, so that the page requests none from a server
THEME = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["system-ui", "sans-serif"])
CSS = Path(__file__).with_name("page.css")


def make_page(session: DemoSession) -> gr.Blocks:
    """Returns the page. The candidates of a visitor are kept in their own session state."""
    with gr.Blocks(title="CLVP", analytics_enabled=False, delete_cache=(600, 3600)) as page:
        gr.Markdown(INTRODUCTION.format(count=session.num_candidates))
        drawn = gr.State()
        text = gr.Textbox(EXAMPLE, label="Sentence", lines=2, max_lines=4, elem_id="sentence")
        with gr.Row(equal_height=True):
            voice = gr.Dropdown(list(session.latents), value=next(iter(session.latents)), label="Voice", min_width=90)
            seed = gr.Number(0, label="Seed", precision=0, minimum=0, min_width=90)
            button = gr.Button("Generate", variant="primary", scale=0, min_width=110, elem_id="draw")
        message = gr.HTML(padding=False, elem_id="message")
        with gr.Column(visible=False, elem_id="results") as results:
            with gr.Row(visible=session.is_audible):
                best, worst, selected = _player("best"), _player("worst"), _player("selected", autoplay=True)
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

        outputs = [message, drawn, results, table, best, worst, selected]
        gr.on(
            [button.click, text.submit],
            _draw_handler(session),
            [text, voice, seed],
            outputs,
            show_progress_on=message,
            api_visibility="private",
        )
        table.select(_select_handler(session), drawn, selected, show_progress_on=selected, api_visibility="private")
    return page


def _draw_handler(session: DemoSession) -> Callable[..., tuple[Any, ...]]:
    def draw(text: str, voice: str, seed: int | None, progress: gr.Progress = gr.Progress()) -> tuple[Any, ...]:
        """The values of `outputs` in `make_page`."""
        num_finished = itertools.count(1)

        def on_candidate(_: Candidate) -> None:
            progress((next(num_finished), session.num_candidates), desc="sampling", unit="candidates")

        try:
            rows = session.draw(text, voice, seed or 0, on_candidate)
        except UserError as error:
            alert = f'<div role="alert">{html.escape(str(error))}</div>'
            return alert, None, gr.Column(visible=False), *[gr.skip()] * 4
        best, worst = _play(session, rows, 1, "Best"), _play(session, rows, len(rows), "Worst")
        return "", rows, gr.Column(visible=True), _cells(rows), best, worst, gr.Audio(None, visible=False)

    return draw


def _select_handler(session: DemoSession) -> Callable[..., gr.Audio]:
    def select(rows: list[Row], event: gr.SelectData) -> gr.Audio:
        rank = int(event.row_value[0])  # not the position of the row, because the visitor may have sorted the table
        return _play(session, rows, rank, "Selected")

    return select


def _player(name: str, autoplay: bool = False) -> gr.Audio:
    waveform = gr.WaveformOptions(show_recording_waveform=False)
    return gr.Audio(
        elem_id=name,
        autoplay=autoplay,
        interactive=False,
        buttons=["download"],
        min_width=240,
        waveform_options=waveform,
    )


def _play(session: DemoSession, rows: list[Row], rank: int, name: str) -> gr.Audio:
    audio = (SAMPLE_RATE, session.speak(rows[rank - 1].candidate)) if session.is_audible else None
    return gr.Audio(audio, label=f"{name}: rank {rank}", visible=True)


def _cells(rows: list[Row]) -> Styler:
    """The cells as numbers, so that columns sort by value, with few digits shown."""
    cells = [
        (rank, row.score, row.percentile, row.log_probability, row.seconds, "yes" if row.candidate.finished else "no")
        for rank, row in enumerate(rows, start=1)
    ]
    return pd.DataFrame(cells, columns=list(FORMATS)).style.format(FORMATS, na_rep="–")
