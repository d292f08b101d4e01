import io
import math

import numpy as np
import pytest
import soundfile
import torch

from clvp_train.errors import UserError
from clvp_train.tortoise.audio import fit_length, load_audio, log_mel


def tone(rate: int, seconds: float = 0.5, pitch: float = 440.0) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * pitch * np.arange(int(rate * seconds)) / rate)


@pytest.mark.parametrize("rate", [16_000, 22_050, 44_100])
@pytest.mark.parametrize(("suffix", "tolerance"), [("wav", 1e-3), ("flac", 1e-3), ("ogg", 0.03), ("mp3", 0.03)])
def test_every_format_and_rate_gives_the_same_tone(tmp_path, suffix, tolerance, rate):
    soundfile.write(tmp_path / f"clip.{suffix}", tone(rate), rate)
    samples = load_audio(tmp_path / f"clip.{suffix}")
    expected = tone(22_050)
    assert samples.dtype == torch.float32 and samples.shape == expected.shape
    middle = slice(2000, -2000)  # resampling and codecs ring at the edges
    np.testing.assert_allclose(samples[middle], expected[middle], atol=tolerance)


def test_samples_at_22050_hz_are_read_as_they_are(tmp_path):
    written = np.random.default_rng(0).uniform(-1, 1, 2000).astype(np.float32)
    soundfile.write(tmp_path / "clip.wav", written, 22_050, subtype="FLOAT")
    np.testing.assert_array_equal(load_audio(tmp_path / "clip.wav"), written)


def test_channels_are_averaged(tmp_path):
    left, right = np.full(2000, 0.5), np.full(2000, -0.25)
    soundfile.write(tmp_path / "clip.wav", np.stack([left, right], axis=1), 22_050, subtype="FLOAT")
    np.testing.assert_array_equal(load_audio(tmp_path / "clip.wav"), np.full(2000, 0.125, np.float32))


def test_no_sample_leaves_the_range_whatever_resampling_does(tmp_path):
    square = np.sign(tone(44_100))
    soundfile.write(tmp_path / "clip.wav", square, 44_100, subtype="FLOAT")
    assert load_audio(tmp_path / "clip.wav").abs().max() == 1.0


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_bytes_and_strings_give_what_the_path_gives(tmp_path, suffix):
    path = tmp_path / f"clip.{suffix}"
    soundfile.write(path, tone(16_000), 16_000)
    torch.testing.assert_close(load_audio(path.read_bytes()), load_audio(path), rtol=0, atol=0)
    torch.testing.assert_close(load_audio(str(path)), load_audio(path), rtol=0, atol=0)


def write_bad(path, kind: str) -> None:
    if kind == "text":
        path.write_text("no audio")
    elif kind == "no bytes":
        path.write_bytes(b"")
    elif kind == "folder":
        path.mkdir()
    elif kind == "no samples":
        soundfile.write(path, np.zeros(0), 22_050, format="WAV")
    elif kind == "one click":
        soundfile.write(path, np.zeros(500), 22_050, format="WAV")
    elif kind == "truncated flac":
        complete = io.BytesIO()
        soundfile.write(complete, np.random.default_rng(0).uniform(-0.1, 0.1, 9000), 22_050, format="FLAC")
        path.write_bytes(complete.getvalue()[: complete.tell() // 2])


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("absent", "not found"),
        ("text", "cannot be read"),
        ("no bytes", "cannot be read"),
        ("folder", "cannot be read"),
        ("truncated flac", "cannot be read"),
        ("no samples", "too short"),
        ("one click", "too short"),
    ],
)
@pytest.mark.parametrize("suffix", ["wav", "raw"])
def test_errors_name_the_file_and_the_problem(tmp_path, kind, reason, suffix):
    path = tmp_path / f"clip.{suffix}"
    write_bad(path, kind)
    with pytest.raises(UserError) as raised:
        load_audio(path)
    message = str(raised.value)
    assert str(path) in message and reason in message and "\n" not in message


def test_errors_use_the_given_name_for_bytes():
    with pytest.raises(UserError, match="audio file of utterance 7: cannot be read") as raised:
        load_audio(b"no audio", "of utterance 7")
    assert "BytesIO" not in str(raised.value)


def naive_log_mel(samples: np.ndarray) -> np.ndarray:
    """Frame by frame in float64: Hann window, DFT, triangles on the HTK mel scale of equal area."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(1024) / 1024)
    padded = np.pad(samples.astype(np.float64), 512, mode="reflect")
    frames = np.stack([padded[start : start + 1024] * window for start in range(0, len(samples) + 1, 256)])
    power = np.abs(np.fft.rfft(frames)) ** 2
    mel_of = lambda hertz: 2595 * math.log10(1 + hertz / 700)  # noqa: E731
    corners = 700 * (10 ** (np.linspace(mel_of(0), mel_of(8000), 82) / 2595) - 1)
    bins = np.arange(513) * 22_050 / 1024
    filters = np.zeros((80, 513))
    for channel, (low, centre, high) in enumerate(zip(corners, corners[1:], corners[2:])):
        triangle = np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)).clip(min=0)
        filters[channel] = triangle * 2 / (high - low)
    return np.log((filters @ power.T).clip(min=1e-5))


@pytest.mark.parametrize("length", [662, 5000, 5120])
def test_log_mel_equals_the_naive_computation(length):
    samples = np.random.default_rng(0).normal(0, 0.1, length).astype(np.float32)
    samples[: length // 2] *= 1e-3  # partly below the clamp
    ours = log_mel(torch.from_numpy(samples))
    expected = naive_log_mel(samples)
    assert ours.shape == expected.shape == (80, length // 256 + 1)
    assert (ours == np.log(np.float32(1e-5))).any() == (length > 1000)
    # float32 against float64: measured 2e-5 at most (6e-5 on speech), 1e-6 on average
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-4)
    assert np.abs(ours.numpy() - expected).mean() < 1e-5


def test_log_mel_takes_batches_and_divides_by_the_norms():
    samples = torch.randn(3, 4000, generator=torch.Generator().manual_seed(0)) * 0.1
    norms = [1.0 + channel / 10 for channel in range(80)]
    batch = log_mel(samples, norms)
    for row, clip in zip(batch, samples):
        torch.testing.assert_close(row, log_mel(clip) / torch.tensor(norms)[:, None])


def test_the_shortest_clip_that_is_read_has_features(tmp_path):
    soundfile.write(tmp_path / "clip.wav", np.zeros(240), 8000)
    assert torch.isfinite(log_mel(load_audio(tmp_path / "clip.wav"))).all()


def test_reference_clips_are_cut_or_padded_at_their_end():
    clip = torch.arange(1.0, 6.0)
    assert fit_length(clip, 3).tolist() == [1, 2, 3]
    assert fit_length(clip, 7).tolist() == [1, 2, 3, 4, 5, 0, 0]
    assert fit_length(clip).shape == (132_300,)
