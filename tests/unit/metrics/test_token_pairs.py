import pytest

from clvp_train.errors import UserError
from clvp_train.metrics import count_token_pairs, read_token_pairs, token_pairs

TRAIN = [[1, 2, 3], [2, 3, 1], [5]]
HELD_OUT = [[1, 2, 3]] * 99 + [[1, 2, 3, 2, 3, 5]]  # 2 of 5 pairs of the last one are unseen


def test_unfamiliar_texts_have_more_unseen_pairs_than_held_out_ones(tmp_path, monkeypatch):
    pairs = count_token_pairs(TRAIN, HELD_OUT)
    pairs.write(tmp_path)
    assert read_token_pairs(tmp_path) == pairs and pairs.limit == pytest.approx(0.004)  # interpolated
    assert [pairs.unseen_share(ids) for ids in ([2, 3, 1, 2], [2, 1, 2], [9, 9], [7], [])] == [0, 0.5, 1, 0, 0]
    assert pairs.is_unfamiliar([2, 1, 2]) and not pairs.is_unfamiliar([2, 3, 1, 2])
    assert count_token_pairs(TRAIN, []) is None
    monkeypatch.setattr(token_pairs, "MAX_PAIRS", 2)
    assert count_token_pairs(TRAIN, HELD_OUT) is None


def test_damaged_file(tmp_path):
    assert read_token_pairs(tmp_path) is None
    count_token_pairs(TRAIN, HELD_OUT).write(tmp_path)
    file = tmp_path / token_pairs.TOKEN_PAIRS_FILE
    file.write_text(file.read_text().replace("[3]", "[4]", 1))
    with pytest.raises(UserError, match="token_pairs.json: damaged"):
        read_token_pairs(tmp_path)
