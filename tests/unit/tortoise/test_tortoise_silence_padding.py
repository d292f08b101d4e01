import pytest
import torch

from clvp_train.tortoise.silence_padding import pad_with_silence, strip_padding

STOP = 8193


@pytest.mark.parametrize(
    ("codes", "padded"),
    [
        ([5, 6, 7, STOP, STOP, STOP, STOP, STOP, STOP], [5, 6, 7, 83, 83, 83, 45, 45, 248]),
        ([5, 6, STOP, 9, 9, 9, 9, 9], [5, 6, 83, 83, 83, 45, 45, 248]),  # codes after the stop are replaced as well
        ([5, 6, 7, 8, 9, 10, 11], [5, 6, 7, 8, 9, 10, 11]),  # without a stop: unchanged
        ([5, 6, 7, 8, 9, 10, STOP], [5, 6, 7, 8, 45, 45, 248]),  # a late stop overwrites spoken codes
        ([5, 6, 7, 8, STOP, 10, 11], [5, 6, 7, 8, 45, 45, 248]),
        ([STOP, STOP, STOP, STOP, STOP], [83, 83, 45, 45, 248]),
        ([STOP, 1, 2], [45, 45, 248]),
        ([1, STOP], [45, 248]),  # shorter than the tail
        ([STOP], [248]),
        ([3], [3]),
        ([], []),
    ],
)
def test_examples(codes, padded):
    assert pad_with_silence(torch.tensor([codes], dtype=torch.long), STOP).tolist() == [padded]


def naive(row: list[int], silence: int, tail: list[int]) -> list[int]:
    if STOP not in row:
        return row
    first = row.index(STOP)
    padded = row[:first] + [silence] * (len(row) - first)
    for back in range(1, min(len(tail), len(row)) + 1):
        padded[-back] = tail[-back]
    return padded


@pytest.mark.parametrize("tail", [[45, 45, 248], [13, 282], [], [1, 2, 3, 4, 5]])
def test_random_codes_against_naive_computation(tail):
    draw = torch.Generator().manual_seed(0)
    for length in range(0, 25):
        codes = torch.randint(0, 300, (40, length), generator=draw)
        codes[torch.rand(40, length, generator=draw) < 0.08] = STOP
        before = codes.clone()
        padded = pad_with_silence(codes, STOP, silence=13, tail=tail)
        assert padded.tolist() == [naive(row, 13, tail) for row in codes.tolist()]
        assert torch.equal(codes, before)


@pytest.mark.parametrize(
    ("codes", "stripped"),
    [
        ([5, 6, 7], [5, 6, 7]),
        ([8192, 5, 6, STOP], [5, 6]),
        ([5, 6, STOP, STOP, 7, STOP], [5, 6]),  # what follows a stop was never spoken
        ([5, 6, -100, -100], [5, 6]),
        ([5, 6, STOP, -1, -1], [5, 6]),
        ([5, 6, 83, 83, 45, 45, 248], [5, 6]),
        ([5, 6, 83, 45, 45, 248], [5, 6]),
        ([5, 6, 45, 45, 248], [5, 6, 45, 45, 248]),  # may be speech
        ([5, 83, 83, 83], [5, 83, 83, 83]),
        ([5, 8192, 6], [5, 8192, 6]),  # refused elsewhere
        ([5, -1, 6], [5, -1, 6]),
        ([-1], [-1]),
        ([STOP, 5], [STOP, 5]),
    ],
)
def test_padding_is_stripped(codes, stripped):
    assert strip_padding(torch.tensor(codes), 8192).tolist() == stripped
