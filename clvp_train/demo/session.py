"""What the page does, without the page: samples candidates of a sentence, ranks and decodes them. Shapes: N samples."""

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from clvp_train.errors import UserError
from clvp_train.inference.reranker import Ids, Reranker, Text
from clvp_train.pairs import CODES_PER_SECOND, folder_voices
from clvp_train.tortoise import Candidate, FrozenTortoise
from clvp_train.tortoise.audio import load_audio
from clvp_train.tortoise.vocoder import synthesize

PEAK = 0.9 * 32767  # 90% of the range of 16-bit samples


@dataclass(frozen=True)
class RankedCandidate:
    """A candidate and its scores: a row of the table."""

    candidate: Candidate
    score: float
    percentile: float | None  # None if the model has no score table
    code_rate: float | None = CODES_PER_SECOND  # codes per second of speech; None if unknown
    combined: float | None = None  # what candidates are ranked by, if it is not the score

    @property
    def log_probability(self) -> float:
        """In nats per code."""
        return self.candidate.log_probability_per_code

    @property
    def seconds(self) -> float | None:
        return len(self.candidate.codes) / self.code_rate if self.code_rate else None


def ranked(
    reranker: Reranker,
    text: Text,
    candidates: Sequence[Candidate],
    code_rate: float | None,
    references: Sequence[Ids] | None = None,
) -> list[RankedCandidate]:
    """The candidates of a text, best first. `references` are codes of clips of the voice, see `Reranker.rank`."""
    [ranking] = reranker.rank([text], [candidates], None if references is None else [references])
    percentiles, combined = (x or [None] * len(candidates) for x in (ranking.percentiles, ranking.combined_scores))
    return [
        RankedCandidate(candidates[index], ranking.scores[index], percentiles[index], code_rate, combined[index])
        for index in ranking.order
    ]


class DemoSession:
    """Samples, ranks and decodes candidates of any text.

    Args:
        tortoise: samples candidates, and decodes them if it has a DVAE.
        reranker: ranks them.
        voices: a folder with a subfolder of reference clips for each voice.
        num_candidates: sampled for each sentence.

    Raises:
        UserError: there are no voices, Tortoise and CLVP have different codes, or there is a model of voices and no DVAE.
    """

    texts: ClassVar[list[str]] = []

    def __init__(self, tortoise: FrozenTortoise, reranker: Reranker, voices: str | Path, num_candidates: int) -> None:
        tortoise.check_can_generate()
        if tortoise.num_speech_tokens != reranker.num_codes:
            raise UserError(
                f"tortoise={tortoise.source}: has {tortoise.num_speech_tokens} codes, but {reranker.source} has "
                f"{reranker.num_codes}. Set tortoise=… to the one that the model was trained with."
            )
        self.tortoise, self.reranker, self.num_candidates = tortoise, reranker, num_candidates
        clips = {
            voice: [load_audio(file) for file in files] for voice, files in folder_voices(voices, "voices").items()
        }
        self.latents = {voice: tortoise.conditioning_latent(of_voice) for voice, of_voice in clips.items()}
        compares = reranker.voice is not None
        if compares and not self.is_audible:
            raise UserError(
                f"reranker.voice: tortoise={tortoise.source} has no DVAE to encode the clips of voices. Set it to null."
            )
        self._references = {voice: tortoise.speech_codes(of_voice) for voice, of_voice in clips.items() if compares}

    @property
    def is_audible(self) -> bool:
        return self.tortoise.dvae is not None

    def draw(
        self, text: str, voice: str, seed: int, on_candidate: Callable[[Candidate], None]
    ) -> list[RankedCandidate]:
        """Samples candidates of a text and returns them ranked, best first.

        Args:
            text: the sentence.
            voice: a key of `latents`.
            seed: ≥ 0; determines the candidates.
            on_candidate: called with each candidate when it is finished.

        Raises:
            UserError: the text has characters without a token, or every candidate is empty.
        """
        if seed < 0:
            raise UserError("seed must be an integer ≥ 0.")
        ids = self._tokenize(text)
        [drawn] = self.tortoise.candidates(
            [ids], self.latents[voice], self.num_candidates, seed, on_candidate=on_candidate
        )
        drawn = [candidate for candidate in drawn if candidate.codes]
        if not drawn:
            raise UserError("every candidate is empty. Use a longer text or another seed.")
        given = ids if self.reranker.tokenizer is None else text
        return ranked(self.reranker, given, drawn, CODES_PER_SECOND, self._references.get(voice))

    def is_unfamiliar(self, text: str) -> bool:
        """Whether a text is unlike those that CLVP was trained on."""
        return self.reranker.is_unfamiliar(self._tokenize(text) if self.reranker.tokenizer is None else text)

    def speak(self, candidate: Candidate) -> np.ndarray:
        """Returns (N,) int16 samples at 22 050 Hz. Raises UserError if Tortoise has no DVAE."""
        [samples_N] = synthesize(self.tortoise, [candidate.codes])
        peak = samples_N.abs().max().clamp(min=1e-6)
        return (samples_N / peak * PEAK).to(torch.int16).numpy()

    def _tokenize(self, text: str) -> list[int]:
        if not text.strip():
            raise UserError("the text is empty. Enter a sentence.")
        unknown = _unknown_characters(self.tortoise.tokenizer, text)
        if unknown:
            raise UserError(f"the tokenizer has no token for {' '.join(unknown)}. Remove them from the text.")
        return self.tortoise.tokenize(text)


def _unknown_characters(tokenizer: PreTrainedTokenizerBase, text: str) -> list[str]:
    """The letters and symbols of a text that give no token or an unknown one. It depends on the context: "$" is unknown in
    "$ and", but not in "$5". Quotation marks and the like may give none."""

    def num_unknown(part: str) -> int:
        return tokenizer(part)["input_ids"].count(tokenizer.unk_token_id)

    text = unicodedata.normalize("NFC", text)
    total, unknown = num_unknown(text), []
    for character in dict.fromkeys(text):
        is_spoken = unicodedata.category(character)[0] in "LMNS"  # letters, marks, numbers, symbols
        is_dropped = is_spoken and not tokenizer(character)["input_ids"]
        if is_dropped or (total and num_unknown(text.replace(character, "")) < total):
            unknown.append(character)
    return unknown
