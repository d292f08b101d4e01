"""Judges of candidates that know neither CLVP nor the AR: transcripts of an ASR model, and recordings of the texts, which are
audio of a corpus or stored codes."""

import logging
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pyarrow as pa
from torchmetrics.functional.text import edit_distance, word_error_rate

from clvp_train.corpus import Corpus, Utterance, text_key
from clvp_train.errors import UserError
from clvp_train.evaluation.asr import Recognizer
from clvp_train.evaluation.evaluation_data import MEL_DISTANCE, WORD_ERRORS, Reranking
from clvp_train.evaluation.held_out import CandidateSets
from clvp_train.evaluation.text_perturbations import text_of, words_of
from clvp_train.evaluation.transcripts import transcripts
from clvp_train.metrics import Judge
from clvp_train.pairs import IMPORTED, read_manifest, read_recordings
from clvp_train.pairs.judges import Key, recording_distances
from clvp_train.pairs.sources import UNKNOWN, check_codes, load_recording
from clvp_train.tortoise import FrozenTortoise

Recordings = dict[Key, Utterance | list[int]]  # audio, or codes
log = logging.getLogger(__name__)


def add_judges(
    data: Reranking,
    folder: str,
    open_tortoise: Callable[[], FrozenTortoise],
    recognizer: Recognizer | None,
    recordings: Recordings,
    cache_dir: str,
) -> Reranking:
    """Adds the errors of the candidates of a folder by each judge, or the reasons why there are none.

    Args:
        data: with candidates.
        folder: the pairs that the candidates were read from.
        open_tortoise: called only if there is a judge.
        recognizer: transcribes the candidates; None: no transcripts.
        recordings: of the candidates' texts in their voices.
        cache_dir: stores the transcripts.

    Raises:
        UserError: the recognizer cannot be opened, or a recording cannot be read.
    """
    candidates = data.candidates
    assert candidates is not None
    own = judge_by_quality(candidates) if read_manifest(folder).source == IMPORTED else {}
    data = replace(data, judges=own)
    left_out = {} if recognizer else {WORD_ERRORS: "set rerank.asr to a speech recognition model"}
    if not recordings:
        left_out[MEL_DISTANCE] = (
            "no text has a recording in the voice of its candidates; set rerank.recordings to codes of recordings"
        )
    if recognizer or recordings:
        tortoise = open_tortoise()
        reason = _why_not_decodable(folder, tortoise)
        if reason:
            left_out = {WORD_ERRORS: reason, MEL_DISTANCE: reason} | left_out
        else:
            judges = {} if recognizer is None else judge_by_asr(candidates, tortoise, recognizer, cache_dir)
            judges |= judge_by_recordings(candidates, tortoise, recordings) if recordings else {}
            data = replace(data, judges=judges | own)
    return replace(data, left_out=data.left_out | left_out)


def judge_by_quality(candidates: CandidateSets) -> dict[str, Judge]:
    """Compares the qualities that were imported with the candidates. Texts whose candidates do not all have one are not
    judged."""
    assert candidates.pairs.qualities is not None
    return _of_complete_texts("negative_quality", candidates, -np.asarray(candidates.pairs.qualities))


def judge_by_asr(
    candidates: CandidateSets, tortoise: FrozenTortoise, recognizer: Recognizer, cache_dir: str
) -> dict[str, Judge]:
    """Compares the transcripts of all candidates with their texts, without case and punctuation; text written without spaces is
    compared letter by letter."""
    transcribed = transcripts(candidates.pairs.codes, tortoise, recognizer, cache_dir)
    texts = [text_key(candidates.pairs.texts[start]) for start in candidates.starts]
    counts = [
        (word_errors(transcript, text), letter_errors(transcript, text))
        for transcript, text in zip(transcribed, np.repeat(np.array(texts, dtype=object), candidates.sizes))
    ]
    words, letters = (candidates.by_text(errors) for errors in zip(*counts))
    return {
        "word_error_rate": Judge(words, np.array([len(words_of(text)) for text in texts])),
        "character_error_rate": Judge(letters, np.array([len(text) for text in texts])),
    }


def stored_recordings(path: str, candidates: CandidateSets) -> Recordings:
    """Returns the codes of recordings of the candidates' texts in their voices.

    Args:
        path: a Parquet file with columns `text`, `voice` and `speech_ids`, or a folder of pairs made with codes=dvae.

    Raises:
        UserError: it cannot be read, or lacks a column.
    """
    wanted, found = set(_keys(candidates)), Recordings()
    table = read_recordings(path, "rerank.recordings")
    for text, voice, codes in zip(*table.columns):
        key = (text_key(text.as_py() or ""), voice.as_py() or UNKNOWN)
        if key in wanted and len(codes):
            found.setdefault(key, codes.as_py())
    return found


