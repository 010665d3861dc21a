"""Compare our sweep with a plain sweep of Hugging Face's ``Trainer`` under Optuna on the same work.

``python -m tests.benchmarks.peer`` uses the tiny backbone; ``--shape 7b`` uses random weights of Qwen2-Audio-7B's
shape, on a GPU. Both sides have the same checkpoint, clips, prompt, LoRA, batch size and epochs, one worker, and
separate processes that alternate; medians are printed. The peer is what a user would write today: the stock processor
with padding to 30 s, the stock forward pass with labels of -100 on the prompt, the fastest of a few micro-batch sizes,
and the model loaded for every trial. It evaluates with one forward pass and a loss; our side scores seven labels.
``tests.benchmarks.peer_step`` compares single steps, without Ray, DeepSpeed and Optuna.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import torch

from tests import REPO

CHECKPOINT, CORPUS = "checkpoint", "corpus"
MICRO = (4, 8, 16, 24, 32, 64)  # micro-batch sizes that the peer tries, if they divide the batch
TRIED_STEPS = 2
FIGURES = ("training examples/s", "evaluation examples/s", "seconds per trial", "seconds per sweep", "peak memory, GB")


def make_work(place: Path, shape: str) -> None:
    """Write the checkpoint and the clips of both sides."""
    from transformers import AutoProcessor, Qwen2AudioConfig, Qwen2AudioForConditionalGeneration

    from study.config.settings import Prompt
    from study.data.corpora.synthetic.corpus import write_corpus
    from study.data.corpora.synthetic.dialogues import SMALL
    from study.models.memory_estimate import TEXT_CONFIG_7B
    from study.models.tiny import tiny_checkpoint
    from study.planning.prepare import PROMPT_SHARE

    write_corpus(place / CORPUS, ("scarcity", "prior", "cue"), seed=0, size=SMALL)
    prompt = Prompt()
    texts = [prompt.system, prompt.question_with_labels(), prompt.transcript, *prompt.labels] * PROMPT_SHARE
    tiny = tiny_checkpoint(texts, place / "cache")
    if shape == "tiny":
        shutil.copytree(tiny, place / CHECKPOINT)
        return
    processor = AutoProcessor.from_pretrained(tiny)
    processor.feature_extractor = type(processor.feature_extractor)(feature_size=128)
    audio = processor.tokenizer.convert_tokens_to_ids(processor.audio_token)
    config = Qwen2AudioConfig(text_config=TEXT_CONFIG_7B, audio_token_index=audio)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        model = Qwen2AudioForConditionalGeneration(config)
    model.save_pretrained(place / CHECKPOINT)
    processor.save_pretrained(place / CHECKPOINT)


class Clips(torch.utils.data.Dataset):
    """Conversations with answers, and waveforms for the stock processor."""

    def __init__(self, place: Path, split: str, processor: Any):
        from study.config.settings import CorpusSettings, Prompt
        from study.data.corpora import load_corpus, read_audio
        from study.data.examples import render_prompt

        prompt = Prompt()
        table = load_corpus(CorpusSettings(spec=f"meld-st:{place / CORPUS}"), place / "cache").utterances
        table = table[table["split"] == split]
        self.waveforms = [read_audio(path, "as_recorded") for path in table["path"]]
        self.prompts = [render_prompt(prompt, processor, "speech+text", text) for text in table["transcript"]]
        self.answers = [f"{emotion}<|im_end|>" for emotion in table["emotion"]]

    def __len__(self) -> int:
        return len(self.prompts)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {"prompt": self.prompts[i], "answer": self.answers[i], "audio": self.waveforms[i]}


def collate(examples: list[dict[str, Any]], processor: Any) -> dict[str, torch.Tensor]:
    """Return a batch of the stock processor, padded on the right, with labels on the answers."""
    texts = [example["prompt"] + example["answer"] for example in examples]
    batch = processor(
        text=texts,
        audio=[example["audio"] for example in examples],
        sampling_rate=16_000,
        padding=True,
        return_tensors="pt",
    )
    labels = torch.full_like(batch["input_ids"], -100)
    for i, example in enumerate(examples):
        length = int(batch["attention_mask"][i].sum())
        answer = len(processor.tokenizer(example["answer"], add_special_tokens=False)["input_ids"])
        labels[i, length - answer : length] = batch["input_ids"][i, length - answer : length]
    batch["labels"] = labels
    return batch


def peer(flags: argparse.Namespace) -> dict[str, float]:
    """Run the sweep of ``Trainer`` and Optuna; return its figures."""
    from functools import partial

    import optuna
    from peft import LoraConfig, get_peft_model
    from transformers import AutoProcessor, Qwen2AudioForConditionalGeneration, Trainer, TrainingArguments

    from study.config.settings import BackboneSettings
    from study.models.lora import lora_pattern

    began = time.perf_counter()
    place, on_gpu, lora = Path(flags.place), torch.cuda.is_available(), BackboneSettings()
    processor = AutoProcessor.from_pretrained(place / CHECKPOINT)
    processor.tokenizer.padding_side = "right"
    data = {split: Clips(place, split, processor) for split in ("train", "dev", "test")}

    def trainer(micro: int, rate: float, steps: int) -> Any:
        model = Qwen2AudioForConditionalGeneration.from_pretrained(
            place / CHECKPOINT, dtype=torch.bfloat16 if on_gpu else torch.float32
        )
        matrices = LoraConfig(
            r=lora.lora_rank,
            lora_alpha=lora.lora_alpha,
            lora_dropout=lora.lora_dropout,
            target_modules=lora_pattern(lora),
            task_type="CAUSAL_LM",
        )
        arguments = TrainingArguments(
            output_dir=str(place / "trainer"),
            per_device_train_batch_size=micro,
            per_device_eval_batch_size=32,
            gradient_accumulation_steps=-(-flags.batch_size // micro),
            learning_rate=rate,
            num_train_epochs=flags.epochs,
            max_steps=steps,
            bf16=on_gpu,
            use_cpu=not on_gpu,
            remove_unused_columns=False,
            prediction_loss_only=True,
            dataloader_drop_last=True,
            dataloader_num_workers=4 if on_gpu else 0,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        )
        return Trainer(
            model=get_peft_model(model, matrices),
            args=arguments,
            train_dataset=data["train"],
            data_collator=partial(collate, processor=processor),
        )

    seconds = {}
    tries = [m for m in MICRO if not flags.batch_size % m]
    for micro in [tries[0], *tries]:  # the first try is a warm-up
        try:
            tried = trainer(micro, 5e-5, TRIED_STEPS)
            started = time.perf_counter()
            tried.train()
            seconds[micro] = time.perf_counter() - started
        except torch.OutOfMemoryError:
            break
        finally:
            tried = None  # frees the memory of its model
    micro = min(seconds, key=seconds.__getitem__)
    choosing, began = time.perf_counter() - began, time.perf_counter()  # a user chooses once, so it does not count
    training, evaluating, trials = [], [], []

    def objective(trial: Any) -> float:
        started = time.perf_counter()
        running = trainer(micro, trial.suggest_float("learning_rate", 1e-5, 1e-3, log=True), -1)
        before = time.perf_counter()
        running.train()
        training.append(time.perf_counter() - before)
        before = time.perf_counter()
        loss = running.evaluate(data["dev"])["eval_loss"]
        running.evaluate(data["test"])
        evaluating.append(time.perf_counter() - before)
        trials.append(time.perf_counter() - started)
        return loss

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    optuna.create_study().optimize(objective, n_trials=flags.trials)
    trained = flags.epochs * (len(data["train"]) // micro) * micro
    scored = len(data["dev"]) + len(data["test"])
    print(f"peer: micro-batch {micro}, chosen in {choosing:.0f} s", file=sys.stderr)
    return {
        FIGURES[0]: trained / statistics.median(training),
        FIGURES[1]: scored / statistics.median(evaluating),
        FIGURES[2]: statistics.median(trials),
        FIGURES[3]: time.perf_counter() - began,
    }


def ours(flags: argparse.Namespace) -> dict[str, float]:
    """Run our sweep; return its figures, with rates from its records."""
    from study.storage.study_folder import StudyFolder
    from study.storage.study_state import StudyState

    place = Path(flags.place)
    storage = tempfile.mkdtemp(prefix="ours", dir=place)
    command = [
        sys.executable,
        str(REPO / "study/sweep.py"),
        "--corpus",
        f"meld-st:{place / CORPUS}",
        "--num-workers",
        "1",
    ]
    command += ["--backbone", str(place / CHECKPOINT), "--trials", str(flags.trials), "--epochs", str(flags.epochs)]
    command += ["--set", f"optimisation.batch_size={flags.batch_size}", "--storage", storage, "--study", "ours"]
    command += ["--set", "optimisation.patience=1000", *flags.ours]
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    wall = time.perf_counter() - began
    folder = StudyFolder.at(storage, "ours")
    trials = list(StudyState(folder).trials.values())
    runs = [folder.read_json(f"runs/{trial['config_id']}/0/finished.json") for trial in trials]
    steps = len(folder.read_parquet(f"runs/{trials[0]['config_id']}/0/steps.parquet"))
    table = folder.read_parquet(f"runs/{trials[0]['config_id']}/0/predictions.parquet")
    parts = table["split"].value_counts()
    scored = flags.epochs * parts["dev"] + parts["test"]
    return {
        FIGURES[0]: steps * flags.batch_size / statistics.median(run["seconds"]["train"] for run in runs),
        FIGURES[1]: float(scored / statistics.median(run["seconds"]["evaluate"] for run in runs)),
        FIGURES[2]: statistics.median(trial["seconds"] for trial in trials),
        FIGURES[3]: wall,
    }


def measured(arguments: list[str]) -> dict[str, float]:
    """Return the figures of one side, run in a separate process, with the peak memory of it and its children."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.peer", *arguments], cwd=REPO, stdout=subprocess.PIPE, text=True
    )
    peak = [0.0]

    def watch() -> None:
        while process.poll() is None:
            peak[0] = max(peak[0], _used_memory(process.pid))
            time.sleep(0.5)

    watcher = threading.Thread(target=watch)
    watcher.start()
    out, _ = process.communicate()
    watcher.join()
    if process.returncode:
        raise SystemExit(f"error: {' '.join(arguments)} ended with {process.returncode}")
    return {**json.loads(out.splitlines()[-1]), FIGURES[4]: peak[0]}


