import json
import os

import pytest

from clvp_train.corpus import Corpus, TextLines, split_of, text_hash
from clvp_train.errors import UserError
from clvp_train.pairs import ARCodes, DVAECodes, make_plan
from clvp_train.pairs import scan as scan_module
from tests.unit.pairs.conftest import VOICES


@pytest.fixture
def reads(monkeypatch):
    """The corpora that were read."""
    found, stream = [], Corpus.stream
    monkeypatch.setattr(
        Corpus, "stream", lambda corpus, *args, **more: (found.append(corpus), stream(corpus, *args, **more))[1]
    )
    return found


def plan(tortoise, corpus, folder, source=None):
    source = source or ARCodes(VOICES, shard_size=8)
    made = make_plan(corpus, tortoise, source, 20, 10, folder)
    texts = {split: hashes.tolist() for split, hashes in made.texts.items()}
    return made.manifest, made.num_rows, texts


def test_a_corpus_is_read_again_when_a_file_or_a_setting_changes(tortoise, write_corpus, tmp_path, reads):
    lines = [f"text number {number}" for number in range(19)] + ["Text, number 3!"]
    first = plan(tortoise, write_corpus(lines), tmp_path)
    assert sum(first[1]) == 20 + sum(split_of(line, 20, 10) == "train" for line in lines)
    for split, hashes in first[2].items():
        assert hashes == sorted({text_hash(line) for line in lines if split_of(line, 20, 10) == split})
    corpus = TextLines(str(tmp_path / "corpus.txt"))
    assert plan(tortoise, corpus, tmp_path) == first and len(reads) == 1
    os.utime(corpus.path, ns=(1, 1))
    assert plan(tortoise, corpus, tmp_path) == first and len(reads) == 2
    assert (
        plan(tortoise, corpus, tmp_path, ARCodes(VOICES, num_candidates=3, shard_size=8)) != first and len(reads) == 3
    )
    assert plan(tortoise, corpus, None) == first and len(reads) == 4
    (stored, _) = sorted((tmp_path / ".scans").iterdir(), key=lambda file: file.stat().st_mtime_ns)
    stored.write_bytes(stored.read_bytes()[:-100])
    assert plan(tortoise, corpus, tmp_path) == first and len(reads) == 5


def test_the_noted_speakers_are_those_of_reading_the_corpus(tortoise, write_recordings, tmp_path, reads):
    corpus, (one, other) = write_recordings(["a", "b", "a", ""]), (ARCodes("corpus"), ARCodes("corpus"))
    assert plan(tortoise, corpus, tmp_path, one) == plan(tortoise, corpus, tmp_path, other) and len(reads) == 1
    assert json.dumps(one.noted()) == json.dumps(other.noted()) and set(one.noted()) == {"a", "b", "unknown"}


def test_what_a_class_of_the_users_own_notes_is_never_replaced(tortoise, write_recordings, tmp_path, reads):
    class Own(DVAECodes):
        def inspect(self, tortoise, number, utterance):
            self.last = number

    for _ in range(2):
        plan(tortoise, write_recordings(["a", "b"]), tmp_path, source := Own())
        assert source.last == 1
    assert len(reads) == 2 and not (tmp_path / ".scans").exists()


@pytest.mark.parametrize("is_bad", [False, True])
def test_the_other_ranks_of_a_node_get_what_the_first_one_has_read(
    tortoise, write_corpus, tmp_path, reads, monkeypatch, is_bad
):
    corpus = write_corpus([] if is_bad else ["one", "two"])
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "ranks/0/error.json"))
    (tmp_path / "ranks").mkdir()
    found = []
    for rank in "01":
        for name, value in {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2"}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(scan_module, "_number", iter([7]))
        try:
            found.append(plan(tortoise, corpus, None))
        except UserError as error:
            found.append(str(error))
    assert found[0] == found[1] and len(reads) == 1 and is_bad == isinstance(found[0], str)
