import pytest
import torch
from torch import nn

from clvp_train.inference.chunked_encoding import computed_positions, encode_in_chunks, lengths
from clvp_train.training.module import mask_tokens

LENGTHS = [3, 17, 9, 1, 24, 8, 16]


def rows(width=24):
    draw = torch.Generator().manual_seed(0)
    mask = torch.arange(width) < torch.tensor(LENGTHS)[:, None]
    return torch.randint(1, 40, (len(LENGTHS), width), generator=draw) * mask, mask


class Recording(nn.Module):
    """The mean of embedded ids through dropout; records its inputs."""

    def __init__(self, dropout=0.0):
        super().__init__()
        torch.manual_seed(1)
        self.embedding, self.dropout = nn.Embedding(40, 6, dtype=torch.float64), nn.Dropout(dropout)
        self.shapes, self.masks = [], []

    def forward(self, ids, mask):
        self.shapes.append(tuple(ids.shape))
        self.masks.append(mask)
        mask = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask
        embedded = self.dropout(self.embedding(ids)) * mask[..., None]
        return embedded.sum(1) / mask.sum(1, keepdim=True)


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("chunk_size", [0, 1, 2, 3, 7, 50])
def test_embeddings_and_gradients_are_those_of_the_padded_batch(chunk_size, cached):
    def run(**settings):
        encoder = Recording()
        embeds = encode_in_chunks(encoder, *rows(), **settings)
        (embeds * torch.arange(1.0, 8.0)[:, None]).sum().backward()
        return embeds, encoder.embedding.weight.grad

    for actual, expected in zip(run(chunk_size=chunk_size, cached=cached), run(chunk_size=0)):
        torch.testing.assert_close(actual, expected, atol=1e-12, rtol=0)


def test_each_chunk_is_as_long_as_its_longest_row_rounded_up_and_the_longest_come_first():
    encoder = Recording()
    encode_in_chunks(encoder, *rows(), chunk_size=3)
    assert encoder.shapes == [(3, 24), (3, 16), (1, 8)]
    assert computed_positions(rows()[1], 3).item() == sum(B * L for B, L in encoder.shapes)
    assert computed_positions(rows()[1], 0).item() == 7 * 24
    encoder = Recording()
    encode_in_chunks(encoder, *rows(width=26), chunk_size=2, multiple=5)
    assert encoder.shapes == [(2, 25), (2, 20), (2, 10), (1, 5)]
    assert computed_positions(rows(width=26)[1], 2, 5).item() == sum(B * L for B, L in encoder.shapes)


def test_a_chunk_without_padding_is_encoded_without_a_mask():
    encoder = Recording()
    encode_in_chunks(encoder, *rows(), chunk_size=1)
    without = [shape for shape, mask in zip(encoder.shapes, encoder.masks) if mask is None]
    assert without == [(1, 24), (1, 16), (1, 8)]


def test_a_mask_with_gaps_keeps_them():
    ids, mask = rows()
    mask = mask.clone()
    mask[4, 2:9] = mask[1, 10:] = False
    assert lengths(mask).tolist() == [3, 10, 9, 1, 24, 8, 16]
    expected = Recording()(ids, mask)
    torch.testing.assert_close(encode_in_chunks(Recording(), ids, mask, chunk_size=2), expected)


def test_cached_chunks_have_the_same_dropout():
    def gradient(cached):
        encoder = Recording(dropout=0.5)
        torch.manual_seed(3)
        encode_in_chunks(encoder, *rows(), chunk_size=2, cached=cached).square().sum().backward()
        return encoder.embedding.weight.grad, len(encoder.shapes)

    (plain, once), (cached, twice) = gradient(False), gradient(True)
    assert torch.equal(plain, cached) and (once, twice) == (4, 8)


def test_nothing_is_encoded_twice_without_gradients():
    encoder = Recording()
    with torch.no_grad():
        encode_in_chunks(encoder, *rows(), chunk_size=2, cached=True)
    assert len(encoder.shapes) == 4


def test_a_share_of_the_tokens_is_masked_but_never_the_first():
    mask = torch.arange(500) < torch.randint(1, 500, (200, 1), generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    masked = mask_tokens(mask, 0.3)
    assert masked[:, 0].all() and not (masked & ~mask).any()
    assert masked[:, 1:].sum().item() / mask[:, 1:].sum().item() == pytest.approx(0.7, abs=0.01)
    assert torch.equal(mask_tokens(mask, 0.0), mask)
