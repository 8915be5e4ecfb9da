"""A task's templates, its closed set of classes, and the clips that are shown and asked about."""

import json
from pathlib import Path

import few_shot_cases
import pytest
from few_shot_cases import TEMPLATE

from speechzoo.evaluation.few_shot_tasks import FewShotTask, PromptTemplate, as_text, read_material
from speechzoo.evaluation.prompt_readers import Clip

LIGHTS, HEAT = Clip("1", "the lights please", audio=[0.0]), Clip("2", "heat up")


def written(parts: tuple) -> str:
    return "".join(part if isinstance(part, str) else f"<{part.id}>" for part in parts)


def write_rows(folder: Path, rows: list[dict]) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return str(folder)


def rows(split: str, labels: list[str | None], speakers: int = 2) -> list[dict]:
    return [
        {"id": f"{split}{number}", "transcript": f"It's {label}!", "topic": label, "split": split}
        | {"speaker": f"s{number % speakers}", "slots": {"size": label}}
        for number, label in enumerate(labels)
    ]


@pytest.fixture
def corpus(tmp_path: Path) -> str:
    shown = rows("train", ["qa", "mail", "e_mail", "qa", None])
    return write_rows(tmp_path / "corpus", [*shown, *rows("test", ["qa", "mail", "weather", None])])


def task(corpus: str, **fields: object) -> FewShotTask:
    usual = {"train": f"{corpus}@train", "test": f"{corpus}@test", "label": "topic", "template": TEMPLATE}
    return FewShotTask(**usual | {"other_labels": "leave_out"} | fields)


# --- templates ---


def test_a_prompt_is_the_template_written_out():
    template = PromptTemplate("Q {clip} A:", "Q {clip} A: {label}\n", "One of {labels}.\n", separator="; ")
    prompt = template.prompt([(HEAT, "warm"), (LIGHTS, "lamp")], LIGHTS, ["lamp", "warm"])
    assert written(prompt.demonstrations) == "One of lamp; warm.\nQ <2> A: warm\nQ <1> A: lamp\n"
    assert written(prompt.query) == "Q <1> A:"


def test_an_answer_is_what_a_demonstration_has_behind_the_query():
    prompt = TEMPLATE.prompt([(HEAT, "warm")], LIGHTS, ["lamp", "warm"])
    as_query = written(TEMPLATE.prompt([], HEAT, ["lamp", "warm"]).query)
    assert written(prompt.demonstrations) == as_query + TEMPLATE.answer("warm") + "\n\n"


def test_without_shots_or_instruction_nothing_stands_before_the_query():
    assert TEMPLATE.prompt([], LIGHTS, ["a", "b"]).demonstrations == ()


def test_a_template_may_hold_braces_of_its_own():
    template = PromptTemplate('{"say": {clip}, "is":', '{"say": {clip}, "is": {label}}', "{}")
    assert written(template.prompt([(HEAT, "warm")], LIGHTS, ["warm"]).demonstrations) == '{}{"say": <2>, "is": warm}'


@pytest.mark.parametrize(
    ("fields", "needle"),
    [
        ({"query": "Intent:"}, r"holds \{clip\} once"),
        ({"query": "{clip}{clip}"}, r"holds \{clip\} once"),
        ({"query": "{clip} {label}"}, r"no \{label\}"),
        ({"demonstration": "{clip} Intent: {label}"}, r"does not begin with the query"),
        ({"demonstration": "{clip}: "}, r"\{label\} stands once"),
        ({"demonstration": "{clip}: {label} {clip}"}, r"\{label\} stands once"),
        ({"instruction": "Hear {clip}."}, r"the instruction holds \{clip\}"),
    ],
)
def test_a_template_that_cannot_be_meant_is_refused(fields, needle):
    with pytest.raises(ValueError, match=needle):
        PromptTemplate(**{"query": "{clip}:", "demonstration": "{clip}: {label}"} | fields)


@pytest.mark.parametrize(
    ("fields", "needle"),
    [
        ({"test": None}, r"give one of them"),
        ({"folds": 3}, r"give one of them"),
        ({"ways": 1}, r"ways is 1"),
        ({"test_limit": 0}, r"test_limit is 0"),
        ({"symbols": ["red", "red"]}, r"twice"),
        ({"symbols": ["red", "blue"], "ways": 3}, r"2 symbols cannot stand for 3 classes"),
    ],
)
def test_a_task_that_cannot_be_meant_is_refused(fields, needle):
    with pytest.raises(ValueError, match=needle):
        few_shot_cases.task(**fields)


def test_a_clip_without_text_is_not_shown_as_text():
    assert as_text(LIGHTS).audio is None
    with pytest.raises(ValueError, match=r"clip '3' has no text"):
        as_text(Clip("3", "", audio=[0.0]))


# --- material ---


