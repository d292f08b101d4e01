import numpy as np
import pytest
import torch

from clvp_train.errors import UserError
from clvp_train.tortoise.audio import load_audio, log_mel
from clvp_train.tortoise.vocoder import decode_mels, synthesize
from tests.unit.tortoise.conftest import NANO


@pytest.fixture(scope="module")
def tortoise(nano):
    return nano


@pytest.fixture(scope="module")
def codes(tortoise):
    clips = [load_audio(NANO / f"voices/{voice}/1.flac")[:60_000] for voice in ("slt", "awb")]
    return tortoise.speech_codes(clips)


def test_audio_has_the_mels_of_the_dvae(tortoise, codes):
    (samples,) = synthesize(tortoise, codes[:1])
    assert samples.shape == ((4 * len(codes[0]) - 1) * 256,) and samples.isfinite().all()
    actual = log_mel(samples, tortoise.feature_extractor.mel_norms)
    expected = tortoise.dvae.decode(torch.tensor(codes[:1]))[0]
    assert np.corrcoef(actual.flatten(), expected.detach().flatten())[0, 1] > 0.95


def test_encoded_audio_has_mostly_the_same_codes(tortoise, codes):
    again = tortoise.speech_codes(synthesize(tortoise, codes))
    shares = [np.mean([here == there for here, there in zip(*both)]) for both in zip(codes, again)]
    assert min(shares) > 0.2, "of 2048 codes; by chance 0.0005"


def test_batching_changes_nothing_audible_and_results_are_deterministic(tortoise, codes):
    several = [codes[0][:20], codes[1], codes[1][:20], codes[0][5:25]]
    together, again = synthesize(tortoise, several), synthesize(tortoise, several)
    assert all(torch.equal(*both) for both in zip(together, again))
    for row, samples in zip(several, together):
        (alone,) = synthesize(tortoise, [row])
        assert (log_mel(alone) - log_mel(samples)).abs().mean() < 0.03  # Griffin-Lim amplifies rounding errors
    for row, mel in zip(several, decode_mels(tortoise, several)):
        assert torch.allclose(mel, tortoise.dvae.decode(torch.tensor([row]))[0], atol=1e-4)


def test_without_a_dvae(monkeypatch, tortoise):
    monkeypatch.setattr(tortoise, "dvae", None)
    with pytest.raises(UserError, match="no DVAE"):
        synthesize(tortoise, [[1, 2, 3]])
