"""The AR of tortoise-tts 3.0.0 against ours: mel features, conditioning latents, logits of given codes and silence padding."""

import ast
from pathlib import Path

import pytest
import torch

from clvp_train.tortoise import FrozenTortoise
from clvp_train.tortoise.audio import fit_length, load_audio, log_mel
from clvp_train.tortoise.silence_padding import pad_with_silence

pytestmark = pytest.mark.tortoise
NANO = Path(__file__).parents[2] / "data" / "nano"
START, STOP = 96, 97


@pytest.fixture(scope="module")
def clips():
    return [load_audio(NANO / "voices" / voice / "1.flac") for voice in ("rms", "awb", "slt")]


@pytest.fixture(scope="module")
def ours(tiny_folder) -> FrozenTortoise:
    return FrozenTortoise.from_original(tiny_folder, heads=2, positions="trained")


@torch.no_grad()
def test_conditioning_latents(tiny_ar, ours, clips):
    mels = torch.stack([log_mel(fit_length(clip), ours.feature_extractor.mel_norms) for clip in clips])
    expected = tiny_ar.get_conditioning(mels[None])
    torch.testing.assert_close(ours.conditioning_latent(clips), expected[0], rtol=0, atol=1e-4)
    assert expected.std() > 0.5


@torch.no_grad()
@pytest.mark.parametrize(("text_length", "num_codes"), [(1, 1), (7, 30), (57, 99)])
def test_logits_of_given_codes_with_trained_positions(tiny_ar, ours, text_length, num_codes):
    draw = torch.Generator().manual_seed(num_codes)
    latents = torch.randn(2, 64, generator=draw)
    texts = torch.randint(1, 255, (2, text_length), generator=draw)
    codes = torch.randint(0, START, (2, num_codes), generator=draw)
    # `tts` appends one stop token to the text, and `forward` another
    padded = torch.nn.functional.pad(texts, (0, 1))
    lengths = torch.tensor([text_length + 1] * 2), torch.tensor([num_codes * 1024] * 2)
    expected = tiny_ar(latents, padded, lengths[0], codes.clone(), lengths[1])[2].transpose(1, 2)
    logits = ours.autoregressive(latents, texts.tolist(), codes)
    torch.testing.assert_close(logits, expected[:, : num_codes + 1], rtol=0, atol=2e-4)
    assert logits.std() > 0.5


def test_mel_features(tortoise_source, clips):
    from tortoise.models.arch_util import TorchMelSpectrogram

    norms = torch.load(tortoise_source / "tortoise" / "data" / "mel_norms.pth", weights_only=True)
    theirs = TorchMelSpectrogram(mel_norm_file=str(tortoise_source / "tortoise" / "data" / "mel_norms.pth"))
    for clip in clips:
        torch.testing.assert_close(log_mel(clip, norms), theirs(clip[None])[0], rtol=0, atol=1e-6)


def test_silence_padding(tortoise_source):
    # importing api.py would import all of tortoise-tts
    tree = ast.parse((tortoise_source / "tortoise" / "api.py").read_text())
    (rule,) = (node for node in tree.body if getattr(node, "name", "") == "fix_autoregressive_output")
    scope: dict = {}
    exec(compile(ast.Module([rule], []), "api.py", "exec"), scope)
    draw = torch.Generator().manual_seed(0)
    for length in (3, 4, 5, 9, 60):
        codes = torch.randint(0, START, (100, length), generator=draw)
        codes[torch.rand(100, length, generator=draw) < 0.1] = STOP
        expected = [scope["fix_autoregressive_output"](row.clone(), STOP, complain=False) for row in codes]
        assert torch.equal(pad_with_silence(codes, STOP), torch.stack(expected))
