"""Hostile files, for `hostile`: pickles, code in folders, pairs, and files that are something else."""

import json
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hydra
import pyarrow as pa
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from clvp_train import hub
from clvp_train.data.dataset import PairDataset
from clvp_train.evaluation import find_recognizer
from clvp_train.io import CONF
from clvp_train.io.digests import DIGESTS
from clvp_train.models import load_clvp
from clvp_train.models.loading import CONFIG_KEY
from clvp_train.pairs import MANIFEST, SCHEMA, arrow_copies, read_manifest
from clvp_train.pipelines.resume import resolve_resume
from clvp_train.tortoise import FrozenTortoise
from clvp_train.tortoise.tokenizer import read_saved_tokenizer
from clvp_train.training.checkpointing import RUN_KEY, read_checkpoint
from tests.drills.kinds import NANO, Kind
from tests.drills.payloads import CONTENTS, DEEP, HALF, MANIFEST_CHANGES, PICKLES, ROW_CHANGES
from tests.unit.pairs_folder import pair, write_folder

Inputs = Iterator[Callable[[], Any]]
MARK = "code-ran"  # the file that code would create


def resume(run: Path, *typed: str) -> None:
    """What train.py does with resume=RUN, until callbacks and optimiser are built."""
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = hydra.compose("train", [f"resume={run}", f"paths.output={run}", *typed], return_hydra_config=True)
        HydraConfig.instance().set_config(cfg)
        start = resolve_resume(OmegaConf.masked_copy(cfg, [key for key in cfg if key != "hydra"]))
        for group in (start.cfg.callbacks, start.cfg.optim):  # as parts of the config, which they refer to
            hydra.utils.instantiate(group)


class Payload:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def pickles(folder: Path) -> Inputs:
    payload, place = Payload(folder / MARK), folder / "pickles"
    for name in PICKLES:
        for form in ("pickle", "zip", "legacy", "inside"):
            path = place / form / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if form == "pickle":
                path.write_bytes(pickle.dumps(payload))
            else:
                content = {"state_dict": {}, CONFIG_KEY: {}, RUN_KEY: {}, "x": payload} if form == "inside" else payload
                torch.save(content, path, _use_new_zipfile_serialization=form != "legacy")
            if path.name.startswith("a."):
                yield from (lambda p=path, read=read: read(p) for read in (load_clvp, read_checkpoint, resume))
            else:
                for kind in ("clvp_train", "clvp"):
                    only = place / form / f"{path.stem}-{kind}"
                    only.mkdir()
                    shutil.copy(path, only)
                    if "auto" not in name:
                        (only / "config.json").write_text(json.dumps({"model_type": kind}))
                    yield from (
                        lambda o=only, read=read: read(o) for read in (load_clvp, FrozenTortoise.from_pretrained)
                    )
    yield from _own_code(folder)


def _own_code(folder: Path) -> Inputs:
    """Folders whose config.json names code of their own."""
    place = folder / "code"
    shutil.copytree(NANO, place)
    (place / DIGESTS).unlink()
    (place / "evil.py").write_text(f"import pathlib\npathlib.Path({str(folder / MARK)!r}).touch()\n")
    names = ("AutoConfig", "AutoModel", "AutoTokenizer", "AutoFeatureExtractor", "AutoModelForSpeechSeq2Seq")
    for kind in ("evil", "clvp_train", "clvp"):
        for file in ("config.json", "tokenizer_config.json", "preprocessor_config.json"):
            values = json.loads((place / file).read_text())
            own = {"auto_map": dict.fromkeys(names, "evil.Evil"), "tokenizer_class": "Evil", "model_type": kind}
            (place / file).write_text(json.dumps(values | own))
        readers = (load_clvp, FrozenTortoise.from_pretrained, read_saved_tokenizer, lambda p: find_recognizer(str(p)))
        yield from (lambda read=read: read(place) for read in readers)


def manifests(folder: Path) -> Inputs:
    pairs = folder / "deep/er/pairs"
    shutil.copytree(folder / "kinds/pairs", pairs)
    values = json.loads((pairs / MANIFEST).read_text())
    del values["sha256"]
    texts = [json.dumps(values | change) for change in MANIFEST_CHANGES]
    texts += ["", "[]", "null", "7", "{", DEEP, "\0", "NaN", '{"shards": ' + "9" * 5000 + "}", json.dumps(values)[:-40]]
    for text in texts:
        yield lambda t=text: ((pairs / MANIFEST).write_text(t), read_manifest(pairs), _publish(pairs, folder / "hub"))


def _publish(pairs: Path, target: Path) -> None:
    arrow_copies(pairs)
    shutil.rmtree(target, ignore_errors=True)
    hub.write_pairs_folder(pairs, target, hub.HubConfig())


def rows(folder: Path) -> Inputs:
    for number, change in enumerate(ROW_CHANGES):
        rows = [pair(3), pair(6) | change]
        yield lambda n=number, r=rows: _read_rows(write_folder(folder / f"rows-{n}", [r]))
    for name in SCHEMA.names:
        wrong = pa.schema(
            [pa.field(f.name, pa.list_(pa.list_(pa.int8())) if f.name == name else f.type) for f in SCHEMA]
        )
        less = pa.schema([field for field in SCHEMA if field.name != name])
        row = {field.name: None if field.name == name else pair(3)[field.name] for field in SCHEMA}
        for kind, schema in (("wrong", wrong), ("less", less)):
            yield lambda n=f"{kind}-{name}", s=schema, r=row: _read_rows(write_folder(folder / n, [[r]], s))


def _read_rows(pairs: Any) -> None:
    files = arrow_copies(pairs)
    for split in ("train", "val", "test"):
        dataset = PairDataset(files, split)
        [dataset[index] for index in range(len(dataset.rows_N))]
        dataset.qualities()


def other_files(folder: Path, kinds: list[Kind]) -> Inputs:
    """Files that are something else, in folders without digests, as somebody who prepares them would send."""
    for path in folder.rglob(DIGESTS):
        path.unlink()
    for kind in kinds:
        kind.read()  # copies that another kind has removed are made again
        for file in kind.files:
            if file.name != DIGESTS:
                yield from (lambda f=file, c=content, k=kind: _read_instead(f, c, k) for content in CONTENTS)


def _read_instead(file: Path, content: bytes | None, kind: Kind) -> None:
    original = file.read_bytes()
    file.unlink()
    try:
        if content is None:
            file.mkdir()
        else:
            file.write_bytes(original[: len(original) // 2] if content == HALF else content)
        kind.read()
    finally:
        shutil.rmtree(file) if file.is_dir() else file.unlink(missing_ok=True)
        file.write_bytes(original)
