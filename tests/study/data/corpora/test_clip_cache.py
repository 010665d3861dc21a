"""A clip is decoded again if it has changed, and only then."""

from __future__ import annotations

import os

import pandas as pd
import pytest

from study.data.corpora import corpus
from study.data.corpora.audio import inspect_clip
from study.data.corpora.corpus import inspect_clips
from tests.study.data.corpora.builders import write_wav


@pytest.fixture
def clips(tmp_path):
    """Return rows of four clips; the last one is silent."""
    paths = [tmp_path / f"{name}.wav" for name in "abcd"]
    for path in paths:
        write_wav(path, level=0.0 if path.stem == "d" else 0.1)
    return pd.DataFrame({"path": [str(path) for path in paths], "location": [f"row {n}" for n in range(4)]})


@pytest.fixture
def decoded(monkeypatch):
    """Return a list to which the name of every decoded clip is appended."""
    names: list[str] = []

    def inspect(path):
        names.append(os.path.basename(path))
        return inspect_clip(path)

    monkeypatch.setattr(corpus, "inspect_clip", inspect)
    return names


def test_usable_clips_are_decoded_once_until_they_change(clips, decoded, tmp_path):
    cache = tmp_path / "cache"
    first = inspect_clips(clips, cache)
    assert sorted(decoded) == ["a.wav", "b.wav", "c.wav", "d.wav"]
    decoded.clear()
    pd.testing.assert_frame_equal(inspect_clips(clips, cache), first)
    assert decoded == ["d.wav"]  # unusable clips are not cached
    decoded.clear()

    write_wav(tmp_path / "b.wav", sound="another", samples=3200)
    (tmp_path / "c.wav").unlink()
    second = inspect_clips(clips, cache)
    assert sorted(decoded) == ["b.wav", "c.wav", "d.wav"]
    assert second["clip"][0] == first["clip"][0]
    assert second["clip"][1].samples == 3200 and second["digest"][1] != first["digest"][1]
    assert second["is_missing"].tolist() == [False, False, True, False]
    decoded.clear()
    inspect_clips(clips, cache)
    assert sorted(decoded) == ["c.wav", "d.wav"]


def test_changed_clip_of_the_same_size_and_mtime_is_decoded(clips, decoded, tmp_path):
    cache, path = tmp_path / "cache", tmp_path / "a.wav"
    first = inspect_clips(clips, cache)
    before = path.stat()
    write_wav(path, sound="another")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert inspect_clips(clips, cache)["digest"][0] != first["digest"][0]


def test_clip_that_changes_during_decoding_is_not_cached(clips, decoded, tmp_path, monkeypatch):
    def decode_and_replace(path):
        clip = inspect_clip(path)
        write_wav(tmp_path / "b.wav", sound="another")
        os.utime(tmp_path / "b.wav", (2e9, 2e9))  # the resolution of the clock may be some milliseconds
        return clip

    monkeypatch.setattr(corpus, "_clip_or_error", lambda p: decode_and_replace(p) if "b.wav" in p else inspect_clip(p))
    first = inspect_clips(clips.iloc[:3], tmp_path / "cache")
    monkeypatch.undo()
    assert inspect_clips(clips.iloc[:3], tmp_path / "cache")["digest"][1] != first["digest"][1]


def test_new_row_decodes_one_more_clip(clips, decoded, tmp_path):
    inspect_clips(clips.iloc[:2], tmp_path / "cache")
    decoded.clear()
    inspect_clips(clips.iloc[:3], tmp_path / "cache")
    assert decoded == ["c.wav"]
    inspect_clips(clips.iloc[:1], tmp_path / "cache")  # keeps the results of the other clips
    decoded.clear()
    inspect_clips(clips.iloc[:3], tmp_path / "cache")
    assert decoded == []


def test_all_clips_are_decoded_without_a_cache_or_with_a_damaged_one(clips, decoded, tmp_path):
    inspect_clips(clips)
    inspect_clips(clips)
    assert len(decoded) == 8
    cache = tmp_path / "cache"
    inspect_clips(clips, cache)
    (file,) = (cache / "clips").iterdir()
    pd.DataFrame({"path": []}).to_parquet(tmp_path / "other.parquet")
    for damaged in (b"not a table", (tmp_path / "other.parquet").read_bytes()):
        file.write_bytes(damaged)
        decoded.clear()
        inspect_clips(clips, cache)
        assert len(decoded) == 4


def test_cache_that_cannot_be_written_is_no_error(clips, decoded, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert inspect_clips(clips, tmp_path / "cache")["digest"].ne("").tolist() == [True, True, True, False]
