"""`python -m clvp_train.rerank`: results, kills, repeated runs, bad files and settings."""

import random
import shutil
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clvp_train import Reranker
from clvp_train.metrics import percentile, read_score_table
from clvp_train.models import load_clvp
from clvp_train.tortoise import Candidate
from clvp_train.tortoise.tokenizer import read_saved_tokenizer
from tests.e2e.commands import RERANK, run, start

FILES, TEXTS, EACH = 16, 12, 8  # texts of a file and candidates of a text


@pytest.fixture(scope="module")
def model(trained) -> Path:
    return trained.output / "model"


def write_candidates(folder: Path) -> None:
    """Writes files with two row groups, in which the candidates of a text are not adjacent."""
    draw = np.random.default_rng(0)
    folder.mkdir()
    for number in range(FILES):
        rows = [
            {
                "id": f"{number}-{text}",
                "text": f"Sentence {text} of file {number}.",
                "speech_ids": draw.integers(0, 512, draw.integers(1, 90)).tolist(),
                "finished": bool(draw.random() < 0.8),
                "note": None if text == 3 else "kept",
            }
            for _ in range(EACH)
            for text in range(TEXTS)
        ]
        columns = {"id": pa.string(), "text": pa.string(), "speech_ids": pa.list_(pa.int16())}
        table = pa.Table.from_pylist(rows, schema=pa.schema(columns | {"finished": pa.bool_(), "note": pa.string()}))
        pq.write_table(table, folder / f"part-{number:02d}.parquet", row_group_size=50)


@pytest.fixture(scope="module")
def undisturbed(model, tmp_path_factory):
    cwd = tmp_path_factory.mktemp("reranked")
    write_candidates(cwd / "candidates")
    finished = run(RERANK, [f"checkpoint={model}", "candidates=candidates", "output_dir=ranked"], cwd)
    assert finished.status == 0, finished.stderr
    return cwd, finished


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.parquet")}


def test_files_keep_their_rows_and_columns_and_get_the_scores_of_reranker(undisturbed, model):
    cwd, finished = undisturbed
    reranker, table = Reranker.from_pretrained(model), read_score_table(model)
    everything, picks = [], []
    assert len(files(cwd / "ranked")) == FILES
    for path in sorted((cwd / "candidates").iterdir()):
        before, after = pq.read_table(path), pq.read_table(cwd / "ranked" / path.name)
        assert after.select(before.column_names).equals(before)
        assert after.column_names == [*before.column_names, "score", "percentile", "rank"]
        rows = after.to_pylist()
        for text in {row["text"] for row in rows}:
            own = [row for row in rows if row["text"] == text]
            (ranking,) = reranker.rank([text], [[row["speech_ids"] for row in own]])
            np.testing.assert_allclose([row["score"] for row in own], ranking.scores, atol=1e-6)
            ranks = [row["rank"] for row in own]
            assert sorted(ranks) == list(range(1, EACH + 1))
            by_rank = [own[ranks.index(rank)]["score"] for rank in sorted(ranks)]
            assert by_rank == sorted(by_rank, reverse=True)
            assert [row["percentile"] for row in own] == [percentile(table, row["score"]) for row in own]
            everything += [row["score"] for row in own]
            picks.append(max(row["score"] for row in own))
    texts = [f"Sentence {text} of file {file}." for file in range(FILES) for text in range(TEXTS)]
    unfamiliar = [text for text in texts if reranker.is_unfamiliar(text)]
    assert finished.stdout.splitlines()[-5:] == [
        f"texts              {FILES * TEXTS}",
        f"candidates         {FILES * TEXTS * EACH} ({EACH:.1f} per text)",
        f"mean score         {np.mean(picks):.3f} of the picks, {np.mean(everything):.3f} of all",
        f"unfamiliar         {len(unfamiliar)} texts, unlike those of the training, such as {unfamiliar[0]!r}",
        "reranked: ranked",
    ]


def test_killed_at_random_moments_it_resumes_to_the_same_bytes(undisturbed, model, tmp_path):
    seed = time.time_ns()
    print(f"seed of the moments: {seed}")
    draw, expected, killed = random.Random(seed), files(undisturbed[0] / "ranked"), 0
    settings = [f"checkpoint={model}", f"candidates={undisturbed[0] / 'candidates'}", "output_dir=ranked"]
    while killed < 5:
        command, there = start(RERANK, settings, tmp_path), len(files(tmp_path / "ranked"))
        while command.process.exitcode is None and len(files(tmp_path / "ranked")) == there:
            time.sleep(0.002)
        time.sleep(draw.uniform(0, 0.3))
        killed += command.kill()
        written = files(tmp_path / "ranked")
        assert written == {name: expected[name] for name in written}
        if len(written) == FILES:
            shutil.rmtree(tmp_path / "ranked")
    before = len(files(tmp_path / "ranked"))
    done = run(RERANK, settings, tmp_path)
    assert done.status == 0, done.stderr
    assert not before or f"{before} of {FILES} files are finished" in done.stdout
    assert files(tmp_path / "ranked") == expected
    assert {path.name for path in (tmp_path / "ranked").iterdir()} == set(expected), "no partial files"
    assert done.stdout.splitlines()[-4:] == undisturbed[1].stdout.splitlines()[-4:]


