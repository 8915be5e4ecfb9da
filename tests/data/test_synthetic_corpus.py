"""The generator of spoken corpora: what is in them, the same again, and voices that are really apart."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from speechzoo.data.assistant_grammar import unseen_words
from speechzoo.data.entity_grammar import unseen_names
from speechzoo.data.espeak_synthesis import EspeakError, EspeakSynthesizer, SpeechRequest
from speechzoo.data.invented_language import translate
from speechzoo.data.question_grammar import Question, is_held_out
from speechzoo.data.story_grammar import content_words
from speechzoo.data.synthetic_corpus import RECIPES, SyntheticCorpusRecipe, build_synthetic_corpus, read_corpus
from speechzoo.data.synthetic_voices import FEMALE_VARIANTS, UNSEEN_ACCENTS, VOICE_SPLITS

SMALL = SyntheticCorpusRecipe("small", "command", 40, "test", seed=5, shard_size=16)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = build_synthetic_corpus(SMALL, tmp_path_factory.mktemp("cache"))
    return folder, read_corpus(folder)


def test_a_second_generation_gives_the_same_samples(corpus, tmp_path):
    folder, records = corpus
    again = build_synthetic_corpus(SMALL, tmp_path)
    assert again.name == folder.name
    assert read_corpus(again) == records
    assert hash_samples(again) == hash_samples(folder)


def hash_samples(folder):
    audio = b"".join(soundfile.read(path, dtype="int16")[0].tobytes() for path in sorted(folder.glob("audio/*.flac")))
    return hashlib.sha256(audio).hexdigest()


def test_a_cached_corpus_is_not_made_again(corpus, monkeypatch):
    folder, _ = corpus
    monkeypatch.setattr("speechzoo.data.synthetic_corpus._generate", None)
    assert build_synthetic_corpus(SMALL, folder.parent) == folder


def test_another_recipe_gets_another_folder(corpus, tmp_path):
    folder, records = corpus
    other = build_synthetic_corpus(replace(SMALL, seed=6, count=5), tmp_path)
    assert other.name != folder.name
    assert [record["transcript"] for record in read_corpus(other)] != [r["transcript"] for r in records[:5]]


def test_clips_are_what_their_lines_say(corpus):
    folder, records = corpus
    assert len(records) == len({record["id"] for record in records}) == 40
    assert {path.name for path in folder.iterdir()} == {"audio", "metadata.jsonl"}
    for record in records:
        samples, rate = soundfile.read(folder / record["audio"], dtype="float32")
        assert rate == 16_000 and samples.ndim == 1
        assert len(samples) / rate == pytest.approx(record["duration"], abs=1e-3)
        assert np.abs(samples).max() > 0.02
        assert record["speaker"] and "+" not in record["speaker"]
        assert record["intent"] == " ".join(record["slots"].values()) and record["phrasing"] == "seen"
        assert record["translation"] == translate(record["transcript"])


def test_word_and_phone_times_are_monotone_and_inside_the_clip(corpus):
    _, records = corpus
    for record in records:
        assert [word for word, _, _ in record["words"]] == record["transcript"].split()
        for timings in (record["words"], record["phones"]):
            edges = [edge for _, start, end in timings for edge in (start, end)]
            assert edges == sorted(edges)
            assert edges[0] >= 0 and edges[-1] <= record["duration"] + 1e-3


def test_words_lie_where_the_voice_speaks(corpus):
    """Independent of the engine's events: words are louder than the silence around them."""
    folder, records = corpus
    for record in records:
        samples, rate = soundfile.read(folder / record["audio"], dtype="float32")
        inside = np.zeros(len(samples), dtype=bool)
        for _, start, end in record["words"]:
            inside[int(start * rate) : int(end * rate)] = True
        energy = samples.astype(np.float64) ** 2
        assert energy[inside].sum() > 0.97 * energy.sum()


def test_stories_and_words_have_no_intent(tmp_path):
    for kind in ("story", "words"):
        folder = build_synthetic_corpus(SyntheticCorpusRecipe(kind, kind, 3, "train", seed=1), tmp_path)
        records = read_corpus(folder)
        assert all("intent" not in record and record["kind"] == kind for record in records)
        expected = [translate(record["transcript"]) if kind == "story" else None for record in records]
        assert [record.get("translation") for record in records] == expected


def first_clips(recipe_name, count, cache):
    """The first records of a ready corpus."""
    return read_corpus(build_synthetic_corpus(replace(RECIPES[recipe_name], count=count), cache))


def held_out_trio(facts):
    """Counted here, not by the grammar: every seventh trio of name, thing and place."""
    return sum(content_words()[kind].index(facts[kind]) for kind in ("name", "thing", "place")) % 7 == 0


