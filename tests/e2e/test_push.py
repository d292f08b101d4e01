"""Publishing with the real client of the Hub to a stand-in on loopback, which checks what it receives."""

import json
import re
import shutil
import time

import pytest
import torch
import yaml

from clvp_train import CLVPModel
from clvp_train.report import read_metrics, write_metrics
from tests.e2e.commands import EVALUATE, ROOT, TRAIN, execute, run, start
from tests.e2e.conftest import BUDGET, CORPUS, FEW_CANDIDATES, Run
from tests.e2e.hub_stand_in import Repository, hub_stand_in

PUSH = "clvp_train/push.py"
TRAINING_ONLY = ("clvp_train", "lightning", "hydra", "omegaconf", "torchaudio", "datasets", "soundfile", "wandb")
TOKEN, READ_TOKEN = "hf_" + "aB3dE5" * 6, "hf_" + "zY9xW7" * 6
MODEL = "models/me/clvp"
FILES = {
    *("README.md", "config.json", "model.safetensors", "configuration_clvp.py", "modeling_clvp.py", "vocab.json"),
    *("processor_config.json", "processing_clvp.py", "dvae/model.safetensors"),
    *(
        "merges.txt",
        "tokenizer_config.json",
        "training_config.yaml",
        "metrics.json",
        "score_table.json",
        "token_pairs.json",
    ),
    "SHA256SUMS",
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
    """The variables of a command that uses the stand-in, which supports LFS but not Xet."""
    return {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"} | {
        "HF_HOME": str(tmp_path / "hf")
    }


def push(trained, cwd, *more, **online):
    return run(PUSH, [f"checkpoint={trained.output}", *more], cwd, **online)


def assert_refused(done, *patterns):
    assert done.status == 2 and "Traceback" not in done.stderr, done.stdout + done.stderr
    [error] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert all(re.search(pattern, error) for pattern in patterns), error
    assert not any(token in done.stdout + done.stderr for token in (TOKEN, READ_TOKEN))


def assert_no_secret_in(folder):
    texts = [path for path in folder.rglob("*") if path.is_file() and path.suffix not in (".safetensors", ".ckpt")]
    assert texts and not any(token.encode() in path.read_bytes() for path in texts for token in (TOKEN, READ_TOKEN))


def test_round_trip(trained, workplace, hub, online):
    done = push(trained, workplace, "repo_id=clvp", "hub.license=apache-2.0", "hub.language=en", **online)
    assert done.status == 0, done.stderr
    assert "published: " in done.stdout and "me/clvp" in done.stdout
    repository = hub.repositories[MODEL]
    assert repository.private and repository.commits == ["initial commit", "Model by clvp_train"]
    assert repository.files.keys() >= FILES
    assert not any(TOKEN.encode() in data for data in repository.files.values())
    assert str(workplace).encode() not in repository.files["README.md"]
    assert str(ROOT / "data").encode() not in repository.files["training_config.yaml"]
    assert_no_secret_in(workplace)

    # the model loaded by its Hub id gives the same numbers
    cached = {"HF_HOME": str(workplace / "other")}
    evaluated = run(
        EVALUATE, ["checkpoint=me/clvp", *CORPUS, *FEW_CANDIDATES, "hydra.run.dir=remote"], workplace, **online | cached
    )
    assert evaluated.status == 0, evaluated.stderr
    remote, local = (
        json.loads((folder / "report/metrics.json").read_text()) for folder in (workplace / "remote", trained.output)
    )
    names = ("text_to_speech", "speech_to_text", "intervals", "scores", "perturbations", "rerank", "weights", "data")
    assert all(remote[name] == local[name] for name in names)
    assert_no_secret_in(workplace / "remote")

    # the examples of the card run, the second one without the libraries of this package
    first, second = re.findall(r"```python\n(.*?)```", repository.files["README.md"].decode(), re.S)
    (workplace / "with.py").write_text(first)
    printed = execute(["with.py"], workplace, **online | cached)
    assert printed.status == 0, printed.stderr
    scores = json.loads("[" + re.search(r"\((.*?)\)", printed.stdout.splitlines()[-1])[1] + "]")
    without = f"import sys\nsys.modules |= dict.fromkeys({TRAINING_ONLY!r})\n"
    (workplace / "without.py").write_text(f"{without}{second}\nprint(type(model).__module__)\n")
    alone = execute(["without.py"], workplace, **online | cached)
    assert alone.status == 0, alone.stderr
    score, module = alone.stdout.splitlines()[-2:]
    assert float(score) == pytest.approx(scores[0], abs=1e-5)
    assert module.startswith("transformers_modules.") and module.endswith(".modeling_clvp")

    # a repository that is not empty is replaced on request only
    assert_refused(push(trained, workplace, "repo_id=clvp", **online), "me/clvp.*files.*hub.overwrite=true")
    repository.files["stale.bin"] = b"old"
    again = push(trained, workplace, "repo_id=clvp", "hub.overwrite=true", "hub.private=false", **online)
    assert again.status == 0, again.stderr
    assert len(repository.commits) == 3 and "stale.bin" not in repository.files


def test_local_folder_and_card(trained, tmp_path):
    done = push(
        trained, tmp_path, "hub=local", "hub.license=CC-BY-4.0", "hub.language=[english,zh-CN]", "hydra.run.dir=out"
    )
    assert done.status == 0, done.stderr
    folder = tmp_path / "out" / "hub"
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*")} >= FILES
    assert CLVPModel.from_pretrained(folder).config.auto_map["AutoModel"] == "modeling_clvp.CLVPModel"
    card = (folder / "README.md").read_text()
    metrics = json.loads((folder / "metrics.json").read_text())
    metadata = yaml.safe_load(card.split("---\n")[1])
    assert metadata["license"] == "cc-by-4.0" and metadata["library_name"] == "transformers"
    assert metadata["language"] == ["en", "zh"]
    results = metadata["model-index"][0]["results"][0]
    assert results["dataset"]["args"]["fingerprint"] == metrics["data"]["fingerprint"]
    recall = {item["name"]: item for item in results["metrics"]}
    for key, words in (("text_to_speech", "text → speech"), ("speech_to_text", "speech → text")):
        item = recall[f"R@1, {words}"]
        assert item["value"] == metrics[key]["R@1"]
        assert item["args"]["gallery"] == metrics["gallery"] and item["args"]["chance"] == metrics["chance_R@1"]
        assert item["args"]["interval_95"] == metrics["intervals"][key]["R@1"]
    for part in ("## Intended uses and limitations", "ClvpTokenizer, 256 tokens", "max_codes | 16", "2305.07243"):
        assert part in card
    for part in ("batch size (global) | 32", metrics["data"]["fingerprint"], "Perturbation detection", "cc-by-4.0"):
        assert part in card
    settings = yaml.safe_load((folder / "training_config.yaml").read_text())
    assert settings["data"]["batch_size"] == 32 and settings["trainer"]["precision"] == "32-true"


@pytest.mark.parametrize("failure", ["commit refused", "connection lost", "SIGKILL"])
def test_interrupted_push_publishes_nothing_and_resumes(trained, hub, online, tmp_path, failure):
    if failure == "SIGKILL":
        hub.gate.clear()
        running = start(PUSH, [f"checkpoint={trained.output}", "repo_id=me/clvp"], tmp_path, **online)
        while not any("PUT" in request for request in hub.requests):
            assert running.process.exitcode is None
            time.sleep(0.05)
        assert running.kill()
        hub.gate.set()
    else:
        hub.refuse = (500, "no space") if failure == "commit refused" else None
        hub.break_uploads = 100 if failure == "connection lost" else 0
        assert_refused(push(trained, tmp_path, "repo_id=me/clvp", **online), "me/clvp.*same command again")
        hub.break_uploads = 0
    repository = hub.repositories[MODEL]
    assert repository.files.keys() == {".gitattributes"}
    uploads = sum("PUT" in request for request in hub.requests)
    done = push(trained, tmp_path, "repo_id=me/clvp", **online)
    assert done.status == 0, done.stderr
    assert repository.files.keys() >= FILES and len(repository.commits) == 2
    if failure == "commit refused":
        assert sum("PUT" in request for request in hub.requests) == uploads, "uploaded twice"


@pytest.mark.parametrize(
    ("more", "variables", "message"),
    [
        (["repo_id=me/clvp"], {"HF_TOKEN": ""}, "no token.*hf auth login"),
        (["repo_id=me/clvp"], {"HF_TOKEN": "hf_" + "x" * 34}, "invalid token"),
        (["repo_id=reader/clvp"], {"HF_TOKEN": READ_TOKEN}, "reader/clvp: .*no write access"),
        (["repo_id=lab/clvp"], {}, "lab/clvp: .*read access only in lab"),
        (["repo_id=strangers/clvp"], {}, "not a member of strangers"),
        (["repo_id=me/a/b"], {}, "me/a/b: not a valid name"),
        (["repo_id=me/clvp"], {"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set.*hub=local"),
        (["repo_id=me/clvp"], {"HF_ENDPOINT": "http://127.0.0.1:9"}, "Hub cannot be reached"),
        (["repo_id=me/clvp", "hub.language=[en,qqq]"], {}, 'Hub refuses the card: .*"qqq.*must be an ISO 639 code'),
        (["repo_id=me/clvp", "hub.license=CC-BY-9"], {"HF_HUB_OFFLINE": "1"}, "license=CC-BY-9: not a licence.*cc-by-"),
        ([], {}, "repo_id must be set"),
        (["repo_id=me/clvp", "pairs=x"], {}, "checkpoint, pairs: "),
        (["repo_id=me/clvp", "hub.card=unknown.md"], {}, "unknown.md: .*mood"),
        (["repo_id=me/clvp", "hub.card=missing.md"], {}, "missing.md: .*no attribute 'mood'"),
        (["repo_id=me/clvp", "hub.card=broken.md"], {}, "broken.md: invalid Jinja template"),
        (["repo_id=me/clvp", "hub.card=code.md"], {}, "code.md: cannot be filled in .access to attribute"),
    ],
)
def test_bad_settings(trained, hub, online, tmp_path, more, variables, message):
    (tmp_path / "unknown.md").write_text("{{ metadata }} {{ mood }}")
    (tmp_path / "missing.md").write_text("{{ metadata }} {{ data.mood }}")
    (tmp_path / "broken.md").write_text("{{ metadata")
    (tmp_path / "code.md").write_text("{{ ''.__class__.__mro__[1].__subclasses__() }}")
    assert_refused(push(trained, tmp_path, *more, **online | variables), message)
    assert not hub.repositories and not hub.objects


def test_names_in_the_data_are_text_in_report_and_card(trained, tmp_path):
    shutil.copytree(trained.output, tmp_path / "run")
    metrics = read_metrics(tmp_path / "run/report")
    name = "<script>alert(1)</script> [a](b) | `c"
    metrics["data"] |= {"corpus": name, "tortoise": name, "settings": {name: name}}
    metrics["breakdown"]["voice"][0]["label"] = name
    write_metrics(metrics, tmp_path / "run/report")
    done = push(Run(tmp_path, tmp_path / "run", trained.finished), tmp_path, "hub=local", "hydra.run.dir=out")
    assert done.status == 0, done.stderr
    card = (tmp_path / "out/hub/README.md").read_text().split("---\n", 2)[2]
    assert "<script" not in card and card.count("&lt;script&gt;alert(1)&lt;/script&gt; \\[a\\](b) \\| \\`c") >= 5


def test_unfinished_damaged_leaking_or_unevaluated_model_is_refused(trained, hub, online, tmp_path):
    run_folder = tmp_path / "run"
    shutil.copytree(trained.output, run_folder)

    def assert_push_refused(checkpoint, *patterns):
        assert_refused(run(PUSH, [f"checkpoint={checkpoint}", "repo_id=me/clvp"], tmp_path, **online), *patterns)

    assert_push_refused(run_folder / "checkpoints/last.ckpt", "training is not finished", "resume=")
    config = run_folder / "model/training_config.yaml"
    config.write_text(config.read_text() + f"leaked: {TOKEN}\n")
    assert_push_refused(run_folder, "training_config.yaml: damaged or edited")
    (run_folder / "model/SHA256SUMS").unlink()
    assert_push_refused(run_folder, "training_config.yaml: contains the Hub token")
    local = push(Run(tmp_path, run_folder, trained.finished), tmp_path, "hub=local", "hydra.run.dir=local", **online)
    assert_refused(local, "training_config.yaml: contains the Hub token")
    assert not (tmp_path / "local/hub").exists()
    config.write_text("")
    assert_push_refused(run_folder, "training_config.yaml: damaged")
    config.unlink()
    model = CLVPModel.from_pretrained(run_folder / "model")
    with torch.no_grad():
        model.logit_scale.add_(0.5)
    model.save_pretrained(run_folder / "model")
    assert_push_refused(run_folder, "other weights", "evaluate.py")
    shutil.rmtree(run_folder / "report")
    assert_push_refused(run_folder / "model", "no report there")
    shutil.rmtree(run_folder / "model")
    assert_push_refused(run_folder, "training is not finished")
    assert not any("commit" in request for request in hub.requests)


def test_train_checks_access_first_and_publishes_once_from_two_ranks(workplace, hub, online):
    args = [*CORPUS, *BUDGET, "trainer.max_steps=1", "hydra.run.dir=run"]
    assert_refused(run(TRAIN, [*args, "hub.repo_id=lab/clvp"], workplace, **online), "read access only in lab")
    assert not (workplace / "run/checkpoints").exists(), "refused after the training only"
    hub.refuse = (500, "no space")
    failed = run(TRAIN, [*args, "trainer=ddp_cpu", "hub.repo_id=club/clvp"], workplace, **online)
    assert failed.status == 2 and "trained and saved in run" in failed.stderr
    [command] = re.findall(r"python -m clvp_train\.push (.*)", failed.stderr)
    done = run(PUSH, command.split(), workplace, **online)
    assert done.status == 0, done.stderr
    assert hub.repositories["models/club/clvp"].files.keys() >= FILES
    assert sum("/commit/" in request for request in hub.requests) == 2
    assert_no_secret_in(workplace)


def test_pairs_are_a_data_set(trained, hub, online, tmp_path):
    done = run(PUSH, [f"pairs={trained.pairs}", "repo_id=me/pairs", "hub.license=apache-2.0"], tmp_path, **online)
    assert done.status == 0, done.stderr
    files = hub.repositories["datasets/me/pairs"].files
    assert files.keys() >= {"manifest.json", "tokenizer/vocab.json"}
    metadata = yaml.safe_load(files["README.md"].decode().split("---\n")[1])
    assert metadata["license"] == "apache-2.0" and metadata["size_categories"] == ["n<1K"]
    assert str(ROOT).encode() not in files["manifest.json"] + files["README.md"]
    code = "import datasets; print(datasets.load_dataset('me/pairs')['train'].column_names)"
    opened = execute(["-c", code], tmp_path, **online)
    assert opened.status == 0 and "speech_ids" in opened.stdout, opened.stderr
    for name, data in files.items():
        path = tmp_path / "fetched" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    evaluated = run(EVALUATE, [f"checkpoint={trained.output}/model", "pairs=fetched", "rerank.num_texts=0"], tmp_path)
    assert evaluated.status == 0, evaluated.stderr


def test_checkpoint_by_hub_id_must_be_a_clvp(hub, online, tmp_path):
    hub.repositories["models/me/bert"] = Repository(True, {"config.json": b'{"model_type": "bert"}'})
    for name, pattern in (("me/bert", "bert"), ("me/nothing", "me/nothing")):
        assert_refused(run(EVALUATE, [f"checkpoint={name}"], tmp_path, **online), pattern)
