"""Free answers against the stock ``generate``, and what is read out of them."""

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
from study.evaluation.generation import answer_frame, emotion_of, generate, generate_answers
from study.evaluation.metrics import evaluate
from study.models.lora import load_model
from study.models.pretrained import load_processor
from study.models.qwen2_audio import EmotionModel


@pytest.fixture(scope="module")
def setting(small_study):
    """(dataset, processor, examples of dev, model, stock model); both models with the same enlarged weights."""
    _, prepared = small_study
    processor = load_processor(prepared.backbone)
    dataset = features.load(prepared.features)
    dev = np.flatnonzero(np.array(dataset["split"]) == "dev")
    examples = Examples.of_rows(dataset, dev, cells(LANGUAGES, ["speech+text"]), Prompt(), processor)
    stock = Qwen2AudioForConditionalGeneration.from_pretrained(prepared.backbone).eval()
    torch.manual_seed(1)
    with torch.no_grad():  # larger than at initialisation, so that the answers differ between clips
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


def stock_answers(setting, rows: list[int], end: int) -> list[list[int]]:
    """What transformers' own ``generate`` makes of the stock inputs: 30 s of mel, one clip at a time."""
    dataset, processor, examples, _, stock = setting
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


def test_answers_are_those_of_the_stock_generate(setting):
    _, processor, examples, model, _ = setting
    rows = [0, 7, 12, 30, 41]
    batch = examples.collate(rows)
    assert len(set(batch.prompt_lengths.tolist())) > 2  # so that there is padding
    im_end = processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
    ours = generate(model, batch, im_end, max_tokens=12)
    assert ours == stock_answers(setting, rows, im_end)
    assert len({tuple(answer) for answer in ours}) > 1
    # a token that occurs in some answers as the end: those stop there, the others go on
    end = next(answer[3] for answer in ours if len(answer) > 3)
    stopped = generate(model, batch, end, max_tokens=12)
    assert stopped == stock_answers(setting, rows, end) != ours


def test_answers_come_in_the_order_of_the_examples(setting):
    _, processor, examples, model, _ = setting
    few = Examples(**{**vars(examples), **{
        name: getattr(examples, name)[:5] for name in ("utterances", "modalities", "labels", "groups", "lengths")
    }, "input_ids": examples.input_ids[:5]})  # fmt: skip
    together = generate_answers(model, few, processor.tokenizer, batch_size=2, device=torch.device("cpu"))
    end = processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
    alone = [generate(model, few.collate([row]), end)[0] for row in range(5)]
    assert together == processor.tokenizer.batch_decode(alone, skip_special_tokens=True)
    assert len(set(together)) > 1


@pytest.mark.parametrize(
    ("answer", "emotion"),
    [
        ("joy", "joy"),
        (" Joy.\n", "joy"),
        ("The speaker expresses sadness, not joy.", "invalid"),
        ("sad", "sadness"),
        ("She is ANGRY, very angry.", "anger"),
        ("neutral, joy, surprise, anger, sadness, disgust, fear", "invalid"),
        ("ｊｏｙ", "joy"),
        ("ang", "invalid"),
        ("They enjoy it, fearlessly", "invalid"),
        ("NEUTRAL", "neutral"),
        ("joy_", "invalid"),
        ("", "invalid"),
        ("???", "invalid"),
    ],
)
def test_an_answer_names_one_emotion_or_is_invalid(answer, emotion):
    assert emotion_of(answer, EMOTIONS) == emotion


def test_label_words_of_any_language():
    japanese = ("中立", "喜び", "驚き", "怒り", "悲しみ", "嫌悪", "恐れ")
    assert emotion_of("話者は喜びを感じています。", japanese) == "joy"
    german = ("neutral", "Freude", "Überraschung", "Ärger", "Trauer", "Ekel", "Angst")
    assert emotion_of("Das ist überraschung", german) == "surprise"
    assert emotion_of("Verärgert", german) == "anger" and emotion_of("Ärgerlich", german) == "invalid"
    assert emotion_of("彼は怒っている", german) == "anger"
    assert emotion_of("U\u0308berraschung", german) == "surprise"  # decomposed
    assert emotion_of("sad", german) == emotion_of("Trauer!", german) == "sadness"
    nested = ("neutral", "joy", "joyful surprise", "anger", "anger at it", "disgust", "fear")
    assert emotion_of("joyful surprise", nested) == "surprise" and emotion_of("anger at it", nested) == "sadness"


def test_invalid_answers_are_wrong_and_counted_by_gender(setting):
    dataset, _, examples, _, _ = setting
    utterances = dataset.select_columns(["utterance_id", "language", "gender", "emotion"]).to_pandas()
    genders = utterances["gender"].to_numpy()[examples.utterances]
    truth = utterances["emotion"].to_numpy()[examples.utterances]
    answers = ["hm" if gender == "female" else f"{word}." for gender, word in zip(genders, truth, strict=True)]
    figures = evaluate(answer_frame(examples, answers, EMOTIONS, utterances))
    for cell in figures["cells"].values():
        assert cell["by_group"]["female"]["invalid"] == 1 and cell["by_group"]["female"]["accuracy"] == 0
        assert cell["by_group"]["male"]["invalid"] == 0 and cell["by_group"]["male"]["accuracy"] == 1
