"""Publishing, through the real client of the Hub, to a Hub on loopback that checks what it gets."""

import json
import re
import shutil
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
import torch
import yaml
from packaging.requirements import Requirement

from clvp_train import CLVPModel
from tests.e2e.commands import EVALUATE, ROOT, TRAIN, environment, execute, run, start
from tests.e2e.conftest import BUDGET, CORPUS, JUDGE
from tests.e2e.hub_stand_in import hub_stand_in

PUSH = "clvp_train/push.py"
TOKEN, READ_TOKEN = "hf_" + "aB3dE5" * 6, "hf_" + "zY9xW7" * 6
MODEL = "models/me/clvp"
FILES = {
    *("README.md", "config.json", "model.safetensors", "configuration_clvp.py", "modeling_clvp.py", "vocab.json"),
    *("merges.txt", "tokenizer_config.json", "training_config.yaml", "metrics.json", "score_table.json"),
    *("report/index.html", "report/report.md", "report/figures/recall_curve.svg"),
}


@pytest.fixture
def hub():
    with hub_stand_in() as hub:
        hub.account(TOKEN, "me", organizations={"lab": "read", "club": "write"})
        hub.account(READ_TOKEN, "reader", role="read")
        yield hub


@pytest.fixture
def online(hub, tmp_path):
    """The variables of a command that may speak to the stand-in; LFS, as it does not speak Xet."""
    return {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"} | {
        "HF_HOME": str(tmp_path / "hf")
    }


def push(trained, cwd, *more, **online):
    return run(PUSH, [f"checkpoint={trained.output}", *more], cwd, **online)


def no_secret_in(folder):
    texts = [path for path in folder.rglob("*") if path.is_file() and path.suffix not in (".safetensors", ".ckpt")]
    assert texts and not any(token.encode() in path.read_bytes() for path in texts for token in (TOKEN, READ_TOKEN))


def test_round_trip(trained, workplace, hub, online):
    tmp_path = workplace
    done = push(trained, tmp_path, "repo_id=clvp", "hub.license=apache-2.0", "hub.language=en", **online)
    assert done.status == 0, done.stderr
    assert "published: " in done.stdout and "me/clvp" in done.stdout
    repository = hub.repositories[MODEL]
    assert repository.private and repository.commits == ["initial commit", "Model by clvp_train"]
    assert repository.files.keys() >= FILES
    assert not any(TOKEN.encode() in data for data in repository.files.values())
    assert str(tmp_path).encode() not in repository.files["README.md"]
    assert str(ROOT / "data").encode() not in repository.files["training_config.yaml"]
    no_secret_in(tmp_path)

    # the same numbers, by its name
    cached = {"HF_HOME": str(tmp_path / "other")}
    args = ["checkpoint=me/clvp", *CORPUS, *JUDGE, "hydra.run.dir=judged"]
    judged = run(EVALUATE, args, tmp_path, **online | cached)
    assert judged.status == 0, judged.stderr
    there, here = (
        json.loads(path.read_text())
        for path in (tmp_path / "judged/report/metrics.json", trained.output / "report/metrics.json")
    )
    names = ("text_to_speech", "speech_to_text", "intervals", "scores", "perturbations", "rerank", "weights", "data")
    assert all(there[name] == here[name] for name in names)
    no_secret_in(tmp_path / "judged")

    # the card's own code, with this package and without it
    first, second = re.findall(r"```python\n(.*?)```", repository.files["README.md"].decode(), re.S)
    (tmp_path / "with.py").write_text(first)
    printed = execute(["with.py"], tmp_path, **online | cached)
    assert printed.status == 0, printed.stderr
    scores = json.loads("[" + re.search(r"\((.*?)\)", printed.stdout.splitlines()[-1])[1] + "]")
    (tmp_path / "without.py").write_text(second + "\nprint(type(model).__module__)\n")
    alone = _execute_bare(tmp_path / "without.py", tmp_path, **online | cached)
    assert alone.returncode == 0, alone.stderr
    score, module = alone.stdout.splitlines()[-2:]
    assert float(score) == pytest.approx(scores[0], abs=1e-5)
    assert module.startswith("transformers_modules.") and module.endswith(".modeling_clvp")

    # and again: taken, unless told otherwise; what has gone since goes from there too
    taken = push(trained, tmp_path, "repo_id=clvp", **online)
    assert taken.status == 2 and "me/clvp is taken" in taken.stderr and "hub.overwrite=true" in taken.stderr
    repository.files["stale.bin"] = b"old"
    again = push(trained, tmp_path, "repo_id=clvp", "hub.overwrite=true", "hub.private=false", **online)
    assert again.status == 0, again.stderr
    assert len(repository.commits) == 3 and "stale.bin" not in repository.files


