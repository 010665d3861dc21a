"""Log-mel features of the true length, and their files."""

from __future__ import annotations

import numpy as np
import pytest

from study.data import features
from study.models.pretrained import load_processor


@pytest.mark.parametrize("samples", [1, 159, 160, 161, 8000, 17_431, 480_000, 700_000])
def test_true_length_equals_the_stock_mask(small_study, samples):
    extractor = load_processor(small_study[1].backbone).feature_extractor
    stock = extractor(
        np.zeros(samples, dtype=np.float32), sampling_rate=16_000, return_attention_mask=True, padding="max_length"
    )
    assert features.true_length(samples) == int(np.asarray(stock["attention_mask"]).sum())


def test_stored_mel_equals_the_stock_mel(small_study):
    extractor = load_processor(small_study[1].backbone).feature_extractor
    waveform = np.random.default_rng(0).normal(0, 0.1, 17_431).astype(np.float32)
    mel, frames = features.log_mel(waveform, extractor)
    stock = np.asarray(extractor(waveform, sampling_rate=16_000, padding="max_length")["input_features"])[0].T
    assert frames == 109 and mel.shape == (112, 64)
    np.testing.assert_allclose(mel, stock[:112], atol=1e-5)


def test_audio_token_count_equals_qwen2_audio():
    # 30 s give 750 tokens, 3.6 s give 90
    assert features.audio_tokens(3000) == 750
    assert features.audio_tokens(features.true_length(57_600)) == 90


def test_features_are_built_once_and_memory_mapped(small_study):
    plan, prepared = small_study
    extractor = load_processor(prepared.backbone).feature_extractor
    before = prepared.features.stat().st_mtime_ns
    again = features.build(
        plan.corpus.utterances, plan.corpus.content_hash, extractor, plan.request.cache, "as_recorded"
    )
    assert again == prepared.features and again.stat().st_mtime_ns == before
    table = features.load(again)
    assert len(table) == len(plan.corpus.utterances)
    assert table.cache_files  # backed by files, not memory
    row = table.with_format("numpy")[0]
    assert len(row["log_mel"]) == 64 * features.stored_length(int(row["frames"]))


def test_interrupted_build_resumes_and_gives_the_same_table(small_study, tmp_path, monkeypatch):
    plan, prepared = small_study
    extractor = load_processor(prepared.backbone).feature_extractor
    monkeypatch.setattr(features, "CLIPS_PER_FILE", 60)
    arguments = (plan.corpus.utterances.head(200), "hash", extractor, tmp_path, "as_recorded")
    log_mel, calls = features.log_mel, []

    def interrupted(waveform, extractor):
        calls.append(len(waveform))
        if len(calls) == 150:  # in the third file
            raise KeyboardInterrupt
        return log_mel(waveform, extractor)

    monkeypatch.setattr(features, "log_mel", interrupted)
    with pytest.raises(KeyboardInterrupt):
        features.build(*arguments)
    (half,) = [path for path in (tmp_path / "features").iterdir()]
    assert sorted(path.name for path in half.glob("*[!k]")) == ["00000-of-00004.arrow", "00001-of-00004.arrow"]
    with pytest.raises(ValueError, match=r"files are missing \(2 exist\)"):
        features.load(half)
    assert features.build(*arguments) == half and len(calls) == 150 + 200 - 120  # the finished files were kept
    table, whole = features.load(half), features.load(prepared.features)
    assert table[:] == whole[:200]


def test_damaged_file_is_named_with_its_remedy(small_study, tmp_path):
    plan, prepared = small_study
    extractor = load_processor(prepared.backbone).feature_extractor
    folder = features.build(plan.corpus.utterances.head(3), "hash", extractor, tmp_path, "as_recorded")
    file = folder / "00000-of-00001.arrow"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"00000-of-00001\.arrow: cannot be read .*; remove it"):
        features.load(folder)


def test_files_with_and_without_transcripts_are_concatenated(small_study, tmp_path, monkeypatch):
    plan, prepared = small_study
    extractor = load_processor(prepared.backbone).feature_extractor
    monkeypatch.setattr(features, "CLIPS_PER_FILE", 2)
    few = plan.corpus.utterances.head(4).assign(transcript=[None, None, "yes", "no"])
    table = features.load(features.build(few, "hash", extractor, tmp_path, "as_recorded"))
    assert table["transcript"][:] == [None, None, "yes", "no"]


def test_loudness_changes_the_features_and_their_folder(small_study, tmp_path):
    plan, prepared = small_study
    extractor = load_processor(prepared.backbone).feature_extractor
    few = plan.corpus.utterances.head(3)
    folders = [features.build(few, "hash", extractor, tmp_path, loudness) for loudness in ("as_recorded", "rms")]
    assert folders[0] != folders[1]
    quiet, level = (np.array(features.load(folder)[0]["log_mel"]) for folder in folders)
    # Whisper's log-mel is (log10 power + 4) / 4, so one gain shifts everything above its floor equally
    shift = level - quiet
    loud = quiet > quiet.max() - 1.0
    assert np.ptp(shift[loud]) < 1e-3 < abs(shift[loud].mean())
