"""What the scripts that train and test joint models of speech units and text can be told, grouped by purpose."""

# ruff: noqa: RUF009  `option` returns dataclasses.field.

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .adapter_arguments import RunArguments, UpdateArguments, option


@dataclass
class JointModelArguments:
    """The language model and its text tokenizer."""

    text_model: str = option("examples/tiny_zoo/language_model", "causal LM, Hub id or folder; its tokenizer is taken")
    text_model_revision: str | None = option(None, "its commit, tag or branch")
    from_scratch: bool = option(False, "begin with random weights, as the paper does, not with those of text_model")
    preset: Literal["tiny", "350M", "1B", "7B"] | None = option(
        None, "shape of a model from scratch; that of text_model where not given"
    )
    new_rows: Literal["covariance", "mean", "normal"] = option(
        "covariance", "first values of the rows of units in a pretrained model"
    )
    trained_rows: Literal["all", "units"] = option("all", "units trains the rows of units alone")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = option("float32", "of the weights in memory")


@dataclass
class ReadingArguments:
    """How corpora are read."""

    store: Path | None = option(None, "folder of the feature store, which keeps units; in the cache by default")
    noise_db: float | None = option(None, "add white noise to the speech, at this ratio of signal to noise in dB")
    aligner: str | None = option(None, "CTC model that finds words in clips of corpora without times of words")
    textgrids: Path | None = option(None, "folder of <id>.TextGrid files with those times")
    lowercase: bool = option(False, "read texts in small letters, for corpora that are written in capitals")


@dataclass
class UnitArguments(ReadingArguments):
    """Speech units, the pieces learned over them, and how corpora are read."""

    title = "Speech units, the pieces learned over them, and how corpora are read"

    unit_model: str = option("examples/tiny_zoo/speech_units", "trained unit model: folder or Hub id")
    unit_model_revision: str | None = option(None, "its commit, tag or branch")
    unit_pieces: int = option(10_000, "pieces to learn over units, as in the paper; 0 takes raw units")
    piece_algorithm: Literal["unigram", "bpe"] = option("unigram", "how SentencePiece learns them; our reading")


@dataclass
class MixtureArguments:
    """Training sequences. A corpus is a folder, a data set id or synthetic:NAME; source@split picks a split."""

    title = "Training sequences"

    speech_data: list[str] = option([], "corpora of which the units are read")
    paired_data: list[str] = option([], "corpora of which units and text are read, for CST and AST")
    text_data: list[str] = option([], "texts: corpora, or .txt files of a text a line")
    validation_data: list[str] = option([], "corpora on whose sequences, mixed alike, the loss is followed")
    clips: int | None = option(None, "so many clips and texts of each, the first")
    text_words: int | None = option(None, "cut longer texts into texts of so many words")
    speech: float = option(1.0, "weight of unpaired speech, in sequences; 0 for none")
    paired: float = option(1.0, "weight of CST and AST; the paper has equal thirds")
    text: float = option(1.0, "weight of unpaired text")
    alternating: float = option(0.5, "share of AST among pairs; the others are CST")
    speech_first: float = option(0.5, "how often CST and AST begin with speech; our reading")
    switches: Literal["by_length", "by_span", "by_coin"] = option("by_length", "where AST switches; our reading")
    groups_per_switch: int = option(10, "by_length: word groups for one switch")
    shortest_span: int = option(2, "by_span: least word groups between switches")
    longest_span: int = option(8, "by_span: most word groups between switches")
    switch_probability: float = option(0.5, "by_coin: chance of a switch at each boundary")


@dataclass
class PretrainingArguments(UpdateArguments):
    """Optimization."""

    title = "Optimization"

    max_steps: int = option(1000, "updates of the weights")
    batch_size: int = option(8, "rows in a batch on one device")
    row_tokens: int = option(256, "most tokens of a row, which sequences share; a longer sequence is refused")


@dataclass
class JointTestArguments:
    """Tests across modalities."""

    test_data: dict[str, str] = option({}, "name of a results row -> corpus with times of words")
    test_clips: int | None = option(None, "so many clips of each, the first")
    first_column: str | None = option(
        None, "column with the words of a clip that make its prompt; the first half where not given, our reading"
    )
    candidates: int = option(10, "how many continuations, or contexts, are told apart: the N of CRA")
    glue: list[Literal["switch", "start"]] = option(
        ["switch", "start"], "what stands between modalities: switch (<U2T>, <T2U>), start (<T_EN>, <U_EN>), or both"
    )
    test_seed: int = option(0, "of the candidates")
    shared_texts: bool = option(False, "allow tests whose texts are trained on, in other clips")


@dataclass
class JudgedArguments:
    """The joint model that is tested, and the judge of its continuations (PELM)."""

    model: str = option("output/sutlm_tiny_zoo", "trained joint model: folder or Hub id; {seed} becomes the test_seed")
    model_revision: str | None = option(None, "its commit, tag or branch")
    unit_model: str | None = option(None, "its unit model, where that is elsewhere now")
    judge: str | None = option(None, "causal LM that judges continuations; without one PELM is left out")
    judge_sign: str = option("", "what the judge reads between a prompt and its continuation, such as <con>")
    transcriber: str | None = option(
        None,
        "joint model trained on units followed by their text, which writes units down; without one nothing is spoken",
    )
    samples: int = option(4, "continuations of a prompt")
    temperature: float = option(0.7, "of their draws")
    top_k: int = option(0, "draw among so many of the likeliest tokens; 0 for all")
    top_p: float = option(1.0, "draw among the likeliest tokens that together have this probability")
    text_tokens: int = option(64, "most tokens of a continuation in text")
    unit_tokens: int = option(256, "most tokens of a continuation in units")


@dataclass
class JointOutputArguments(RunArguments):
    """Results."""

    title = "Results"

    output_dir: Path = option(Path("output/sutlm"), "folder of the model, its processor, report and learning curve")
    test_batch_size: int = option(32, "prompts in a batch of the tests")
    card_title: str = option("Joint speech-text language model", "headline of the report")
