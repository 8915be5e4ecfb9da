"""Command lines: flags, YAML, help, errors, and the command line as it was typed."""

import enum
import subprocess
import sys
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest

from speechzoo.training.command_line import as_command, parse_arguments, section_name


class Precision(enum.Enum):
    FULL = "float32"
    HALF = "bfloat16"


@dataclass
class ModelArguments:
    """The model and what is trained of it.

    More text that the title leaves out.
    """

    encoder: str = field(default="tiny/encoder", metadata={"help": "speech encoder, by Hub id or path"})
    reduction: Literal["uniform", "stack"] = field(default="uniform", metadata={"help": "how the length is reduced"})
    ratio: Literal[1, 2, 4, 8] = field(default=4, metadata={"help": "how many frames become one"})
    precision: Precision = field(default=Precision.FULL, metadata={"help": "100% of the weights"})
    layers: int | None = field(default=None, metadata={"help": "encoder layers kept" + 20 * ", and so on"})


@dataclass
class TrainingOptions:
    title: ClassVar[str] = "Training"

    learning_rate: float = 1e-3
    push_to_hub: bool = False
    bf16: bool | None = None
    languages: list[str] = field(default_factory=lambda: ["en"])
    betas: tuple[float, float] = (0.9, 0.98)
    training_arguments: dict[str, Any] = field(default_factory=dict)
    prompts: dict[str, str] = field(default_factory=lambda: {"asr": "repeat"})
    output: Path = Path("output")
    revision: str | None = None
    limit: int | str = "all"

    def __post_init__(self) -> None:
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate must be positive, got {self.learning_rate}")


@dataclass
class Required:
    """What has no default."""

    corpus: str


def parse(*words: str) -> tuple[ModelArguments, TrainingOptions]:
    return parse_arguments("Train.", ModelArguments, TrainingOptions, argv=words)


def fails(
    capsys: pytest.CaptureFixture[str], *words: str, groups: tuple[type, ...] = (ModelArguments, TrainingOptions)
) -> str:
    with pytest.raises(SystemExit) as stop:
        parse_arguments("Train.", *groups, argv=words)
    assert stop.value.code == 2
    return capsys.readouterr().err


def write(folder: Path, text: str) -> str:
    path = folder / "run.yaml"
    path.write_text(textwrap.dedent(text))
    return str(path)


def test_defaults_without_any_argument():
    assert parse() == (ModelArguments(), TrainingOptions())


def test_every_kind_of_flag():
    model, training = parse(
        *("--encoder", "a/b", "--reduction", "stack", "--ratio", "8", "--precision", "bfloat16", "--layers", "3"),
        *("--learning_rate", "5e-5", "--push_to_hub", "--no_bf16", "--languages", "en", "de", "--betas", "0.8", "1"),
        *("--training_arguments", '{"max_steps": 10, "nested": {"a-b": [1]}}', "--output=a-b/c", "--revision", "12"),
        *("--limit", "7"),
    )
    assert model == ModelArguments("a/b", "stack", 8, Precision.HALF, 3)
    assert training == TrainingOptions(
        learning_rate=5e-5,
        push_to_hub=True,
        bf16=False,
        languages=["en", "de"],
        betas=(0.8, 1.0),
        training_arguments={"max_steps": 10, "nested": {"a-b": [1]}},
        output=Path("a-b/c"),
        revision="12",
        limit=7,
    )


def test_dashes_join_words_as_underscores_do():
    assert parse("--no-push-to-hub", "--learning-rate=0.5")[1].learning_rate == 0.5
    assert parse("--encoder", "a-b_c")[0].encoder == "a-b_c"


def test_none_is_typed_for_optional_values_and_is_text_elsewhere():
    model, training = parse("--layers", "none", "--encoder", "none", "--revision", "none", "--bf16")
    assert (model.layers, model.encoder, training.revision, training.bf16) == (None, "none", None, True)


