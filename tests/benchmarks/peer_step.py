"""Compare our training and scoring with a stock ``Trainer``: examples per second, memory, utilisation, on one device.

``python -m tests.benchmarks.peer_step`` uses the small model of ``levers``; ``--shape 7b`` uses the size of
Qwen2-Audio-7B, on a GPU. Neither Ray nor DeepSpeed nor Optuna is needed (``peer`` compares whole sweeps with them).
Both sides have the same random weights, LoRA and clips of 3.6 s of noise, and alternate; medians are printed. The peer
pads clips to 30 s with the stock processor and uses the stock loss, with the fastest of several micro-batch sizes, with
and without activation checkpointing. Our side is the study's forward pass, loss and AdamW with cached encoder states,
on a GPU in bf16 as with DeepSpeed. The peer scores one label by its loss, our side seven. On a CPU the processor time
of one thread is compared.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
import warnings
from contextlib import suppress
from itertools import product
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments, WhisperFeatureExtractor

from study.common.groups import EMOTIONS, LANGUAGES, cells
from study.config.settings import BackboneSettings, Optimisation
from study.data.examples import Batch
from study.data.features import audio_tokens, log_mel
from study.losses.base import GlobalBatch, sample_weights
from study.losses.minmaxgap import ErmMinMaxGap
from study.models.audio_encoder import encoder_states
from study.models.lora import with_lora
from study.models.memory_estimate import GB, TEXT_CONFIG_7B
from study.models.qwen2_audio import IGNORED, EmotionModel
from tests.benchmarks.levers import PAD, SMALL, TEXT_TOKENS, Qwen2AudioConfig, parse_options, random_model, timed
from tests.benchmarks.training_step import FLOP_PER_EXAMPLE, GPU_FLOPS, SECONDS

MICRO = (4, 8, 16, 32, 64)  # micro-batch sizes that the peer tries
STEPS = 3  # per measurement; the first one is a warm-up
END = 5  # the token after a label word
ANSWERS = [[20 + 2 * i, END] for i in range(len(EMOTIONS))]


class Clips(torch.utils.data.Dataset):
    """Clips of noise with a label, and a prompt with the right number of audio tokens."""

    def __init__(self, size: int, config: Qwen2AudioConfig):
        self.size, self.config = size, config

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, i: int) -> dict[str, Any]:
        rng = np.random.default_rng(i)
        waveform = rng.normal(0, 0.1, round(16_000 * SECONDS)).astype(np.float32)
        audio = audio_tokens(round(100 * SECONDS))
        ids = rng.integers(100, self.config.text_config.vocab_size - 10, TEXT_TOKENS + audio)
        ids[10 : 10 + audio] = self.config.audio_token_id
        return {"waveform": waveform, "prompt": torch.from_numpy(ids), "label": int(rng.integers(len(EMOTIONS)))}


class Stock:
    """Collate as the stock processor does, with every clip padded to 30 s."""

    def __init__(self, extractor: WhisperFeatureExtractor):
        self.extractor = extractor

    def __call__(self, clips: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        mel = self.extractor(
            [clip["waveform"] for clip in clips],
            sampling_rate=16_000,
            padding="max_length",
            return_attention_mask=True,
            return_tensors="pt",
        )
        ids = torch.stack([torch.cat([clip["prompt"], torch.tensor(ANSWERS[clip["label"]])]) for clip in clips])
        labels = torch.full_like(ids, IGNORED)
        labels[:, -2:] = ids[:, -2:]
        return {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "input_features": mel["input_features"],
            "feature_attention_mask": mel["attention_mask"],
            "labels": labels,
        }


class Clock(TrainerCallback):
    """Record when each step ended."""

    def __init__(self, on_gpu: bool):
        self.on_gpu, self.ends = on_gpu, []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        if self.on_gpu:
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter() if self.on_gpu else time.process_time())


class Peer:
    """The stock ``Trainer`` on the model that both sides use."""

    def __init__(self, model: PeftModel, config: Qwen2AudioConfig, extractor: WhisperFeatureExtractor, on_gpu: bool):
        self.model, self.config, self.extractor, self.on_gpu = model, config, extractor, on_gpu

    def seconds(self, batch_size: int, micro: int, checkpointing: bool, score: bool) -> float:
        """Return the median seconds of a training step, or the seconds of scoring as many clips.

        Raises:
            torch.OutOfMemoryError: the GPU is too small.
        """
        clock = Clock(self.on_gpu)
        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                output_dir=folder,
                per_device_train_batch_size=micro,
                per_device_eval_batch_size=micro,
                gradient_accumulation_steps=batch_size // micro,
                gradient_checkpointing=checkpointing,
                max_steps=STEPS,
                bf16=self.on_gpu,
                use_cpu=not self.on_gpu,
                remove_unused_columns=False,
                prediction_loss_only=True,
                dataloader_num_workers=4 if self.on_gpu else 0,
                report_to=[],
                save_strategy="no",
                logging_strategy="no",
                disable_tqdm=True,
            )
            trainer = Trainer(
                model=self.model,
                args=arguments,
                train_dataset=Clips(STEPS * batch_size, self.config),
                eval_dataset=Clips(batch_size, self.config),
                data_collator=Stock(self.extractor),
                callbacks=[clock],
            )
            trainer.remove_callback(PrinterCallback)
            try:
                if score:
                    trainer.evaluate()
                    return timed(trainer.evaluate, self.on_gpu)
                trainer.train()
            finally:
                self.model.__dict__.pop("forward", None)  # accelerate replaces it by an autocast wrapper
                self.model.gradient_checkpointing_disable()
                self.model.zero_grad(set_to_none=True)
        return statistics.median(np.diff(clock.ends))

    def fastest(self, batch_size: int) -> tuple[int, bool]:
        """Return the fastest micro-batch size, and whether it uses checkpointing. The first try is a warm-up."""
        tries = [choice for choice in product(MICRO, (False, True)) if not batch_size % choice[0]]
        times: dict[tuple[int, bool], float] = {}
        for micro, checkpointing in [tries[0], *tries]:
            with suppress(torch.OutOfMemoryError):
                times[micro, checkpointing] = self.seconds(batch_size, micro, checkpointing, score=False)
        return min(times, key=times.__getitem__)


class Ours:
    """The study's step on the same model. The batch is collated beforehand, as a run does during the previous step."""

    def __init__(self, model: PeftModel, clips: Clips, extractor: WhisperFeatureExtractor, device: torch.device):
        self.model = EmotionModel(model, ANSWERS, pad_token_id=PAD).to(device)
        self.device, self.cells = device, cells(LANGUAGES, ["speech+text"])
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimiser = torch.optim.AdamW(self.trained, lr=Optimisation().learning_rate, fused=True)
        self.batch = self._collated(clips, extractor, model.get_base_model().model.audio_tower)

    @torch.no_grad()
    def _collated(self, clips: Clips, extractor: WhisperFeatureExtractor, encoder: Any) -> Batch:
        examples = [clips[i] for i in range(len(clips))]
        mels, frames = zip(*(log_mel(clip["waveform"], extractor) for clip in examples), strict=True)
        lengths = torch.tensor(frames)
        mel = torch.from_numpy(np.stack(mels)).to(self.device)
        states = encoder_states(encoder, mel, lengths.to(self.device))
        prompts = torch.stack([clip["prompt"] for clip in examples])
        return Batch(
            input_ids=prompts,
            prompt_lengths=torch.full((len(examples),), prompts.shape[1]),
            frames=lengths,
            labels=torch.tensor([clip["label"] for clip in examples]),
            groups=torch.arange(len(examples)) % (2 * len(LANGUAGES)),
            rows=torch.arange(len(examples)),
            encoder_states=states.cpu(),
        )

    def step(self) -> None:
        batch = self.batch.to(self.device)
        losses, _ = self.model(batch, score=False)
        global_batch = GlobalBatch(losses.detach(), batch.groups, self.cells)
        weights, _ = sample_weights(ErmMinMaxGap(), global_batch, (0.1,), {})
        (weights.losses * losses).sum().backward()
        torch.nn.utils.clip_grad_norm_(self.trained, Optimisation().gradient_clipping)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)

    @torch.no_grad()
    def score(self) -> None:
        self.model(self.batch.to(self.device), score=True)

    def seconds(self, score: bool) -> float:
        """Return the median seconds of a step, or of scoring as many clips."""
        on_gpu = self.device.type == "cuda"
        self.model.train(not score)
        return statistics.median([timed(self.score if score else self.step, on_gpu) for _ in range(STEPS)][1:])


