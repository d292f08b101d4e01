import pytest
import torch
from torch import nn

from clvp_train.inference.chunked_encoding import computed_positions, encode_in_chunks, row_lengths
from clvp_train.training.batch_encoder import mask_tokens

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
@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.parametrize("chunk_tokens", [0, 1, 24, 50, 100, 1000])
def test_embeddings_and_gradients_are_those_of_the_padded_batch(chunk_tokens, counted, cached):
    def run(**settings):
        encoder = Recording()
        embeds = encode_in_chunks(encoder, *rows(), **settings)
        (embeds * torch.arange(1.0, 8.0)[:, None]).sum().backward()
        return embeds, encoder.embedding.weight.grad

    settings = {"chunk_tokens": chunk_tokens, "cached": cached, "lengths_B": LENGTHS if counted else None}
    for actual, expected in zip(run(**settings), run(chunk_tokens=0)):
        torch.testing.assert_close(actual, expected, atol=1e-12, rtol=0)


def shapes(chunk_tokens, lengths_B=LENGTHS, width=24, **settings):
    encoder, mask = Recording(), torch.arange(width) < torch.tensor(lengths_B)[:, None]
    encode_in_chunks(encoder, mask.long(), mask, chunk_tokens, lengths_B, **settings)
    if not settings:
        assert computed_positions(lengths_B, chunk_tokens, width) == sum(B * L for B, L in encoder.shapes)
    return encoder.shapes, [mask is None for mask in encoder.masks]


def test_chunks_hold_their_tokens_and_rows_of_similar_length_the_longest_first():
    assert shapes(0)[0] == [(7, 24)]
    assert shapes(48)[0] == [(2, 24), (2, 16), (3, 8)]
    assert shapes(4000)[0] == [(7, 24)], "a further chunk costs more than the padding it saves"
    assert shapes(48, [30, 9, 9, 9, 9, 9, 9], 32)[0] == [(1, 32), (3, 16), (3, 16)], "chunks of equal size"
    assert shapes(100, [26, 3], 26)[0] == [(1, 26), (1, 8)], "no longer than the batch"


def test_a_long_row_is_alone():
    """What a clip of ten minutes among short ones needs."""
    found, _ = shapes(2048, [12_900, *[200] * 40], 12_904)
    assert found == [(1, 12_904), *[(10, 200)] * 4]


def test_a_chunk_without_padding_is_encoded_without_a_mask():
    assert shapes(8) == (
        [(1, 24), (1, 24), (1, 16), (1, 16), (1, 8), (1, 8), (1, 8)],
        [True, False] * 2 + [True] + [False] * 2,
    )
    assert not any(shapes(8, has_gaps=True)[1])
    assert shapes(24, [24, 9, 8], one_graph=True) == ([(2, 24), (2, 16), (2, 8)], [False] * 3)


def test_a_mask_with_gaps_keeps_them():
    ids, mask = rows()
    mask = mask.clone()
    mask[4, 2:9] = mask[1, 10:] = False
    assert row_lengths(mask).tolist() == [3, 10, 9, 1, 24, 8, 16]
    expected = Recording()(ids, mask)
    torch.testing.assert_close(encode_in_chunks(Recording(), ids, mask, 48), expected)


def test_cached_chunks_have_the_same_dropout():
    def gradient(cached):
        encoder = Recording(dropout=0.5)
        torch.manual_seed(3)
        encode_in_chunks(encoder, *rows(), chunk_tokens=48, cached=cached).square().sum().backward()
        return encoder.embedding.weight.grad, len(encoder.shapes)

    (plain, once), (cached, twice) = gradient(False), gradient(True)
    assert torch.equal(plain, cached) and (once, twice) == (3, 6)


def test_nothing_is_encoded_twice_without_gradients():
    encoder = Recording()
    with torch.no_grad():
        encode_in_chunks(encoder, *rows(), chunk_tokens=48, cached=True)
    assert len(encoder.shapes) == 3


def test_a_share_of_the_tokens_is_masked_but_never_the_first():
    mask = torch.arange(500) < torch.randint(1, 500, (200, 1), generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    masked = mask_tokens(mask, 0.3)
    assert masked[:, 0].all() and not (masked & ~mask).any()
    assert masked[:, 1:].sum().item() / mask[:, 1:].sum().item() == pytest.approx(0.7, abs=0.01)
    assert torch.equal(mask_tokens(mask, 0.0), mask)
