"""SUTLM: the loss against float64, tokens of each kind, packed rows, new rows alone, generation, classification."""

import pytest
import tiny_models
import torch
import transformers
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification

import speechzoo.modeling.modeling_sutlm as modeling
from speechzoo import SUTLMConfig, SUTLMForCausalLM, SUTLMForSequenceClassification, SUTLMModel

VOCABULARY, PADDING, END = tiny_models.VOCABULARY, 0, 2
JOINT = {
    "unit_token_start": 40,
    "unit_token_count": 20,
    "unit_start_token_id": 4,
    "text_start_token_id": 5,
    "unit_to_text_token_id": 6,
    "text_to_unit_token_id": 7,
    "eos_token_id": END,
    "pad_token_id": PADDING,
}
CONTROL, UNITS = {END, 4, 5, 6, 7}, set(range(40, 60))
NEW = [*range(40, 60), 4, 5, 6, 7]
OLD = [token for token in range(VOCABULARY) if token not in NEW]
FAMILIES = {
    **tiny_models.CAUSAL,
    "mistral": lambda: transformers.MistralConfig(sliding_window=4, **tiny_models.DECODER),
}
GENERATING = ["llama", "gpt2", "opt", "mistral"]


def sutlm(family: str, kind=SUTLMForCausalLM, implementation: str | None = None, **fields):
    """A random model whose weights are scaled up, so that what a token attends to shows."""
    torch.manual_seed(0)
    given = {"attn_implementation": implementation} if implementation else {}
    model = kind(SUTLMConfig(text_config=FAMILIES[family](), **{**JOINT, **fields}, **given)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(4)
    return model


def tokens(*lengths: int, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(4, VOCABULARY, (length,), generator=generator) for length in lengths]


def padded(sequences, side: str = "left") -> dict[str, torch.Tensor]:
    width = max(map(len, sequences))
    rows, masks = [], []
    for sequence in sequences:
        gap = (width - len(sequence), 0) if side == "left" else (0, width - len(sequence))
        rows.append(nn.functional.pad(sequence, gap, value=PADDING))
        masks.append(nn.functional.pad(torch.ones_like(sequence), gap))
    return {"input_ids": torch.stack(rows), "attention_mask": torch.stack(masks)}


def surprises(model, sequence) -> torch.Tensor:
    """[T - 1] negative log probabilities in float64, from the logits of the sequence alone."""
    with torch.no_grad():
        logits = model(sequence[None]).logits[0, :-1].double()
    return logits.logsumexp(-1) - logits.gather(1, sequence[1:, None])[:, 0]


# --- loss ---


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("return_logits", [False, True])
def test_loss_is_cross_entropy_over_supervised_positions(family, return_logits):
    model, sequences = sutlm(family), tokens(9, 5)
    batch = padded(sequences, "right")
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    labels[0, 3:5] = -100
    expected = torch.cat([surprises(model, sequence) for sequence in sequences])
    supervised = torch.ones(len(expected), dtype=torch.bool)
    supervised[2:4] = False
    output = model(**batch, labels=labels, return_logits=return_logits)
    torch.testing.assert_close(output.loss.double(), expected[supervised].mean(), rtol=1e-5, atol=1e-5)
    assert (output.logits is not None) == return_logits
    whole = model(**batch, labels=labels, return_logits=return_logits, num_items_in_batch=40).loss
    torch.testing.assert_close(whole.double(), expected[supervised].sum() / 40, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("return_logits", [False, True])
def test_each_kind_of_token_has_its_loss(return_logits):
    model = sutlm("llama")
    (sequence,) = tokens(40, seed=3)
    sequence[-1] = END
    output = model(sequence[None], labels=sequence[None], return_logits=return_logits)
    expected, targets = surprises(model, sequence), sequence[1:].tolist()
    for kind in ("speech", "text", "control"):
        chosen = [
            surprise
            for surprise, token in zip(expected, targets, strict=True)
            if kind == ("control" if token in CONTROL else "speech" if token in UNITS else "text")
        ]
        mean = torch.stack(chosen).mean()
        assert output[f"{kind}_tokens"] == len(chosen) > 1
        torch.testing.assert_close(output[f"{kind}_loss"].double(), mean, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(output[f"{kind}_perplexity"].double(), mean.exp(), rtol=1e-4, atol=1e-4)
        assert not output[f"{kind}_loss"].requires_grad
    assert output.loss.requires_grad


def test_a_kind_without_targets_has_no_loss():
    output = sutlm("llama")(torch.tensor([[41, 42, 43]]), labels=torch.tensor([[41, 42, 43]]))
    assert output.text_tokens == 0 and output.text_loss.isnan() and output.loss.isfinite()


class LargestTensor(TorchDispatchMode):
    elements = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        result = function(*arguments, **(keywords or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


def test_the_loss_never_holds_all_logits():
    config = tiny_models.DECODER | {"vocab_size": 999}
    model = SUTLMForCausalLM(SUTLMConfig(text_config=transformers.LlamaConfig(**config), **JOINT))
    (sequence,) = tokens(1500)
    with LargestTensor() as largest:
        model(sequence[None], labels=sequence[None]).loss.backward()
    assert largest.elements <= 256 * 999 < 1500 * 999 / 5


# --- several sequences in a row ---


@pytest.mark.parametrize(
    ("family", "implementation"),
    [*((name, None) for name in FAMILIES), ("llama", "eager"), ("mistral", "eager")],
)
def test_packed_sequences_do_not_see_each_other(family, implementation):
    model, sequences = sutlm(family, implementation=implementation), tokens(9, 1, 14, 6)
    positions = torch.cat([torch.arange(len(sequence)) for sequence in sequences])[None]
    packed = model(torch.cat(sequences)[None], position_ids=positions).logits[0]
    alone = torch.cat([model(sequence[None]).logits[0] for sequence in sequences])
    torch.testing.assert_close(packed, alone, rtol=1e-4, atol=1e-4)


def test_packed_rows_with_a_mask_or_a_cache_are_refused():
    model, row = sutlm("llama"), torch.tensor([[8, 9, 10, 11]])
    positions = torch.tensor([[0, 1, 0, 1]])
    with pytest.raises(ValueError, match="leave out attention_mask"):
        model(row, position_ids=positions, attention_mask=torch.ones_like(row))
    with pytest.raises(ValueError, match="use_cache=False"):
        model(row, position_ids=positions, use_cache=True)
    padded_positions = torch.tensor([[1, 1, 0, 1]])  # as generate counts padding
    model(row, position_ids=padded_positions, attention_mask=torch.tensor([[0, 0, 1, 1]]))


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "gemma3"])
def test_flash_attention_gets_positions_and_no_mask(monkeypatch, family):
    """Its kernels read the bounds of sequences from positions."""
    model, given = sutlm(family).model, {}
    model.language_model.config._attn_implementation = "flash_attention_2"
    monkeypatch.setattr(model.language_model, "forward", lambda **keywords: given.update(keywords))
    positions = torch.tensor([[0, 1, 0, 1, 2]])
    model(tokens(5)[0][None], position_ids=positions)
    masks = given["attention_mask"]
    assert not [mask for mask in (masks.values() if isinstance(masks, dict) else [masks]) if mask is not None]
    assert given["position_ids"] is positions and given["use_cache"] is False
    with pytest.raises(ValueError, match=r"flash_attention_2 keeps .* of one shared row apart, not of 2"):
        model(tokens(5)[0][None].expand(2, -1), position_ids=positions.expand(2, -1))


# --- generation ---


@pytest.mark.parametrize(
    ("family", "options"),
    [
        *((family, {"num_beams": 3}) for family in GENERATING),
        ("llama", {"cache_implementation": "static"}),
        ("gpt2", {"cache_implementation": "static"}),
        ("llama", {}),
    ],
    ids=str,
)
def test_a_batch_generates_what_each_prompt_does_alone(family, options):
    model, prompts = sutlm(family), tokens(7, 3, 5, seed=1)
    options = {"max_new_tokens": 6, "do_sample": False, "disable_compile": True, **options}
    together = model.generate(**padded(prompts), **options)
    for prompt, row in zip(prompts, together, strict=True):
        alone = model.generate(prompt[None], attention_mask=torch.ones(1, len(prompt)).long(), **options)[0]
        answer = row[7:].tolist()
        assert answer[: len(alone) - len(prompt)] == alone[len(prompt) :].tolist()
        assert set(answer[len(alone) - len(prompt) :]) <= {PADDING}


@pytest.mark.parametrize("family", GENERATING)
def test_greedy_generation_follows_the_logits(family):
    model, (prompt,) = sutlm(family), tokens(5, seed=2)
    expected = prompt
    for _ in range(5):
        expected = torch.cat([expected, model(expected[None], use_cache=False).logits[0, -1:].argmax(-1)])
    options = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None}
    assert model.generate(prompt[None], **options)[0].tolist() == expected.tolist()
    embedded = model.generate(inputs_embeds=model.get_input_embeddings()(prompt[None]), **options)
    assert embedded[0].tolist() == expected[5:].tolist()


@pytest.mark.parametrize("family", GENERATING)
def test_going_on_from_a_cache_changes_nothing(family):
    model, batch = sutlm(family), padded(tokens(8, 6))
    whole = model(**batch).logits
    start = model(
        batch["input_ids"][:, :5], attention_mask=batch["attention_mask"][:, :5], use_cache=True
    ).past_key_values
    rest = model(batch["input_ids"][:, 5:], attention_mask=batch["attention_mask"], past_key_values=start).logits
    torch.testing.assert_close(rest, whole[:, 5:], rtol=1e-4, atol=1e-4)
    kept = model(**batch, logits_to_keep=2).logits
    torch.testing.assert_close(kept, whole[:, -2:])


# --- saving and loading ---


@pytest.mark.parametrize("trained_rows", ["all", "units"])
@pytest.mark.parametrize("family", ["qwen3", "gpt2", "phi"])
def test_what_is_saved_is_loaded(tmp_path, family, trained_rows):
    model, (sequence,) = sutlm(family, trained_rows=trained_rows, head_bias=family == "phi"), tokens(9)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter))
    model.save_pretrained(tmp_path)
    loaded, report = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert type(loaded) is SUTLMForCausalLM
    assert not report["missing_keys"] and not report["unexpected_keys"]
    torch.testing.assert_close(loaded(sequence[None]).logits, model(sequence[None]).logits, rtol=0, atol=0)
    assert {name for name, parameter in loaded.named_parameters() if parameter.requires_grad} == {
        name for name, parameter in model.named_parameters() if parameter.requires_grad
    }
    headless = AutoModel.from_pretrained(tmp_path)
    assert type(headless) is SUTLMModel
    states = model.model(sequence[None]).last_hidden_state
    torch.testing.assert_close(headless(sequence[None]).last_hidden_state, states, rtol=0, atol=0)