def features_ratio(clips: Clips, extractor: WhisperFeatureExtractor) -> float:
    """Return the processor time of the stock log-mel divided by that of ours, as the median over clips."""
    waveforms = [clips[i]["waveform"] for i in range(len(clips))]
    stock = {"sampling_rate": 16_000, "padding": "max_length", "return_tensors": "np"}
    ratios = []
    for waveform in waveforms:
        before = timed(lambda waveform=waveform: extractor(waveform, **stock), on_gpu=False)
        ratios.append(before / timed(lambda waveform=waveform: log_mel(waveform, extractor), on_gpu=False))
    return statistics.median(ratios)


def main() -> int:
    warnings.simplefilter("ignore", FutureWarning)  # an old name in checkpointing, which older versions need
    options = parse_options("peer_step", __doc__, "small", 16)
    if options.batch_size % MICRO[0]:
        print(f"error: --batch-size {options.batch_size} must be a multiple of {MICRO[0]}", file=sys.stderr)
        return 2
    config = SMALL if options.shape == "small" else Qwen2AudioConfig(text_config=TEXT_CONFIG_7B)
    base, device = random_model(config)
    on_gpu, size = device.type == "cuda", options.batch_size
    model = with_lora(base, BackboneSettings()).to(device)
    lora = [p for p in model.parameters() if p.requires_grad]
    extractor = WhisperFeatureExtractor(feature_size=config.audio_config.num_mel_bins)
    print(f"log-mel: {features_ratio(Clips(16, config), extractor):.1f} times as fast as the stock log-mel")
    peer = Peer(model, config, extractor, on_gpu)
    micro, checkpointing = peer.fastest(size)
    print(f"peer: micro-batch {micro}, {'with' if checkpointing else 'without'} checkpointing")

    def peer_seconds(score: bool) -> float:
        for parameter in lora:  # PEFT has them in float32; the Trainer uses autocast
            parameter.data = parameter.data.float()
        return peer.seconds(size, micro, checkpointing, score)

    def our_seconds(score: bool) -> float:
        for parameter in lora:
            parameter.data = parameter.data.to(base.dtype)
        return Ours(model, Clips(size, config), extractor, device).seconds(score)

    rates: dict[tuple[str, bool], list[float]] = {}
    memory = {"peer": 0.0, "ours": 0.0}
    for _ in range(options.rounds):
        for (side, seconds), score in product((("peer", peer_seconds), ("ours", our_seconds)), (False, True)):
            if on_gpu:
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            rates.setdefault((side, score), []).append(size / seconds(score))
            if on_gpu:
                memory[side] = max(memory[side], torch.cuda.max_memory_allocated() / GB)
    medians = {key: statistics.median(values) for key, values in rates.items()}
    for name, score in (("training", False), ("scoring", True)):
        stock, own = medians["peer", score], medians["ours", score]
        print(f"{name}: peer {stock:.2f}, ours {own:.2f} examples/s, {own / stock:.2f} times")
    if on_gpu:
        share = medians["ours", False] * FLOP_PER_EXAMPLE / GPU_FLOPS
        print(f"peak memory: peer {memory['peer']:.1f} GB, ours {memory['ours']:.1f} GB")
        print(f"utilisation of an H200 in bf16: {share:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
