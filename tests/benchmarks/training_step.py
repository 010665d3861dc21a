"""Training steps on the shape of Qwen2-Audio-7B with random weights: examples a second, memory, the loss going down.

``python -m tests.benchmarks.training_step`` on a GPU; ``--shape tiny`` tries the same path on a CPU. Neither Ray nor
DeepSpeed nor a checkpoint is needed: one rank, the study's own forward pass, objective and utterance weights, AdamW.
The tower runs in every step (``tests.benchmarks.peer_step`` keeps its states, as a study does).
Clips of 3.6 s are noise with labels that their level tells apart, so that there is something to learn.
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
FLOP_AN_EXAMPLE, CARD_FLOPS = 3.73e12, 790e12  # of the 7B at 3.6 s; of an H200 in bf16


def random_batch(config: Qwen2AudioConfig, size: int, device: torch.device, seed: int) -> Batch:
    """``size`` clips, the groups in turn."""
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
    flags = parser.parse_args()
    on_gpu = torch.cuda.is_available()
    device, dtype = (torch.device("cuda"), torch.bfloat16) if on_gpu else (torch.device("cpu"), torch.float32)
    if flags.shape == "7b" and not on_gpu:
        print("error: the shape of the 7B needs a GPU; try --shape tiny", file=sys.stderr)
        return 2
    settings = BackboneSettings()
    config = Qwen2AudioConfig(text_config=TEXT_CONFIG_7B) if flags.shape == "7b" else tiny_config()
    load = Workload(flags.batch_size, 2 * flags.batch_size, SECONDS, TEXT_TOKENS)
    print(memory_need(config, settings, Parallelism(num_workers=1, zero_stage=0), load, on_gpu, epochs=1).describe())

    torch.manual_seed(0)
    torch.set_default_dtype(dtype)
    with device:
        backbone = Qwen2AudioForConditionalGeneration(config)
    torch.set_default_dtype(torch.float32)
    answers = [[20 + 2 * i, 5] for i in range(len(EMOTIONS))]
    model = EmotionModel(with_lora(backbone, settings), answers, pad_token_id=0).to(device).train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=1e-3 if flags.shape == "tiny" else 2e-4, fused=on_gpu)
    objective, in_use = ErmMinMaxGap(), cells(LANGUAGES, ["speech+text"])

    seconds, losses = [], []
    for step in range(flags.steps):
        batch = random_batch(config, flags.batch_size, device, seed=step)
        started = time.perf_counter()
        each, _ = model(batch, score=False)
        weights, parts = sample_weights(objective, GlobalBatch(each.detach(), batch.groups, in_use), (0.1,), {})
        (weights.losses * each).sum().backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        losses.append(float(parts.risk))  # waits for the GPU
        seconds.append(time.perf_counter() - started)
    rate = flags.batch_size / statistics.median(seconds[len(seconds) // 3 :])
    print(f"{rate:.1f} examples/s; loss {losses[0]:.2f} at first, {losses[-1]:.2f} at step {flags.steps}")
    if on_gpu:
        share = rate * FLOP_AN_EXAMPLE / CARD_FLOPS
        print(
            f"peak memory {torch.cuda.max_memory_allocated() / GB:.1f} GB; utilisation {share:.2f} of an H200 in bf16"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