@pytest.mark.parametrize("nested", [False, True])
def test_yaml_flat_or_by_group_and_flags_override_it(tmp_path: Path, nested: bool):
    flat = (
        "ratio: 2\nencoder: from/yaml\nlearning_rate: 1e-4\nprompts: {asr: say it}\nbetas: [0.5, 0.6]\nlayers: null\n"
    )
    by_group = """
        model: {ratio: 2, encoder: from/yaml, layers: null}
        training:
          learning_rate: 1e-4  # YAML 1.1 reads this as text
          prompts: {asr: say it}
          betas: [0.5, 0.6]
    """
    path = write(tmp_path, by_group if nested else flat)
    model, training = parse("--encoder", "from/flag", "--config", path)
    assert model == ModelArguments(encoder="from/flag", ratio=2)
    assert training == TrainingOptions(learning_rate=1e-4, prompts={"asr": "say it"}, betas=(0.5, 0.6))


def test_a_file_lies_underneath_unless_another_is_named(tmp_path: Path):
    below, other = tmp_path / "below.yaml", tmp_path / "other.yaml"
    below.write_text("ratio: 8\nencoder: below")
    other.write_text("encoder: other")
    (model,) = parse_arguments("", ModelArguments, argv=["--encoder", "flag"], underneath=below)
    assert (model.encoder, model.ratio) == ("flag", 8)
    for words in (["--config", str(other)], [f"--config={other}"]):
        (model,) = parse_arguments("", ModelArguments, argv=words, underneath=below)
        assert (model.encoder, model.ratio) == ("other", 4)


def test_empty_yaml_gives_the_defaults(tmp_path: Path):
    assert parse("--config", write(tmp_path, "# nothing\n")) == (ModelArguments(), TrainingOptions())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("learning_rat: 1", ["'learning_rat'", "run.yaml", "'learning_rate'"]),
        ("trainin: {bf16: true}", ["'trainin'", "run.yaml", "'training'"]),
        ("model: {learning_rate: 1}", ["unknown key 'learning_rate'", "run.yaml", "did you mean"]),
        ("model: 3", ["section 'model'", "3"]),
        ("ratio: 2\nmodel: {ratio: 2}", ["'ratio'", "twice"]),
        ("ratio: 3", ["'ratio'", "1|2|4|8", "3"]),
        ("ratio: true", ["'ratio'", "True"]),
        ("layers: '3'", ["'layers'", "integer", "'3'"]),
        ("layers: true", ["'layers'", "integer", "True"]),
        ("layers: 1.5", ["'layers'", "1.5"]),
        ("push_to_hub: 1", ["'push_to_hub'", "true|false", "1"]),
        ("encoder: 12", ["'encoder'", "text", "quotes"]),
        ("encoder: null", ["'encoder'", "text"]),
        ("learning_rate: fast", ["'learning_rate'", "number", "'fast'"]),
        ("languages: en", ["'languages'", "'en'"]),
        ("languages: [1]", ["'languages'", "text", "1"]),
        ("betas: [1, 2, 3]", ["'betas'", "2 values", "3"]),
        ("prompts: {asr: 3}", ["'prompts'", "text", "3"]),
        ("precision: float8", ["'precision'", "float32|bfloat16"]),
        ("- a", ["mapping", "run.yaml"]),
        ("a: [", ["run.yaml", "YAML"]),
        ("learning_rate: -1", ["learning_rate must be positive"]),
    ],
)
def test_mistakes_in_yaml_name_key_and_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, expected: list[str]
):
    message = fails(capsys, "--config", write(tmp_path, text))
    assert all(part in message for part in expected), message
    assert message.count("\n") == 2, "one line of usage and one of error"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--learning_rte", "1"], ["--learning_rte", "'--learning_rate'"]),
        (["--learning", "1"], ["--learning", "'--learning_rate'"]),  # no abbreviations
        (["--layers", "three"], ["--layers", "integer", "three"]),
        (["--ratio", "5"], ["--ratio", "1|2|4|8"]),
        (["--training_arguments", "{a: 1}"], ["--training_arguments", "JSON"]),
        (["--betas", "1"], ["--betas", "2 values"]),
        (["--config", "absent.yaml"], ["absent.yaml"]),
    ],
)
def test_mistakes_in_flags_name_the_flag(capsys: pytest.CaptureFixture[str], words: list[str], expected: list[str]):
    message = fails(capsys, *words)
    assert all(part in message for part in expected), message


