"""The adapter against plain numpy: what reductions keep, how many embeddings there are, what padding may change."""

import numpy as np
import pytest
import torch
from speech_text_cases import CLIPS, features

from speechzoo.modeling.modeling_speech_adapter import LengthReduction
from speechzoo.modeling.modeling_speech_bridge import embedding_statistics

REDUCTIONS = ["discard", "stack", "convolution", "average"]


def brute_force(reduction: LengthReduction, frames: np.ndarray) -> np.ndarray:
    """[F, D] -> [A, D], group by group."""
    ratio = reduction.ratio
    weight = reduction.projection.weight.detach().double().numpy()
    bias = reduction.projection.bias.detach().double().numpy()
    rows = []
    for start in range(0, len(frames), ratio):
        group = frames[start : start + ratio]
        if reduction.kind == "discard":
            rows.append(weight @ group[0] + bias)
        elif reduction.kind == "average":
            rows.append(weight @ group.mean(0) + bias)
        elif reduction.kind == "stack":
            flat = np.zeros(ratio * frames.shape[1])
            flat[: group.size] = group.flatten()
            rows.append(weight @ flat + bias)
        else:  # a kernel of 2 ratio - 1 frames whose middle is the group's first
            total = bias.copy()
            for offset in range(1 - ratio, ratio):
                if 0 <= start + offset < len(frames):
                    total += weight[:, :, offset + ratio - 1] @ frames[start + offset]
            rows.append(total)
    return np.stack(rows)


@pytest.mark.parametrize("ratio", [1, 2, 4, 8])
@pytest.mark.parametrize("kind", REDUCTIONS)
@torch.no_grad()
def test_a_reduction_is_what_a_loop_computes(backbones, kind, ratio):
    model, _ = backbones.shared(reduction=kind, reduction_ratio=ratio)
    reduction = model.model.adapter.reduction
    lengths = torch.tensor([17, 16, 9, 8, 3, 1])
    frames = torch.randn(6, 17, 32, generator=torch.Generator().manual_seed(0))
    frames = frames * (torch.arange(17) < lengths[:, None])[..., None]
    reduced, counts = reduction(frames, lengths), reduction.lengths(lengths)
    assert counts.tolist() == [-(-length // ratio) for length in lengths.tolist()]
    assert reduced.shape[1] == counts[0]
    for row, length, count in zip(range(6), lengths, counts, strict=True):
        expected = torch.from_numpy(brute_force(reduction, frames[row, :length].double().numpy())).float()
        torch.testing.assert_close(reduced[row, :count], expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_random_phase_keeps_one_frame_of_each_group_and_rests_in_evaluation(backbones):
    model, _ = backbones.build(random_phase=True)
    reduction = model.model.adapter.reduction
    reduction.projection = torch.nn.Identity()
    lengths = torch.tensor([18, 7, 1])
    frames = torch.arange(1.0, 19)[None, :, None].repeat(3, 1, 2) * (torch.arange(18) < lengths[:, None])[..., None]
    assert reduction.eval()(frames, lengths)[0, :, 0].tolist() == [1, 5, 9, 13, 17]
    torch.manual_seed(0)
    reduction.train()
    draws = torch.stack([reduction(frames, lengths)[..., 0] for _ in range(200)])
    assert draws.shape[1:] == (3, 5)
    for group in range(4):
        assert set(draws[:, 0, group].tolist()) == {4.0 * group + phase for phase in (1, 2, 3, 4)}
    assert set(draws[:, 0, 4].tolist()) == {17, 18}
    assert set(draws[:, 1, 1].tolist()) == {5, 6, 7}
    assert set(draws[:, 2, 0].tolist()) == {1}


@pytest.mark.parametrize("kind", REDUCTIONS)
@torch.no_grad()
def test_embeddings_do_not_depend_on_the_batch(backbones, kind):
    model, processor = backbones.shared(reduction=kind)
    adapter = model.model.adapter
    frames, lengths = model.model.encode_audio(**features(processor, CLIPS))
    embeddings, counts = adapter(frames, lengths)
    for row, (length, count) in enumerate(zip(lengths, counts, strict=True)):
        alone, one = adapter(frames[row : row + 1, :length], lengths[row : row + 1])
        assert one.tolist() == [count] and alone.shape[1] == count
        torch.testing.assert_close(embeddings[row, :count], alone[0], rtol=0, atol=1e-5)


@torch.no_grad()
def test_positions_matter(backbones):
    """Rotary positions: the same frames in another order are not the same embeddings in another order."""
    model, _ = backbones.shared(reduction_ratio=1)
    frames = torch.randn(1, 6, 32, generator=torch.Generator().manual_seed(0))
    forward, _ = model.model.adapter(frames, torch.tensor([6]))
    backward, _ = model.model.adapter(frames.flip(1), torch.tensor([6]))
    assert (forward - backward.flip(1)).abs().max() > 1e-3


@pytest.mark.parametrize("language_model", ["llama", "gemma3", "opt"])
@torch.no_grad()
def test_speech_starts_at_the_scale_of_the_embeddings(backbones, language_model):
    model, processor = backbones.shared("wav2vec2", language_model)
    embed = model.get_input_embeddings()
    table = embed(torch.arange(64))  # what the LLM reads: Gemma 3 scales inside its embedding layer
    mean, deviation = embedding_statistics(embed)
    torch.testing.assert_close(mean, table.mean(0))
    torch.testing.assert_close(deviation, table.std(0))
    speech = model.model.get_audio_features(**features(processor, CLIPS)).pooler_output
    assert speech.shape[1] == table.shape[1]
    assert 0.7 < speech.norm(dim=-1).mean() / table.norm(dim=-1).mean() < 1.4


def test_a_width_that_the_heads_cannot_share_is_refused(backbones):
    with pytest.raises(ValueError, match="adapter_width 20 must be a multiple of twice adapter_heads, 8"):
        backbones.build(adapter_width=20)
