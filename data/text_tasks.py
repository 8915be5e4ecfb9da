"""What the tiny zoo's language models learn from text, one task after another.

Every task is `<s> [context <ctx>] text <sign> answer </s>`. The sign says what to do with the text:

- `<asr>` copies it; with a context, a list of words, it fills gaps in the text from the list;
- `<int>` names the intent of a command: action, object, location;
- `<mt>` translates it into the invented language;
- `<ans>` answers it; with a context, it answers that question about the text;
- `<dlg>` replies to it, `<con>` continues it.

An episode is several texts with `<int>` and a word for each, the same word for texts of one class: which word stands
for which class is learned from the episode itself. `text_episodes` has more kinds of them.

Two of the commands that are held out are requests to an assistant too. As such they occur among the texts to copy and
in episodes, never with their intent or their translation.

Speech gives several embeddings per word: in a share of the prompts
the tokens of the text are repeated and spread out with `<audio>` fillers, so that long prompts with gaps are nothing
new to the model.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache

from .assistant_grammar import draw_request
from .command_grammar import commands_seen, draw_command, intents
from .invented_language import dictionary, translate
from .opinion_grammar import draw_opinion
from .question_grammar import draw_question, question_words
from .story_grammar import Story, content_words, draw_whole_story, draw_words, lexicon, words_of, written_words
from .text_episodes import LABELS, NEVER_IN_EPISODES, Episode, EpisodeCourse, Source, draw_course_episode

COPY, INTENT, TRANSLATION, ANSWER, REPLY, CONTINUATION = "<asr>", "<int>", "<mt>", "<ans>", "<dlg>", "<con>"
CONTEXT, FILLER = "<ctx>", "<audio>"
SIGNS = (COPY, INTENT, TRANSLATION, ANSWER, REPLY, CONTINUATION, CONTEXT)


@dataclass(frozen=True)
class TextTask:
    """`text` is what a person could say; `shown` is what stands in its place in the prompt, where that differs."""

    sign: str
    text: str
    answer: str
    context: str = ""
    shown: str | None = None


@dataclass(frozen=True)
class TextMixture:
    """Course: the first `copying_first` of the examples copy random words and nothing else, because copying is hardly
    learned among tasks that are easier; in the last `episodes_last`, `episode_share` of the examples are episodes,
    which are learned within minutes once intents are known.
    Tasks: `shares` by name (of `TASKS`), which sum to 1; `spread_share` of the prompts after the first are spread out.
    Episodes: those of `draw_episode`, or where `episodes` is given those of a course.
    """

    copying_first: float = 0.3
    episodes_last: float = 0.4
    episode_share: float = 0.25
    shares: Mapping[str, float] = field(
        default_factory=lambda: {
            "copy": 0.35,
            "intent": 0.12,
            "translation": 0.18,
            "question": 0.09,
            "question about a story": 0.08,
            "reply": 0.04,
            "continuation": 0.06,
            "listed words": 0.08,
        }
    )
    spread_share: float = 0.5
    episodes: EpisodeCourse | None = None

    def only_copies(self, index: int, size: int) -> bool:
        """Whether example number `index` of `size` is among the first."""
        return index < self.copying_first * size


def in_context_mixture() -> TextMixture:
    """For a language model that learns in context: it copies and names intents, which episodes are built from, and in
    the last half has a course of episodes. Nothing is spread out: whoever copies through fillers copies by place,
    and learns from no example."""
    sources: Mapping[Source, float] = {"commands": 0.5, "requests": 0.3, "opinions": 0.2}
    course = EpisodeCourse(first_part=0.75, sources=sources, spread=(0.0, 0.0))
    return TextMixture(0.12, 0.5, 0.85, {"copy": 0.7, "intent": 0.3}, spread_share=0.0, episodes=course)


def draw_task(mixture: TextMixture, size: int, seed: int, index: int) -> TextTask | Episode:
    """Example number `index` of `size`, a function of the seed and the index."""
    rng = random.Random(f"task {seed} {index}")
    if mixture.only_copies(index, size):
        words = draw_words(seed, index, 2, 16)
        return TextTask(COPY, words, words)
    if index >= (1 - mixture.episodes_last) * size and rng.random() < mixture.episode_share:
        course = mixture.episodes
        return draw_course_episode(course, index / size, seed, index) if course else draw_episode(seed, index)
    name = rng.choices(list(mixture.shares), list(mixture.shares.values()))[0]
    return TASKS[name](rng, seed, index)


def draw_episode(
    seed: int, index: int, ways: int | None = None, shots: int | None = None, unseen: bool = False
) -> Episode:
    """`shots` texts of each of `ways` classes (2 to 4 and 1 or 2, where not given), shuffled, and one more text.

    Classes are intents of commands in half of the episodes, else scenarios of requests or the three sentiments. In a
    quarter of the episodes the last text was shown before, which is where the habit begins.

    unseen: classes are the intents of `NEVER_IN_EPISODES`, and the last text was not shown before.
    """
    rng = random.Random(f"episode {seed} {index}")
    ways, shots = ways or rng.randint(2, 4), shots or rng.randint(1, 2)
    if unseen or rng.random() < 0.5:
        classes = _commands_by_intent(rng, ways, shots + 1, unseen)
    else:
        classes = rng.choice((_requests_by_scenario, _opinions_by_sentiment))(seed, index, ways, shots + 1)
    words = rng.sample(LABELS, len(classes))
    shown = [(text, word) for texts, word in zip(classes, words, strict=True) for text in texts[:shots]]
    rng.shuffle(shown)
    chosen = rng.randrange(len(classes))
    asked = (classes[chosen][-1], words[chosen]) if unseen or rng.random() < 0.75 else rng.choice(shown)
    texts, labels = zip(*shown, asked, strict=True)
    return Episode(texts, labels)


def _commands_by_intent(rng: random.Random, ways: int, texts: int, unseen: bool) -> list[list[str]]:
    names = [str(intent) for intent in intents() if (str(intent) in NEVER_IN_EPISODES) == unseen]
    chosen = rng.sample(names, ways)
    seen = commands_seen()
    return [rng.sample([command.text for command in seen if str(command.intent) == name], texts) for name in chosen]


def _requests_by_scenario(seed: int, index: int, ways: int, texts: int) -> list[list[str]]:
    requests = (draw_request(seed, number) for number in range(1000 * index, 1000 * (index + 1)))
    return _first_classes(((request.scenario, request.labeled.text) for request in requests), ways, texts)


def _opinions_by_sentiment(seed: int, index: int, ways: int, texts: int) -> list[list[str]]:
    opinions = (draw_opinion(seed, number) for number in range(1000 * index, 1000 * (index + 1)))
    return _first_classes(((opinion.sentiment, opinion.text) for opinion in opinions), min(ways, 3), texts)


def _first_classes(labeled: Iterable[tuple[str, str]], ways: int, texts: int) -> list[list[str]]:
    """The first `ways` classes to have `texts` texts or more, of pairs of a class and a text."""
    found: dict[str, list[str]] = {}
    for name, text in labeled:
        found.setdefault(name, []).append(text)
        full = [group for group in found.values() if len(group) >= texts]
        if len(full) == ways:
            return full
    raise AssertionError(f"a thousand texts hold {ways} classes many times")


def _story(seed: int, index: int) -> Story:
    return draw_whole_story(seed, index, held_out=False)


def _sentence(rng: random.Random, seed: int, index: int) -> str:
    """A command, either sentence of a story, a request, an opinion, words of random letters or of the lexicon."""
    kinds: list[Callable[[], str]] = [
        lambda: draw_command(seed, index).text,
        lambda: rng.choice((_story(seed, index).opening, _story(seed, index).continuation)),
        lambda: draw_request(seed, index).labeled.text,
        lambda: draw_opinion(seed, index).text,
        lambda: _draw_letters(rng),
        lambda: draw_words(seed, index, 1, 16),
    ]
    return rng.choices(kinds, (0.1, 0.2, 0.1, 0.07, 0.08, 0.45))[0]()


def _copy(rng: random.Random, seed: int, index: int) -> TextTask:
    text = _sentence(rng, seed, index)
    return TextTask(COPY, text, text)


def _intent(rng: random.Random, seed: int, index: int) -> TextTask:
    command = draw_command(seed, index)
    return TextTask(INTENT, command.text, str(command.intent))


def _translation(rng: random.Random, seed: int, index: int) -> TextTask:
    story, command = _story(seed, index), draw_command(seed, index)
    text = rng.choice((story.opening, story.continuation, command.text))
    return TextTask(TRANSLATION, text, translate(text))


def _question(rng: random.Random, seed: int, index: int) -> TextTask:
    question = draw_question(seed, index)
    return TextTask(ANSWER, question.text, question.answer)


def _about_story(rng: random.Random, seed: int, index: int) -> TextTask:
    story = _story(seed, index)
    return TextTask(ANSWER, story.opening, story.answer, context=story.question)


def _reply(rng: random.Random, seed: int, index: int) -> TextTask:
    story = _story(seed, index)
    return TextTask(REPLY, story.opening, story.reply)


def _continuation(rng: random.Random, seed: int, index: int) -> TextTask:
    story = _story(seed, index)
    return TextTask(CONTINUATION, story.opening, story.continuation)


def _listed_words(rng: random.Random, seed: int, index: int) -> TextTask:
    return copy_with_list(_story(seed, index), rng, right=rng.random() < 0.8)


def copy_with_list(story: Story, rng: random.Random, right: bool) -> TextTask:
    """A story's opening after a list (`draw_list`); half of the listed words it holds are gaps, as if unheard."""
    listed = draw_list(story, rng, right)
    heard = [FILLER if word in listed and rng.random() < 0.5 else word for word in story.opening.split()]
    return TextTask(COPY, story.opening, story.opening, context=" ".join(listed), shown=" ".join(heard))


