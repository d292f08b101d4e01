"""What an ASR model understands of candidates."""

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

AT_ONCE = 64
BAD_MODEL = (OSError, ValueError, KeyError, ImportError, TypeError)
log = logging.getLogger(__name__)


def count_word_errors(
    candidates: CandidateSets, tortoise: FrozenTortoise, asr: str, batch_size: int = 16
) -> tuple[np.ndarray, np.ndarray]:
    """Makes every candidate audible, see `vocoder.synthesize`, lets an ASR model write it down, and compares with the text. Case and
    punctuation do not count; what is written without spaces is compared letter by letter.

    Args:
        candidates: whose codes are those of `tortoise`.
        tortoise: with a DVAE.
        asr: a transformers model for speech recognition, a folder or Hub id.
        batch_size: clips that it hears at once.

    Returns:
        Word errors of each candidate, and words of each text.

    Raises:
        UserError: no such ASR model, or no DVAE.
    """
    hear = _open(asr, tortoise.device)
    texts = [text_key(candidates.pairs.texts[start]) for start in candidates.starts]
    of_candidates = np.repeat(np.array(texts, dtype=object), candidates.sizes)
    errors: list[float] = []
    for start in range(0, len(of_candidates), AT_ONCE):
        clips = synthesize(tortoise, candidates.pairs.codes[start : start + AT_ONCE])  # type: ignore[arg-type]
        inputs = [{"raw": clip.numpy(), "sampling_rate": SAMPLE_RATE} for clip in clips]
        heard = [found["text"] for found in hear(inputs, batch_size=batch_size)]
        errors += [num_errors(words, text) for words, text in zip(heard, of_candidates[start : start + AT_ONCE])]
        log.info("heard %d of %d candidates", len(errors), len(of_candidates))
    return np.array(errors), np.array([len(words_of(text)) for text in texts])


def check_recogniser(asr: str) -> None:
    """Raises UserError if there is no model of transformers in a folder or at a Hub id; loads no weights."""
    try:
        transformers.AutoConfig.from_pretrained(str(asr))
    except BAD_MODEL as error:
        raise _refused(asr, error) from None


def _open(asr: str, device: torch.device) -> Any:
    try:
        return transformers.pipeline("automatic-speech-recognition", model=str(asr), device=device, dtype=torch.float32)
    except BAD_MODEL as error:
        raise _refused(asr, error) from None


def _refused(asr: str, error: Exception) -> UserError:
    reason = " ".join(str(error).split())[:300]
    return UserError(
        f"rerank.asr={asr} cannot be opened as a speech recogniser ({reason}): give a folder or Hub id of one "
        "that transformers knows"
    )


def num_errors(heard: str, text: str) -> int:
    """Words to put in, leave out or replace to come from a text, as `text_key` gives it, to what was heard."""
    heard = text_key(heard) if heard.strip() else ""
    words = words_of(text)
    if text_of(words, like=text) == text and " ".join(words) != text:  # written without spaces
        heard = " ".join(heard.replace(" ", ""))
    return round(float(word_error_rate([heard], [" ".join(words)])) * len(words))
