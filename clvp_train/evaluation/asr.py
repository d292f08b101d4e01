"""Word errors of an ASR model on candidates."""

import logging
from typing import Any

import numpy as np
import torch
import transformers
from torchmetrics.functional.text import word_error_rate

from clvp_train.corpus import text_key
from clvp_train.errors import UserError
from clvp_train.evaluation.held_out import CandidateSets
from clvp_train.evaluation.text_perturbations import text_of, words_of
from clvp_train.tortoise import FrozenTortoise
from clvp_train.tortoise.audio import SAMPLE_RATE
from clvp_train.tortoise.vocoder import synthesize

DECODED_AT_ONCE = 64  # candidates whose audio is in memory
LOADING_ERRORS = (OSError, ValueError, KeyError, ImportError, TypeError)  # of transformers
log = logging.getLogger(__name__)


def count_word_errors(
    candidates: CandidateSets, tortoise: FrozenTortoise, asr: str, batch_size: int = 16
) -> tuple[np.ndarray, np.ndarray]:
    """Decodes every candidate to audio, transcribes it, and counts the word errors against its text.

    Case and punctuation are ignored; text written without spaces is compared letter by letter.

    Args:
        candidates: their codes are those of `tortoise`.
        tortoise: with a DVAE, see `vocoder.synthesize`.
        asr: speech recognition model of transformers, a folder or Hub id.
        batch_size: clips that the ASR model transcribes at once.

    Returns:
        Word errors of each candidate, and words of each text.

    Raises:
        UserError: the ASR model cannot be opened, or the Tortoise has no DVAE.
    """
    transcribe = _open(asr, tortoise.device)
    texts = [text_key(candidates.pairs.texts[start]) for start in candidates.starts]
    text_of_candidate = np.repeat(np.array(texts, dtype=object), candidates.sizes)
    errors: list[float] = []
    for start in range(0, len(text_of_candidate), DECODED_AT_ONCE):
        block = slice(start, start + DECODED_AT_ONCE)
        clips = synthesize(tortoise, candidates.pairs.codes[block])  # type: ignore[arg-type]
        inputs = [{"raw": clip.numpy(), "sampling_rate": SAMPLE_RATE} for clip in clips]
        transcripts = [result["text"] for result in transcribe(inputs, batch_size=batch_size)]
        errors += [word_errors(words, text) for words, text in zip(transcripts, text_of_candidate[block])]
        log.info("transcribed %d of %d candidates", len(errors), len(text_of_candidate))
    return np.array(errors), np.array([len(words_of(text)) for text in texts])


def check_recognizer(asr: str) -> None:
    """Raises UserError if a folder or Hub id holds no model of transformers; loads no weights."""
    try:
        transformers.AutoConfig.from_pretrained(str(asr))
    except LOADING_ERRORS as error:
        raise _loading_error(asr, error) from None


def word_errors(transcript: str, text: str) -> int:
    """Returns the number of words to insert, delete or replace to get from a text, normalised by `text_key`, to a
    transcript."""
    transcript = text_key(transcript) if transcript.strip() else ""
    words = words_of(text)
    if text_of(words, like=text) == text and " ".join(words) != text:  # written without spaces
        transcript = " ".join(transcript.replace(" ", ""))
    return round(float(word_error_rate([transcript], [" ".join(words)])) * len(words))


def _open(asr: str, device: torch.device) -> Any:
    try:
        return transformers.pipeline("automatic-speech-recognition", model=str(asr), device=device, dtype=torch.float32)
    except LOADING_ERRORS as error:
        raise _loading_error(asr, error) from None


def _loading_error(asr: str, error: Exception) -> UserError:
    reason = " ".join(str(error).split())[:300]
    return UserError(
        f"rerank.asr={asr}: cannot be opened as a speech recognition model ({reason}). "
        "Set it to a folder or Hub id of one that transformers supports."
    )
