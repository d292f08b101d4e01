"""Hostile and absurd inputs, in process where possible: each is refused in one line, or valid by definition.

Code that runs would create a file. So would a path that leads out of its folder; both count as "code run".
"""

import json
import pickle
import shutil
import tempfile
import traceback
import types
import typing
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import hydra
import torch
from hydra.errors import CompactHydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from clvp_train import hub
from clvp_train.errors import UserError
from clvp_train.hub.card import model_card
from clvp_train.io import CONF
from clvp_train.pipelines.config import BY_TARGET, validate
from clvp_train.pipelines.schema import Demo, Root
from clvp_train.report import Page, tables, write_report
from clvp_train.report.page import _facts
from clvp_train.training.checkpointing import RUN_KEY
from tests.drills.hostile_files import MARK, Inputs, Payload, manifests, other_files, pickles, resume, rows
from tests.drills.kinds import NANO, make_kinds
from tests.drills.payloads import COMMANDS, MARKS, MARKUP, NAMES, NUMBERS, OVERRIDE_FILES, OVERRIDES, STORED, TEMPLATES
from tests.e2e.commands import ROOT, execute
from tests.e2e.conftest import BUDGET, CORPUS, write_sentences

COLUMNS = ("inputs", "refused", "accepted", "tracebacks", "code run")
HEAD = f"| input | {' | '.join(COLUMNS)} |"
ONE_LINE = (UserError, OmegaConfBaseException, CompactHydraException)  # what `report_errors` prints


def _numbers() -> Inputs:
    """Of every setting with a number in its type. Those of a command are set together: one error lists all that are wrong."""
    seen = set[str]()
    for name, overrides in COMMANDS:
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            cfg, root = hydra.compose(name, overrides), Demo if name == "demo" else Root
        lists = {key: is_list for key, is_list in _numeric(cfg, root) if key not in seen}
        seen |= lists.keys()
        for value in NUMBERS:
            values = {key: [value, value] if is_list else value for key, is_list in lists.items()}
            error = _error(cfg.copy(), root, values)
            yield from (lambda k=key, v=value, e=error: _number(k, v, e) for key in lists)


def _error(cfg: DictConfig, root: type, values: dict[str, Any]) -> str:
    """What is wrong with these settings."""
    errors = []
    with open_dict(cfg):
        for key, value in values.items():
            try:
                OmegaConf.update(cfg, key, value, force_add=True)
            except OmegaConfBaseException:  # a typed node takes no such value
                errors.append(f"{key} must not be {value}.")
    try:
        validate(cfg, root)
    except UserError as error:
        errors.append(str(error))
    return " ".join(["", *errors])


def _number(key: str, value: Any, error: str) -> None:
    """Whoever adds a setting decides whether it may be 0, -1, or any large number; no setting takes the other `NUMBERS`."""
    if f" {key} must" in error or f" {key} is set by" in error:
        raise UserError(key)
    assert value in (0, -1, 1e30), f"{key}={value} was accepted"


def _numeric(node: DictConfig, schema: Any, prefix: str = "") -> Iterator[tuple[str, bool]]:
    """The numbers below a node, and whether each is a list of them."""
    hints = typing.get_type_hints(schema) if schema else {}
    for key in map(str, node):
        hint = hints.get(key, Any)
        options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        lists = [option for option in options if typing.get_origin(option) is list]
        if {int, float} & {*options, *(typing.get_args(lists[0]) if lists else ())}:
            yield prefix + key, bool(lists)
        elif (
            not OmegaConf.is_missing(node, key)
            and isinstance(node._get_node(key), DictConfig)
            and node[key] is not None
        ):
            below = hint if hasattr(hint, "__dataclass_fields__") else BY_TARGET.get(node[key].get("_target_"))
            yield from _numeric(node[key], below, f"{prefix}{key}.")


def _secrets() -> Inputs:
    token = "hf_" + "a" * 34
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = hydra.compose("train", ["paths.output=out"])
    for key in ("note", "logger.csv.name", "corpus.path", "hub.license", "data.note", "codes.voices"):
        for value in (token, [token], {"a": {"b": [f"x {token}"]}}):
            yield lambda k=key, v=value: _secret(_error(cfg.copy(), Root, {k: v}))


def _secret(error: str) -> None:
    assert error.strip() and "hf_" not in error, f"a secret was accepted, or printed: {error}"
    raise UserError(error)


def _run_folders(folder: Path) -> Inputs:
    run = folder / "sent"
    for override in OVERRIDES:
        yield lambda o=override: (write_run(run, {"overrides": [o.replace("{}", str(folder / MARK))]}), resume(run))
    for text in OVERRIDE_FILES:
        yield lambda t=text: (write_run(run, {}, t), resume(run))
    for stored in STORED:
        yield lambda s=stored: (write_run(run, s), resume(run))
    for mark in MARKS:
        yield lambda m=mark: (write_run(run, {"overrides": []}, mark=m), resume(run, "trainer.max_epochs=99"))


