"""Ranks with other pairs than rank 0 stop before training."""

import pytest

from clvp_train.data.datamodule import CLVPDataModule
from clvp_train.errors import UserError
from tests.distributed.ranks import on_ranks
from tests.unit.pairs_folder import write_folder


def write(folder, size=4, **changes):
    row = {"split": "train", "input_ids": [1], "speech_ids": [2], "voice": "v", "candidate": 0, "finished": True}
    return write_folder(folder, [[{**row, "id": str(n), "text": f"text {n}"} for n in range(size)]], **changes)


def set_up(rank, folders):
    try:
        CLVPDataModule(folders[rank], batch_size=2).setup("fit")
    except UserError as error:
        return str(error)


def test_copies_of_the_same_pairs_are_accepted(tmp_path):
    assert on_ranks(2, set_up, [write(tmp_path / name) for name in ("here", "there")]) == [None, None]


@pytest.mark.parametrize(
    ("changes", "figures"),
    [({"size": 5}, "fingerprint f, 5 train pairs of 5 texts"), ({"fingerprint": "g"}, "fingerprint g")],
)
def test_other_pairs_are_refused_on_all_ranks(tmp_path, changes, figures):
    folders = [write(tmp_path / "here"), write(tmp_path / "there", **changes)]
    first, second = on_ranks(2, set_up, folders)
    assert first == second and "\n" not in first
    assert f"from {folders[0]} (fingerprint f, 4 train pairs of 4 texts" in first
    assert f"{folders[1]} ({figures}" in first and "of rank 1 differ" in first
