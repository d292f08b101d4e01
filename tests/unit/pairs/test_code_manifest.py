import json

import pytest

from clvp_train.errors import UserError
from clvp_train.pairs import Manifest, Shard, read_manifest
from clvp_train.pairs.manifest import MANIFEST, differences, write_manifest

HELD = Manifest("f" * 64, "corpus", "ar", 1, 256, 512, "data/tortoise", settings={"codes.seed": 0}, complete=True)
HELD = Manifest(**vars(HELD) | {"shards": (Shard("pairs-00000-of-00001.parquet", 3, 99, "0" * 64),)})


@pytest.mark.parametrize("folder", ["local", "memory://test_manifest"])
def test_a_manifest_makes_a_round_trip(tmp_path, folder):
    folder = tmp_path if folder == "local" else folder
    write_manifest(folder, HELD)
    assert read_manifest(folder) == HELD


def test_a_manifest_is_plain_json(tmp_path):
    write_manifest(tmp_path, HELD)
    values = json.loads((tmp_path / MANIFEST).read_text())
    assert values["num_shards"] == 1 and values["shards"][0]["rows"] == 3


def test_a_folder_without_manifest_is_named(tmp_path):
    with pytest.raises(UserError, match=f"{tmp_path} holds no manifest.json: .*clvp_train.generate"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"corpus": 1}', '{"shards": [1]}', "\xff"])
def test_a_damaged_manifest_is_named(tmp_path, text):
    (tmp_path / MANIFEST).write_text(text, encoding="latin-1")
    with pytest.raises(
        UserError, match=f"{tmp_path / MANIFEST} is damaged .*: restore it, or make the pairs in another"
    ):
        read_manifest(tmp_path)


def test_differences_are_told_as_a_user_would_set_them():
    there = {"corpus": "c", "tortoise": "t", "tortoise.dtype": "float32", "codes.seed": 0, "algorithm": 2}
    assert differences(there, there) == []
    assert differences(there, there | {"codes.seed": 1}) == ["codes.seed (0 there, 1 now)"]
    assert differences(there, there | {"corpus": "d", "tortoise": "u"}) == ["the corpus", "Tortoise's weights"]
    bfloat16 = there | {"tortoise": "u", "tortoise.dtype": "bfloat16"}
    assert differences(there, bfloat16) == ["tortoise.dtype (float32 there, bfloat16 now)"]
    assert differences({}, {"codes.seed": 1}) == ["codes.seed (None there, 1 now)"]