def _execute_bare(script: Path, cwd: Path, **extra: str) -> subprocess.CompletedProcess:
    """Runs a script where nothing is installed but torch, transformers and what they require."""
    site = cwd / "bare"
    if not site.exists():
        site.mkdir()
        waiting, seen = ["torch", "transformers"], set()
        while waiting:
            name = waiting.pop()
            if name in seen:
                continue
            seen.add(name)
            try:
                found = distribution(name)
            except PackageNotFoundError:
                continue
            for top in {file.parts[0] for file in found.files or () if ".." not in file.parts}:
                if not (site / top).exists():
                    (site / top).symlink_to(found.locate_file(top))
            for required in map(Requirement, found.requires or ()):
                if required.marker is None or required.marker.evaluate({"extra": ""}):
                    waiting.append(required.name.lower().replace("_", "-"))
        assert not (site / "clvp_train").exists() and not (site / "lightning").exists()
    code = f"import runpy, sys; sys.path.insert(0, {str(site)!r}); runpy.run_path({str(script)!r}, run_name='__main__')"
    env = {name: value for name, value in environment(cwd, **extra).items() if name != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], cwd=cwd, env=env, capture_output=True, text=True, timeout=240
    )


def test_a_card_says_what_its_readers_need(trained, tmp_path):
    done = push(trained, tmp_path, "hub=local", "hub.license=cc-by-4.0", "hydra.run.dir=out")
    assert done.status == 0, done.stderr
    folder = tmp_path / "out" / "hub"
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*")} >= FILES
    assert CLVPModel.from_pretrained(folder).config.auto_map["AutoModel"] == "modeling_clvp.CLVPModel"
    card = (folder / "README.md").read_text()
    metrics = json.loads((folder / "metrics.json").read_text())
    metadata = yaml.safe_load(card.split("---\n")[1])
    assert metadata["license"] == "cc-by-4.0" and metadata["library_name"] == "transformers"
    results = metadata["model-index"][0]["results"][0]
    assert results["dataset"]["args"]["fingerprint"] == metrics["data"]["fingerprint"]
    recall = {one["name"]: one for one in results["metrics"]}
    for key, words in (("text_to_speech", "text → speech"), ("speech_to_text", "speech → text")):
        one = recall[f"R@1, {words}"]
        assert one["value"] == metrics[key]["R@1"]
        assert one["args"]["gallery"] == metrics["gallery"] and one["args"]["chance"] == metrics["chance_R@1"]
        assert one["args"]["interval_95"] == metrics["intervals"][key]["R@1"]
    for wanted in (
        *(
            "## Intended use and limits",
            metrics["data"]["fingerprint"],
            "ClvpTokenizer, 256 tokens",
            "max_codes | `16`",
        ),
        *(
            "batch size (global) | 32",
            "Perturbation detection",
            "What a score means",
            "cc-by-4.0",
            "2305.07243",
        ),
    ):
        assert wanted in card, wanted
    settings = yaml.safe_load((folder / "training_config.yaml").read_text())
    assert settings["data"]["batch_size"] == 32 and settings["trainer"]["precision"] == "32-true"


def test_a_broken_push_goes_on_and_shows_nothing_meanwhile(trained, hub, online, tmp_path):
    hub.refuse = (500, "no space")
    broken = push(trained, tmp_path, "repo_id=me/clvp", **online)
    assert (
        broken.status == 2 and "me/clvp broke off" in broken.stderr and "type the same command again" in broken.stderr
    )
    repository = hub.repositories[MODEL]
    assert repository.files.keys() == {".gitattributes"} and len(hub.objects) == 1
    uploads = sum("PUT" in request for request in hub.requests)
    done = push(trained, tmp_path, "repo_id=me/clvp", **online)
    assert done.status == 0, done.stderr
    assert sum("PUT" in request for request in hub.requests) == uploads, "what was there is uploaded again"
    assert repository.files.keys() >= FILES and len(repository.commits) == 2


