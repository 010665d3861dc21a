"""Waveforms of audio files, and files that are refused."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from study.data.corpora import CorpusError, read_audio
from study.data.corpora.audio import inspect_clip
from tests.study.data.corpora.builders import write_wav


def noise(seconds: float, rate: int = 16_000, level: float = 0.1, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, level, round(seconds * rate))


def test_channels_are_averaged_and_resampled_to_16_khz(tmp_path):
    path = tmp_path / "a.wav"
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(8_000) / 8_000)
    soundfile.write(path, np.stack([tone, np.zeros(8_000)], axis=1), 8_000)
    waveform = read_audio(str(path))
    assert waveform.dtype == np.float32
    assert waveform.shape == (16_000,)
    # half of an amplitude of 0.5: RMS 0.25 / sqrt(2); the tone is at 440 Hz of a one-second spectrum
    assert np.sqrt(np.mean(waveform**2)) == pytest.approx(0.25 / np.sqrt(2), rel=0.01)
    assert np.abs(np.fft.rfft(waveform)).argmax() == 440


def test_mono_clip_at_16_khz_is_unchanged(tmp_path):
    path = tmp_path / "a.flac"
    soundfile.write(path, np.array([0, 16384, -16384], dtype=np.int16), 16_000)
    assert read_audio(str(path)).tolist() == [0.0, 0.5, -0.5]


@pytest.mark.parametrize("loudness", ["as_recorded", "rms"])
def test_loudness_is_kept_or_normalised(tmp_path, loudness):
    def level(gain):
        path = tmp_path / f"{gain}.wav"
        soundfile.write(path, noise(1, level=gain), 16_000, subtype="FLOAT")
        waveform = read_audio(str(path), loudness)
        assert waveform.dtype == np.float32
        return 20 * np.log10(np.sqrt(np.mean(waveform**2)))

    # 30 dB apart: RMS 0.1 is -20 dB of full scale, 0.1 / 31.62 is -50
    expected = (-20.0, -50.0) if loudness == "as_recorded" else (-26.0, -26.0)
    assert (level(0.1), level(0.1 / 10**1.5)) == pytest.approx(expected, abs=0.1)


FORMATS = [
    ("a.wav", 44_100, {}),
    ("a.flac", 22_050, {}),
    ("a.mp3", 44_100, {}),
    ("a.opus", 48_000, {"format": "OGG", "subtype": "OPUS"}),
    ("a.ogg", 8_000, {}),
    ("a.aiff", 32_000, {}),
]


@pytest.mark.parametrize(("name", "rate", "options"), FORMATS)
def test_formats_are_read_and_truncation_is_detected(tmp_path, name, rate, options):
    path = tmp_path / name
    soundfile.write(path, np.stack([noise(2, rate)] * 2, axis=1), rate, **options)
    clip = inspect_clip(str(path))
    assert clip.sample_rate == rate
    assert clip.seconds == pytest.approx(2, abs=0.05)
    assert len(read_audio(str(path))) == pytest.approx(32_000, abs=800)
    content = path.read_bytes()
    for share in (0.5, 0.9, 0.99):
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(CorpusError, match=rf"{name}: (truncated|unreadable|contains no samples)"):
            inspect_clip(str(path))


def test_wav_of_unknown_length_is_read(tmp_path):
    path = tmp_path / "piped.wav"
    write_wav(path, 16_000)
    content = path.read_bytes()
    length = content.index(b"data") + 4
    path.write_bytes(content[:4] + b"\xff" * 4 + content[8:length] + b"\xff" * 4 + content[length + 4 :])
    assert inspect_clip(str(path)).samples == 16_000


def test_flac_of_unknown_length_is_refused(tmp_path):
    path = tmp_path / "piped.flac"
    soundfile.write(path, noise(1), 16_000)
    data = bytearray(path.read_bytes())
    data[21] &= 0xF0  # STREAMINFO's total samples: the low half of this byte and the four that follow
    data[22:26] = bytes(4)
    path.write_bytes(data)
    with pytest.raises(CorpusError, match=r"piped\.flac: .*does not declare a length"):
        inspect_clip(str(path))


def test_unusable_clips_are_refused_with_a_reason(tmp_path):
    (tmp_path / "text.wav").write_text("not audio")
    (tmp_path / "nothing.wav").write_bytes(b"")
    soundfile.write(tmp_path / "empty.wav", np.zeros(0, dtype=np.int16), 16_000)
    soundfile.write(tmp_path / "silent.wav", np.zeros(16_000), 16_000)
    soundfile.write(tmp_path / "phase.wav", np.stack([noise(1), -noise(1)], axis=1), 16_000)
    soundfile.write(tmp_path / "short.wav", noise(0.02), 16_000)
    soundfile.write(tmp_path / "nan.wav", np.array([*noise(1), np.nan]), 16_000, subtype="FLOAT")
    soundfile.write(tmp_path / "offset.wav", np.full(16_000, 0.5), 16_000)
    soundfile.write(tmp_path / "huge.wav", 1e30 * noise(1), 16_000, subtype="FLOAT")
    soundfile.write(tmp_path / "slow.wav", noise(1, 16_000), 1)
    (tmp_path / "bare.raw").write_bytes(bytes(1000))
    for name, reason in (
        ("offset.wav", "silent"),
        ("huge.wav", r"contains samples of \de\+\d+ times full scale"),
        ("slow.wav", "sample rate 1 Hz, below the minimum"),
        ("bare.raw", "unreadable"),
        ("none.wav", "no such file"),
        ("text.wav", "unreadable"),
        ("nothing.wav", "empty file"),
        ("empty.wav", "contains no samples"),
        ("silent.wav", "silent"),
        ("phase.wav", "its channels cancel each other out"),
        ("short.wav", "0.020 s long, below the minimum of 0.1 s"),
        ("nan.wav", "contains samples that are not finite numbers"),
    ):
        with pytest.raises(CorpusError, match=f"{name}: {reason}"):
            inspect_clip(str(tmp_path / name))


def test_same_sound_in_another_file_has_the_same_digest(tmp_path):
    for name, seed in (("a.wav", 0), ("b.flac", 0), ("c.flac", 1)):
        soundfile.write(tmp_path / name, (32_767 * noise(1, seed=seed)).astype(np.int16), 16_000)
    a, b, c = (inspect_clip(str(tmp_path / name)).digest for name in ("a.wav", "b.flac", "c.flac"))
    assert a == b != c