def corpus_recordings(corpus: Corpus, candidates: CandidateSets) -> Recordings:
    """Returns the utterances of a corpus whose audio is of the candidates' texts in their voices; {} for a corpus of texts.

    Raises:
        UserError: the corpus is missing or malformed.
    """
    wanted = set(_keys(candidates))

    def key(utterance: Utterance) -> Key:
        return text_key(utterance.text), utterance.speaker or UNKNOWN

    numbers = {number for number, utterance in corpus.stream(audio=False) if key(utterance) in wanted}
    utterances = [utterance for _, utterance in corpus.stream(numbers.__contains__)] if numbers else []
    return {key(utterance): utterance for utterance in utterances if utterance.audio is not None}


def judge_by_recordings(
    candidates: CandidateSets, tortoise: FrozenTortoise, recordings: Recordings
) -> dict[str, Judge]:
    """Compares the features of candidates, decoded by the DVAE, with those of recordings under time warping. Texts whose
    candidates do not all have a recording are not judged. Audio that cannot be read is left out, with a warning.

    Raises:
        UserError: `tortoise` has no such codes.
    """
    codes = [ids.tolist() for ids in candidates.pairs.codes]
    distances = recording_distances(tortoise, codes, _keys(candidates), _recorded_codes(recordings, tortoise))
    return _of_complete_texts("mel_distance", candidates, distances)


def _of_complete_texts(name: str, candidates: CandidateSets, errors: np.ndarray) -> dict[str, Judge]:
    """The judge that gives these errors, without the texts of which a candidate has none; {} if no text remains.

    Args:
        errors: one for each candidate; NaN or infinite if it has none.
    """
    errors_NK, known_NK = candidates.by_text(errors), candidates.by_text(np.isfinite(errors))
    errors_NK[(known_NK == 0).any(axis=1)] = np.nan
    return {name: Judge(errors_NK, np.ones(len(errors_NK)))} if np.isfinite(errors_NK).any() else {}


def _keys(candidates: CandidateSets) -> list[Key]:
    """The text and voice of each candidate."""
    return [(text_key(text), voice) for text, voice in zip(candidates.pairs.texts, candidates.pairs.voices)]


def _recorded_codes(recordings: Recordings, tortoise: FrozenTortoise) -> dict[Key, list[int]]:
    codes: dict[Key, list[int]] = {}
    for key, recording in recordings.items():
        try:
            codes[key] = (
                tortoise.speech_codes([load_recording(recording)])[0] if isinstance(recording, Utterance) else recording
            )
        except UserError as error:
            log.warning("recording not used: %s", error)
            continue
        check_codes(f"rerank.recordings, {key[0][:40]!r}", pa.array(codes[key]), tortoise)
    return codes


def word_errors(transcript: str, text: str) -> int:
    """Returns the word edit distance of a transcript to a text that is normalised by `text_key`."""
    transcript, words = _normalised(transcript, text), words_of(text)
    if _is_unspaced(text):
        transcript = " ".join(transcript)
    return round(float(word_error_rate([transcript], [" ".join(words)])) * len(words))


def letter_errors(transcript: str, text: str) -> int:
    """Returns the character edit distance, spaces included."""
    return int(edit_distance(_normalised(transcript, text), text, reduction="sum"))


def _normalised(transcript: str, text: str) -> str:
    transcript = text_key(transcript) if transcript.strip() else ""
    return transcript.replace(" ", "") if _is_unspaced(text) else transcript


def _is_unspaced(text: str) -> bool:
    words = words_of(text)
    return text_of(words, like=text) == text and " ".join(words) != text


def _why_not_decodable(folder: str, tortoise: FrozenTortoise) -> str:
    if tortoise.dvae is None:
        return f"tortoise={tortoise.source} has no DVAE to decode the candidates"
    manifest = read_manifest(folder)
    if not manifest.tortoise:
        return "the candidates are codes of another codec than Tortoise's"
    is_same = manifest.codebook == tortoise.dvae.codebook.digest()
    if not is_same and manifest.settings.get("tortoise") != tortoise.fingerprint():
        return f"the candidates were drawn by another Tortoise than tortoise={tortoise.source}"
    return ""
