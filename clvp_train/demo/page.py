"""The page, made with Gradio."""

import html
import itertools
from pathlib import Path
from typing import Any

import gradio as gr
import pandas as pd
from pandas.io.formats.style import Styler

from clvp_train.demo.listening_test import ANSWERS, Draw, ListeningTest
from clvp_train.demo.session import DemoSession, RankedCandidate
from clvp_train.demo.stored import StoredSession
from clvp_train.errors import UserError
from clvp_train.tortoise import Candidate
from clvp_train.tortoise.audio import SAMPLE_RATE

EXAMPLE = "The light was divided from the darkness."
FORMATS = {
    "rank": "{}",
    "score": "{:.4f}",
    "combined": "{:.4f}",
    "percentile": "{:.1f}",
    "log p": "{:.2f}",
    "seconds": "{:.1f}",
    "finished": "{}",
}
INTRODUCTION = """# CLVP re-ranking demo
Tortoise samples {count} candidates for a sentence, and the trained CLVP ranks them. The audio is decoded by the DVAE
and Griffin-Lim, which is intelligible but far below the quality of Tortoise's diffusion decoder.

Training data of this CLVP: {training_data}."""
STORED_INTRODUCTION = """# CLVP re-ranking demo
The trained CLVP ranks up to {count} stored candidates of a text.

Training data of this CLVP: {training_data}."""
PLAY = "Select a row to play it. "
LEGEND = """**score**: cosine similarity of text and codes · **percentile**: percentage of
true pairs that score lower · **log p**: nats per code under the model that sampled it ·
**finished**: the candidate ended with a stop token"""
COMBINED = " · **combined**: what candidates are ranked by, the score with log p or the voice"
UNFAMILIAR = '<div role="status">This text is unlike those that CLVP was trained on: its scores mean little.</div>'
QUESTION = "One of these is CLVP's pick, the other a random candidate. Which one says the sentence better?"
# system fonts, so that the page requests none from a server
THEME = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["system-ui", "sans-serif"])
CSS = Path(__file__).with_name("page.css")


def make_page(session: DemoSession | StoredSession, training_data: str, answers: Path) -> gr.Blocks:
    """Returns the page.

    Args:
        session: generates, ranks and decodes.
        training_data: what the model was trained on, in Markdown.
        answers: a CSV file that the answers of listening tests are appended to.
    """
    with gr.Blocks(title="CLVP", analytics_enabled=False, delete_cache=(600, 3600)) as page:
        introduction = STORED_INTRODUCTION if session.texts else INTRODUCTION
        gr.Markdown(introduction.format(count=session.num_candidates, training_data=training_data))
        _Content(session, answers)
    return page


