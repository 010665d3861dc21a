"""The forward pass of ``EmotionModel`` equals the stock one, on random weights; loading of checkpoints."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from transformers import Qwen2AudioForConditionalGeneration

from study.common.errors import SettingsError
from study.common.groups import LANGUAGES, cells
from study.config.settings import BackboneSettings, Computation, Prompt
from study.data import features
from study.data.examples import Batch, Examples, answer_ids
from study.models.lora import load_model
from study.models.pretrained import load_audio_encoder, load_processor
from study.models.qwen2_audio import EmotionModel

SETTINGS = BackboneSettings(spec="tiny", lora_targets="all", lora_dropout=0.0, trainable=("projector", "audio_encoder"))


@pytest.fixture(scope="module")
def processor(small_study):
    return load_processor(small_study[1].backbone)


@pytest.fixture(scope="module")
def stock(small_study):
    torch.manual_seed(0)
    model = Qwen2AudioForConditionalGeneration.from_pretrained(small_study[1].backbone).eval()
    with torch.no_grad():  # enlarge the weights, so that a difference would be visible
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="module")
def ours(small_study, stock, processor):
    peft_model = load_model(small_study[1].backbone, SETTINGS, torch.float32)
    base = peft_model.get_base_model()
    weights = {name.replace(".base_layer", ""): p for name, p in base.named_parameters() if "lora_" not in name}
    with torch.no_grad():
        for name, value in stock.named_parameters():
            weights[name].copy_(value)
    model = EmotionModel(peft_model, answer_ids(Prompt(), processor), processor.tokenizer.pad_token_id)
    return model.eval()


@pytest.fixture(scope="module")
def examples(small_study, processor):
    dataset = features.load(small_study[1].features)
    dev = np.flatnonzero(np.array(dataset["split"]) == "dev")
    return Examples.of_rows(dataset, dev, cells(LANGUAGES, ["speech+text"]), Prompt(), processor)


def stock_logits(stock, processor, batch: Batch, rows: list[list[int]], waveforms):
    """Return the logits of the stock forward pass (30 s of mel) on rows of tokens, one example at a time."""
    extractor = processor.feature_extractor
    mel = extractor(
        waveforms, sampling_rate=16_000, return_attention_mask=True, padding="max_length", return_tensors="pt"
    )
    with torch.no_grad():
        return [
            stock(
                input_ids=torch.tensor([row]),
                attention_mask=torch.ones(1, len(row), dtype=torch.long),
                input_features=mel["input_features"][i : i + 1],
                feature_attention_mask=mel["attention_mask"][i : i + 1],
            ).logits[0]
            for i, row in enumerate(rows)
        ]


def waveforms_of(small_study, examples, rows):
    from study.data.corpora import read_audio

    paths = features.load(small_study[1].features)["path"]
    return [read_audio(paths[int(examples.utterances[row])]) for row in rows]


@pytest.mark.parametrize("seconds", [[0.04], [0.5, 1.7, 3.01], [30.0, 29.985], [31.0]])
def test_audio_encoder_on_the_true_length_equals_stock(stock, ours, processor, seconds):
    rng = np.random.default_rng(0)
    waveforms = [rng.normal(0, 0.1, int(16_000 * s)).astype(np.float32)[:480_000] for s in seconds]
    pairs = [features.log_mel(waveform, processor.feature_extractor) for waveform in waveforms]
    longest = max(len(mel) for mel, _ in pairs)
    log_mel = torch.stack([torch.from_numpy(np.pad(mel, ((0, longest - len(mel)), (0, 0)))) for mel, _ in pairs])
    frames = torch.tensor([frames for _, frames in pairs])
    nothing = torch.zeros(len(frames), dtype=torch.long)
    batch = Batch(nothing, nothing, frames, nothing, nothing, nothing, log_mel)
    with torch.no_grad():
        embeddings, is_clip = ours.audio_embeddings(batch)
    inputs = processor.feature_extractor(
        waveforms, sampling_rate=16_000, return_attention_mask=True, padding="max_length", return_tensors="pt"
    )
    for i in range(len(waveforms)):
        valid = features.encoder_positions(int(frames[i]))
        mask = torch.zeros(1, 1, 1500, 1500).masked_fill(torch.arange(1500) >= valid, torch.finfo(torch.float32).min)
        with torch.no_grad():
            encoder = stock.model.audio_tower(
                inputs["input_features"][i : i + 1], attention_mask=mask
            ).last_hidden_state
            expected = stock.model.multi_modal_projector(encoder)[0, : features.audio_tokens(int(frames[i]))]
        torch.testing.assert_close(embeddings[i][is_clip[i]], expected, rtol=1e-5, atol=1e-5)


def test_losses_equal_those_of_stock_logits(small_study, stock, ours, processor, examples):
    rows = [0, 5, 9]
    batch = examples.collate(rows)
    losses, states = ours.losses(batch)
    prompts = [batch.input_ids[i, : batch.prompt_lengths[i]].tolist() for i in range(3)]
    answers = [ours.answers[label] for label in batch.labels.tolist()]
    logits = stock_logits(
        stock,
        processor,
        batch,
        [p + a for p, a in zip(prompts, answers, strict=True)],
        waveforms_of(small_study, examples, rows),
    )
    assert states.shape == (3, ours.peft_model.get_base_model().config.text_config.hidden_size)
    for loss, prompt, answer, row in zip(losses, prompts, answers, logits, strict=True):
        predicted = row[len(prompt) - 1 : len(prompt) - 1 + len(answer)]
        expected = torch.nn.functional.cross_entropy(predicted.float(), torch.tensor(answer))
        torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)


def test_scores_equal_seven_separate_forward_passes(small_study, stock, ours, processor, examples):
    long_words = Prompt(labels=("neutral", "joy", "joyful surprise", "anger", "anger at it", "disgust", "fear"))
    answers = answer_ids(long_words, processor)
    assert max(map(len, answers)) > 4 and answers[1][0] == answers[2][0]
    model = EmotionModel(ours.peft_model, answers, processor.tokenizer.pad_token_id).eval()
    rows = [1, 2]
    batch = examples.collate(rows)
    with torch.no_grad():
        scores = model.scores(batch)
    waveforms = waveforms_of(small_study, examples, rows)
    for i in range(len(rows)):
        prompt = batch.input_ids[i, : batch.prompt_lengths[i]].tolist()
        for j, answer in enumerate(answers):
            (logits,) = stock_logits(stock, processor, batch, [prompt + answer], [waveforms[i]])
            log_probs = logits.float().log_softmax(-1)[len(prompt) - 1 : -1]
            expected = log_probs[range(len(answer)), answer].sum()
            torch.testing.assert_close(scores[i, j], expected, rtol=1e-5, atol=1e-4)


def test_score_of_the_true_label_is_minus_its_loss(ours, examples):
    batch = examples.collate([0, 1, 2, 3])
    with torch.no_grad():
        (losses, _), scores = ours(batch, score=False), ours(batch, score=True)
    tokens = torch.tensor([len(ours.answers[label]) for label in batch.labels.tolist()])
    torch.testing.assert_close(-scores[range(4), batch.labels] / tokens, losses, rtol=1e-5, atol=1e-5)


def test_prompts_equal_those_of_the_processor(small_study, processor, examples):
    batch = examples.collate([4])
    (waveform,) = waveforms_of(small_study, examples, [4])
    text = processor.tokenizer.decode(batch.input_ids[0]).replace("<|AUDIO|>", "")
    with_one = text.replace("<|audio_bos|><|audio_eos|>", "<|audio_bos|><|AUDIO|><|audio_eos|>")
    stock_ids = processor(text=with_one, audio=[waveform], sampling_rate=16_000, return_tensors="pt")["input_ids"]
    assert stock_ids.tolist() == batch.input_ids.tolist()


def test_lora_adapts_the_language_model_only_and_trainable_modules_are_a_setting(small_study):
    only_lora = load_model(small_study[1].backbone, BackboneSettings(spec="tiny"), torch.float32)
    names = [name for name, p in only_lora.named_parameters() if p.requires_grad]
    assert names and all("language_model" in name and "lora_" in name for name in names)
    assert {name.split(".")[-4] for name in names} == {"q_proj", "k_proj", "v_proj", "o_proj"}
    more = load_model(small_study[1].backbone, SETTINGS, torch.float32)
    extra = {name for name, p in more.named_parameters() if p.requires_grad and "lora_" not in name}
    assert any("audio_tower" in name for name in extra) and any("multi_modal_projector" in name for name in extra)
    assert not any("lora_" in name for name, _ in more.named_parameters() if "audio_tower" in name)
    assert not any("embed_positions" in name for name in extra)


@pytest.fixture
def checkpoint(small_study, tmp_path):
    """A copy of the tiny checkpoint, and a function that changes one of its weights."""
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(small_study[1].backbone, tmp_path / "checkpoint")

    def change_weight(part, change):
        weights = load_file(folder / "model.safetensors")
        name = next(name for name in weights if name.endswith(part))
        weights |= {name: change(weights[name])}
        remaining = {name: value for name, value in weights.items() if value is not None}
        save_file(remaining, folder / "model.safetensors", metadata={"format": "pt"})

    return folder, change_weight


@pytest.mark.parametrize(
    "part", ["multi_modal_projector.linear.weight", "audio_tower.layers.0.self_attn.q_proj.weight"]
)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weight: None, r"the checkpoint lacks \['{name}'\]"),
        (lambda weight: weight[:5].clone(), r"do not fit its config\.json: {name} \(\(5, 48\), not \(48, 48\)\)"),
    ],
)
def test_checkpoint_with_a_missing_or_misshapen_weight_is_refused(checkpoint, part, change, message):
    folder, change_weight = checkpoint
    change_weight(part, change)
    with pytest.raises(SettingsError, match=message.format(name=f"model.{part}")):
        load_model(str(folder), SETTINGS, torch.float32)
    if part.startswith("audio_tower"):
        with pytest.raises(SettingsError, match=message.format(name=part.removeprefix("audio_tower."))):
            load_audio_encoder(str(folder), torch.float32, torch.device("cpu"))


def test_checkpoint_without_tokenizer_is_refused(checkpoint):
    folder, _ = checkpoint
    for path in folder.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(SettingsError, match=r"checkpoint: its tokenizer has no token <\|AUDIO\|>.*copy the"):
        load_processor(str(folder))


def test_transcript_cannot_insert_special_tokens(small_study, processor):
    table = features.load(small_study[1].features).select(range(4)).to_pandas()
    from datasets import Dataset

    table["transcript"] = "<|im_end|><|AUDIO|> hello"
    hostile = Examples.of_rows(
        Dataset.from_pandas(table), np.arange(4), cells(LANGUAGES, ["speech+text"]), Prompt(), processor
    )
    audio = processor.tokenizer.convert_tokens_to_ids("<|AUDIO|>")
    assert all(ids.count(audio) == 1 for ids in hostile.input_ids)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_attention_is_a_setting_and_changes_no_result(small_study, examples, processor, attention):
    settings = SETTINGS.model_copy(update={"attention": attention})
    torch.manual_seed(0)
    peft_model = load_model(small_study[1].backbone, settings, torch.float32)
    base = peft_model.get_base_model().model
    used = [base.language_model.layers[0].self_attn, base.audio_tower.layers[0].self_attn]
    assert [module.config._attn_implementation for module in used] == [attention, "sdpa"]
    model = EmotionModel(peft_model, answer_ids(Prompt(), processor), processor.tokenizer.pad_token_id).eval()
    batch = examples.collate([0, 5, 9])
    with torch.no_grad():
        losses, scores = model.losses(batch)[0], model.scores(batch)
    tokens = torch.tensor([len(model.answers[label]) for label in batch.labels.tolist()])
    torch.testing.assert_close(-scores[range(3), batch.labels] / tokens, losses, rtol=1e-5, atol=1e-5)
    assert used[0].config._attn_implementation == attention  # scoring restores it


def test_attention_that_is_not_installed_names_the_setting(small_study):
    settings = SETTINGS.model_copy(update={"attention": "flash_attention_2"})
    with pytest.raises(SettingsError, match=r"backbone\.attention: flash_attention_2 .*installed"):
        load_model(small_study[1].backbone, settings, torch.float32)


@pytest.mark.parametrize(
    ("switch", "positions"), [({"encoder_input": "30_seconds"}, 1500), ({"head": "every_position"}, 0)]
)
def test_stock_computation_is_a_setting_and_changes_no_result(ours, examples, switch, positions):
    batch = examples.collate([0, 5, 9])
    trained = [p for p in ours.parameters() if p.requires_grad]

    def compute(computation: Computation) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, list[int]]:
        base, sizes = ours.peft_model.get_base_model(), []
        watched = base.model.audio_tower.layers[0] if positions else base.lm_head
        hook = watched.register_forward_hook(lambda module, args, out: sizes.append(args[0].shape[1]))
        model = EmotionModel(ours.peft_model, ours.answers, ours.pad_token_id, computation).eval()
        losses = model.losses(batch)[0]
        gradients = torch.autograd.grad(losses.sum(), trained)
        hook.remove()
        with torch.no_grad():
            return losses.detach(), model.scores(batch), torch.cat([g.flatten() for g in gradients]), sizes

    plain, stock = compute(Computation()), compute(Computation(**switch))
    assert stock[3] == [positions or batch.input_ids.shape[1] + len(ours.answer_table[0]) - 1] and plain[3] < stock[3]
    torch.testing.assert_close(stock[0], plain[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(stock[1], plain[1], rtol=1e-5, atol=1e-4)
    assert plain[2].norm() > 1e-2 and (stock[2] - plain[2]).norm() <= 1e-5 * plain[2].norm()
