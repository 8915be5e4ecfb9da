"""Audio, prompts and answers in; model inputs out. Saved beside a speech-text adapter.

Shapes: B prompts, C clips of the whole batch, n extracted features (samples or mel frames), A speech embeddings,
T tokens.
"""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import AddedToken, AutoFeatureExtractor, AutoTokenizer, PreTrainedConfig
from transformers.feature_extraction_utils import BatchFeature
from transformers.processing_utils import ProcessingKwargs

from ..configuration.hub_pushing import PushedProcessor
from ..configuration.prompt_fingerprint import prompt_fingerprint
from .audio_loading import AudioError
from .chat_templates import audio_chat_template
from .speech_inputs import SpeechInputs, pad_features, padding_masks

IGNORED = -100
AUDIO_MARK, CONTEXT_MARK = "{audio}", "{context}"
DEFAULT_PROMPTS = {"asr": "Transcribe the speech. {audio}"}
_CHAT_SOURCES = ("audio", "path", "url")


class SpeechTextAdapterProcessorKwargs(ProcessingKwargs, total=False):  # type: ignore[call-arg]
    """What the tokenizer is told unless a call says otherwise: templates write all special tokens themselves."""

    _defaults = {"text_kwargs": {"padding": True, "add_special_tokens": False}}


class SpeechTextAdapterProcessor(PushedProcessor, SpeechInputs):
    """Prepares prompts with speech anywhere in them, and decodes answers.

    > Parts

    feature_extractor, tokenizer: those of the two backbones.
    chat_template (`str`): Jinja; what it writes is what the LLM reads, no special token is added to it.

    > Prompts

    audio_token (`str`): placeholder; it is repeated once for each speech embedding of its clip.
    prompts (`dict[str, str]`): a named instruction each, `{audio}` marking where the speech goes.
    is_encoder_decoder (`bool`): whether the answer has a sequence of its own or follows the prompt.

    > Speech

    frame_kernel, frame_stride, reduction_ratio (`int`): as in the model's configuration.
    encoding (`str`): `"clip"` or `"window"`, as there.
    chunk_seconds (`float`, *optional*): longer audio is cut into chunks whose embeddings are laid end to end; an
        encoder with a fixed window is always cut at its window.
    max_audio_seconds (`float`, *optional*): a longer clip is refused.
    """

    valid_processor_kwargs = SpeechTextAdapterProcessorKwargs

    def __init__(
        self,
        feature_extractor: Any,
        tokenizer: Any,
        chat_template: str | None = None,
        audio_token: str = "<|audio|>",
        prompts: dict[str, str] | None = None,
        is_encoder_decoder: bool = False,
        frame_kernel: int = 400,
        frame_stride: int = 320,
        reduction_ratio: int = 4,
        encoding: str = "clip",
        chunk_seconds: float | None = None,
        max_audio_seconds: float | None = None,
    ) -> None:
        _prepare_tokenizer(tokenizer, audio_token, padding_side="right" if is_encoder_decoder else "left")
        self.audio_token, self.audio_token_id = audio_token, tokenizer.convert_tokens_to_ids(audio_token)
        self.prompts = dict(DEFAULT_PROMPTS if prompts is None else prompts)
        self.is_encoder_decoder, self.encoding = is_encoder_decoder, encoding
        self.frame_kernel, self.frame_stride = frame_kernel, frame_stride
        self.reduction_ratio = reduction_ratio
        self.chunk_seconds, self.max_audio_seconds = chunk_seconds, max_audio_seconds
        chat_template = chat_template or audio_chat_template(tokenizer, audio_token, is_encoder_decoder)
        super().__init__(feature_extractor, tokenizer, chat_template=chat_template)
        self._check_chunks()

    def _check_chunks(self) -> None:
        if self.chunk_seconds is not None and round(self.chunk_seconds * self.sampling_rate) < self.minimum_samples:
            raise ValueError(
                f"chunk_seconds is {self.chunk_seconds}, of which this encoder makes no frame; give at least "
                f"{self.minimum_samples / self.sampling_rate:.4f}"
            )

    @classmethod
    def from_model_config(
        cls, config: PreTrainedConfig, hub: dict[str, Any] | None = None, **fields: Any
    ) -> "SpeechTextAdapterProcessor":
        """The processor of a model that `from_backbones` made.

        Also tells `config` the id of the placeholder and how the LLM reads, so call it before training and saving.

        Args:
            config: a `SpeechTextAdapterConfig` that names its backbones.
            hub: arguments of every download, such as `token`.
            **fields: arguments of the constructor.
        """
        extractor = AutoFeatureExtractor.from_pretrained(
            config.audio_model_id, **_pin(config.audio_model_id, config.audio_model_revision), **(hub or {})
        )
        tokenizer = AutoTokenizer.from_pretrained(
            config.text_model_id, **_pin(config.text_model_id, config.text_model_revision), **(hub or {})
        )
        config.prompt_fingerprint = prompt_fingerprint(tokenizer)  # before anything is added to it
        if config.new_tokens:
            config.new_token_ids = _add_words(tokenizer, config.new_tokens)
        shared = ("is_encoder_decoder", "frame_kernel", "frame_stride", "reduction_ratio", "encoding")
        processor = cls(extractor, tokenizer, **{name: getattr(config, name) for name in shared}, **fields)
        config.audio_token_id = processor.audio_token_id
        return processor

    @property
    def model_input_names(self) -> list[str]:
        return ["input_ids", "attention_mask", "input_features", "input_features_mask"]

    # ---- audio -----------------------------------------------------------------------------------------------------

    def prepare_inputs_layout(self, text: Any = None, audio: Any = None, **kwargs: Any) -> tuple[Any, Any, Any, Any]:
        text = [text] if isinstance(text, str) else None if text is None else list(text)
        clips = [] if audio is None else _as_list(audio)
        if text is not None and not kwargs.get("sanitize_control_tokens"):
            self._check_counts(text, len(clips))
        if audio is not None:
            rate = kwargs.get("sampling_rate") or kwargs.get("audio_kwargs", {}).get("sampling_rate")
            audio = [self.load(source, rate, index) for index, source in enumerate(clips)]
        return None, text, None, audio

    def _check_counts(self, prompts: Sequence[str], clips: int) -> None:
        marks = sum(prompt.count(self.audio_token) for prompt in prompts)
        if marks != clips:
            raise ValueError(f"the prompts hold {marks} {self.audio_token} for {clips} clips; give one clip for each")

    def embeddings(self, frames: int) -> int:
        """Speech embeddings that come from so many encoder frames."""
        return -(-frames // self.reduction_ratio)

    def _process_audio(self, audio: list[np.ndarray], **kwargs: Any) -> tuple[dict[str, Any], list[str]]:
        """Padded features of all chunks of all clips, and for each clip the text that replaces its placeholder."""
        extracted = [[self.extract(chunk) for chunk in self.chunks(clip)] for clip in audio]
        counts = [sum(self.embeddings(self.frames(valid)) for _, valid in clip) for clip in extracted]
        padded = self.pad([chunk for clip in extracted for chunk in clip])
        return padded, [self.audio_token * count for count in counts]

    # ---- prompts and answers ---------------------------------------------------------------------------------------

    def messages(self, task: str, *clips: Any, context: str = "") -> list[dict[str, Any]]:
        """The conversation of a named prompt: each `{audio}` of it is the next of `clips`, `{context}` a text to read.

        A prompt without `{context}` does not read it, so that tasks which do and do not may share a corpus. Raises
        `ValueError` for an unknown task or a wrong number of clips.
        """
        if task not in self.prompts:
            raise ValueError(f"there is no prompt '{task}'; this processor has {', '.join(sorted(self.prompts))}")
        wanted = self.prompts[task].count(AUDIO_MARK)
        if wanted != len(clips):
            raise ValueError(f"prompt '{task}' takes {wanted} clips, {len(clips)} were given")
        return _messages(self.prompts[task], clips, context)

    def prompt(self, task: str, context: str = "") -> str:
        """The text of a named prompt as the LLM reads it, with one placeholder for each clip."""
        clips = [""] * self.prompts.get(task, "").count(AUDIO_MARK)
        return super().apply_chat_template(self.messages(task, *clips, context=context), add_generation_prompt=True)

    def instruction(self, text: str, context: str = "") -> str:
        """The same of an instruction without a name; the speech comes behind it unless `{audio}` says where.

        Raises `ValueError` for more than one `{audio}`.
        """
        marks = text.count(AUDIO_MARK)
        if marks > 1:
            raise ValueError(f"the instruction holds {marks} {AUDIO_MARK}; write one, where the clip goes")
        text = text if marks else f"{text.rstrip()} {AUDIO_MARK}".lstrip()
        return super().apply_chat_template(_messages(text, [""], context), add_generation_prompt=True)

    def apply_chat_template(self, conversation: Any, *args: Any, **kwargs: Any) -> Any:
        """As in transformers; audio may be anything that `load_audio` takes, and faults in it are named by it."""
        if kwargs.get("tokenize"):
            batched = bool(conversation) and isinstance(conversation[0], Sequence)
            chats = [self._with_loaded_audio(chat) for chat in (conversation if batched else [conversation])]
            conversation = chats if batched else chats[0]
        return super().apply_chat_template(conversation, *args, **kwargs)

    def _with_loaded_audio(self, conversation: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [
            {**turn, "content": [self._with_samples(item) for item in turn["content"]]}
            if isinstance(turn.get("content"), list)
            else turn
            for turn in conversation
        ]

    def _with_samples(self, item: dict[str, Any]) -> dict[str, Any]:
        if item.get("type") != "audio":
            return item
        source = next((item[key] for key in _CHAT_SOURCES if item.get(key) is not None), None)
        if source is None:
            raise AudioError(f"a message holds audio without a source; give one of {', '.join(_CHAT_SOURCES)}")
        # Samples alone have no name; they are looked at when their place is known.
        return {"type": "audio", "audio": source if isinstance(source, np.ndarray) else self.load(source)}

    def __call__(
        self,
        text: str | list[str] | None = None,
        audio: Any = None,
        targets: str | list[str] | None = None,
        encoder_frames: Sequence[Sequence[np.ndarray]] | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Prompts [B] whose placeholders are filled by `audio`, a flat list of clips [C] in prompt order.

        Args:
            text: prompts, from `prompt`, `apply_chat_template` or written by hand.
            audio: whatever `load_audio` takes: paths, arrays (at `sampling_rate`), dictionaries.
            targets: answers [B] to learn. `labels` then come too: -100 on the prompt and on padding, the end token
                included. For a causal LLM the answers are appended to the prompts.
            encoder_frames: in place of audio, what the encoder said of each chunk [F, D] of each clip.
            padding_side: "left" or "right"; by default right with targets, and without them on the left for a causal
                LLM, which then generates.

        Returns:
            `input_ids`, `attention_mask` [B, T]; `input_features` and `input_features_mask` [C, n]; `labels`.

        Raises:
            ValueError: the number of placeholders is not the number of clips. AudioError: a clip cannot be used.
        """
        if targets is None:
            return super().__call__(text=text, audio=audio, **kwargs)
        targets = [targets] if isinstance(targets, str) else list(targets)
        side = kwargs.pop("padding_side", "right")
        tensors = kwargs.pop("return_tensors", None)
        if encoder_frames is None:
            batch = super().__call__(text=text, audio=audio, **{**kwargs, "padding": False})
        else:
            batch = self._with_frames(text, encoder_frames)
        if len(targets) != len(batch["input_ids"]):
            raise ValueError(f"{len(targets)} targets were given for {len(batch['input_ids'])} prompts")
        self._append(batch, targets, side)
        return BatchFeature(batch, tensor_type=tensors)

    def _with_frames(self, text: str | list[str] | None, clips: Sequence[Sequence[np.ndarray]]) -> BatchFeature:
        prompts = [text] if isinstance(text, str) else list(text or ())
        speech = [self.audio_token * sum(self.embeddings(len(chunk)) for chunk in clip) for clip in clips]
        self._check_counts(prompts, len(clips))
        prompts, _ = self.get_text_with_replacements(prompts, audio_replacements=speech)
        chunks = [chunk for clip in clips for chunk in clip]
        frames = pad_features(chunks, time_axis=0)
        masks = padding_masks([len(chunk) for chunk in chunks], frames.shape[1])
        return BatchFeature(
            {"input_ids": self._tokens(prompts), "encoder_frames": frames, "encoder_frames_mask": masks}
        )

    def _append(self, batch: BatchFeature, targets: list[str], side: str) -> None:
        prompts = [list(ids) for ids in batch["input_ids"]]
        answers = [[*ids, self.tokenizer.eos_token_id] for ids in self._tokens(targets)]
        if self.is_encoder_decoder:
            sequences, labels = prompts, answers
        else:
            sequences = [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)]
            labels = [[IGNORED] * len(prompt) + answer for prompt, answer in zip(prompts, answers, strict=True)]
        batch["input_ids"] = _pad_lists(sequences, self.tokenizer.pad_token_id, side)
        batch["attention_mask"] = _pad_lists([[1] * len(sequence) for sequence in sequences], 0, side)
        # A decoder's labels are padded at their end, whatever the side of the prompts.
        batch["labels"] = _pad_lists(labels, IGNORED, "right" if self.is_encoder_decoder else side)

    def _tokens(self, texts: list[str]) -> list[list[int]]:
        return self.tokenizer(texts, add_special_tokens=False)["input_ids"]

    def decode_answers(self, generated: torch.Tensor, input_ids: torch.Tensor | None = None) -> list[str]:
        """Texts of what `generate` returned, without the prompts `input_ids` [B, T] that a causal LLM repeats."""
        if not self.is_encoder_decoder and input_ids is not None:
            generated = generated[:, input_ids.shape[1] :]
        return [text.strip() for text in self.tokenizer.batch_decode(generated, skip_special_tokens=True)]


def _pin(source: str, revision: str | None) -> dict[str, Any]:
    """A folder's revision is a fingerprint, which loading functions would not understand."""
    return {} if os.path.isdir(source) else {"revision": revision}


def _messages(template: str, clips: Sequence[Any], context: str) -> list[dict[str, Any]]:
    """The conversation of a prompt's text, whose `{audio}` are as many as the clips."""
    texts = [text.replace(CONTEXT_MARK, context) for text in template.split(AUDIO_MARK)]
    content: list[dict[str, Any]] = []
    for text, clip in zip(texts, [*clips, None], strict=True):
        content += [{"type": "text", "text": text}] if text else []
        content += [] if clip is None else [{"type": "audio", "audio": clip}]
    return [{"role": "user", "content": content}]


def _prepare_tokenizer(tokenizer: Any, audio_token: str, padding_side: str) -> None:
    """Adds the placeholder, unless there is one, and what batches need.

    A word of the vocabulary is not enough: only an added token is found wherever it stands. Answers are generated
    after the prompt, so a causal LLM's prompts end together.
    """
    if audio_token not in tokenizer.get_added_vocab():
        tokenizer.add_special_tokens({"additional_special_tokens": [audio_token]}, replace_extra_special_tokens=False)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token  # padding is masked
    tokenizer.padding_side = padding_side


def _add_words(tokenizer: Any, words: Sequence[str]) -> list[int]:
    """Ids of words that become tokens. Raises `ValueError` for one that is a token already."""
    if known := sorted(set(words) & tokenizer.get_vocab().keys()):
        raise ValueError(f"'{known[0]}' is a token of the LLM already; leave it out of new_tokens")
    tokenizer.add_tokens([AddedToken(word, normalized=False) for word in words])
    return tokenizer.convert_tokens_to_ids(list(words))


def _as_list(audio: Any) -> list[Any]:
    """One clip or several, nested or flat, as a flat list of clips."""
    if not isinstance(audio, (list, tuple)) or (audio and isinstance(audio[0], (int, float))):
        return [audio]
    return [clip for item in audio for clip in (item if isinstance(item, (list, tuple)) else [item])]


def _pad_lists(rows: list[list[int]], value: int, side: str) -> list[list[int]]:
    if side not in ("left", "right"):
        raise ValueError(f"padding_side is '{side}'; choose 'left' or 'right'")
    longest = max(map(len, rows))
    if side == "left":
        return [[value] * (longest - len(row)) + row for row in rows]
    return [row + [value] * (longest - len(row)) for row in rows]


__all__ = ["SpeechTextAdapterProcessor"]