class _Content:
    """The components below the introduction, and their event handlers, which return the values of changed components."""

    def __init__(self, session: DemoSession | StoredSession, answers: Path) -> None:
        self.session, self.answers = session, answers
        # of each visitor: the candidates, best first, and the listening test
        self.rows, self.test = gr.State(), gr.State(ListeningTest())
        texts, voices = session.texts, list(session.latents) or [""]
        self.text: gr.Textbox | gr.Dropdown
        if texts:
            self.text = gr.Dropdown(texts, value=texts[0], label="Text", elem_id="sentence")
        else:
            self.text = gr.Textbox(EXAMPLE, label="Sentence", lines=2, max_lines=4, elem_id="sentence")
        with gr.Row(equal_height=True):
            self.voice = gr.Dropdown(voices, value=voices[0], label="Voice", min_width=90, visible=not texts)
            self.seed = gr.Number(0, label="Seed", precision=0, minimum=0, min_width=90, visible=not texts)
            self.is_test = gr.Checkbox(label="Listening test", min_width=90, visible=session.is_audible)
            label = "Rank" if texts else "Generate"
            self.button = gr.Button(label, variant="primary", scale=0, min_width=110, elem_id="draw")
        self.message = gr.HTML(padding=False, elem_id="message")
        self.tally = gr.Markdown(visible=False, elem_id="tally")
        with gr.Column(visible=False, elem_id="comparison") as self.comparison:
            gr.Markdown(QUESTION)
            with gr.Row():
                self.players = [_player("a"), _player("b")]
            with gr.Row():
                self.buttons = [gr.Button(answer, min_width=90) for answer in ANSWERS]
        with gr.Column(visible=False, elem_id="results") as self.results:
            with gr.Row(visible=session.is_audible):
                self.best, self.worst, self.selected = _player("best"), _player("worst"), _player("selected", True)
            self.table = gr.Dataframe(
                headers=[name for name in FORMATS if name != "combined" or session.reranker.combines],
                interactive=False,
                show_label=False,
                label="Candidates",
                max_height=2000,
                buttons=[],
                elem_id="table",
            )
            combined = COMBINED if session.reranker.combines else ""
            gr.Markdown((PLAY if session.is_audible else "") + LEGEND + combined)
        self._connect()

    def _connect(self) -> None:
        ranking = [self.message, self.comparison, self.results, self.table, self.best, self.worst, self.selected]
        gr.on(
            [self.button.click, self.text.submit if isinstance(self.text, gr.Textbox) else self.text.input],
            self.draw,
            [self.text, self.voice, self.seed, self.is_test, self.test],
            [*ranking, self.rows, self.test, *self.players],
            show_progress_on=self.message,
            api_visibility="private",
        )
        for button in self.buttons:
            button.click(
                self.answer,
                [button, self.seed, self.rows, self.test],
                [*ranking, self.seed, self.test, self.tally],
                show_progress_on=self.message,
                api_visibility="private",
            )
        self.table.select(
            self.select, self.rows, self.selected, show_progress_on=self.selected, api_visibility="private"
        )

    def draw(
        self,
        text: str,
        voice: str,
        seed: int | None,
        is_test: bool,
        test: ListeningTest,
        progress: gr.Progress = gr.Progress(),
    ) -> dict[Any, Any]:
        draw, num_finished = Draw(text, voice, seed or 0), itertools.count(1)

        def on_candidate(_: Candidate) -> None:
            progress((next(num_finished), self.session.num_candidates), desc="sampling", unit="candidates")

        try:
            if is_test:
                test.check_unseen(draw)
            rows = self.session.draw(draw.text, draw.voice, draw.seed, on_candidate)
            trial = test.start(draw, rows) if is_test else None
        except UserError as error:
            alert = f'<div role="alert">{html.escape(str(error))}</div>'
            return {self.message: alert, self.rows: None} | self._show(None)
        note = UNFAMILIAR if self.session.is_unfamiliar(draw.text) else ""
        changed = {self.message: note, self.rows: rows, self.test: test}
        if trial is None:
            test.seen.add(draw)
            return changed | self._ranking(rows)
        played = [self._play(rows, rank, name) for rank, name in zip(trial.ranks, "AB")]
        return changed | self._show(self.comparison) | dict(zip(self.players, played))

    def answer(
        self, answer: str, seed: int | None, rows: list[RankedCandidate], test: ListeningTest, request: gr.Request
    ) -> dict[Any, Any]:
        verdict = test.answer(answer, str(request.session_hash), self.answers)
        if verdict is None:  # a second click
            return {self.message: gr.skip()}
        # the next seed, because this ranking is now known
        changed = {self.seed: (seed or 0) + 1, self.test: test, self.tally: gr.Markdown(test.summary(), visible=True)}
        return changed | self._ranking(rows) | {self.message: f'<div role="status">{verdict}.</div>'}

    def select(self, rows: list[RankedCandidate], event: gr.SelectData) -> gr.Audio:
        rank = int(event.row_value[0])  # not the position of the row, because the visitor may have sorted the table
        return self._play(rows, rank, f"Selected: rank {rank}")

    def _ranking(self, rows: list[RankedCandidate]) -> dict[Any, Any]:
        return self._show(self.results) | {
            self.table: _cells(rows),
            self.best: self._play(rows, 1, "Best: rank 1"),
            self.worst: self._play(rows, len(rows), f"Worst: rank {len(rows)}"),
            self.selected: gr.Audio(None, visible=False),
        }

    def _show(self, shown: gr.Column | None) -> dict[Any, Any]:
        """Shows one of the columns, or neither."""
        return {column: gr.Column(visible=column is shown) for column in (self.comparison, self.results)}

    def _play(self, rows: list[RankedCandidate], rank: int, label: str) -> gr.Audio:
        audio = (SAMPLE_RATE, self.session.speak(rows[rank - 1].candidate)) if self.session.is_audible else None
        return gr.Audio(audio, label=label, visible=True)


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


def _cells(rows: list[RankedCandidate]) -> Styler:
    """The cells as numbers, so that columns sort by value, with few digits shown."""
    cells = [
        (
            rank,
            row.score,
            row.combined,
            row.percentile,
            row.log_probability,
            row.seconds,
            "yes" if row.candidate.finished else "no",
        )
        for rank, row in enumerate(rows, start=1)
    ]
    table = pd.DataFrame(cells, columns=list(FORMATS))
    if rows[0].combined is None:
        table = table.drop(columns="combined")
    return table.style.format({name: FORMATS[name] for name in table}, na_rep="–")