def test_a_connection_that_breaks_in_an_upload(trained, hub, online, tmp_path):
    hub.break_uploads = 100
    broken = push(trained, tmp_path, "repo_id=me/clvp", **online)
    assert broken.status == 2 and "broke off" in broken.stderr and "Traceback" not in broken.stderr
    assert hub.repositories[MODEL].files.keys() == {".gitattributes"} and not hub.objects
    hub.break_uploads = 0
    done = push(trained, tmp_path, "repo_id=me/clvp", **online)
    assert done.status == 0, done.stderr
    assert hub.repositories[MODEL].files.keys() >= FILES


def test_a_push_that_is_killed(trained, hub, online, tmp_path):
    hub.gate.clear()
    running = start(PUSH, [f"checkpoint={trained.output}", "repo_id=me/clvp"], tmp_path, **online)
    while not any("PUT" in request for request in hub.requests):
        assert running.process.exitcode is None
        time.sleep(0.05)
    assert running.kill()
    hub.gate.set()
    assert hub.repositories[MODEL].files.keys() == {".gitattributes"}
    done = push(trained, tmp_path, "repo_id=me/clvp", **online)
    assert done.status == 0, done.stderr
    assert hub.repositories[MODEL].files.keys() >= FILES and len(hub.repositories[MODEL].commits) == 2


