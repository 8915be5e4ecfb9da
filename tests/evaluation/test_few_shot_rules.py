"""The ways of predicting, as the harness calls them: each the same as its own function, whatever is read together."""

from pathlib import Path

import few_shot_cases
import numpy as np
import pytest
import tiny_models
import torch
from few_shot_cases import labeled
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from speechzoo.evaluation.few_shot_harness import FewShotGrid, FewShotRun, FewShotSystem
from speechzoo.evaluation.few_shot_rules import PromptScorer
from speechzoo.evaluation.few_shot_tasks import FewShotMaterial, LabeledClip, MaterialPart, PromptTemplate
from speechzoo.evaluation.label_scoring import LabelScores
from speechzoo.evaluation.prompt_readers import Clip, TextPromptReader

ALL = ("likelihood", "sum", "calibrated", "trie", "exact")
TEMPLATE = PromptTemplate("speech {clip} please", "speech {clip} please {label} the ")
LABELS = [" lights", " heat up", " bring me my shoes", " off"]


def clips(prefix: str, count: int) -> tuple[LabeledClip, ...]:
    """Clips whose texts the tiny tokenizer knows, of classes that are labels."""
    words = tiny_models.WORDS
    classes = [label.strip() for label in LABELS]
    return tuple(
        LabeledClip(Clip(one.clip.id, f"{words[number % 7]} {words[7 + number % 5]}"), classes[number % 4])
        for number, one in enumerate(labeled(prefix, count))
    )


MATERIAL = FewShotMaterial(
    tuple(sorted(label.strip() for label in LABELS)), (MaterialPart(clips("train", 16), clips("test", 12)),)
)


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> TextPromptReader:
    folder = tiny_models.save_language_model("llama", tmp_path_factory.mktemp("llama"))
    return TextPromptReader(AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder))


def prompts() -> list:
    shown = [(one.clip, one.label) for one in MATERIAL.parts[0].pool[:3]]
    return [TEMPLATE.prompt(shown, one.clip, []) for one in MATERIAL.parts[0].queries]


def test_every_rule_answers_every_prompt(reader):
    found = PromptScorer(reader, ALL)(prompts(), LABELS)
    assert list(found) == list(ALL)
    for numbers in found.values():
        assert len(numbers) == 12
        assert set(numbers) <= {0, 1, 2, 3, None}
    assert None not in found["trie"]


@torch.no_grad()
def bigram_reader(odds: dict[tuple[str, str], float]) -> TextPromptReader:
    """A language model whose next token hangs on the last alone, with these odds against 1 of every other."""
    tokenizer, size = tiny_models.tokenizer(), tiny_models.VOCABULARY
    heads = {"head_dim": size, "num_attention_heads": 1, "num_key_value_heads": 1}
    config = LlamaConfig(**tiny_models.DECODER | heads | {"hidden_size": size})
    model = LlamaForCausalLM(config)
    for layer in model.model.layers:
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()
    model.model.embed_tokens.weight.copy_(torch.eye(size))
    model.lm_head.weight.zero_()
    for (before, after), odd in odds.items():
        row, column = (tokenizer.convert_tokens_to_ids(word) for word in (after, before))
        model.lm_head.weight[row, column] = np.log(odd) / size**0.5  # the norm makes ones of 1 / size ** 0.5
    return TextPromptReader(model, tokenizer)


def test_what_ends_labels_in_demonstrations_tells_them_from_those_they_begin():
    """The end token is never likely in the midst of demonstrations, nor a label less likely than a longer one."""
    longer = {("lights", "off"): 900.0, ("lights", "the"): 300.0, ("off", "the"): 900.0}
    shorter = {("heat", "up"): 300.0, ("heat", "the"): 900.0, ("up", "the"): 900.0}
    scorer = PromptScorer(bigram_reader(longer | shorter), ("sum", "trie"))
    one = prompts()[:1]
    assert scorer(one, [" lights", " lights off"], " the") == {"sum": [1], "trie": [1]}
    assert scorer(one, [" heat", " heat up"], " the") == {"sum": [0], "trie": [0]}


def test_means_are_read_in_two_ways(reader, monkeypatch):
    """Two prompts and labels of one and three tokens; without content the second label is far likelier."""
    scores = LabelScores(np.array([[-2.0, -3.0], [-4.0, -3.0]]), np.array([1, 3]))
    module = "speechzoo.evaluation.few_shot_rules."
    monkeypatch.setattr(module + "label_scores", lambda *_, **__: scores)
    monkeypatch.setattr(module + "content_free_scores", lambda *_, **__: np.array([[[-5.0, -0.1]]] * 2))
    found = PromptScorer(reader, ("calibrated", "likelihood"))(prompts()[:2], LABELS[:2])
    assert found == {"calibrated": [0, 0], "likelihood": [1, 1]}


def test_only_what_is_asked_for_is_predicted(reader, monkeypatch):
    monkeypatch.setattr("speechzoo.evaluation.few_shot_rules.label_scores", None)
    assert list(PromptScorer(reader, ("trie",))(prompts(), LABELS)) == ["trie"]


def test_an_unknown_rule_is_refused(reader):
    with pytest.raises(ValueError, match=r"there is no rule 'greedy'; choose likelihood"):
        PromptScorer(reader, ("greedy",))


def test_batches_order_and_caches_change_no_prediction(reader):
    """All rules, on prompts that share demonstrations, and on the same in another order, a few at a time."""
    together = PromptScorer(reader, ALL)(prompts(), LABELS)
    apart = PromptScorer(reader, ALL, rows=2, batch_size=1, share_caches=False)
    backward = apart(prompts()[::-1], LABELS)
    assert {rule: list(numbers)[::-1] for rule, numbers in backward.items()} == {
        rule: list(numbers) for rule, numbers in together.items()
    }


def test_the_harness_runs_a_language_model(reader, tmp_path: Path):
    system = FewShotSystem({}, lambda: PromptScorer(reader, ("likelihood", "exact")), hears=False)
    task = few_shot_cases.task(template=TEMPLATE, ways=2)
    run = FewShotRun(tmp_path, {"task": task}, {"task": MATERIAL}, {"text": system}, FewShotGrid((0, 2), (0,)))
    run.run()
    answers = [one for found in run.answers().values() for one in found]
    assert len(answers) == 3 * 12
    assert {one.predicted["likelihood"] for one in answers} <= set(MATERIAL.classes)