def draw_list(story: Story, rng: random.Random, right: bool) -> list[str]:
    """Four words of content in random order: those of the story, or where not `right` others of the same kinds."""
    others = [rng.choice([w for w in content_words()[kind] if w != word]) for kind, word in story.facts.items()]
    listed = list(story.facts.values()) if right else others
    rng.shuffle(listed)
    return listed


TASKS: Mapping[str, Callable[[random.Random, int, int], TextTask]] = {
    "copy": _copy,
    "intent": _intent,
    "translation": _translation,
    "question": _question,
    "question about a story": _about_story,
    "reply": _reply,
    "continuation": _continuation,
    "listed words": _listed_words,
}


@cache
def vocabulary() -> tuple[str, ...]:
    """Every word that tasks and their answers are made of, sorted."""
    requests = (draw_request(0, index).labeled.text for index in range(4000))
    opinions = (draw_opinion(0, index).text for index in range(2000))
    known = (*lexicon(), *dictionary().values(), *question_words(), *written_words(), *LABELS)
    return words_of((*known, *requests, *opinions))


def sample_texts(count: int) -> Iterator[str]:
    """Texts as they are copied, and words for classes, each of `LABELS` often enough to be one piece of BPE."""
    yield from (_sentence(random.Random(f"text {index}"), 0, index) for index in range(count))
    yield from (word for word in LABELS for _ in range(count // 100))


def _draw_letters(rng: random.Random) -> str:
    """One to three words of random letters."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    return " ".join("".join(rng.choices(letters, k=rng.randint(2, 6))) for _ in range(rng.randint(1, 3)))
