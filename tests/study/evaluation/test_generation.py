"""Generated answers equal those of the stock ``generate``; their predictions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import Qwen2AudioForConditionalGeneration

from study.common.groups import EMOTIONS, LANGUAGES, cells
from study.config.settings import BackboneSettings, Prompt
from study.data import features
from study.data.corpora import read_audio
from study.data.examples import Examples, answer_ids
from study.evaluation.generation import answer_frame, generate, generate_answers
from study.evaluation.metrics import evaluate
from study.models.lora import load_model
from study.models.pretrained import load_processor
from study.models.qwen2_audio import EmotionModel


@pytest.fixture(scope="module")
def setup(small_study):
    """(dataset, processor, examples of dev, model, stock model); both models have the same enlarged weights."""
    _, prepared = small_study
    processor = load_processor(prepared.backbone)
    dataset = features.load(prepared.features)
    dev = np.flatnonzero(np.array(dataset["split"]) == "dev")
    examples = Examples.of_rows(dataset, dev, cells(LANGUAGES, ["speech+text"]), Prompt(), processor)
    stock = Qwen2AudioForConditionalGeneration.from_pretrained(prepared.backbone).eval()
    torch.manual_seed(1)
    with torch.no_grad():  # enlarge the weights, so that the answers differ between clips
        for parameter in stock.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    peft_model = load_model(prepared.backbone, BackboneSettings(spec="tiny", lora_targets="all"), torch.float32)
    base = peft_model.get_base_model()
    weights = {name.replace(".base_layer", ""): p for name, p in base.named_parameters() if "lora_" not in name}
    with torch.no_grad():
        for name, value in stock.named_parameters():
            weights[name].copy_(value)
    model = EmotionModel(peft_model, answer_ids(Prompt(), processor), processor.tokenizer.pad_token_id).eval()
    return dataset, processor, examples, model, stock


def stock_answers(setup, rows: list[int], end: int) -> list[list[int]]:
    """Return the answers of transformers' own ``generate`` on the stock inputs: 30 s of mel, one clip at a time."""
    dataset, processor, examples, _, stock = setup
    answers = []
    for row in rows:
        waveform = read_audio(dataset["path"][int(examples.utterances[row])])
        text = processor.tokenizer.decode(examples.input_ids[row])
        inputs = processor(text=text, audio=[waveform], sampling_rate=16_000, return_tensors="pt")
        with torch.no_grad():
            ids = stock.generate(
                **inputs,
                do_sample=False,
                max_new_tokens=12,
                eos_token_id=end,
                pad_token_id=processor.tokenizer.pad_token_id,
            )
        new = ids[0, inputs["input_ids"].shape[1] :].tolist()
        answers.append(new[: new.index(end)] if end in new else new)
    return answers


def test_answers_equal_those_of_the_stock_generate(setup):
    _, processor, examples, model, _ = setup
    rows = [0, 7, 12, 30, 41]
    batch = examples.collate(rows)
    assert len(set(batch.prompt_lengths.tolist())) > 2  # some rows are padded
    im_end = processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
    ours = generate(model, batch, im_end, max_tokens=12)
    assert ours == stock_answers(setup, rows, im_end)
    assert len({tuple(answer) for answer in ours}) > 1
    # with a token of some answers as the end token, only those answers stop early
    end = next(answer[3] for answer in ours if len(answer) > 3)
    stopped = generate(model, batch, end, max_tokens=12)
    assert stopped == stock_answers(setup, rows, end) != ours


def test_answers_have_the_order_of_the_examples(setup):
    _, processor, examples, model, _ = setup
    few = Examples(**{**vars(examples), **{
        name: getattr(examples, name)[:5] for name in ("utterances", "modalities", "labels", "groups", "lengths")
    }, "input_ids": examples.input_ids[:5]})  # fmt: skip
    batched = generate_answers(model, few, processor.tokenizer, batch_size=2, device=torch.device("cpu"))
    end = processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
    single = [generate(model, few.collate([row]), end)[0] for row in range(5)]
    assert batched == processor.tokenizer.batch_decode(single, skip_special_tokens=True)
    assert len(set(batched)) > 1


def test_invalid_answers_are_wrong_and_counted_by_gender(setup):
    dataset, _, examples, _, _ = setup
    utterances = dataset.select_columns(["utterance_id", "language", "gender", "emotion"]).to_pandas()
    genders = utterances["gender"].to_numpy()[examples.utterances]
    truth = utterances["emotion"].to_numpy()[examples.utterances]
    answers = ["hm" if gender == "female" else f"{word}." for gender, word in zip(genders, truth, strict=True)]
    figures = evaluate(answer_frame(examples, answers, EMOTIONS, utterances))
    for cell in figures["cells"].values():
        assert cell["by_group"]["female"]["invalid"] == 1 and cell["by_group"]["female"]["accuracy"] == 0
        assert cell["by_group"]["male"]["invalid"] == 0 and cell["by_group"]["male"]["accuracy"] == 1
