"""Digests of files and of JSON, secrets, and texts from data in Markdown."""

import json
import shutil
from pathlib import Path
from random import Random

import pytest

from clvp_train.errors import UserError
from clvp_train.io.digests import DIGESTS, check_digests, read_sealed_json, recording_digests, sealed_json
from clvp_train.io.sanitize import escape_markdown, find_secret
from clvp_train.tortoise import FrozenTortoise

TORTOISE = Path(__file__).parents[2] / "data/nano/tortoise"
VALUES = {"numbers": [1, 0.1, None], "näme": {"a": True}, "5": "five"}


def flipped(content, random):
    damaged = bytearray(content)
    damaged[random.randrange(len(damaged))] ^= 1 << random.randrange(8)
    return bytes(damaged)


@pytest.mark.parametrize("file", [path.relative_to(TORTOISE) for path in sorted(TORTOISE.rglob("*.*"))], ids=str)
def test_a_flipped_bit_in_any_file_of_a_folder_is_noticed(tmp_path, file):
    shutil.copytree(TORTOISE, tmp_path, dirs_exist_ok=True)
    check_digests(tmp_path)
    content = (tmp_path / file).read_bytes()
    for seed in range(5):
        (tmp_path / file).write_bytes(flipped(content, Random(seed)))
        with pytest.raises(UserError, match=f"{file}: damaged or edited .*SHA256SUMS"):
            FrozenTortoise.from_pretrained(tmp_path)
    (tmp_path / file).unlink()
    with pytest.raises(UserError, match=f"{file}: damaged or edited .missing"):
        check_digests(tmp_path)


@pytest.mark.parametrize("content", ["null", "[" * 100_000], ids=["null", "deep"])
@pytest.mark.parametrize(
    "file", ["config.json", "sampling.json", "preprocessor_config.json", "vocab.json", "dvae/config.json"]
)
def test_json_of_another_kind_is_refused(tmp_path, file, content):
    folder = shutil.copytree(TORTOISE, tmp_path / "tortoise", ignore=shutil.ignore_patterns(DIGESTS))
    (folder / file).write_text(content)
    with pytest.raises(UserError, match="tortoise.*: "):
        FrozenTortoise.from_pretrained(folder)


def test_folders_without_digests_open_and_edits_can_be_declared(tmp_path):
    check_digests(tmp_path)
    (tmp_path / "a.txt").write_text("1")
    (tmp_path / "README.md").write_text("1")
    with recording_digests(tmp_path):
        (tmp_path / "b.txt").write_text("1")
    assert [line.split("  ")[1] for line in (tmp_path / DIGESTS).read_text().splitlines()] == ["a.txt", "b.txt"]
    for name in ("a.txt", "README.md"):
        (tmp_path / name).write_text("2")
    check_digests(tmp_path, "b.*")
    with pytest.raises(UserError, match="a.txt: damaged or edited"):
        check_digests(tmp_path)
    (tmp_path / DIGESTS).write_text((tmp_path / DIGESTS).read_text().splitlines()[1] + "\n")
    check_digests(tmp_path)
    (tmp_path / DIGESTS).write_text("no digests")
    with pytest.raises(UserError, match="SHA256SUMS: damaged"):
        check_digests(tmp_path)


def test_sealed_json_is_read_as_written_or_not_at_all():
    text = sealed_json(VALUES, indent=2)
    assert read_sealed_json(text) == VALUES == read_sealed_json(json.dumps(VALUES))
    for seed in range(200):
        damaged = flipped(text.encode(), Random(seed))
        try:
            values = read_sealed_json(damaged)
        except ValueError:
            continue
        values.pop(next((key for key in values if key not in VALUES), ""), None)  # the name of the digest was hit
        assert values == VALUES
    for hostile in ("[]", "[" * 100_000, "", "\0"):
        with pytest.raises(ValueError):
            read_sealed_json(hostile)


def test_secrets_are_found_by_their_value(monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", "0123456789abcdef")
    monkeypatch.setenv("OTHER_TOKEN", "short")
    monkeypatch.setenv("TOKENIZER_DIR", "data/tokenizers/german")
    assert find_secret("corpus: data/tokenizers/german") is None
    assert find_secret("note: 0123456789abcdef") == "$SOME_API_KEY" and find_secret("short") is None
    assert find_secret(b"\xff hf_" + b"a" * 34) == "a token of the Hugging Face Hub"


def test_texts_from_data_start_nothing_in_markdown():
    text = "<script>alert(1)</script> [a](http://b) ![c](d) `e` | f\r\n# g & \\"
    escaped = escape_markdown(text)
    assert not any(part in escaped for part in ("<", "\n", "\r"))
    assert escaped.startswith("&lt;script&gt;alert(1)") and "\\[a\\](http://b)" in escaped and "\\`e\\` \\|" in escaped
