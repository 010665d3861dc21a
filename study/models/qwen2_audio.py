"""Qwen2-Audio with a forward pass that computes only what the study needs.

It differs from the stock forward pass in two ways: the audio encoder runs on the true length of the clips instead of
30 s, and the vocabulary head runs at answer positions only, in float32. Both are exact
(``tests/study/models/test_qwen2_audio.py``), and ``study.config.settings.Computation`` can switch them off.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.profiler import record_function
from transformers import PreTrainedConfig, Qwen2AudioForConditionalGeneration

from study.config.settings import Computation
from study.data.features import audio_tokens
from study.models.audio_encoder import encoder_states

if TYPE_CHECKING:
    from study.data.examples import Batch

IGNORED = -100  # the target index that cross_entropy ignores


class EmotionModel(nn.Module):
    """Gives the loss of the true label of each clip, or the scores of all seven labels.

    Args:
        peft_model: from ``study.models.lora.load_model``.
        answers: token ids of each label word followed by the end-of-turn token, in the order of ``EMOTIONS``.
        pad_token_id: pads shorter rows on the right.
        computation: its ``encoder_input`` and ``head`` choose what is computed; None for the defaults.
    """

    answer_table: Tensor

    def __init__(
        self,
        peft_model: PeftModel,
        answers: list[list[int]],
        pad_token_id: int,
        computation: Computation | None = None,
    ):
        super().__init__()
        self.peft_model: PeftModel = peft_model
        longest = max(map(len, answers))
        table = torch.tensor([answer + [IGNORED] * (longest - len(answer)) for answer in answers])
        self.answers = answers
        self.register_buffer("answer_table", table, persistent=False)
        self.pad_token_id = pad_token_id
        self.computation = computation or Computation()
        self.audio_token_id = self.backbone.config.audio_token_id

    @property
    def backbone(self) -> Qwen2AudioForConditionalGeneration:
        """The Qwen2-Audio inside the PEFT model."""
        return cast(Qwen2AudioForConditionalGeneration, self.peft_model.get_base_model())

    def forward(self, batch: Batch, score: bool) -> Tensor | tuple[Tensor, Tensor]:
        """Return ``scores(batch)`` if ``score``, else ``losses(batch)``."""
        return self.scores(batch) if score else self.losses(batch)

    def audio_embeddings(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Run the audio encoder and the projector, or the projector alone if the batch holds encoder states.

        Returns:
            Embeddings (B, A, D), and the mask (B, A) of those that belong to a clip.
        """
        base = self.backbone.model
        with record_function("encoder"):
            states = batch.encoder_states
            if states is None:
                assert batch.log_mel is not None  # a batch has one of the two
                on_30_seconds = self.computation.encoder_input == "30_seconds"
                states = encoder_states(base.audio_tower, batch.log_mel, batch.frames, on_30_seconds)
            valid = torch.arange(states.shape[1], device=states.device) < audio_tokens(batch.frames)[:, None]
            return base.multi_modal_projector(states), valid

    def prompt_embeddings(self, input_ids: Tensor, batch: Batch) -> Tensor:
        """Return token embeddings (B, T, D) with the clips' embeddings in place of the audio tokens."""
        language_model = self.backbone.model.language_model
        audio, valid = self.audio_embeddings(batch)
        embedded = language_model.embed_tokens(input_ids)
        is_audio = (input_ids == self.audio_token_id)[..., None]
        return embedded.masked_scatter(is_audio, audio[valid].to(embedded.dtype))

    def losses(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the loss and the hidden state of each utterance.

        Returns:
            (B,) mean cross-entropy over the answer tokens (label word and end of turn), float32, nats; and (B, D) the
            mean of the hidden states that predict those tokens.
        """
        base = self.backbone
        targets = self.answer_table[batch.labels]  # (B, S)
        is_answer = targets != IGNORED
        offsets = torch.arange(targets.shape[1], device=targets.device)
        at = batch.prompt_lengths[:, None] + offsets  # the position of each answer token
        # The answer follows its prompt. Its last token is predicted but not fed in; later positions are masked.
        ids = nn.functional.pad(batch.input_ids, (0, len(offsets) - 1), value=self.pad_token_id)
        ids = ids.scatter(1, at[:, :-1], targets[:, :-1].clamp(min=0))
        lengths = batch.prompt_lengths + is_answer.sum(1) - 1
        embedded = self.prompt_embeddings(ids, batch)
        with record_function("language model"):
            hidden = base.model.language_model(
                inputs_embeds=embedded,
                attention_mask=(torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]).long(),
                use_cache=False,
            ).last_hidden_state
        rows = torch.arange(len(ids), device=ids.device)[:, None]
        predicting = hidden[rows, at - 1]  # (B, S, D)
        with record_function("head"):
            if self.computation.head == "answers":
                logits = base.lm_head(predicting).float()
            else:
                logits = base.lm_head(hidden).float()[rows, at - 1]
            losses = nn.functional.cross_entropy(
                logits.transpose(1, 2), targets, ignore_index=IGNORED, reduction="none"
            )
        n_tokens = is_answer.sum(1)
        states = (predicting * is_answer[..., None]).sum(1) / n_tokens[:, None]
        return losses.sum(1) / n_tokens, states

    def scores(self, batch: Batch) -> Tensor:
        """Return the summed log-probability of each label word and the end of turn, (B, 7) float32.

        One forward pass computes all of them. The seven answers follow the prompt side by side. Each attends to the
        prompt and to itself only, so the scores equal those of seven separate forward passes, also if labels have
        several tokens or share their first one.
        """
        base = self.backbone
        device = batch.input_ids.device
        size, width = batch.input_ids.shape
        words = [answer[:-1] for answer in self.answers]
        branch = torch.tensor([i for i, word in enumerate(words) for _ in word], device=device)
        depth = torch.tensor([j for word in words for j in range(len(word))], device=device)
        tail = torch.tensor([token for word in words for token in word], device=device)
        ids = torch.cat([batch.input_ids, tail.expand(size, -1)], dim=1)
        steps = torch.arange(width, device=device)
        position = torch.cat([steps.expand(size, -1), batch.prompt_lengths[:, None] + depth], dim=1)

        total = width + len(tail)
        prompt = torch.arange(total, device=device) < batch.prompt_lengths[:, None]
        within = torch.zeros(total, total, dtype=torch.bool, device=device)
        within[:width, :width] = torch.ones(width, width, dtype=torch.bool, device=device).tril()
        within[width:, width:] = (branch[:, None] == branch) & (depth[:, None] >= depth)
        in_answer = torch.arange(total, device=device)[:, None] >= width
        mask = within | (in_answer & prompt[:, None, :])
        with _sdpa(base.model.language_model):  # neither flash_attention_2 nor eager supports this mask
            hidden = base.model.language_model(
                inputs_embeds=self.prompt_embeddings(ids, batch),
                attention_mask=mask[:, None],
                position_ids=position,
                use_cache=False,
            ).last_hidden_state

        last = hidden[torch.arange(size, device=device), batch.prompt_lengths - 1][:, None]
        log_probs = base.lm_head(torch.cat([last, hidden[:, width:]], dim=1)).float().log_softmax(-1)
        scores = []
        start = 1
        for answer in self.answers:
            at = [0, *range(start, start + len(answer) - 1)]
            scores.append(log_probs[:, at, answer].sum(1))
            start += len(answer) - 1
        return torch.stack(scores, dim=1)


@contextmanager
def _sdpa(language_model: nn.Module) -> Iterator[None]:
    """Use sdpa for the attention of a language model inside the context; its layers read this setting when called."""
    config = cast(PreTrainedConfig, language_model.config)
    chosen = config._attn_implementation
    config._attn_implementation = "sdpa"
    try:
        yield
    finally:
        config._attn_implementation = chosen
