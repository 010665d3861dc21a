"""Measure each optimisation of a training step alone: the same batches with and without it, alternating.

``python -m tests.benchmarks.levers`` uses a small model with the proportions of Qwen2-Audio-7B (audio encoder to
language model 1 to 10); ``--shape 7b`` uses its full size, on a GPU. The lengths of clips are like those of utterances
in a conversation: log-normal, 3.6 s on average, up to 30 s, or up to what a GPU can hold of one padded batch. On a CPU
the processor time of one thread is compared, which other work disturbs less than wall-clock time. Neither Ray nor
DeepSpeed is needed.

- buckets: forward passes over clips of similar length (``computation.length_buckets``).
- cached encoder states: those of a frozen audio encoder (``computation.encoder_states``).
- encoder on 30 s, head at every position: as the stock model does (``computation.encoder_input``,
  ``computation.head``).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from transformers import Qwen2AudioConfig, Qwen2AudioForConditionalGeneration

from study.common.groups import EMOTIONS
from study.config.settings import BackboneSettings, Computation
from study.data.bucketing import OVERHEAD, MicroBatches, make_micro_batches, padded_tokens
from study.data.examples import Batch
from study.data.features import audio_tokens, stored_length
from study.models.audio_encoder import encoder_states
from study.models.lora import with_lora
from study.models.memory_estimate import FLOAT32, RESERVED_FRACTION, TEXT_CONFIG_7B, bytes_per_token
from study.models.qwen2_audio import EmotionModel

TEXT_TOKENS = 50
LONGEST = 30.0  # seconds
BF16 = 2  # bytes
PAD = 1
SMALL = Qwen2AudioConfig(
    audio_config={
        "model_type": "qwen2_audio_encoder",
        "d_model": 80,
        "encoder_layers": 4,
        "encoder_attention_heads": 4,
        "encoder_ffn_dim": 320,
    },
    text_config={
        "model_type": "qwen2",
        "vocab_size": 1216,
        "hidden_size": 256,
        "intermediate_size": 688,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
    },
    audio_token_index=0,
)


def clip_seconds(size: int, rng: np.random.Generator, longest: float = LONGEST) -> np.ndarray:
    """Return log-normal lengths of clips, 3.6 s on average, from 0.5 s to ``longest``."""
    return np.clip(rng.lognormal(np.log(3.6) - 0.7**2 / 2, 0.7, size), 0.5, longest)


def noise_batch(config: Qwen2AudioConfig, frames: np.ndarray, device: torch.device) -> Batch:
    """Return one padded batch of noise."""
    audio = [audio_tokens(int(length)) for length in frames]
    ids = torch.full((len(frames), TEXT_TOKENS + max(audio)), PAD)
    for row, tokens in zip(ids, audio, strict=True):
        row[: TEXT_TOKENS + tokens] = torch.randint(10, config.text_config.vocab_size - 10, (TEXT_TOKENS + tokens,))
        row[10 : 10 + tokens] = config.audio_token_id
    longest = stored_length(int(frames.max()))
    return Batch(
        input_ids=ids,
        prompt_lengths=torch.tensor([TEXT_TOKENS + tokens for tokens in audio]),
        frames=torch.from_numpy(frames),
        labels=torch.randint(0, len(EMOTIONS), (len(frames),)),
        groups=torch.zeros(len(frames), dtype=torch.long),
        rows=torch.arange(len(frames)),
        log_mel=torch.randn(len(frames), longest, config.audio_config.num_mel_bins),
    ).to(device)


def fitting_seconds(config: Qwen2AudioConfig, size: int, free: float) -> float:
    """Return the longest clips, up to 30 s, with which a padded batch fits in ``free`` bytes.

    Logits are computed at every position.
    """
    logits = config.text_config.vocab_size * (2 * BF16 + 2 * FLOAT32)  # with their gradients, in both types
    bytes_of_token = bytes_per_token(config, BackboneSettings(), BF16) + logits
    tokens = (1 - RESERVED_FRACTION) * free / bytes_of_token / size - TEXT_TOKENS - 2  # two for the answer
    return min(LONGEST, max(0.5, tokens / audio_tokens(100)))


def timed(step: Callable[[], object], on_gpu: bool) -> float:
    """Return the seconds of a step: wall-clock time on a GPU, else processor time."""
    clock = time.perf_counter if on_gpu else time.process_time
    start = clock()
    step()
    if on_gpu:
        torch.cuda.synchronize()
    return clock() - start


def parse_options(name: str, doc: str | None, shape: str, batch_size: int) -> argparse.Namespace:
    """Parse the options of a benchmark of steps; exit if the shape of the 7B has no GPU."""
    parser = argparse.ArgumentParser(prog=f"python -m tests.benchmarks.{name}", description=(doc or "").split("\n")[0])
    parser.add_argument("--shape", choices=(shape, "7b"), default=shape)
    parser.add_argument("--batch-size", type=int, default=None, help=f"default: {batch_size}, or 64 for the 7B")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if options.shape == "7b" and not torch.cuda.is_available():
        parser.error("--shape 7b needs a GPU; leave it out")
    options.batch_size = options.batch_size or (64 if options.shape == "7b" else batch_size)
    return options


def random_model(config: Qwen2AudioConfig) -> tuple[Qwen2AudioForConditionalGeneration, torch.device]:
    """Return a model with random weights: bfloat16 on the GPU, or float32 on one thread of the CPU."""
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda" if on_gpu else "cpu")
    if not on_gpu:
        torch.set_num_threads(1)
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16 if on_gpu else torch.float32)
    with device:
        base = Qwen2AudioForConditionalGeneration(config)
    torch.set_default_dtype(torch.float32)
    return base, device


def main() -> int:
    options = parse_options("levers", __doc__, "small", 16)
    config = SMALL if options.shape == "small" else Qwen2AudioConfig(text_config=TEXT_CONFIG_7B)
    base, device = random_model(config)
    on_gpu, size = device.type == "cuda", options.batch_size
    peft_model = with_lora(base, BackboneSettings())
    model = (
        EmotionModel(peft_model, [[20 + 2 * i, 5] for i in range(len(EMOTIONS))], pad_token_id=PAD).to(device).train()
    )
    encoder = base.model.audio_tower
    rng = np.random.default_rng(0)

    def with_states(batch: Batch) -> Batch:
        with torch.no_grad():
            return replace(batch, log_mel=None, encoder_states=encoder_states(encoder, batch.log_mel, batch.frames))

    def train(batches: list[Batch]) -> None:
        sum(model(batch, score=False)[0].sum() for batch in batches).backward()
        model.zero_grad(set_to_none=True)

    def train_with(computation: Computation) -> Callable[[list[Batch]], None]:
        def work(batches: list[Batch]) -> None:
            model.computation = computation
            train(batches)
            model.computation = Computation()

        return work

    as_stock = {
        "encoder on 30 s": train_with(Computation(encoder_input="30_seconds")),
        "head at every position": train_with(Computation(head="every_position")),
    }

    def score(batches: list[Batch]) -> None:
        with torch.no_grad():
            for batch in batches:
                model(batch, score=True)

    longest = fitting_seconds(config, size, torch.cuda.mem_get_info()[0]) if on_gpu else LONGEST
    print(f"clips of at most {longest:.1f} s")
    times: dict[str, list[float]] = {}
    padding: dict[str, list[float]] = {"one batch": [], "buckets": []}
    for _ in range(options.rounds + 1):
        frames = np.round(100 * clip_seconds(size, rng, longest)).astype(np.int64)
        lengths = np.array([TEXT_TOKENS + audio_tokens(int(length)) for length in frames])
        plans: dict[str, MicroBatches] = {
            "one batch": [[np.arange(size)]],
            "buckets": make_micro_batches([np.arange(size)], lengths, size, None, OVERHEAD)[0],
        }
        for plan, micro_batches in plans.items():
            padding[plan].append(padded_tokens(micro_batches, lengths) / lengths.sum())
            batches_with_mel = [noise_batch(config, frames[bucket], device) for bucket in micro_batches[0]]
            batches_with_states = [with_states(batch) for batch in batches_with_mel]
            for encoder_runs, batches in (
                ("encoder run", batches_with_mel),
                ("cached encoder states", batches_with_states),
            ):
                for name, work in (("training", train), ("scoring", score)):
                    seconds = timed(lambda work=work, batches=batches: work(batches), on_gpu)
                    times.setdefault(f"{name}, {plan}, {encoder_runs}", []).append(seconds)
            if plan == "one batch":
                for name, work in as_stock.items():
                    seconds = timed(lambda work=work, batches=batches_with_mel: work(batches), on_gpu)
                    times.setdefault(f"training, {plan}, {name}", []).append(seconds)
    for name in ("training", "scoring"):
        plain = times[f"{name}, one batch, encoder run"][1:]
        for key in [key for key in times if key.startswith(name)]:
            ratios = [before / after for before, after in zip(plain, times[key][1:], strict=True)]
            print(f"{key:45} {1000 * statistics.median(times[key][1:]):8.0f} ms, {statistics.median(ratios):.2f} times")
    for plan, each in padding.items():
        print(f"{plan}: {statistics.median(each):.2f} padded tokens per token")
    return 0


if __name__ == "__main__":
    sys.exit(main())
