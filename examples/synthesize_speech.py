r"""Speak the texts of a corpus by espeak-ng, labels kept: what a model is trained on in place of recordings.

    python examples/synthesize_speech.py --data synthetic:slue_voxceleb@train --output_dir output/spoken/sentiment
    accelerate launch examples/finetune_slu.py --config examples/configs/slu_sentiment.yaml \
        --train_on speech --speech_data output/spoken/sentiment

Needs the synthesizer: pip install 'speechzoo[demo]'. Speech of another one, in a folder laid out alike, will do too.
"""

from dataclasses import dataclass, field
from pathlib import Path

from speechzoo.data.corpora import load_corpus
from speechzoo.data.synthesized_speech import synthesize_corpus
from speechzoo.training.command_line import parse_arguments


@dataclass
class SynthesisArguments:
    """Texts, voices, and where the speech goes."""

    data: str = field(metadata={"help": "corpus whose texts are said; source@split picks a split"})
    output_dir: Path = field(metadata={"help": "folder of the speech; one that is there stays as it is"})
    voices: list[str] = field(
        default_factory=lambda: ["en-us"],
        metadata={"help": "of espeak-ng, in turn, such as en-us or en-gb-x-rp+klatt"},
    )
    rate: int = field(default=160, metadata={"help": "words a minute"})


def main() -> None:
    [asked] = parse_arguments(__doc__ or "", SynthesisArguments)
    name, _, split = asked.data.partition("@")
    rows = load_corpus(name, split or None, audio=False)
    folder = synthesize_corpus(rows, asked.output_dir, asked.voices, asked.rate)
    print(f"{len(rows)} texts are spoken in {folder}")


if __name__ == "__main__":
    main()