def _used_memory(pid: int) -> float:
    """Return GB in use: of the GPU, or else of a process and its children without shared pages."""
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        return (total - free) / 1e9
    used = 0.0
    try:
        root = psutil.Process(pid)
        for process in [root, *root.children(recursive=True)]:
            used += process.memory_full_info().uss / 1e9
    except psutil.NoSuchProcess:
        pass
    return used


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.peer", description=__doc__.split("\n")[0])
    parser.add_argument("--shape", choices=("tiny", "7b"), default="tiny")
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--place", default=None, help="folder for the work (default: a temporary one)")
    parser.add_argument("--side", choices=("peer", "ours"), default=None, help="print the figures of one side as JSON")
    parser.add_argument("--ours", action="append", default=[], help="another option of our sweep; repeatable")
    flags = parser.parse_args()
    if flags.side:
        print(json.dumps({"peer": peer, "ours": ours}[flags.side](flags)))
        return 0
    if flags.shape == "7b" and not torch.cuda.is_available():
        print("error: --shape 7b needs a GPU; use --shape tiny", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(dir=flags.place) as folder:
        os.environ |= {"TOKENIZERS_PARALLELISM": "false", "TRANSFORMERS_VERBOSITY": "error"}
        maker = multiprocessing.get_context("spawn").Process(target=make_work, args=(Path(folder), flags.shape))
        maker.start()  # a separate process, so that the GPU's memory is free afterwards
        maker.join()
        if maker.exitcode:
            return maker.exitcode
        shared = ["--place", folder, "--trials", str(flags.trials), "--epochs", str(flags.epochs)]
        shared += ["--batch-size", str(flags.batch_size), *(f"--ours={flag}" for flag in flags.ours)]
        sides: dict[str, list[dict[str, float]]] = {"peer": [], "ours": []}
        for _ in range(flags.repeats):
            for side, figures in sides.items():
                figures.append(measured([*shared, "--side", side]))
    print(f"| median of {flags.repeats} | peer | ours | ratio |\n| --- | ---: | ---: | ---: |")
    for figure in FIGURES:
        other, own = (statistics.median(each[figure] for each in sides[side]) for side in ("peer", "ours"))
        print(f"| {figure} | {other:.2f} | {own:.2f} | {own / other:.2f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
