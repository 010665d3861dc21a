from __future__ import annotations

import numpy as np
import pytest
import soundfile

from study.corpora import CorpusError, read_audio
from study.corpora.audio import clip_size, inspect_clip


def test_channels_are_averaged_and_the_rate_becomes_16_khz(tmp_path):
    path = tmp_path / "a.wav"
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(8_000) / 8_000)
    soundfile.write(path, np.stack([tone, np.zeros(8_000)], axis=1), 8_000)
    waveform = read_audio(str(path))
    assert waveform.dtype == np.float32
    assert waveform.shape == (16_000,)
    # half of an amplitude of 0.5: RMS 0.25 / sqrt(2); the tone is at 440 Hz of a one-second spectrum
    assert np.sqrt(np.mean(waveform**2)) == pytest.approx(0.25 / np.sqrt(2), rel=0.01)
    assert np.abs(np.fft.rfft(waveform)).argmax() == 440


def test_a_clip_at_16_khz_is_returned_as_it_is(tmp_path):
    path = tmp_path / "a.flac"
    soundfile.write(path, np.array([0, 16384, -16384], dtype=np.int16), 16_000)
    assert read_audio(str(path)).tolist() == [0.0, 0.5, -0.5]
    assert clip_size(str(path)) == (3, 16_000)


def test_faults_are_named(tmp_path):
    (tmp_path / "text.wav").write_text("not audio")
    soundfile.write(tmp_path / "empty.wav", np.zeros(0, dtype=np.int16), 16_000)
    for name, reason in (("text.wav", "unreadable"), ("empty.wav", "no samples"), ("none.wav", "no such file")):
        with pytest.raises(CorpusError, match=f"{name}: .*{reason}"):
            read_audio(str(tmp_path / name))


def test_a_clip_is_inspected_to_its_end(tmp_path):
    path = tmp_path / "a.flac"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 32_000), 16_000)
    whole = inspect_clip(str(path))
    assert (whole.samples, whole.sample_rate) == (32_000, 16_000)
    soundfile.write(tmp_path / "b.flac", np.random.default_rng(1).normal(0, 0.1, 32_000), 16_000)
    assert inspect_clip(str(tmp_path / "b.flac")).digest != whole.digest  # the same length, another sound
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(CorpusError, match=r"a\.flac: (cut short|unreadable)"):
        inspect_clip(str(path))
    soundfile.write(tmp_path / "nan.wav", np.array([0.0, np.nan]), 16_000, subtype="FLOAT")
    with pytest.raises(CorpusError, match=r"nan\.wav: .*not finite"):
        inspect_clip(str(tmp_path / "nan.wav"))
