"""Times of words: the best CTC path among all paths, what a synthesizer said, and TextGrid files."""

import itertools
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    BatchFeature,
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    Wav2Vec2Processor,
)

from speechzoo.data.synthetic_corpus import RECIPES, build_synthetic_corpus, read_corpus
from speechzoo.processing.word_alignment import (
    CTCAligner,
    WordSpan,
    ctc_viterbi,
    read_textgrid,
    spans_of_timings,
    word_groups,
)

ENCODER = Path(__file__).parents[2] / "examples" / "tiny_zoo" / "speech_encoder"
BLANK = 0


# --- Viterbi ---


def collapsed(path):
    return [label for label, _ in itertools.groupby(path) if label != BLANK]


def brute_force(log_probabilities, text):
    """The best of all paths that collapse to the text, as ids; None where there is none."""
    frames, vocabulary = log_probabilities.shape
    paths = [p for p in itertools.product(range(vocabulary), repeat=frames) if collapsed(p) == text]
    return max(paths, key=lambda path: log_probabilities[range(frames), path].sum(), default=None)


def ids_of(states, text):
    return tuple(text[state // 2] if state % 2 else BLANK for state in states)


def test_the_path_is_the_best_of_all_paths():
    generator = torch.Generator().manual_seed(0)
    texts = [[1], [1, 1], [1, 2], [2, 1, 1], [], [1, 2, 1], [2, 2, 2], [1, 2, 2, 1]]
    for frames in (1, 3, 6):
        counts = torch.tensor([max(1, frames - number % 3) for number in range(len(texts))])
        scores = torch.randn(len(texts), frames, 3, generator=generator).log_softmax(-1)
        for row, count in enumerate(counts):
            scores[row, count:] = 100.0  # what lies beyond a clip must not matter
        labels = pad_sequence([torch.tensor(text, dtype=torch.long) for text in texts], batch_first=True)
        lengths = torch.tensor([len(text) for text in texts])
        for row, path in enumerate(ctc_viterbi(scores, counts, labels, lengths, BLANK).tolist()):
            inside, beyond = path[: counts[row]], path[counts[row] :]
            best = brute_force(scores[row, : counts[row]], texts[row])
            assert set(beyond) <= {-1}
            assert (None if inside[0] < 0 else ids_of(inside, texts[row])) == best


def test_too_few_frames_leave_no_path():
    path = ctc_viterbi(torch.zeros(1, 3, 3), torch.tensor([3]), torch.tensor([[1, 1, 2]]), torch.tensor([3]), BLANK)
    assert path.tolist() == [[-1, -1, -1]], "two equal letters need a blank between them"


# --- alignment by a model ---


class ScriptedProcessor:
    """Its letters are large, and there are no digits. Its mask covers the first `heard` frames."""

    letters = ("<pad>", "<unk>", "|", *"ABCDEHLOW")

    def __init__(self, folder, heard):
        path = folder / "vocab.json"
        path.write_text(json.dumps({letter: number for number, letter in enumerate(self.letters)}))
        self.tokenizer = Wav2Vec2CTCTokenizer(path, bos_token=None, eos_token=None)
        self.feature_extractor = SimpleNamespace(sampling_rate=1000)
        self.heard = heard

    def __call__(self, samples, sampling_rate, return_tensors):
        return BatchFeature({"attention_mask": (torch.arange(20) < self.heard)[None]})


class ScriptedModel:
    """A CTC model that says one letter a frame, whatever it hears."""

    device = "cpu"
    config = SimpleNamespace(pad_token_id=BLANK)

    def __init__(self, frames):
        ids = torch.tensor([ScriptedProcessor.letters.index(letter) for letter in frames])
        self.logits = 20.0 * torch.nn.functional.one_hot(ids, len(ScriptedProcessor.letters))[None].float()

    def __call__(self, attention_mask):
        return SimpleNamespace(logits=self.logits)


def scripted(folder, frames, **options):
    """Ten frames a second; the extractor fills them up to twenty."""
    model = ScriptedModel([*frames, *["B"] * (20 - len(frames))])
    return CTCAligner(model, ScriptedProcessor(folder, len(frames)), frame_rate=10, **options)


CLIP = np.zeros(100, np.float32)
_ = "<pad>"


@pytest.mark.parametrize("text", ["all B", "ALL b"])
def test_words_share_the_frames_between_them_as_far_as_they_reach(tmp_path, text):
    frames = [_, _, "A", "L", _, "L", _, "|", _, _, "B", _, _, _, _]
    first, second = text.split()
    expected = {9: (0.1, 0.8, 0.8, 1.3), 0.1: (0.1, 0.7, 0.9, 1.2), 0: (0.2, 0.6, 1.0, 1.1)}
    for reach, (a, b, c, d) in expected.items():
        [spans] = scripted(tmp_path, frames, reach=reach).align([CLIP], [text])
        assert spans == [WordSpan(first, a, b), WordSpan(second, c, d)]


def test_words_are_parted_where_the_model_hears_a_delimiter(tmp_path):
    """Without one, the letter in the middle would go to the first word, for a blank follows it."""
    [spans] = scripted(tmp_path, ["A", "|", "A", _, "A"], reach=0).align([CLIP], ["a a"])
    assert (spans[0].end, spans[1].start) == (0.1, 0.2)


def test_a_word_without_letters_has_no_length(tmp_path):
    aligner = scripted(tmp_path, ["C", "A", "|", "B", "E"], reach=0)
    [spans] = aligner.align([CLIP], ["7 ca 20 be 21"])
    empty = [spans[0], spans[2], spans[4]]
    assert [(span.word, span.start, span.end) for span in empty] == [("7", 0, 0), ("20", 0.2, 0.2), ("21", 0.5, 0.5)]
    assert [span.word for span in word_groups(spans)] == ["7 ca 20", "be 21"]


def test_texts_that_cannot_be_aligned_are_named(tmp_path):
    aligner = scripted(tmp_path, ["C", "A"])
    with pytest.raises(ValueError, match=r"2 frames are too few for the text 'a cab'"):
        aligner.align([CLIP], ["a cab"])
    with pytest.raises(ValueError, match=r"no letter of the text '20 21'"):
        aligner.align([CLIP], ["20 21"])
    with pytest.raises(ValueError, match=r"1 clips but 2 texts"):
        aligner.align([CLIP], ["a", "b"])
    assert aligner.align([], []) == []


def test_the_frame_rate_is_that_of_the_convolutions(tmp_path):
    config = Wav2Vec2Config(
        conv_dim=[4] * 7, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8,
        num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=1, vocab_size=4,
    )  # fmt: skip
    tokenizer = ScriptedProcessor(tmp_path, 0).tokenizer
    processor = Wav2Vec2Processor(Wav2Vec2FeatureExtractor(), tokenizer)
    assert CTCAligner(Wav2Vec2ForCTC(config).eval(), processor).frame_rate == 16000 / 320


@pytest.fixture(scope="module")
def spoken(tmp_path_factory):
    """Folder and records of sentences by voices that the encoder never heard."""
    recipe = replace(RECIPES["stories-test"], name="aligned", count=8, seed=99)
    folder = build_synthetic_corpus(recipe, tmp_path_factory.mktemp("spoken"))
    return folder, read_corpus(folder)


def boundaries(spans):
    return np.array([edge for span in spans for edge in (span.start, span.end)])


def test_the_tiny_encoder_finds_the_words_of_the_synthesizer(spoken):
    folder, records = spoken
    aligner = CTCAligner.from_pretrained(str(ENCODER))
    assert aligner.frame_rate == 50
    paths, texts = [str(folder / record["audio"]) for record in records], [record["transcript"] for record in records]
    found = aligner.align(paths, texts, batch_size=5)
    assert [[span.word for span in spans] for spans in found] == [text.split() for text in texts]
    truth = [spans_of_timings(record["words"]) for record in records]
    errors = np.concatenate([boundaries(a) - boundaries(b) for a, b in zip(found, truth, strict=True)])
    assert np.median(np.abs(errors)) < 0.03 and np.quantile(np.abs(errors), 0.9) < 0.07
    assert all(np.all(np.diff(boundaries(spans)) >= 0) for spans in found)
    assert found[3] == aligner.align(paths[3:4], texts[3:4])[0], "a batch changes nothing"


# --- words that share an event ---


def test_words_that_cannot_be_parted_are_one():
    times = {"to": (0, 0), "be": (0, 0.2), "in": (0.2, 0.4), "the": (0.2, 0.4), "sun": (0.4, 0.7), "of": (0.7, 0.7)}
    words = [*(WordSpan(word, *time) for word, time in times.items()), WordSpan("may", 0.9, 1.0)]
    pairs = [WordSpan("to be", 0, 0.2), WordSpan("in the", 0.2, 0.4), WordSpan("sun of", 0.4, 0.7)]
    assert word_groups(words) == [*pairs, WordSpan("may", 0.9, 1.0)]
    assert [group.word for group in word_groups(words, shortest=0.15)] == ["to be", "in the", "sun of may"]
    assert word_groups([]) == []


def test_pairs_that_the_synthesizer_says_as_one_word_are_found(spoken):
    words = [["in", 0.1, 0.2], ["the", 0.2, 0.3], ["sun", 0.3, 0.6]]
    phones = [["I", 0.1, 0.15], ["n", 0.15, 0.22], ["@", 0.22, 0.3], ["s", 0.3, 0.6]]
    assert spans_of_timings(words, phones) == [WordSpan("in the", 0.1, 0.3), WordSpan("sun", 0.3, 0.6)]
    assert spans_of_timings(words) == [WordSpan(*word) for word in words]
    _, records = spoken
    groups = [span for record in records for span in spans_of_timings(record["words"], record["phones"])]
    pairs = {span.word for span in groups if " " in span.word}
    assert pairs and {pair.split()[1] for pair in pairs} <= {"the", "a"}
    assert " ".join(span.word for span in groups) == " ".join(record["transcript"] for record in records)


# --- TextGrid ---

LONG = """File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 1.5
tiers? <exists>
size = 3
item []:
    item [1]:
        class = "IntervalTier"
        name = "words"
        xmin = 0
        xmax = 1.5
        intervals: size = 4
        intervals [1]:
            xmin = 0
            xmax = 0.25
            text = ""
        intervals [2]:
            xmin = 0.25
            xmax = 0.5
            text = "say"
        intervals [3]:
            xmin = 0.5
            xmax = 1.0
            text = "a ""12"" [3] !"
        intervals [4]:
            xmin = 1.0
            xmax = 1.5
            text = "<eps>"
    item [2]:
        class = "TextTier"
        name = "clicks"
        xmin = 0
        xmax = 1.5
        points: size = 1
        points [1]:
            number = 0.7
            mark = "click"
    item [3]:
        class = "IntervalTier"
        name = "anna - phones"
        xmin = 0
        xmax = 1.5
        intervals: size = 1
        intervals [1]:
            xmin = 0
            xmax = 1.5e0
            text = "é"
"""
SHORT = """File type = "ooTextFile"
"TextGrid"

0
1.5
<exists>
3
"IntervalTier"
"words"
0
1.5
4
0
0.25
""
0.25
0.5
"say"
0.5
1.0
"a ""12"" [3] !"
1.0
1.5
"<eps>"
"TextTier" "clicks" 0 1.5 1 ! a comment with 3 numbers
0.7
"click"
"IntervalTier"
"anna - phones"
0
1.5
1
0
1.5e0
"é"
"""


@pytest.mark.parametrize("content", [LONG, SHORT], ids=["long", "short"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-8-sig"])
def test_textgrids_are_read_in_both_forms(tmp_path, content, encoding):
    path = tmp_path / "clip.TextGrid"
    path.write_text(content, encoding=encoding)
    assert read_textgrid(path) == [WordSpan("say", 0.25, 0.5), WordSpan('a "12" [3] !', 0.5, 1.0)]
    assert len(read_textgrid(path, silences=())) == 4
    assert read_textgrid(path, "anna - phones") == [WordSpan("é", 0, 1.5)]
    with pytest.raises(ValueError, match=r"no tier of intervals 'clicks'; it has: words, anna - phones"):
        read_textgrid(path, "clicks")


@pytest.mark.parametrize("content", [LONG, SHORT], ids=["long", "short"])
def test_a_damaged_textgrid_is_named(tmp_path, content):
    path = tmp_path / "clip.TextGrid"
    for kept in range(len(content) * 9 // 10, 100, -97):
        path.write_text(content[:kept])
        with pytest.raises(ValueError, match=r"clip.TextGrid' is damaged or cut short"):
            read_textgrid(path)
    path.write_text("words 0 1 say")
    with pytest.raises(ValueError, match=r"is no TextGrid"):
        read_textgrid(path)
