import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.commands import ROOT, TRAIN, Finished, execute

CORPUS = ["corpus=text", "corpus.path=sentences.txt", "split.test_percent=20", "split.val_percent=15"]
CORPUS += ["codes.num_candidates=1", "tortoise.sampling.max_codes=16"]
FEW_CANDIDATES = ["rerank.num_texts=9", "rerank.num_candidates=3"]
BUDGET = [
    *FEW_CANDIDATES,
    "data.batch_size=32",
    "trainer.max_steps=4",
    "trainer.precision=32-true",
    "trainer.check_val_every_n_epoch=1",
    "trainer.log_every_n_steps=1",
]


@dataclass(frozen=True)
class Run:
    """A finished training: three steps an epoch, stopped one step into the second."""

    cwd: Path
    output: Path
    finished: Finished

    @property
    def pairs(self) -> Path:
        """The pairs that it was trained on; candidates for re-ranking are in the same parent folder."""
        (folder,) = self.cwd.glob("outputs/codes/sentences-txt-ar-*")
        return folder


def write_sentences(folder: Path) -> None:
    lines = (
        (ROOT / "data/nano/sentences.txt").read_text().splitlines()[3877:4029]
    )  # of sizes that the tests count on: 113, 16 and 23
    (folder / "sentences.txt").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Run:
    cwd = tmp_path_factory.mktemp("trained")
    write_sentences(cwd)
    finished = execute([str(ROOT / TRAIN), *CORPUS, *BUDGET], cwd)
    assert finished.status == 0, finished.stderr
    (output,) = (cwd / "outputs" / "train").iterdir()
    return Run(cwd, output, finished)


@pytest.fixture
def workplace(trained, tmp_path) -> Path:
    """A working directory that contains the pairs of `trained`."""
    shutil.copy(trained.cwd / "sentences.txt", tmp_path)
    shutil.copytree(trained.cwd / "outputs" / "codes", tmp_path / "outputs" / "codes")
    return tmp_path
