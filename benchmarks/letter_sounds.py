"""How well English words are sounded out by their letters: learned from words of the CMU lexicon, tested on others.

    python benchmarks/letter_sounds.py
    python benchmarks/letter_sounds.py --learned processing/letter_sounds.txt    learns the rules anew and writes them

Beside the rules stands what each letter alone sounds like most often. Intervals resample words.
"""

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rapidfuzz.distance import Levenshtein

from speechzoo.evaluation.intervals import mean_interval, ratio_interval
from speechzoo.evaluation.report import Corpus, Measurement, Report, environment, write_report
from speechzoo.processing.letter_sounds import LetterSounds
from speechzoo.processing.lexicon import Lexicon
from speechzoo.processing.unit_vocabulary import phone_family
from speechzoo.training.command_line import as_command, parse_arguments
from speechzoo.training.letter_sound_rules import learn_letter_sounds

HEAD = """\
; How English letters sound: "left letter right", a tab, phones. Learned by benchmarks/letter_sounds.py from 50,000
; words of the CMU Pronouncing Dictionary of Carnegie Mellon University (BSD-2-Clause).
"""


@dataclass
class BenchmarkArguments:
    """What is learned and tested."""

    learned: Path | None = None  # where new rules go; without it, the shipped ones are tested
    words: int = 50_000  # to learn from, none of them tested
    least_gain: int = 4  # letters of the lexicon that a rule must correct
    rounds: int = 3  # of aligning letters with phones
    output: Path = Path("results/letter_sounds.json")


def main() -> None:
    (arguments,) = parse_arguments(__doc__ or "", BenchmarkArguments)
    lexicon = Lexicon.cmu()
    words = {word: phones for word, phones in lexicon.items() if word.isascii() and word.isalpha()}
    tested = {word: phones for word, phones in words.items() if is_held_out(word)}
    others = sorted(words.keys() - tested.keys(), key=digest)
    start = time.perf_counter()
    if arguments.learned:
        chosen = {word: words[word] for word in others[: arguments.words]}
        sounds = learn_letter_sounds(chosen, arguments.rounds, arguments.least_gain)
        arguments.learned.write_text(HEAD + "\n".join(sounds.lines()) + "\n", encoding="utf-8")
    else:
        sounds = LetterSounds.shipped()
    seconds = time.perf_counter() - start
    letters = LetterSounds({context: phones for context, phones in sounds.rules.items() if len(context) == 3})
    report = Report(
        title="Words sounded out by their letters",
        system="speechlm",
        command=as_command(),
        environment=environment(),
        wall_seconds={"learning": round(seconds, 1)} if arguments.learned else {},
        measurements=[*measured("rules", sounds, tested), *measured("letters alone", letters, tested)],
        corpora=[
            Corpus("CMU Pronouncing Dictionary", "training", arguments.words, license="BSD-2-Clause"),
            Corpus("CMU Pronouncing Dictionary", "final test", len(tested), license="BSD-2-Clause"),
        ],
        settings={"rules": len(sounds.rules), "least_gain": arguments.least_gain, "rounds": arguments.rounds},
        limits=["Many words of the lexicon are names; words of running text that it lacks may be easier or harder."],
    )
    write_report(arguments.output, report)
    for row in report.measurements:
        print(f"{row.name:16} {row.metric:32} {row.value:.4f}  [{row.low:.4f}, {row.high:.4f}]")


def digest(word: str) -> str:
    """An order of words that has nothing to do with their spelling."""
    return hashlib.sha256(word.encode()).hexdigest()


def is_held_out(word: str) -> bool:
    """Of every ten words about one."""
    return int(digest(word)[:2], 16) % 10 == 0


def measured(name: str, sounds: LetterSounds, tested: Mapping[str, tuple[str, ...]]) -> list[Measurement]:
    """Phone error rates with and without stress, and words that are wholly right but for stress."""
    with_stress, without, right, lengths, plain_lengths = [], [], [], [], []
    for word, phones in tested.items():
        said = sounds(word)
        plain, plain_said = [phone_family(phone) for phone in phones], [phone_family(phone) for phone in said]
        with_stress.append(Levenshtein.distance(said, phones))
        without.append(Levenshtein.distance(plain_said, plain))
        right.append(plain_said == plain)
        lengths.append(len(phones))
        plain_lengths.append(len(plain))
    intervals = {
        "phone_error_rate": ratio_interval(with_stress, lengths, resamples=1000),
        "phone_error_rate_without_stress": ratio_interval(without, plain_lengths, resamples=1000),
        "word_accuracy_without_stress": mean_interval(right, resamples=1000),
    }
    return [
        Measurement.of(name, metric, interval, items=len(tested), split="held out words", resampled="items")
        for metric, interval in intervals.items()
    ]


if __name__ == "__main__":
    main()