def test_trained_rows_are_not_dropped(tmp_path):
    model, (sequence,) = sutlm("llama", trained_rows="units"), tokens(9)
    nn.init.normal_(model.model.row_changes.weight)
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="fold_rows"):
        AutoModelForCausalLM.from_pretrained(tmp_path, trained_rows="all")
    model.fold_rows()
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, trained_rows="units")
    torch.testing.assert_close(loaded(sequence[None]).logits, model(sequence[None]).logits)


def test_a_classifier_begins_with_a_language_model(tmp_path):
    model, (sequence,) = sutlm("gpt2"), tokens(9)
    model.save_pretrained(tmp_path)
    classifier = AutoModelForSequenceClassification.from_pretrained(tmp_path, num_labels=3)
    assert type(classifier) is SUTLMForSequenceClassification
    states = model.model(sequence[None]).last_hidden_state
    torch.testing.assert_close(classifier.model(sequence[None]).last_hidden_state, states, rtol=0, atol=0)
    assert classifier(sequence[None]).logits.shape == (1, 3)


# --- from a text LM ---


@pytest.fixture(scope="module")
def text_models(tmp_path_factory):
    """Folder of a random text LM of 40 tokens, by family."""

    def save(family: str):
        folder = tmp_path_factory.getbasetemp() / f"text-{family}"
        if not folder.is_dir():
            torch.manual_seed(1)
            config = FAMILIES[family]()
            config.vocab_size = 40
            model = AutoModelForCausalLM.from_config(config)
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(0.5 * torch.randn_like(parameter))
            model.save_pretrained(folder)
        return folder

    return save