def test_labels_of_the_same_words_are_one_class(corpus):
    found = read_material(task(corpus, words={"mail": "e mail", "qa": "question"}))
    assert found.classes == ("e mail", "question")
    (part,) = found.parts
    assert [(one.clip.id, one.label) for one in part.pool] == [
        ("train0", "question"),
        ("train1", "e mail"),
        ("train2", "e mail"),
        ("train3", "question"),
    ]
    assert [one.clip.id for one in part.queries] == ["test0", "test1"]


def test_what_is_left_out_is_counted(corpus):
    assert read_material(task(corpus)).left_out == {"clips without a label": 2, "queries of other labels": 1}


def test_clips_without_a_label_may_have_one(corpus):
    found = read_material(task(corpus, unlabeled="nothing"))
    assert "nothing" in found.classes
    assert found.left_out == {"queries of other labels": 1}


def test_a_query_outside_of_the_closed_set_is_an_error(corpus):
    with pytest.raises(ValueError, match=r"1 queries have a topic outside of the closed set: 'weather'"):
        read_material(task(corpus, other_labels="refuse"))
    with pytest.raises(ValueError, match=r"3 queries .*'weather'|2 queries have .*'mail', 'weather'"):
        read_material(task(corpus, other_labels="refuse", labels=["qa", "e_mail"]))


def test_a_label_that_nothing_has_is_an_error(corpus):
    with pytest.raises(ValueError, match=r"words name 'quiz', which is no topic; there are 'e_mail', 'mail'"):
        read_material(task(corpus, words={"quiz": "question"}))
    with pytest.raises(ValueError, match=r"labels name 'quiz'"):
        read_material(task(corpus, labels=["quiz", "qa"]))


def test_one_class_leaves_nothing_to_choose(corpus):
    with pytest.raises(ValueError, match=r"topic has 1 classes; 2 are the least"):
        read_material(task(corpus, words={"mail": "m", "e_mail": "m", "qa": "m"}))


def test_a_label_may_be_a_key_of_a_column(corpus):
    found = read_material(task(corpus, label="slots.size"))
    assert found.classes == ("e mail", "mail", "qa")
    with pytest.raises(ValueError, match=r"column 'slots' has no key 'color'"):
        read_material(task(corpus, label="slots.color"))


def test_texts_may_be_read_plain(corpus):
    assert read_material(task(corpus)).clips["train0"].clip.text == "It's qa!"
    assert read_material(task(corpus, plain_text=True)).clips["train0"].clip.text == "it's qa"


def test_a_limit_takes_the_same_queries_whatever_their_order(tmp_path):
    listed = rows("test", ["a", "b"] * 20)
    limited = [
        read_material(task(write_rows(tmp_path / name, rows("train", ["a", "b"]) + some), test_limit=7))
        for name, some in (("forward", listed), ("backward", listed[::-1]))
    ]
    asked = [{one.clip.id for one in found.parts[0].queries} for found in limited]
    assert asked[0] == asked[1]
    assert len(asked[0]) == 7
    assert asked[0] != {f"test{number}" for number in range(7)}


def test_a_clip_is_not_both_shown_and_asked_about(corpus):
    with pytest.raises(ValueError, match=r"clip 'train0' is in .*@train' and in"):
        read_material(task(corpus, test=f"{corpus}@train"))


def test_folds_ask_every_clip_once_and_show_it_no_clip_of_its_speaker(tmp_path):
    source = write_rows(tmp_path, rows("all", ["a", "b", "b", "a", "b"] * 6, speakers=5))
    found = read_material(task(source, train=source, test=None, folds=3))
    assert len(found.parts) == 3
    asked = [one.clip.id for part in found.parts for one in part.queries]
    assert sorted(asked) == sorted(f"all{number}" for number in range(30))
    for part in found.parts:
        assert {one.speaker for one in part.pool}.isdisjoint(one.speaker for one in part.queries)
        assert len(part.pool) + len(part.queries) == 30


def test_folds_need_speakers(tmp_path):
    nameless = [{name: value for name, value in row.items() if name != "speaker"} for row in rows("all", ["a", "b"])]
    source = write_rows(tmp_path, nameless)
    with pytest.raises(ValueError, match=r"clip 'all0' has no speaker"):
        read_material(task(source, train=source, test=None, folds=2))


def test_the_fingerprint_is_of_the_clips_whatever_their_order(tmp_path):
    listed = rows("train", ["a", "b"]) + rows("test", ["b", "a"])
    relabeled = [dict(row, topic="b") if row["id"] == "test1" else row for row in listed]
    prints = [
        read_material(task(write_rows(tmp_path / str(number), some))).fingerprint
        for number, some in enumerate((listed, listed[::-1], relabeled))
    ]
    assert prints[0] == prints[1] != prints[2]