def test_finished_matters_with_silence_padding(model, tmp_path):
    served = load_clvp(model, {"padding": "tortoise"})
    served.save_pretrained(tmp_path / "model")
    read_saved_tokenizer(model).save_pretrained(tmp_path / "model")
    rows = {
        "text": ["one", "two"] * 3,
        "speech_ids": [[1, 2, 3]] * 6,
        "finished": [True, True, False, False, None, None],
    }
    pq.write_table(pa.table(rows), tmp_path / "in.parquet")
    done = run(RERANK, ["checkpoint=model", "candidates=in.parquet", "output_dir=out"], tmp_path)
    assert done.status == 0, done.stderr
    written = pq.read_table(tmp_path / "out/in.parquet")
    candidates = [Candidate((1, 2, 3), finished, 0.0) for finished in (True, False, True)]
    rankings = Reranker(served, read_saved_tokenizer(model)).rank(["one", "two"], [candidates] * 2)
    expected = [score for scores in zip(*(ranking.scores for ranking in rankings)) for score in scores]
    np.testing.assert_allclose(written["score"].to_numpy(), expected, atol=1e-6)
    assert abs(expected[0] - expected[2]) > 1e-3
    assert sorted(written["rank"].to_pylist()[::2]) == [1, 2, 3] and written["percentile"].null_count == 6


def test_output_of_generate_scores_the_same_by_text_and_by_ids(trained, model, tmp_path):
    (pairs,) = trained.cwd.glob("outputs/codes/sentences-txt-test-ar-*")
    done = run(RERANK, [f"checkpoint={model}", f"candidates={pairs}", "output_dir=by_text"], tmp_path)
    assert done.status == 0 and "27 (3.0 per text)" in done.stdout, done.stderr
    (checkpoint,) = trained.output.glob("checkpoints/best-*.ckpt")
    shutil.copy(checkpoint, tmp_path / "best.ckpt")
    done = run(RERANK, ["checkpoint=best.ckpt", f"candidates={pairs}", "output_dir=by_ids"], tmp_path)
    assert done.status == 0, done.stderr
    for name in files(tmp_path / "by_text"):
        texts, ids = (pq.read_table(tmp_path / folder / name) for folder in ("by_text", "by_ids"))
        assert texts["score"].equals(ids["score"]) and texts["rank"].equals(ids["rank"])
        assert texts["percentile"].null_count == 0 and ids["percentile"].null_count == len(ids)


def test_a_repeated_run_writes_nothing_and_a_folder_of_another_source_is_refused(undisturbed, model, tmp_path):
    for folder in ("candidates", "ranked"):
        shutil.copytree(undisturbed[0] / folder, tmp_path / folder)
    settings = [f"checkpoint={model}", "candidates=candidates", "output_dir=ranked"]
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "ranked").iterdir()}
    done = run(RERANK, settings, tmp_path)
    assert done.status == 0 and f"{FILES} of {FILES} files are finished" in done.stdout
    assert done.stdout.splitlines()[-4:] == undisturbed[1].stdout.splitlines()[-4:]
    shutil.copytree(model, tmp_path / "other")
    (tmp_path / "other/score_table.json").unlink()
    refused(
        [f"checkpoint={tmp_path / 'other'}", *settings[1:]],
        tmp_path,
        "part-00.parquet: made from a different source (the checkpoint)",
    )
    refused(
        [*settings, "reranker.max_codes=300"],
        tmp_path,
        "a different source (reranker.max_codes)",
        "Set output_dir to another folder",
    )
    shutil.copy(tmp_path / "candidates/part-01.parquet", tmp_path / "candidates/part-07.parquet")
    refused(settings, tmp_path, "part-07.parquet: made from a different source (the candidates)")
    shutil.copy(tmp_path / "candidates/part-01.parquet", tmp_path / "ranked/part-07.parquet")
    refused(settings, tmp_path, "part-07.parquet: not written by this command")
    (tmp_path / "ranked/part-07.parquet").unlink()
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "ranked").iterdir()}.items() <= times.items()
    (tmp_path / "candidates/part-07.parquet").unlink()
    done = run(RERANK, settings, tmp_path)
    assert done.status == 0 and f"texts              {(FILES - 1) * TEXTS}" in done.stdout


def refused(settings, cwd, *words):
    done = run(RERANK, settings, cwd)
    assert done.status == 2 and "Traceback" not in done.stderr + done.stdout, done.stderr
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    for word in words:
        assert word in error, error


