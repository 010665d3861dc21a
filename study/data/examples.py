"""From a corpus with features to padded batches of conversations.

An *example* is an utterance in one modality; if both modalities are in use, every utterance gives two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import Qwen2AudioProcessor

from study.common.groups import EMOTIONS, Cell, group_id
from study.config.settings import Prompt
from study.data.features import audio_tokens, pad_mels


class EncoderStates(Protocol):
    """Encoder states (audio tokens, d_model) of clips by row in the corpus, as in ``study.models.encoder_cache``."""

    def __getitem__(self, row: int, /) -> Tensor: ...


_TRANSCRIPT = "\N{OBJECT REPLACEMENT CHARACTER}"


def render_prompt(prompt: Prompt, processor: Qwen2AudioProcessor, modality: str, transcript: str) -> str:
    """Return the conversation up to the answer, in the backbone's chat template, with audio as one ``<|AUDIO|>``."""
    text = prompt.question_with_labels()
    if modality == "speech+text":
        text = prompt.transcript.format(transcript=_TRANSCRIPT) + text
    conversation: list[dict[str, Any]] = [
        {"role": "system", "content": prompt.system},
        {"role": "user", "content": [{"type": "audio", "audio_url": ""}, {"type": "text", "text": text}]},
    ]
    rendered = processor.apply_chat_template(conversation, add_generation_prompt=True, tokenize=False)
    return rendered.replace(_TRANSCRIPT, transcript)


def answer_ids(prompt: Prompt, processor: Qwen2AudioProcessor) -> list[list[int]]:
    """Return the token ids of each label word and the end of turn, in the order of ``EMOTIONS``."""
    return [processor.tokenizer(f"{label}<|im_end|>", add_special_tokens=False)["input_ids"] for label in prompt.labels]


@dataclass(frozen=True)
class Examples:
    """The n examples of a split, ready for batching.

    Attributes:
        dataset: the memory-mapped corpus with features.
        utterances: (n,) row of ``dataset``.
        modalities: (n,) modality.
        labels: (n,) int64, index of the true emotion.
        groups: (n,) int64, group id.
        lengths: (n,) int64, tokens of the whole prompt, audio included.
        frames: (n,) true length of each clip in mel frames.
        input_ids: n lists of token ids, with one audio token each.
        mel_bins: of the log-mel.
        audio_token_id, pad_token_id: of the tokenizer.
        states: of a frozen audio encoder, by row of ``dataset``; None if the encoder is run.
    """

    dataset: Dataset
    utterances: np.ndarray
    modalities: np.ndarray
    labels: np.ndarray
    groups: np.ndarray
    lengths: np.ndarray
    frames: np.ndarray
    input_ids: list[list[int]]
    mel_bins: int
    audio_token_id: int
    pad_token_id: int
    states: EncoderStates | None = None

    def __len__(self) -> int:
        return len(self.utterances)

    @classmethod
    def of_rows(
        cls,
        dataset: Dataset,
        rows: np.ndarray,
        cells_in_use: Sequence[Cell],
        prompt: Prompt,
        processor: Qwen2AudioProcessor,
    ) -> Examples:
        """Return the examples of the utterances at the positions ``rows``, in every modality in use."""
        columns = dataset.select_columns(["language", "gender", "emotion", "transcript", "frames"]).to_pandas()
        modalities = list(dict.fromkeys(cell.modality for cell in cells_in_use))
        utterances = np.tile(rows, len(modalities))
        names = np.repeat(modalities, len(rows))
        metadata = columns.iloc[utterances]
        templates = {modality: render_prompt(prompt, processor, modality, _TRANSCRIPT) for modality in modalities}
        # A transcript must not contain special tokens of the template.
        transcripts = metadata["transcript"].str.replace("<|", "< |")
        texts = [templates[m].replace(_TRANSCRIPT, t) for m, t in zip(names, transcripts, strict=True)]
        input_ids = processor.tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
        return cls(
            dataset=dataset.select_columns(["log_mel", "frames"]).with_format("numpy"),
            utterances=utterances,
            modalities=names,
            labels=np.array([EMOTIONS.index(e) for e in metadata["emotion"]], dtype=np.int64),
            groups=np.array(
                [
                    group_id(cells_in_use, Cell(language, modality), gender)
                    for language, modality, gender in zip(metadata["language"], names, metadata["gender"], strict=True)
                ],
                dtype=np.int64,
            ),
            lengths=np.array(
                [len(i) - 1 + audio_tokens(f) for i, f in zip(input_ids, metadata["frames"], strict=True)]
            ),
            frames=metadata["frames"].to_numpy(),
            input_ids=input_ids,
            mel_bins=processor.feature_extractor.feature_size,
            audio_token_id=processor.tokenizer.convert_tokens_to_ids(processor.audio_token),
            pad_token_id=processor.tokenizer.pad_token_id,
        )

    def collate(self, rows: Sequence[int]) -> Batch:
        """Return the examples ``rows`` as one padded batch, with one audio token per audio embedding."""
        frames = self.frames[list(rows)]
        prompts = []
        for row, length in zip(rows, frames, strict=True):
            ids = self.input_ids[row]
            audio = ids.index(self.audio_token_id)
            prompts.append([*ids[:audio], *[self.audio_token_id] * audio_tokens(int(length)), *ids[audio + 1 :]])
        width = max(map(len, prompts))
        padded = [p + [self.pad_token_id] * (width - len(p)) for p in prompts]
        return Batch(
            input_ids=torch.tensor(padded),
            prompt_lengths=torch.tensor([len(p) for p in prompts]),
            **self._audio([int(utterance) for utterance in self.utterances[list(rows)]]),
            frames=torch.from_numpy(frames),
            labels=torch.from_numpy(self.labels[list(rows)]),
            groups=torch.from_numpy(self.groups[list(rows)]),
            rows=torch.tensor(list(rows)),
        )

    def _audio(self, utterances: list[int]) -> dict[str, Tensor]:
        """Return the audio input of some utterances as a field of ``Batch``."""
        if self.states is None:
            return {"log_mel": pad_mels([self.dataset[utterance] for utterance in utterances], self.mel_bins)}
        return {"encoder_states": pad_sequence([self.states[utterance] for utterance in utterances], batch_first=True)}


@dataclass(frozen=True)
class Batch:
    """Examples of one forward pass, padded on the right.

    Attributes:
        input_ids: (B, T) prompts with expanded audio tokens, without an answer.
        prompt_lengths: (B,) tokens of each prompt.
        frames: (B,) true length of each clip in mel frames.
        labels: (B,) index of the true emotion.
        groups: (B,) group ids, -1 if the gender is unknown.
        rows: (B,) position of each example in ``Examples``.
        log_mel: (B, F, M) float32, zeros after each clip's stored frames; or
        encoder_states: (B, A, d_model) of a frozen audio encoder, see ``study.models.audio_encoder``.
    """

    input_ids: Tensor
    prompt_lengths: Tensor
    frames: Tensor
    labels: Tensor
    groups: Tensor
    rows: Tensor
    log_mel: Tensor | None = None
    encoder_states: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        """Return the batch on another device."""
        tensors = {name: value for name, value in vars(self).items() if value is not None}
        return Batch(**{name: value.to(device, non_blocking=True) for name, value in tensors.items()})
