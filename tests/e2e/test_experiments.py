"""The files of conf/experiment, shortened to seconds, and commands that prepare their inputs."""

import shutil
import sqlite3

import pytest
from transformers import AutoTokenizer

from clvp_train.models import load_clvp
from tests.e2e.commands import EVALUATE, ROOT, TRAIN, execute, run
from tests.e2e.conftest import BUDGET, CORPUS
from tests.e2e.test_train_and_evaluate import report

TOKENIZER = "clvp_train/train_tokenizer.py"
TINY = [*BUDGET, "trainer.max_steps=2", "data.batch_size=8", "hydra.run.dir=run"]
GREEK = ["Ο ήλιος ανατέλλει", "Η θάλασσα είναι γαλάζια", "Το ψωμί είναι ζεστό", "Τα δικαιώματα όλων"]


def trained_with(workplace, *overrides):
    done = run(TRAIN, list(overrides), workplace)
    assert done.status == 0, done.stderr
    return workplace / "run"


def test_quickstart(workplace):
    output = trained_with(workplace, *CORPUS, *TINY, "experiment=quickstart")
    assert report(output)["gallery"] > 1


def test_finetune(trained, workplace):
    load_clvp(trained.output / "model").save_tortoise(workplace / "clvp2.pth")
    for checkpoint, padding in ((trained.output / "model", "mask"), (workplace / "clvp2.pth", "tortoise")):
        settings = ["experiment=finetune", f"model.checkpoint={checkpoint}", "data.max_codes=24", *CORPUS, *TINY]
        model = load_clvp(trained_with(workplace, *settings) / "model")
        assert model.config.padding == padding and model.config.text_config.num_hidden_layers == 3
        shutil.rmtree(workplace / "run")


def test_drop_in_from_scratch_and_from_a_model_that_was_trained_with_masks(trained, workplace):
    settings = ["experiment=drop_in", *CORPUS, *TINY, "data.max_codes=24"]
    pretrained = ["model=pretrained", f"model.checkpoint={trained.output / 'model'}"]
    for overrides in ([], pretrained):
        model = load_clvp(trained_with(workplace, *settings, *overrides) / "model")
        assert model.config.padding == "tortoise"
        shutil.rmtree(workplace / "run")


def test_a_new_language_from_its_recordings_to_a_model_with_its_own_tokenizer(tmp_path):
    clips = sorted((ROOT / "data/nano/voices").glob("*/*.flac"))
    lines = [f"{clip},{GREEK[n % 4]} {n + 10 * copy}" for copy in range(4) for n, clip in enumerate(clips)]
    (tmp_path / "clips.csv").write_text("audio,text\n" + "\n".join(lines) + "\n")
    corpus = ["corpus=manifest", "corpus.path=clips.csv"]
    done = run(TOKENIZER, [*corpus, "output_dir=greek", "vocab_size=60"], tmp_path)
    assert done.status == 0 and "60 tokens: greek" in done.stdout, done.stderr
    settings = ["experiment=new_language", "model=nano", "tortoise.tokenizer=greek", *corpus, *TINY]
    output = trained_with(tmp_path, *settings, "split.test_percent=20", "split.val_percent=20")
    assert load_clvp(output / "model").config.text_config.vocab_size == 60
    for text in GREEK:
        ids = AutoTokenizer.from_pretrained(tmp_path / "greek")(text)["input_ids"]
        assert AutoTokenizer.from_pretrained(output / "model")(text)["input_ids"] == ids and 1 not in ids
    again = run(
        EVALUATE, ["checkpoint=run/model", f"pairs={next((tmp_path / 'outputs/codes').glob('[!.]*'))}"], tmp_path
    )
    assert again.status == 0, again.stderr


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["output_dir=outputs"], "output_dir=outputs: not empty"),
        (["output_dir=new", "vocab_size=9"], "vocab_size=9: too few"),
        ([], "output_dir: not set"),
    ],
)
def test_a_tokenizer_that_cannot_be_made(workplace, overrides, words):
    done = run(TOKENIZER, ["corpus=text", "corpus.path=sentences.txt", *overrides], workplace)
    assert done.status == 2 and words in done.stderr, done.stderr


def test_a_tokenizer_is_refused_where_the_ar_would_have_to_read_it(workplace):
    assert run(TOKENIZER, ["corpus=text", "corpus.path=sentences.txt", "output_dir=own"], workplace).status == 0
    done = run(TRAIN, [*CORPUS, *BUDGET, "tortoise.tokenizer=own"], workplace)
    assert done.status == 2 and "Use codes=dvae" in done.stderr, done.stderr


def test_a_sweep_tries_settings_keeps_them_and_goes_on(workplace):
    settings = [
        "--multirun",
        "experiment=sweep",
        *CORPUS,
        *BUDGET,
        "trainer.max_steps=3",
        "hydra.sweep.dir=sweep",
    ]
    for trials in (2, 1):
        done = execute([str(ROOT / TRAIN), *settings, f"hydra.sweeper.n_trials={trials}"], workplace)
        assert done.status == 0, done.stderr
    with sqlite3.connect(workplace / "sweep.db") as store:
        values = [value for (value,) in store.execute("select value from trial_values")]
        rates = [
            rate for (rate,) in store.execute("select param_value from trial_params where param_name = 'optim.lr'")
        ]
    assert len(values) == 3 and all(0 <= value <= 1 for value in values) and len(set(rates)) == 3
    assert (workplace / "sweep/optimization_results.yaml").is_file()


def test_a_plain_multirun_is_one_run_after_another(workplace):
    settings = ["--multirun", *CORPUS, *BUDGET, "trainer.max_steps=1", "test=false", "hydra.sweep.dir=both"]
    done = run(TRAIN, [*settings, "seed=1,2"], workplace)
    assert done.status == 0, done.stderr
    assert {path.name for path in (workplace / "both").iterdir() if path.is_dir()} == {"0", "1"}
    assert all((workplace / "both" / name / "model").is_dir() for name in "01")


def test_runs_as_jobs_of_submitit(workplace):
    """Of its local executor: the one for SLURM takes the same path to the job."""
    settings = ["--multirun", *CORPUS, *BUDGET, "trainer.max_steps=1", "test=false", "hydra.sweep.dir=jobs"]
    done = execute([str(ROOT / TRAIN), *settings, "hydra/launcher=submitit_local", "seed=3"], workplace)
    assert done.status == 0, done.stderr
    assert (workplace / "jobs/0/model").is_dir() and list((workplace / "jobs/.submitit").iterdir())