@pytest.mark.parametrize(
    ("more", "variables", "message"),
    [
        (["repo_id=me/clvp"], {"HF_TOKEN": ""}, "no token for the Hub.*hf auth login"),
        (["repo_id=me/clvp"], {"HF_TOKEN": "hf_" + "x" * 34}, "does not know this token"),
        (["repo_id=reader/clvp"], {"HF_TOKEN": READ_TOKEN}, "reader/clvp: the Hub token may not write"),
        (["repo_id=lab/clvp"], {}, "lab/clvp: me may only read in lab"),
        (["repo_id=strangers/clvp"], {}, "me is no member of strangers"),
        (["repo_id=me/a/b"], {}, "me/a/b is no name for a repository"),
        (["repo_id=me/clvp"], {"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set.*hub=local"),
        (["repo_id=me/clvp"], {"HF_ENDPOINT": "http://127.0.0.1:9"}, "the Hub cannot be asked"),
        ([], {}, "repo_id must be set"),
        (["repo_id=me/clvp", "pairs=x"], {}, "set either checkpoint=.* or pairs="),
        (["repo_id=me/clvp", "hub.private=perhaps"], {}, "hub.private=perhaps"),
        (["repo_id=me/clvp", "hub.card=card.md"], {}, "card.md uses mood, which no card is given"),
        (["repo_id=me/clvp", "hub.card=late.md"], {}, "late.md lacks a value.*'dict object' has no attribute 'mood'"),
        (["repo_id=me/clvp", "hub.card=broken.md"], {}, "broken.md is no Jinja template"),
    ],
)
def test_what_cannot_be_pushed_is_refused(trained, hub, online, tmp_path, more, variables, message):
    (tmp_path / "card.md").write_text("{{ metadata }} {{ mood }}")
    (tmp_path / "late.md").write_text("{{ metadata }} {{ data.mood }}")
    (tmp_path / "broken.md").write_text("{{ metadata")
    done = push(trained, tmp_path, *more, **online | variables)
    assert done.status == 2, done.stdout
    assert re.search(message, done.stderr) and len(done.stderr.strip().splitlines()[-1:]) == 1
    assert "Traceback" not in done.stderr and not any(token in done.stderr for token in (TOKEN, READ_TOKEN))
    assert not hub.repositories and not hub.objects


def test_a_model_that_nothing_true_can_be_said_of_is_refused(trained, hub, online, tmp_path):
    run_folder = tmp_path / "run"
    shutil.copytree(trained.output, run_folder)
    ask = lambda *args: run(PUSH, [*args, "repo_id=me/clvp"], tmp_path, **online)  # noqa: E731
    ckpt = ask(f"checkpoint={run_folder}/checkpoints/last.ckpt")
    assert ckpt.status == 2 and "training under way" in ckpt.stderr and "resume=" in ckpt.stderr
    config = run_folder / "model/training_config.yaml"
    config.write_text(config.read_text() + f"leaked: {TOKEN}\n")
    secret = ask(f"checkpoint={run_folder}")
    assert (
        secret.status == 2
        and "training_config.yaml holds the Hub token" in secret.stderr
        and TOKEN not in secret.stderr
    )
    model = CLVPModel.from_pretrained(run_folder / "model")
    with torch.no_grad():
        model.logit_scale.add_(0.5)
    model.save_pretrained(run_folder / "model")
    other = ask(f"checkpoint={run_folder}")
    assert other.status == 2 and "is of other weights" in other.stderr and "evaluate.py" in other.stderr
    shutil.rmtree(run_folder / "report")
    bare = ask(f"checkpoint={run_folder}/model")
    assert bare.status == 2 and "holds no report" in bare.stderr
    shutil.rmtree(run_folder / "model")
    under_way = ask(f"checkpoint={run_folder}")
    assert under_way.status == 2 and "training under way" in under_way.stderr
    assert not any("commit" in request for request in hub.requests)


def test_train_publishes_what_it_trained(workplace, hub, online):
    args = [*CORPUS, *BUDGET, "trainer.max_steps=1", "hydra.run.dir=run"]
    refused = run(TRAIN, [*args, "hub.repo_id=lab/clvp"], workplace, **online)
    assert refused.status == 2 and "may only read in lab" in refused.stderr
    assert not (workplace / "run/checkpoints").exists(), "it was found out after the training"
    hub.refuse = (500, "no space")
    broken = run(TRAIN, [*args, "hub.repo_id=clvp"], workplace, **online)
    assert broken.status == 2 and "the model is trained and kept in run" in broken.stderr
    again = re.search(r"\(python -m clvp_train\.push (.*)\)", broken.stderr)[1].split()
    done = run(PUSH, again, workplace, **online)
    assert done.status == 0, done.stderr
    assert hub.repositories[MODEL].files.keys() >= FILES
    no_secret_in(workplace)


def test_two_ranks_publish_once(workplace, hub, online):
    args = [*CORPUS, *BUDGET, "trainer.max_steps=1", "trainer=ddp_cpu", "hub.repo_id=club/clvp"]
    done = run(TRAIN, args, workplace, **online)
    assert done.status == 0, done.stderr
    assert sum("/commit/" in request for request in hub.requests) == 1
    assert hub.repositories["models/club/clvp"].files.keys() >= FILES


def test_pairs_are_a_data_set(trained, hub, online, tmp_path):
    args = [f"pairs={trained.pairs}", "repo_id=me/pairs", "hub.license=apache-2.0"]
    done = run(PUSH, args, tmp_path, **online)
    assert done.status == 0, done.stderr
    files = hub.repositories["datasets/me/pairs"].files
    assert (
        "manifest.json" in files
        and "tokenizer/vocab.json" in files
        and any(name.endswith(".parquet") for name in files)
    )
    metadata = yaml.safe_load(files["README.md"].decode().split("---\n")[1])
    assert metadata["license"] == "apache-2.0" and metadata["size_categories"] == ["n<1K"]
    assert str(ROOT).encode() not in files["manifest.json"] + files["README.md"]
    code = "import datasets; print(datasets.load_dataset('me/pairs')['train'].column_names)"
    opened = execute(["-c", code], tmp_path, **online)
    assert opened.status == 0 and "speech_ids" in opened.stdout, opened.stderr
    (tmp_path / "fetched").mkdir()
    for name, data in files.items():
        path = tmp_path / "fetched" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    judged = run(EVALUATE, [f"checkpoint={trained.output}/model", "pairs=fetched", "rerank.num_texts=0"], tmp_path)
    assert judged.status == 0, judged.stderr


def test_a_remote_folder_of_another_kind(hub, online, tmp_path):
    from tests.e2e.hub_stand_in import Repository

    hub.repositories["models/me/bert"] = Repository(True, {"config.json": b'{"model_type": "bert"}'})
    done = run(EVALUATE, ["checkpoint=me/bert"], tmp_path, **online)
    assert done.status == 2 and "checkpoint=me/bert is not a CLVP" in done.stderr and "type 'bert'" in done.stderr
    gone = run(EVALUATE, ["checkpoint=me/nothing"], tmp_path, **online)
    assert gone.status == 2 and "me/nothing" in gone.stderr and "check the name" in gone.stderr
