"""What the scripts that train adapters can be told, grouped by purpose."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..data.corpus_sources import check_languages, check_license


def option(default: Any, text: str) -> Any:
    """A field with its help; a mutable default is copied for each instance."""
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: type(default)(default), metadata={"help": text})
    return field(default=default, metadata={"help": text})


@dataclass
class BackboneArguments:
    """The frozen models."""

    audio_model: str = option("examples/tiny_zoo/speech_encoder", "speech encoder: Hub id or folder")
    audio_model_revision: str | None = option(None, "its commit, tag or branch")
    text_model: str = option("examples/tiny_zoo/language_model", "LLM, causal or encoder-decoder: Hub id or folder")
    text_model_revision: str | None = option(None, "its commit, tag or branch")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = option(
        "float32", "of the frozen weights in memory; the adapter is always float32"
    )
    unfrozen: list[str] = option([], "regular expressions of backbone parameters to train too, such as audio_tower")
    lora_modules: list[str] = option(
        [], "regular expressions of linear layers that get LoRA, such as language_model\\..*\\.(q_proj|v_proj)"
    )
    lora_rank: int = option(8, "rank of LoRA")
    lora_alpha: float = option(16.0, "LoRA is scaled by this over its rank")
    lora_dropout: float = option(0.0, "dropout before LoRA")
    quantization: Literal["8bit", "4bit"] | None = option(
        None, "hold the LLM in 8 or 4 bits; the speech encoder stays as it is"
    )


@dataclass
class AdapterArguments:
    """The adapter."""

    reduction: Literal["discard", "stack", "convolution", "average"] = option(
        "discard", "how frames are made fewer; the paper discards"
    )
    reduction_ratio: int = option(4, "encoder frames for one speech embedding: 1, 2, 4 or 8")
    random_phase: bool = option(False, "while training, keep a random frame of each group instead of the first")
    adapter_layers: int = option(2, "Transformer layers")
    adapter_width: int | None = option(None, "their width; that of the encoder where not given")
    adapter_heads: int = option(4, "their attention heads")
    adapter_dropout: float = option(0.0, "their dropout")
    encoding: Literal["clip", "window"] = option(
        "clip", "Whisper only: encode a clip at its own length, or padded to 30 s"
    )


@dataclass
class DataArguments:
    """Recordings, tasks and prompts. A corpus is a folder with metadata.jsonl, a data set id, or synthetic:NAME."""

    title = "Recordings, tasks and prompts"

    train_data: list[str] = option([], "corpora to train on; source@split picks a split")
    validation_data: list[str] = option([], "corpora whose loss is followed while training")
    test_data: dict[str, str] = option({}, "name of a results row -> corpus that is tested at the end")
    tasks: dict[str, str] = option({"asr": "text"}, "name of a task -> column of its answers")
    prompts: dict[str, str] = option(
        {"asr": "Transcribe the speech. {audio}"}, "name of a task -> what the LLM reads, {audio} where the clip goes"
    )
    metrics: dict[str, str] = option({"asr": "wer"}, "name of a task -> wer, bleu or accuracy, which is the default")
    answer_forms: dict[str, Any] = option(
        {},
        "name of a task -> how its answers read, which the checkpoint then says: `labels` for those of training, a "
        "list of slots, or a mapping with marks and end",
    )
    columns: dict[str, str] = option({}, "our name of a column -> its name in the corpora")
    audio_token: str = option("<|audio|>", "placeholder of one speech embedding in a prompt")
    chunk_seconds: float | None = option(None, "cut longer clips into chunks of so many seconds")
    max_audio_seconds: float | None = option(30.0, "refuse longer clips")
    data_license: str = option("", "license of the training data, for the card")


@dataclass
class UpdateArguments:
    """How weights are updated, whatever the model."""

    batch_size: int = option(16, "items in a batch on one device")
    accumulation_steps: int = option(1, "batches for one update")
    learning_rate: float = option(1e-3, "peak; cosine decay follows the warm-up")
    warmup_steps: int = option(100, "updates of linear warm-up")
    weight_decay: float = option(0.01, "of AdamW")
    bf16: bool | None = option(
        None, "bfloat16 autocast; where not given, the hardware decides: yes if it has units for it"
    )
    gradient_checkpointing: bool = option(False, "compute activations twice to save memory")
    seed: int = option(0, "of new weights and of the data order")
    workers: int = option(0, "processes that read and prepare data")
    evaluations: int = option(5, "how often the validation loss is measured")
    training_arguments: dict[str, Any] = option({}, "any other field of transformers.TrainingArguments")


@dataclass
class OptimizationArguments(UpdateArguments):
    """Optimization."""

    max_steps: int = option(-1, "updates of the weights; overrides the epochs")
    epochs: float = option(3.0, "passes over the training examples")
    batch_size: int = option(16, "clips in a batch on one device")
    cache_features: bool = option(False, "run the frozen encoder once per clip and keep what it says")
    cache_directory: Path | None = option(None, "where to keep it; ~/.cache/speechzoo where not given")


@dataclass
class RunArguments:
    """What is kept of a run, whatever the model."""

    output_dir: Path = option(Path("output/run"), "folder of the checkpoint, report and plots")
    resume: bool = option(False, "continue from the last checkpoint in the folder")
    save_steps: int = option(0, "updates between checkpoints; 0 saves only at the end")
    test_batch_size: int = option(32, "items in a batch of the final test")
    results_file: Path | None = option(None, "also write the report here")
    limits: list[str] = option([], "known limits, one sentence each")
    check: dict[str, float] = option({}, "bars on results rows; missing one ends the run with status 1")
    card_language: list[str] = option(["en"], "languages it understands, for the card")
    card_license: str = option("apache-2.0", "license of the trained weights, for the card")
    push_to_hub: str | None = option(None, "publish to this Hub id")
    private: bool = option(True, "make the published repository private")
    verify: bool = option(True, "before that, try the published code in a process without this package")

    def __post_init__(self) -> None:
        """Before training, for the card is written after it."""
        check_license(self.card_license)
        check_languages(self.card_language)


@dataclass
class OutputArguments(RunArguments):
    """Results."""

    output_dir: Path = option(Path("output/adapter"), "folder of the checkpoint, report, card and plots")
    test_batch_size: int = option(32, "clips in a batch of the final test")
    max_new_tokens: int = option(64, "longest answer of the final test, in tokens")
    cascade_model: str | None = option(
        None, "CTC recognizer, Hub id or folder: its transcripts, read by the same LLM, are tested beside every task"
    )
    test_limit: int | None = option(None, "test at most so many clips of each corpus")
    examples: int = option(12, "transcripts shown side by side")
    card_title: str = option("Speech-text adapter", "headline of the model card")
    card_description: str = option("", "what the model is, for the card")


@dataclass
class HeldOutArguments:
    """What is left out in turn, what is chosen for it, and results."""

    data: Path = field(metadata={"help": "corpus whose speakers are left out in turn"})
    prompt: str = option("{audio}", "what the LLM reads, {audio} where the clip goes")
    audio_token: str = option("<|audio|>", "placeholder of one speech embedding in the prompt")
    max_new_tokens: int = option(16, "longest answer in tokens")
    candidates: dict[str, dict[str, Any]] = option(
        {"as given": {}}, "name -> values of other sections that it changes; one is chosen for each speaker or fold"
    )
    regularization: list[float] = option(
        [1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0], "C of logistic regression; one is chosen for each speaker or fold"
    )
    seeds: list[int] = option([0], "of adapters and data order; settings are chosen with the first")
    data_license: str = option("", "license of the corpus, for the report")
    limits: list[str] = option([], "known limits, one sentence each, for the report")
    results_file: Path = option(Path("results/held_out.json"), "where the report goes")


@dataclass
class SpeakerArguments(HeldOutArguments):
    """Speakers left out, what is chosen for them, and results."""

    column: str = option("text", "column of the answers")
    closed: bool = option(True, "answer with what the column holds alone, as a classifier does")


@dataclass
class SlotArguments(HeldOutArguments):
    """Folds of speakers left out, what is chosen for them, and results."""

    column: str = option("slots", "column of the slots, an object of values by name")
    group: str = option("speaker_group", "column of the speaker, or of the group that stands for one")
    folds: int = option(5, "groups are left out in so many folds")
    first_data: list[str] = option([], "corpora with the same slots that every training starts from")
    first_epochs: float = option(1.0, "passes over them")
    copies: int = option(4, "of each clip, varied, where the frames of a frozen encoder are kept (cache_features)")
