import numpy as np
import pytest
import torch

from clvp_train.errors import UserError
from clvp_train.tortoise import FrozenTortoise
from clvp_train.tortoise.audio import load_audio, log_mel
from clvp_train.tortoise.vocoder import synthesize
from tests.unit.tortoise.conftest import NANO


@pytest.fixture(scope="module")
def tortoise():
    return FrozenTortoise.from_pretrained(NANO / "tortoise")


@pytest.fixture(scope="module")
def codes(tortoise):
    clips = [load_audio(NANO / f"voices/{voice}/1.flac")[:60_000] for voice in ("slt", "awb")]
    return tortoise.speech_codes(clips)


def test_what_is_spoken_has_the_mels_that_the_dvae_decodes(tortoise, codes):
    (samples,) = synthesize(tortoise, codes[:1])
    assert samples.shape == ((4 * len(codes[0]) - 1) * 256,) and samples.isfinite().all()
    heard = log_mel(samples, tortoise.feature_extractor.mel_norms)
    meant = tortoise.dvae.decode(torch.tensor(codes[:1]))[0]
    assert np.corrcoef(heard.flatten(), meant.detach().flatten())[0, 1] > 0.95


def test_its_codes_are_mostly_those_that_were_spoken(tortoise, codes):
    again = tortoise.speech_codes(synthesize(tortoise, codes))
    shares = [np.mean([here == there for here, there in zip(*both)]) for both in zip(codes, again)]
    assert min(shares) > 0.2, "of 512 codes; by chance 0.002"


def test_each_sounds_as_if_spoken_alone_and_always_the_same(tortoise, codes):
    several = [codes[0][:20], codes[1], codes[1][:20], codes[0][5:25]]
    together, again = synthesize(tortoise, several), synthesize(tortoise, several)
    assert all(torch.equal(*both) for both in zip(together, again))
    for one, samples in zip(several, together):
        alone = synthesize(tortoise, [one])[
            0
        ]  # Griffin-Lim makes rounding errors audible to a computer, but not to an ear
        assert (log_mel(alone) - log_mel(samples)).abs().mean() < 0.03


def test_without_a_dvae_nothing_is_audible(tortoise):
    mute = FrozenTortoise.from_pretrained(NANO / "tortoise")
    mute.dvae = None
    with pytest.raises(UserError, match="no DVAE"):
        synthesize(mute, [[1, 2, 3]])