# Two switches take the place of rows that the text LM has; the other two and the units are added.
GROWN = JOINT | {"unit_to_text_token_id": 60, "text_to_unit_token_id": 61}


@pytest.mark.parametrize("family", ["llama", "qwen3", "opt", "gpt2", "phi"])
def test_a_text_model_keeps_its_logits_over_text(text_models, family):
    folder = text_models(family)
    text_model = AutoModelForCausalLM.from_pretrained(folder)
    model = SUTLMForCausalLM.from_text_model(str(folder), **GROWN)
    assert model.config.vocab_size == 62 == model.lm_head.out_features
    text = torch.tensor([[8, 30, 12, 39, 9]])
    kept = [token for token in range(40) if token not in (4, 5)]
    torch.testing.assert_close(model(text).logits[..., kept], text_model(text).logits[..., kept], rtol=0, atol=0)
    tied = model.lm_head.weight is model.get_input_embeddings().weight
    assert tied == text_model.config.tie_word_embeddings


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_a_text_model_whose_new_rows_alone_are_trained(text_models, family):
    folder, row = str(text_models(family)), torch.tensor([[4, 45, 50, 60, 8, 30]])
    expected = SUTLMForCausalLM.from_text_model(folder, **GROWN)
    model = SUTLMForCausalLM.from_text_model(folder, trained_rows="units", **GROWN)
    torch.testing.assert_close(model(row).logits, expected(row).logits, rtol=0, atol=0)
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert trained == ["model.row_changes.weight", "head_changes.weight"][: 1 if family == "llama" else 2]
    assert model.generation_config.eos_token_id == END and model.generation_config.pad_token_id == PADDING