GOOD = {"text": ["one", "one", "two"], "speech_ids": [[1, 2], [3], [4]]}


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"text": ["one"] * 3}, ["bad.parquet: no column 'speech_ids' (columns: text)"]),
        ({"speech_ids": GOOD["speech_ids"]}, ["bad.parquet: no column 'text' or 'input_ids'"]),
        (GOOD | {"score": [1.0] * 3}, ["bad.parquet: already has a column 'score'"]),
        (GOOD | {"speech_ids": ["1 2", "3", "4"]}, ["column 'speech_ids' has type string", "lists of integers"]),
        (GOOD | {"finished": [1, 0, 1]}, ["column 'finished' has type int64", "booleans"]),
        (GOOD | {"log_probability": ["-1"] * 3}, ["column 'log_probability' has type string", "floating-point"]),
        (GOOD | {"text": [1, 2, 3]}, ["column 'text' has type int64", "strings"]),
        (GOOD | {"speech_ids": [[1, 2048], None, []]}, ["bad.parquet, row 1: speech_ids: code 2048", "0 to 2047"]),
        (
            {"input_ids": [[300], [], None], "speech_ids": GOOD["speech_ids"]},
            ["bad.parquet, row 1: input_ids: token 300", "0 to 255"],
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_bad_file_is_reported_with_its_row(model, tmp_path, columns, words):
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table(columns), tmp_path / "in/bad.parquet")
    refused([f"checkpoint={model}", "candidates=in", "output_dir=out"], tmp_path, *words)
    assert not files(tmp_path / "out")


@pytest.mark.parametrize("element", [pa.int32(), pa.float64()])
def test_bad_rows_are_skipped_and_padding_is_removed(model, tmp_path, element):
    start, stop, calm = 2048, 2049, [83, 83, 45, 45, 248]
    rows = [
        ("one", [1, 2, 3]),
        ("one", None),
        ("one", []),
        ("one", [start, 1, 2, 3, stop, stop, 9]),
        ("one", [2, None, 3] if element == pa.int32() else [2.5]),
        ("one", [1, 2, 3, *calm]),
        (None, [1]),
        ("one", [1, 2, 3, -100, -100]),
        ("你好，世界！", [4]),
        ("😀", [4]),
        ("one", [2, 2050]),
        ("one", [-7]),
        ("one", [7]),
    ]
    columns = {"text": [text for text, _ in rows], "speech_ids": pa.array([ids for _, ids in rows], pa.list_(element))}
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table(columns | {"log_probability": [-1.0] * len(rows)}), tmp_path / "in/a.parquet")
    settings = [f"checkpoint={model}", "candidates=in", "output_dir=out", "reranker.log_probability_weight=0.5"]
    done = run(RERANK, settings, tmp_path)
    assert done.status == 0, done.stderr
    written = pq.read_table(tmp_path / "out/a.parquet")
    bad = {1, 2, 4, 6, 8, 9, 10, 11}
    for column in ("score", "percentile", "combined_score", "rank"):
        assert {row for row, value in enumerate(written[column].to_pylist()) if value is None} == bad
    scores = written["score"].to_pylist()
    assert scores[0] == scores[3] == scores[5] == scores[7] != scores[12]
    assert sorted(filter(None, written["rank"].to_pylist())) == [1, 2, 3, 4, 5]
    assert "skipped            8 bad rows" in done.stdout and "a.parquet, row 2: speech_ids is null" in done.stdout
    assert "padding removed from 3 candidates" in done.stdout


def test_bad_settings_and_broken_files(model, trained, tmp_path):
    (tmp_path / "in").mkdir()
    base = [f"checkpoint={model}", "candidates=in", "output_dir=out"]
    refused(base[:2], tmp_path, "output_dir")
    refused(base, tmp_path, "candidates=in: no Parquet file", "clvp_train.generate")
    pq.write_table(pa.table(GOOD), tmp_path / "in/a.parquet")
    refused([*base, "candidates=nowhere.parquet"], tmp_path, "candidates=nowhere.parquet: no such file")
    refused([*base, "output_dir=./in"], tmp_path, "output_dir=./in: the folder of the candidates")
    refused(
        [*base, "candidates=in/a.parquet", "output_dir=in"], tmp_path, "output_dir=in: the folder of the candidates"
    )
    refused([*base, "output_dir=memory://out"], tmp_path, "output_dir=memory://out", "local folder")
    refused([*base, "checkpoint=none.ckpt"], tmp_path, "none.ckpt")
    refused([*base, "reranker.chunk_tokens=0"], tmp_path, "reranker.chunk_tokens")
    (checkpoint,) = trained.output.glob("checkpoints/best-*.ckpt")
    shutil.copy(checkpoint, tmp_path / "best.ckpt")
    refused([*base, "checkpoint=best.ckpt"], tmp_path, "a.parquet: no column 'input_ids'", "Set reranker.tokenizer")
    done = run(RERANK, [*base, "checkpoint=best.ckpt", f"reranker.tokenizer={model}"], tmp_path)
    assert done.status == 0, done.stderr
    content = (tmp_path / "in/a.parquet").read_bytes()
    (tmp_path / "in/a.parquet").write_bytes(content[: len(content) // 2])
    refused([*base, "output_dir=new"], tmp_path, "in/a.parquet: cannot be read")
    (tmp_path / "in/a.parquet").write_bytes(content[:4] + bytes(len(content) // 4) + content[4 + len(content) // 4 :])
    refused([*base, "output_dir=new"], tmp_path, "in/a.parquet: cannot be read")
    assert not files(tmp_path / "new")
