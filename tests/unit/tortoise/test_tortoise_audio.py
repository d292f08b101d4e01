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
    left, right = np.random.default_rng(0).integers(-64, 64, (2, 2000)) / 128
    soundfile.write(tmp_path / "clip.wav", np.stack([left, right], axis=1), 22_050, subtype="FLOAT")
    np.testing.assert_array_equal(load_audio(tmp_path / "clip.wav"), ((left + right) / 2).astype(np.float32))


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


def sound(samples, rate: int = 22_050, format: str = "WAV", subtype: str | None = "FLOAT") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=format, subtype=subtype)
    return file.getvalue()


def with_one(value: float) -> np.ndarray:
    samples = tone(22_050)
    samples[7000] = value
    return samples


NOISE = np.random.default_rng(0).uniform(-0.3, 0.3, 22_050)


@pytest.mark.parametrize(
    ("clip", "reason"),
    [
        (sound(np.zeros(9000)), "silent"),
        (sound(np.full(9000, 0.02)), "silent"),  # a constant offset
        (sound(np.arange(9000) % 2 / 2**15, subtype="PCM_16"), "silent"),  # the last bit toggles
        (sound(np.zeros((9000, 2)), format="FLAC", subtype=None), "silent"),
        (sound(with_one(np.nan)), "NaN or infinite"),
        (sound(with_one(np.inf)), "NaN or infinite"),
        (sound(with_one(-np.inf), subtype="DOUBLE"), "NaN or infinite"),
        (sound(tone(22_050) * 2**15), "has samples up to 163"),
        (sound(tone(22_050) * 2**23), "full scale is 1"),
        (sound(tone(22_050) * 255), "full scale is 1"),
        (sound(tone(22_050), rate=1), "sample rate of 1 Hz"),
        (sound(tone(22_050), rate=2_205), "sample rate of 2205 Hz"),
        (sound(tone(22_050), rate=2_205_000), "sample rate of 2205000 Hz"),
        *(
            (whole[: int(len(whole) * 0.75)], r"cut short \(0.[67]\d s instead of 1.00 s\)")
            for whole in (
                sound(NOISE, subtype="PCM_16"),
                sound(NOISE, subtype="ULAW"),
                sound(NOISE, format="AIFF", subtype="PCM_16"),
                sound(NOISE, format="AU", subtype="PCM_24"),
                sound(NOISE, format="W64"),
                sound(NOISE, format="MP3", subtype=None),
            )
        ),
    ],
)
def test_what_is_no_recording_is_refused_with_the_reason(clip, reason):
    with pytest.raises(UserError, match=reason):
        load_audio(clip, "of utterance 7")


def test_harmless_headers_and_levels_are_read():
    whole = sound(NOISE, subtype="PCM_16")
    unknown_size = whole[:4] + b"\xff" * 4 + whole[8:40] + b"\xff" * 4 + whole[44:]  # as ffmpeg writes to a pipe
    size_of_file = whole[:40] + len(whole).to_bytes(4, "little") + whole[44:]
    for clip in (unknown_size, size_of_file, whole[:-50], whole + b"LIST\x10\0\0\0"):
        assert len(load_audio(clip)) >= 22_000
    assert load_audio(sound(NOISE * 5)).abs().max() == 1.0, "clipped, as before"
    assert load_audio(sound(tone(22_050) * 0.004, subtype="PCM_16")).abs().max() > 0.0019, "quiet, not silent"


@pytest.mark.parametrize(
    ("gains", "expected", "warning"),
    [
        ((1, 0), 1, "silent channels left out (2)"),
        ((0, 1), 1, "silent channels left out (1)"),
        ((0, 0, 1, 0, 0, 0), 1, "silent channels left out (1, 2, 4, 5, 6)"),  # 5.1 with speech in the centre
        ((1, -1), 1, "antiphase"),
        ((0.9, -1), -1, "antiphase"),
        ((0, 1, -1), 1, "antiphase"),
        ((1, 0.1), 0.55, ""),  # crosstalk
        ((1, -0.1), 0.45, ""),
    ],
)
def test_channels_that_carry_nothing_or_cancel_are_left_out(gains, expected, warning):
    warnings = list[str]()
    samples = load_audio(sound(np.outer(NOISE, gains)), "a.wav", warnings.append)
    np.testing.assert_allclose(samples, NOISE * expected, atol=1e-6)
    assert bool(warnings) == bool(warning) and warning in "".join(warnings)


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
    soundfile.write(tmp_path / "clip.wav", tone(8000, 0.03), 8000)
    assert torch.isfinite(log_mel(load_audio(tmp_path / "clip.wav"))).all()


def test_reference_clips_are_cut_or_padded_at_their_end():
    clip = torch.arange(1.0, 6.0)
    assert fit_length(clip, 3).tolist() == [1, 2, 3]
    assert fit_length(clip, 7).tolist() == [1, 2, 3, 4, 5, 0, 0]
    assert fit_length(clip).shape == (132_300,)
