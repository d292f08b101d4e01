"""What the page shows, without the page: the candidates of a sentence, drawn, ranked and spoken. Shapes: N samples, D width."""

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from clvp_train.errors import UserError, check_number
from clvp_train.inference.reranker import Ranking, Reranker
from clvp_train.pairs import CODES_PER_SECOND, folder_voices
from clvp_train.tortoise import Candidate, FrozenTortoise
from clvp_train.tortoise.audio import load_audio
from clvp_train.tortoise.vocoder import synthesize

LOUDEST = 0.9 * 32767  # of 16 bits


@dataclass(frozen=True)
class Row:
    """A candidate as the table shows it."""

    candidate: Candidate
    score: float
    percentile: float | None  # None without a score table

    @property
    def log_probability(self) -> float:
        """In nats a code, the stop included if there is one."""
        return self.candidate.log_probability / (len(self.candidate.codes) + self.candidate.finished)

    @property
    def seconds(self) -> float:
        return len(self.candidate.codes) / CODES_PER_SECOND


class DemoSession:
    """Draws, ranks and speaks.

    Args:
        tortoise: draws candidates, and speaks them if it has a DVAE.
        reranker: ranks them.
        voices: a folder with a subfolder of clips for each voice.
        num_candidates: drawn of each sentence.

    Raises:
        UserError: there are no voices, or Tortoise and CLVP do not go together.
    """

    def __init__(self, tortoise: FrozenTortoise, reranker: Reranker, voices: str | Path, num_candidates: int) -> None:
        check_number("num_candidates", num_candidates, 2)
        tortoise.check_can_generate()
        if tortoise.num_speech_tokens != reranker.num_codes:
            raise UserError(
                f"{reranker.source} knows {reranker.num_codes} codes, but the Tortoise {tortoise.source} draws from "
                f"{tortoise.num_speech_tokens}: set tortoise=… to the one that the model was trained with"
            )
        self.tortoise, self.reranker, self.num_candidates = tortoise, reranker, num_candidates
        self.latents = {
            voice: tortoise.conditioning_latent([load_audio(clip) for clip in clips])
            for voice, clips in folder_voices(voices, "voices").items()
        }

    @property
    def is_audible(self) -> bool:
        return self.tortoise.dvae is not None

    def draw(self, text: str, voice: str, seed: int, on_candidate: Callable[[Candidate], None]) -> list[Row]:
        """Draws candidates of a text and ranks them, the best first.

        Args:
            text: to be said.
            voice: a key of `latents`.
            seed: 0 or more; another one gives other candidates.
            on_candidate: called with each as it ends.

        Raises:
            UserError: the text cannot be read, or no candidate has a code.
        """
        check_number("seed", seed, 0)
        ids = self._read(text)
        [drawn] = self.tortoise.candidates(
            [ids], self.latents[voice], self.num_candidates, seed, on_candidate=on_candidate
        )
        drawn = [candidate for candidate in drawn if candidate.codes]
        if not drawn:
            raise UserError("every candidate stopped before its first code: write a longer text, or try another seed")
        [ranking] = self.reranker.rank([ids if self.reranker.tokenizer is None else text], [drawn])
        return [_row(drawn, ranking, place) for place in ranking.order]

    def speak(self, candidate: Candidate) -> np.ndarray:
        """(N,) int16 samples, 22 050 Hz. Raises UserError if this Tortoise has no DVAE."""
        [samples_N] = synthesize(self.tortoise, [candidate.codes])
        loudest = samples_N.abs().max().clamp(min=1e-6)
        return (samples_N / loudest * LOUDEST).to(torch.int16).numpy()

    def _read(self, text: str) -> list[int]:
        if not text.strip():
            raise UserError("the text is empty: write a sentence")
        unknown = _unknown_letters(self.tortoise.tokenizer, text)
        if unknown:
            raise UserError(f"the tokenizer does not know {' '.join(unknown)}: write the text without")
        return self.tortoise.tokenize(text)


def _row(drawn: list[Candidate], ranking: Ranking, place: int) -> Row:
    percentile = None if ranking.percentiles is None else ranking.percentiles[place]
    return Row(drawn[place], ranking.scores[place], percentile)


def _unknown_letters(tokenizer: PreTrainedTokenizerBase, text: str) -> list[str]:
    """Which letters and signs of a text give no token, or an unknown one where they stand: "$" does in "$ and", not in "$5".
    Quotation marks and the like may give none."""

    def num_unknown(part: str) -> int:
        return tokenizer(part)["input_ids"].count(tokenizer.unk_token_id)

    text = unicodedata.normalize("NFC", text)
    there, found = num_unknown(text), []
    for letter in dict.fromkeys(text):
        is_said = unicodedata.category(letter)[0] in "LMNS"
        is_dropped = is_said and not tokenizer(letter)["input_ids"]
        if is_dropped or (there and num_unknown(text.replace(letter, "")) < there):
            found.append(letter)
    return found
