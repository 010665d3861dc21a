"""Measure training steps of Qwen2-Audio-7B's shape with random weights: examples per second, memory, falling loss.

``python -m tests.benchmarks.training_step`` needs a GPU; ``--shape tiny`` runs the same code on a CPU. Neither Ray nor
DeepSpeed nor a checkpoint is needed: one worker, the study's own forward pass, loss and sample weights, and AdamW. The
audio encoder runs in every step (``tests.benchmarks.peer_step`` caches its states, as a study does). Clips of 3.6 s are
noise whose level depends on the label, so that there is something to learn.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time

import torch
from transformers import Qwen2AudioConfig, Qwen2AudioForConditionalGeneration

from study.common.groups import EMOTIONS, LANGUAGES, cells
from study.config.settings import BackboneSettings, Parallelism
from study.data.examples import Batch
from study.data.features import audio_tokens, stored_length
from study.losses.base import GlobalBatch, sample_weights
from study.losses.minmaxgap import ErmMinMaxGap
from study.models.lora import with_lora
from study.models.memory_estimate import GB, TEXT_CONFIG_7B, Workload, memory_need
from study.models.qwen2_audio import EmotionModel
from study.models.tiny import tiny_config

SECONDS, TEXT_TOKENS = 3.6, 50
FLOP_PER_EXAMPLE, GPU_FLOPS = 3.73e12, 790e12  # of the 7B at 3.6 s; of an H200 in bf16


def random_batch(config: Qwen2AudioConfig, size: int, device: torch.device, seed: int) -> Batch:
    """Return ``size`` clips of alternating groups."""
    generator = torch.Generator().manual_seed(seed)
    frames = round(100 * SECONDS)
    labels = torch.randint(0, len(EMOTIONS), (size,), generator=generator)
    level = 0.3 * labels[:, None, None] - 1.0
    log_mel = level + 0.1 * torch.randn(
        size, stored_length(frames), config.audio_config.num_mel_bins, generator=generator
    )
    audio = audio_tokens(frames)
    ids = torch.randint(10, config.text_config.vocab_size - 10, (size, TEXT_TOKENS + audio), generator=generator)
    ids[:, 10 : 10 + audio] = config.audio_token_id
    return Batch(
        input_ids=ids,
        prompt_lengths=torch.full((size,), ids.shape[1]),
        log_mel=log_mel,
        frames=torch.full((size,), frames),
        labels=labels,
        groups=torch.arange(size) % (2 * len(LANGUAGES)),
        rows=torch.arange(size),
    ).to(device)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.training_step", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--shape", choices=("7b", "tiny"), default="7b")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=30)
    options = parser.parse_args()
    on_gpu = torch.cuda.is_available()
    device, dtype = (torch.device("cuda"), torch.bfloat16) if on_gpu else (torch.device("cpu"), torch.float32)
    if options.shape == "7b" and not on_gpu:
        print("error: --shape 7b needs a GPU; use --shape tiny", file=sys.stderr)
        return 2
    settings = BackboneSettings()
    config = Qwen2AudioConfig(text_config=TEXT_CONFIG_7B) if options.shape == "7b" else tiny_config()
    workload = Workload(options.batch_size, 2 * options.batch_size, SECONDS, TEXT_TOKENS)
    print(
        memory_need(config, settings, Parallelism(num_workers=1, zero_stage=0), workload, on_gpu, epochs=1).describe()
    )

    torch.manual_seed(0)
    torch.set_default_dtype(dtype)
    with device:
        backbone = Qwen2AudioForConditionalGeneration(config)
    torch.set_default_dtype(torch.float32)
    answers = [[20 + 2 * i, 5] for i in range(len(EMOTIONS))]
    model = EmotionModel(with_lora(backbone, settings), answers, pad_token_id=0).to(device).train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=1e-3 if options.shape == "tiny" else 2e-4, fused=on_gpu)
    loss, in_use = ErmMinMaxGap(), cells(LANGUAGES, ["speech+text"])

    seconds, losses = [], []
    for step in range(options.steps):
        batch = random_batch(config, options.batch_size, device, seed=step)
        start = time.perf_counter()
        example_losses, _ = model(batch, score=False)
        weights, parts = sample_weights(loss, GlobalBatch(example_losses.detach(), batch.groups, in_use), (0.1,), {})
        (weights.losses * example_losses).sum().backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        losses.append(float(parts.risk))  # waits for the GPU
        seconds.append(time.perf_counter() - start)
    rate = options.batch_size / statistics.median(seconds[len(seconds) // 3 :])
    print(f"{rate:.1f} examples/s; loss {losses[0]:.2f} at step 1, {losses[-1]:.2f} at step {options.steps}")
    if on_gpu:
        share = rate * FLOP_PER_EXAMPLE / GPU_FLOPS
        print(
            f"peak memory {torch.cuda.max_memory_allocated() / GB:.1f} GB; utilisation {share:.2f} of an H200 in bf16"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
