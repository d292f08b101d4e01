import resource
import signal

import pytest
import torch

from clvp_train.errors import UserError
from clvp_train.io.digests import is_intact_archive
from clvp_train.training import AtomicCheckpointIO
from clvp_train.training.checkpointing import newest_complete

CONTENT = {"state_dict": {"weight": torch.arange(5000.0)}, "global_step": 3}


@pytest.fixture
def checkpoint(tmp_path):
    AtomicCheckpointIO().save_checkpoint(CONTENT, tmp_path / "made" / "a.ckpt")
    return tmp_path / "made" / "a.ckpt"


def test_a_checkpoint_opens_again_and_leaves_no_other_file(checkpoint):
    stored = AtomicCheckpointIO().load_checkpoint(checkpoint, weights_only=True)
    assert torch.equal(stored["state_dict"]["weight"], CONTENT["state_dict"]["weight"]) and is_intact_archive(
        checkpoint
    )
    assert [file.name for file in checkpoint.parent.iterdir()] == ["a.ckpt"]


def test_a_damaged_file_is_not_complete(checkpoint):
    content = checkpoint.read_bytes()
    for position in (0, len(content) // 3, 9 * len(content) // 10):
        checkpoint.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
        assert not is_intact_archive(checkpoint)
    for length in (0, 100, 10_000):
        checkpoint.write_bytes(content[:length])
        assert not is_intact_archive(checkpoint)


@pytest.mark.parametrize(("field", "bit"), [(10, 3), (38, 4)], ids=["compressed", "a folder"])
def test_a_damaged_header_is_not_complete(checkpoint, field, bit):
    """Each of these flips in the directory of the file keeps all checksums."""
    content = bytearray(checkpoint.read_bytes())
    content[content.index(b"PK\x01\x02") + field] ^= 1 << bit
    checkpoint.write_bytes(content)
    assert not is_intact_archive(checkpoint)


def test_a_full_disk_leaves_the_previous_checkpoint_intact(checkpoint):
    before, limits = checkpoint.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(UserError, match=r"a.ckpt: cannot be written .*previous checkpoint is intact"):
            AtomicCheckpointIO().save_checkpoint(CONTENT, checkpoint)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert checkpoint.read_bytes() == before and len(list(checkpoint.parent.iterdir())) == 1


def test_the_newest_complete_checkpoint_is_chosen(tmp_path):
    for name in ("best-step=9.ckpt", "before-last.ckpt", "last.ckpt"):
        AtomicCheckpointIO().save_checkpoint(CONTENT, tmp_path / name)
    assert newest_complete(tmp_path) == (tmp_path / "last.ckpt", [])
    assert newest_complete(tmp_path, tmp_path / "best-step=9.ckpt") == (tmp_path / "best-step=9.ckpt", [])
    (tmp_path / "last.ckpt").write_bytes(b"part")
    assert newest_complete(tmp_path) == (tmp_path / "before-last.ckpt", [tmp_path / "last.ckpt"])
    (tmp_path / "before-last.ckpt").unlink()
    assert newest_complete(tmp_path) == (tmp_path / "best-step=9.ckpt", [tmp_path / "last.ckpt"])
