"""`train.py` with candidates that are judged by recordings: their order is trained, and missing judgements are reported at once."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clvp_train.pairs import read_pairs
from tests.e2e.commands import TRAIN, run
from tests.e2e.conftest import BUDGET, CORPUS, write_sentences
from tests.e2e.test_train_and_evaluate import logged, report

JUDGED = [*CORPUS, *BUDGET, "codes.num_candidates=4", "codes.one_voice=true", "hydra.run.dir=run"]
JUDGED += ["codes/judge=recordings", "codes.judge.recordings=recordings.parquet"]
TRAINED = ["data.num_judged_negatives=2", "data.judged_positive_share=0.5", "loss=listwise"]


def write_recordings(folder):
    """Random codes, from which candidates differ as well as from real ones."""
    write_sentences(folder)
    draw = np.random.default_rng(0)
    voices, texts = ["slt", "awb", "joe"], (folder / "sentences.txt").read_text().splitlines()
    rows = [
        {"text": text, "voice": voice, "speech_ids": draw.integers(512, size=12)} for text in texts for voice in voices
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "recordings.parquet")


def test_training_with_judged_candidates(tmp_path):
    write_recordings(tmp_path)
    done = run(TRAIN, [*JUDGED, *TRAINED, "training.cached_gradients=true"], tmp_path)
    assert done.status == 0, done.stderr
    (folder,) = (folder for folder in (tmp_path / "outputs/codes").glob("[!.]*") if "test" not in folder.name)
    rows = read_pairs(folder).to_pylist()
    assert all((row["quality"] is None) == (row["voice"] == "rms") for row in rows)
    assert all(0 < loss < 3 for loss in logged(tmp_path / "run", "train/listwise_loss"))
    assert report(tmp_path / "run")["rerank"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["loss=listwise"], "loss=ListwiseLoss: needs candidates with a quality. Set data.num_judged_negatives"),
        (
            ["data.num_judged_negatives=1"],
            "data.num_judged_negatives: no source of codes has a judge. Add codes/judge=recordings",
        ),
        (["data.judged_positive_share=0.5"], "data.judged_positive_share: no source of codes has a judge"),
        ([*JUDGED[-2:]], "codes.judge.recordings=recordings.parquet: cannot be read"),
    ],
)
def test_what_is_missing_is_reported_before_anything_is_drawn(tmp_path, overrides, message):
    write_sentences(tmp_path)
    done = run(TRAIN, [*CORPUS, *BUDGET, *overrides], tmp_path)
    assert done.status == 2 and f"error: {message}" in done.stderr
    assert not list((tmp_path / "outputs/codes").glob("[!.]*")), "the stored scan of the corpus alone"