def test_new_rows_begin_like_those_of_text(text_models):
    folder = str(text_models("llama"))
    fields = {**GROWN, "unit_token_count": 10_000, "unit_to_text_token_id": 6, "text_to_unit_token_id": 7}
    rows = SUTLMForCausalLM.from_text_model(folder, **fields).get_input_embeddings().weight.detach()
    old = torch.stack([row for token, row in enumerate(rows[:40]) if token not in (4, 5, 6, 7)])
    new = rows[40:]
    torch.testing.assert_close(new.mean(0), old.mean(0), rtol=0, atol=0.03)
    torch.testing.assert_close(torch.cov(new.T), torch.cov(old.T), rtol=0, atol=0.03)
    mean = SUTLMForCausalLM.from_text_model(folder, new_rows="mean", **GROWN).get_input_embeddings().weight
    torch.testing.assert_close(mean[[4, 45, 61]], mean[[8, *range(9, 40), 0, 1, 2, 3, 6, 7]].mean(0).expand(3, -1))
    again = SUTLMForCausalLM.from_text_model(folder, **fields).get_input_embeddings().weight
    assert torch.equal(again, rows)
    other = SUTLMForCausalLM.from_text_model(folder, seed=1, **fields).get_input_embeddings().weight
    assert not torch.equal(other[40:], rows[40:]) and torch.equal(other[8:40], rows[8:40])
    with pytest.raises(ValueError, match="choose covariance, mean or normal"):
        SUTLMForCausalLM.from_text_model(folder, new_rows="zero", **GROWN)


def test_a_head_that_is_no_matrix_is_refused(text_models):
    with pytest.raises(ValueError, match="more than a matrix"):
        SUTLMForCausalLM.from_text_model(str(text_models("gemma2")), **GROWN)


def test_a_decoder_of_another_kind_is_refused(tmp_path):
    fields = {"d_model": 16, "decoder_ffn_dim": 16, "decoder_layers": 1, "decoder_attention_heads": 2}
    transformers.BartForCausalLM(transformers.BartConfig(vocab_size=40, **fields)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="choose a decoder-only text LM"):
        SUTLMForCausalLM.from_text_model(str(tmp_path), **GROWN)


# --- only the new rows ---


@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2", "gemma"])
def test_only_new_rows_move(family):
    """With weight decay, and in tied (llama, gpt2, gemma) and untied tables."""
    model, (sequence,) = sutlm(family, trained_rows="units").train(), tokens(60)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.5)
    losses = []
    for _ in range(5):
        loss = model(sequence[None], labels=sequence[None]).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert all(
        torch.equal(parameter, before[name]) for name, parameter in model.named_parameters() if "_changes" not in name
    )
    logits = model.eval()(sequence[None]).logits
    model.fold_rows()
    torch.testing.assert_close(model(sequence[None]).logits, logits, rtol=1e-6, atol=1e-6)
    assert not any("_changes" in name for name in model.state_dict())
    assert all(parameter.requires_grad for parameter in model.parameters())
    name = next(
        name for name, parameter in model.named_parameters() if parameter is model.get_input_embeddings().weight
    )
    for table in (name, "lm_head.weight"):
        start, end = before[table if table in before else name], model.get_parameter(table)
        assert torch.equal(end[OLD], start[OLD])
        assert (end[NEW] != start[NEW]).any(-1).sum() > 15