@pytest.mark.parametrize("split", ["train", "test"])
def test_openings_say_what_is_asked_about_them_and_test_voices_tell_stories_of_their_own(split, tmp_path):
    for record in first_clips(f"openings-{split}", 12, tmp_path):
        words, facts = record["transcript"].split(), record["facts"]
        assert list(facts) == ["name", "adjective", "thing", "place"] and set(facts.values()) <= set(words)
        assert record["translation"] == translate(record["transcript"])
        assert set(record["answer_to_question"].split()) & set(facts.values())
        assert record["question"].split()[0] in ("who", "which", "where", "was")
        for follows in (record["reply"], record["continuation"]):
            assert follows != record["transcript"] and set(follows.split()) & {facts["name"], facts["thing"]}
        assert held_out_trio(facts) == (split != "train")


@pytest.mark.parametrize("split", ["train", "test"])
def test_questions_come_with_an_answer_and_held_out_ones_are_not_spoken_in_training(split, tmp_path):
    records = first_clips(f"questions-{split}", 12, tmp_path)
    for record in records:
        question = Question(record["transcript"], record["answer"], record["family"])
        assert question.answer and is_held_out(question) == (split != "train")
    assert len({record["family"] for record in records}) > 2


@pytest.mark.parametrize(("kind", "kept"), [("request", unseen_words()), ("statement", unseen_names())])
def test_kept_names_are_said_by_test_voices_only(kind, kept, tmp_path):
    said = {}
    for voices in VOICE_SPLITS:
        folder = build_synthetic_corpus(SyntheticCorpusRecipe(f"{kind}-{voices}", kind, 40, voices, seed=1), tmp_path)
        records = read_corpus(folder)
        said[voices] = {r["transcript"][e["start"] : e["end"]] for r in records for e in r["entities"]}
        assert all([word for word, _, _ in r["words"]] == r["transcript"].split() for r in records)
    assert not kept & (said["train"] | said["validation"])
    assert len(kept & said["test"]) > 3


def test_voices_of_the_splits_are_disjoint():
    variants = [set(split.variants) for split in VOICE_SPLITS.values()]
    assert sum(map(len, variants)) == len(set.union(*variants))
    assert len(variants[2]) >= 12
    for name in ("train", "validation"):
        assert not set(VOICE_SPLITS[name].accents) & set(UNSEEN_ACCENTS)
    assert set(FEMALE_VARIANTS) <= set.union(*variants)
    assert set(UNSEEN_ACCENTS) == {"en-029", "en-us-nyc"} and set(UNSEEN_ACCENTS) <= set(VOICE_SPLITS["test"].accents)


def test_drawn_voices_keep_to_their_split():
    for split in VOICE_SPLITS.values():
        drawn = [split.draw("text", 0, index) for index in range(500)]
        assert {request.voice.split("+")[0] for request in drawn} == set(split.accents)
        assert {request.voice.split("+")[1] for request in drawn} == set(split.variants)
        assert (min(request.rate for request in drawn), max(request.rate for request in drawn)) == split.rates


def test_the_engine_knows_every_voice():
    synthesizer = EspeakSynthesizer()
    for split in VOICE_SPLITS.values():
        for number, variant in enumerate(split.variants):
            voice = f"{split.accents[number % len(split.accents)]}+{variant}"
            speech = synthesizer.speak(SpeechRequest("lights on", voice))
            assert [word.label for word in speech.words] == ["lights", "on"]
    with pytest.raises(EspeakError, match="no voice 'xx-none'"):
        synthesizer.speak(SpeechRequest("lights on", "xx-none"))


def test_a_failed_synthesis_names_the_reason_and_leaves_no_folder(tmp_path, monkeypatch):
    broken = replace(VOICE_SPLITS["test"], accents=("xx-none",))
    monkeypatch.setitem(VOICE_SPLITS, "test", broken)
    with pytest.raises(EspeakError, match=r"0 of 4 clips.*no voice 'xx-none"):
        build_synthetic_corpus(replace(SMALL, count=4), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_ready_test_sets_are_large_enough():
    assert RECIPES["commands-test"].count >= 400
    seeds = [recipe.seed for recipe in RECIPES.values()]
    assert len(seeds) == len(set(seeds))
    for name, recipe in RECIPES.items():
        assert recipe.name == name and recipe.voices == next(v for v in VOICE_SPLITS if v in name)
        if recipe.kind in ("opening", "question"):
            assert recipe.phrasing == ("seen" if recipe.voices == "train" else "unseen")
        assert recipe.voices != "train" or recipe.phrasing == "seen"
