"""Positions of padded rows, whole and after a cache."""

import torch

from speechzoo.modeling.token_positions import unpadded_positions

MASK = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])


def test_padding_on_the_left_is_not_counted():
    left, none, right = unpadded_positions(MASK, 5).tolist()
    assert left[2:] == [0, 1, 2] and none == [0, 1, 2, 3, 4] and right[:3] == [0, 1, 2]
    assert min(left) == 0, "padding has a position that a table holds"


def test_tokens_after_a_cache_go_on_from_those_in_it():
    assert unpadded_positions(MASK, 2)[:2].tolist() == [[1, 2], [3, 4]]


def test_other_masks_leave_positions_to_the_model():
    for mask in (None, MASK[:, None, None], {"full_attention": None}):
        assert unpadded_positions(mask, 5) is None
