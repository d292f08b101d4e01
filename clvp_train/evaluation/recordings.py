"""Recordings of the texts that have candidates: audio of a corpus, or stored codes. Shapes: M mel channels, F mel frames,
S codes."""

import logging
from collections.abc import Iterator

import numpy as np
import torch

from clvp_train.corpus import Corpus, Utterance, text_key
from clvp_train.errors import UserError
from clvp_train.evaluation.held_out import CandidateSets
from clvp_train.pairs import read_recordings
from clvp_train.pairs.sources import UNKNOWN, clip_name
from clvp_train.tortoise import FrozenTortoise
from clvp_train.tortoise.audio import load_audio
from clvp_train.tortoise.vocoder import decode_mels

Key = tuple[str, str]  # `text_key` of a text, and the voice
Recordings = dict[Key, Utterance | np.ndarray]  # audio, or codes
log = logging.getLogger(__name__)


def keys(candidates: CandidateSets) -> list[Key]:
    """The text and voice of each candidate."""
    return [(text_key(text), voice) for text, voice in zip(candidates.pairs.texts, candidates.pairs.voices)]


def stored_recordings(path: str, candidates: CandidateSets) -> Recordings:
    """Returns the codes of recordings of the candidates' texts in their voices.

    Args:
        path: a Parquet file with columns `text`, `voice` and `speech_ids`, or a folder of pairs made with codes=dvae.

    Raises:
        UserError: it cannot be read, or lacks a column.
    """
    wanted, found = set(keys(candidates)), Recordings()
    table = read_recordings(path, "rerank.recordings")
    for text, voice, codes in zip(*table.columns):
        key = (text_key(text.as_py() or ""), voice.as_py() or UNKNOWN)
        if key in wanted and len(codes):
            found.setdefault(key, codes.values.to_numpy())
    return found


def corpus_recordings(corpus: Corpus, candidates: CandidateSets) -> Recordings:
    """Returns the utterances of a corpus whose audio is of the candidates' texts in their voices; {} for a corpus of texts.

    Raises:
        UserError: the corpus is missing or malformed.
    """
    wanted = set(keys(candidates))

    def key(utterance: Utterance) -> Key:
        return text_key(utterance.text), utterance.speaker or UNKNOWN

    numbers = {number for number, utterance in corpus.stream(audio=False) if key(utterance) in wanted}
    utterances = [utterance for _, utterance in corpus.stream(numbers.__contains__)] if numbers else []
    return {key(utterance): utterance for utterance in utterances if utterance.audio is not None}


def recorded_mels(recordings: Recordings, tortoise: FrozenTortoise) -> Iterator[tuple[Key, torch.Tensor]]:
    """Yields the (M, F) features of each recording, decoded from its codes like those of a candidate, so that what the DVAE
    loses does not count. Audio that cannot be read is left out, with a warning.

    Raises:
        UserError: `tortoise` has no such codes.
    """
    for key, recording in recordings.items():
        try:
            codes_S = _encode(recording, tortoise) if isinstance(recording, Utterance) else recording.tolist()
        except UserError as error:
            log.warning("recording not used: %s", error)
            continue
        if not 0 <= min(codes_S) <= max(codes_S) < tortoise.num_speech_tokens:
            raise UserError(
                f"rerank.recordings: the recording of {key[0][:40]!r} has codes from {min(codes_S)} to {max(codes_S)}, but "
                f"{tortoise.source} knows 0 to {tortoise.num_speech_tokens - 1}. Use codes that its own DVAE has made."
            )
        yield key, decode_mels(tortoise, [codes_S])[0]


def _encode(utterance: Utterance, tortoise: FrozenTortoise) -> list[int]:
    return tortoise.speech_codes([load_audio(utterance.audio or b"", clip_name(utterance))])[0]
