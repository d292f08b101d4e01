from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from clvp_train.corpus import Folder, Texts
from clvp_train.errors import UserError
from clvp_train.evaluation import corpus_recordings, stored_recordings
from clvp_train.evaluation.held_out import CandidateSets
from clvp_train.evaluation.judges import judge_by_recordings
from clvp_train.metrics import mel_distances
from clvp_train.tortoise.audio import SAMPLE_RATE
from clvp_train.tortoise.vocoder import decode_mels, synthesize


@pytest.fixture
def spoken(candidate_sets) -> CandidateSets:
    """Candidates in one voice, the candidate with the codes of its text first."""
    return CandidateSets(replace(candidate_sets.pairs, voices=["v0"] * len(candidate_sets.pairs)), candidate_sets.sizes)


def store(folder, sets, texts, shift=0, voice="v0"):
    """The codes of the first candidates of some texts as recordings."""
    rows = [sets.starts[text] for text in texts]
    columns = {"text": [sets.pairs.texts[row].upper() + "!" for row in rows], "voice": [voice] * len(rows)}
    codes = pa.array([(sets.pairs.codes[row] + shift).tolist() for row in rows], pa.list_(pa.int32()))
    pq.write_table(pa.table(columns | {"speech_ids": codes}), folder / "recordings.parquet")
    return str(folder / "recordings.parquet")


def test_candidates_are_compared_with_stored_recordings(spoken, tortoise, tmp_path):
    recordings = stored_recordings(store(tmp_path, spoken, [0, 2, 7]), spoken)
    errors_NK = judge_by_recordings(spoken, tortoise, recordings)["mel_distance"].errors_NK
    assert np.flatnonzero(np.isfinite(errors_NK).any(axis=1)).tolist() == [0, 2, 7]
    mels = decode_mels(tortoise, [codes.tolist() for codes in spoken.pairs.codes])
    for text in (0, 2, 7):
        rows = range(spoken.starts[text], spoken.starts[text] + spoken.sizes[text])
        expected = mel_distances([mels[row] for row in rows], [mels[rows[0]]] * len(rows))
        assert errors_NK[text, : len(rows)] == pytest.approx(expected, abs=1e-4) and errors_NK[text, 0] < 1e-3


@pytest.mark.parametrize(("voice", "expected"), [("v0", 5), ("v1", 0)])
def test_a_text_is_judged_if_all_of_its_candidates_have_a_recording(spoken, tortoise, tmp_path, voice, expected):
    voices = ["v0"] * len(spoken.pairs)
    voices[spoken.starts[3]] = "v1"  # one candidate of text 3
    mixed = CandidateSets(replace(spoken.pairs, voices=voices), spoken.sizes)
    judges = judge_by_recordings(
        mixed, tortoise, stored_recordings(store(tmp_path, mixed, range(6), voice=voice), mixed)
    )
    assert expected == (np.isfinite(judges["mel_distance"].errors_NK[:, 0]).sum() if judges else 0)


def test_the_audio_of_a_corpus_is_a_recording(spoken, tortoise, tmp_path):
    sets = CandidateSets(replace(spoken.pairs, voices=["unknown"] * len(spoken.pairs)), spoken.sizes)
    for text in (1, 4, 5):
        row = sets.starts[text]
        (samples,) = synthesize(tortoise, [sets.pairs.codes[row].tolist()])
        soundfile.write(tmp_path / f"{text}.wav", samples, SAMPLE_RATE)
        (tmp_path / f"{text}.txt").write_text(sets.pairs.texts[row].upper())
    (tmp_path / "5.wav").write_bytes(b"broken")
    recordings = corpus_recordings(Folder(str(tmp_path)), sets)
    assert len(recordings) == 3 and corpus_recordings(Texts(list(sets.pairs.texts[:1]), "texts"), sets) == {}
    errors_NK = judge_by_recordings(sets, tortoise, recordings)["mel_distance"].errors_NK
    assert np.flatnonzero(np.isfinite(errors_NK[:, 0])).tolist() == [1, 4]
    assert (np.nanargmin(errors_NK[[1, 4]], axis=1) == 0).all()


def test_bad_recordings_are_reported(spoken, tortoise, tmp_path):
    unknown = stored_recordings(store(tmp_path, spoken, [0], shift=10_000), spoken)
    with pytest.raises(UserError, match=r"rerank.recordings, .* codes range from 100\d\d to .* from 0 to 2047"):
        judge_by_recordings(spoken, tortoise, unknown)
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "bad.parquet")
    for name in ("bad.parquet", "nowhere.parquet"):
        with pytest.raises(UserError, match=f"{name}: cannot be read .*columns text, voice, speech_ids"):
            stored_recordings(str(tmp_path / name), spoken)