def test_rows_that_are_trained_alone_get_the_gradients_they_get_among_all():
    (sequence,) = tokens(30)
    whole, alone = sutlm("qwen3"), sutlm("qwen3", trained_rows="units")
    for model in (whole, alone):
        model(sequence[None], labels=sequence[None]).loss.backward()
    for table, changes in (
        (whole.get_input_embeddings(), alone.model.row_changes),
        (whole.lm_head, alone.head_changes),
    ):
        torch.testing.assert_close(changes.weight.grad, table.weight.grad[NEW], rtol=1e-4, atol=1e-6)


def test_row_changes_stay_in_float32(tmp_path):
    sutlm("llama", trained_rows="units").to(torch.bfloat16).save_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert model.dtype == torch.bfloat16 and model.model.row_changes.weight.dtype == torch.float32
    (sequence,) = tokens(9)
    model(sequence[None], labels=sequence[None]).loss.backward()
    assert model.model.row_changes.weight.grad.abs().sum() > 0


# --- classification ---


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_classification_does_not_see_padding(family, side, masked):
    model, sequences = sutlm(family, SUTLMForSequenceClassification, num_labels=3), tokens(9, 4, 7)
    batch = padded(sequences, side)
    if not masked:
        del batch["attention_mask"]
    together = model(**batch).logits
    alone = torch.cat([model(sequence[None]).logits for sequence in sequences])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_classification_pools_by_attention():
    model, (sequence,) = sutlm("llama", SUTLMForSequenceClassification, num_labels=3), tokens(9)
    states = model.model(sequence[None]).last_hidden_state[0].double()
    scores = (states @ model.pooling.weight[0].double() + model.pooling.bias.double()).exp()
    pooled = sum(score * state for score, state in zip(scores, states, strict=True)) / scores.sum()
    output = model(sequence[None], labels=torch.tensor([2]))
    expected = model.classifier(pooled.float())
    torch.testing.assert_close(output.logits[0], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(output.loss, -expected.log_softmax(-1)[2], rtol=1e-4, atol=1e-5)
    halved = model(sequence[None], labels=torch.tensor([2]), num_items_in_batch=2).loss
    torch.testing.assert_close(halved, output.loss / 2)


# --- configuration ---


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"unit_token_cuont": 3}, "did you mean 'unit_token_count'"),
        ({"unit_token_start": None}, "unit_token_start"),
        ({"unit_token_count": 30}, "outside the vocabulary"),
        ({"unit_start_token_id": 45}, "same token"),
        ({"text_start_token_id": 6}, "same token"),
        ({"eos_token_id": 41}, "of its own"),
        ({"trained_rows": "text"}, "choose one of all, units"),
    ],
)
def test_configurations_that_cannot_be_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        SUTLMConfig(text_config=FAMILIES["llama"](), **{**JOINT, **fields})


def test_special_tokens_hold_in_both_configurations():
    text_config = FAMILIES["gpt2"]()
    config = SUTLMConfig(text_config=text_config, **JOINT)
    assert config.text_config.eos_token_id == END and text_config.eos_token_id != END
    assert SUTLMConfig.from_dict(config.to_dict()).to_dict() == config.to_dict()
    assert SUTLMConfig(text_config=transformers.LlamaConfig(eos_token_id=9)).eos_token_id == 9


@pytest.mark.parametrize(("size", "millions"), [("tiny", 1.3), ("350M", 347), ("1B", 1299), ("7B", 6622)])
def test_presets_have_their_sizes(size, millions):
    with torch.device("meta"):
        model = SUTLMForCausalLM(SUTLMConfig.preset(size, vocab_size=42_000 if size != "tiny" else 2000))
    assert sum(parameter.numel() for parameter in model.parameters()) / 1e6 == pytest.approx(millions, rel=0.01)


def test_other_presets_are_refused():
    with pytest.raises(ValueError, match="choose one of tiny, 350M, 1B, 7B"):
        SUTLMConfig.preset("2B", vocab_size=100)


def test_positions_that_begin_anew_are_found():
    assert not modeling.restarts(None) and not modeling.restarts(torch.arange(300, 305)[None])
    assert modeling.restarts(torch.tensor([[0, 1, 2, 0]])) and modeling.restarts(torch.tensor([[0, 0]]))