def write_run(run: Path, stored: dict[str, Any], text: str = "", mark: str | None = None) -> None:
    shutil.rmtree(run, ignore_errors=True)
    for name in ("checkpoints", "config"):
        (run / name).mkdir(parents=True)
    torch.save({RUN_KEY: stored}, run / "checkpoints/last.ckpt")
    (run / "config/overrides.yaml").write_text(text)
    if mark is not None:
        (run / "finished.json").write_text(mark)


def _cards(folder: Path) -> Inputs:
    trained, card = hub.find_trained(folder / "kinds/run"), folder / "card.jinja"
    settings = hub.HubConfig(card=str(card))
    for template in TEMPLATES:
        text = template.replace("{}", str(folder / MARK))
        yield lambda t=text: (card.write_text(t), hub.check_template(card), model_card(trained, settings, None))
    for path in (folder, folder / "nowhere", NANO / "model.safetensors"):
        yield lambda p=path: hub.check_template(p)


def _markup(folder: Path) -> Inputs:
    trained = hub.find_trained(folder / "kinds/run")
    for text in MARKUP:
        plain = json.dumps(trained.metrics)
        for name in NAMES:
            plain = plain.replace(json.dumps(name), json.dumps(text))
        sent = replace(trained, metrics=json.loads(plain))
        yield lambda s=sent, t=text: _check_escapes(s, t, folder / "report")


def _check_escapes(sent: hub.Trained, text: str, report: Path) -> None:
    """Texts from data are in the report and in both cards, but not as they are."""
    page = Page("title", _facts(sent.metrics), tables(sent.metrics), {}, {}, {"part": text}, {text: text}, text)
    write_report(page, report)
    written = [path.read_text() for path in report.glob("*.*") if "<" in text or path.suffix == ".md"]
    written.append(model_card(sent, hub.HubConfig(), None).split("---", 2)[2])
    for output in written:
        assert text not in output, f"{text} is not escaped"


def _commands(folder: Path) -> Inputs:
    """Some of these inputs as a user meets them."""
    write_sentences(folder)
    run, path = folder / "sent", folder / "a.pth"
    write_run(run, {"overrides": [OVERRIDES[0].replace("{}", str(folder / MARK))]})
    path.write_bytes(pickle.dumps(Payload(folder / MARK)))
    shutil.copy(path, folder / "a.ckpt")
    (folder / "a.parquet").mkdir()
    (folder / "card.jinja").write_text(TEMPLATES[1].replace("{}", str(folder / MARK)))
    train, model = [*CORPUS, *BUDGET], f"checkpoint={folder / 'kinds/run'}"
    for command in (
        ["train.py", "resume=sent", *train],
        ["train.py", "resume=a.ckpt", *train],
        ["train.py", f"pairs={folder / 'deep/er/pairs'}", *BUDGET],
        ["evaluate.py", "checkpoint=a.pth", *CORPUS],
        ["clvp_train/rerank.py", f"{model}/model", "candidates=a.parquet"],
        ["clvp_train/push.py", model, "hub=local", "hub.card=card.jinja"],
    ):
        yield lambda c=command: _command(c, folder)


def _command(command: list[str], cwd: Path) -> None:
    done = execute([str(ROOT / command[0]), *command[1:]], cwd)
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in done.stderr + done.stdout, done.stderr
    assert done.status == 0 or (done.status == 2 and len(lines) == 1), done.stderr
    if lines:
        raise UserError(lines[0])


def hostile_rows() -> list[str]:
    """The table of hostile inputs: a row for each kind of input, and one of all."""
    lines, total = [HEAD, f"|{' --- |' * (1 + len(COLUMNS))}"], Counter[str]()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kinds = make_kinds(folder / "kinds")
        inputs = {
            "numbers in settings": _numbers(),
            "secrets in settings": _secrets(),
            "run folders": _run_folders(folder),
            "pickles, folders with code": pickles(folder),
            "manifests of pairs": manifests(folder),
            "rows of pairs": rows(folder),
            "card templates": _cards(folder),
            "markup in names": _markup(folder),
            "files of another kind": other_files(folder / "kinds", kinds),
            "commands": _commands(folder),
        }
        for kind, calls in inputs.items():
            counts = Counter[str]()
            for call in calls:
                counts.update(["inputs", *_results(call, folder)])
            lines.append(_row(kind, counts))
            total += counts
    return [*lines, _row("**all**", total)]


def _results(call: Callable[[], Any], folder: Path) -> Iterator[str]:
    """What an input does; `folder` is watched for files that nothing else creates."""
    try:
        call()
        yield "accepted"
    except ONE_LINE:
        yield "refused"
    except Exception:
        traceback.print_exc()
        yield "tracebacks"
    outside = [folder / MARK, *folder.glob("*.arrow"), *folder.glob("deep/*.*")]
    for path in filter(Path.exists, outside):
        print(f"{path} was created")
        path.unlink()
        yield "code run"


def _row(name: str, counts: Counter[str]) -> str:
    return f"| {name} | {' | '.join(str(counts[column]) for column in COLUMNS)} |"