def test_required_value_from_flag_or_yaml(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert "--corpus" in fails(capsys, groups=(Required,))
    assert parse_arguments("x", Required, argv=["--corpus", "a"]) == (Required("a"),)
    assert parse_arguments("x", Required, argv=["--config", write(tmp_path, "corpus: b")]) == (Required("b"),)


def test_help_is_grouped_and_shows_types_and_defaults(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as stop:
        parse("--help")
    text = capsys.readouterr().out
    assert stop.value.code == 0
    assert max(len(line) for line in text.splitlines()) <= 110
    model, training = text.split("Training (section 'training')")
    assert "The model and what is trained of it (section 'model')" in model
    assert "--encoder text" in model and "(default: tiny/encoder)" in model
    assert "--reduction uniform|stack" in model and "--ratio 1|2|4|8" in model
    assert "100% of the weights (default: float32)" in model
    assert "--push_to_hub, --no_push_to_hub" in training and "(default: no)" in training
    assert "--languages [text ...]" in training and "(default: en)" in training
    assert '{"asr": "repeat"}' in training
    assert "LEARNING_RATE" not in text


def test_help_keeps_the_lines_of_a_description(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "60")
    with pytest.raises(SystemExit):
        parse_arguments(f"Trains.\n\nOnce:\n    train --now\n{20 * 'long '}\n", Required, argv=["--help"])
    text = capsys.readouterr().out
    assert "\n\nTrains.\n\nOnce:\n    train --now\nlong long" in text
    assert max(len(line) for line in text.splitlines()) <= 60


def test_groups_that_contradict_each_other_are_refused():
    @dataclass
    class OtherArguments:
        """Same field."""

        encoder: str = "x"

    @dataclass
    class PromptsArguments:
        """Same name as a field."""

        anything: int = 0

    with pytest.raises(ValueError, match="'encoder' of OtherArguments"):
        parse_arguments("x", ModelArguments, OtherArguments, argv=[])
    with pytest.raises(ValueError, match="section 'prompts'"):
        parse_arguments("x", TrainingOptions, PromptsArguments, argv=[])


def test_section_names():
    class LLMBackboneConfig: ...

    assert [section_name(group) for group in (ModelArguments, TrainingOptions, LLMBackboneConfig)] == [
        "model",
        "training",
        "llm_backbone",
    ]


@pytest.mark.parametrize(
    ("parent", "expected"),
    [
        (
            ["/venv/bin/python", "/venv/bin/accelerate", "launch", "a/b.py", "--x", "y z"],
            "accelerate launch a/b.py --x 'y z'",
        ),
        (
            ["py", "accelerate", "launch", "--num_processes", "2", "a/b.py"],
            "accelerate launch --num_processes 2 a/b.py --x 'y z'",
        ),
        (
            ["python", "-m", "accelerate.commands.launch", "--cpu", "a/b.py"],
            "accelerate launch --cpu a/b.py --x 'y z'",
        ),
        (["python", "-m", "torch.distributed.run", "a/b.py"], "torchrun a/b.py --x 'y z'"),
        (["bash", "-c", "a/b.py"], "python a/b.py --x 'y z'"),
        (["accelerate", "launch", "other.py"], "python a/b.py --x 'y z'"),
        ([], "python a/b.py --x 'y z'"),
    ],
)
def test_command_names_the_launcher_and_not_the_binary(parent: list[str], expected: str):
    assert as_command(["a/b.py", "--x", "y z"], launched_by=parent) == expected


def test_command_has_paths_below_the_working_directory_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    argv = [f"{tmp_path}/train.py", f"--out={tmp_path}/a", "--data", f"{tmp_path}/b"]
    assert as_command(argv, launched_by=[]) == "python train.py --out=a --data b"


def test_command_of_a_process_that_accelerate_started(tmp_path: Path):
    script = tmp_path / "show.py"
    root = str(Path(__file__).parents[2])  # the module without the package's front door, which imports torch
    lines = ["import sys", f"sys.path.append({root!r})", "from training.command_line import as_command"]
    script.write_text("\n".join([*lines, "print('got', as_command())"]))
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "show.py", "--x", "y"]
    done = subprocess.run(launch, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert "got accelerate launch --cpu show.py --x y" in done.stdout, done.stderr
