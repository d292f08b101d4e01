"""The changes with which the commands of the documentation are run, and their reasons.

A new page needs no entry if its commands run within seconds on one CPU. Otherwise add a row: each row whose pattern occurs in a
command (continuation lines joined, comments removed; in a script, in each line) changes it, in this order. Files that a command
reads, such as `clips.csv`, are created by `inputs` in conftest.py; folders that it writes as `output_dir=` are removed first. A
command that does not start with python runs in bash; `shims/` contains substitutes for the programs of a cluster.
"""

import re
import shlex
from typing import NamedTuple

from tests.distributed.ranks import free_port
from tests.e2e.conftest import CORPUS, FEW_CANDIDATES

SECONDS = "seconds instead of minutes"
MACHINE = "the machine may have no GPU and few cores"
SMALL = ["split.test_percent=20", "split.val_percent=15", "tortoise.sampling.max_codes=16"]
TRAIN = [*FEW_CANDIDATES, "data.batch_size=32", "trainer.max_steps=3", "trainer.precision=32-true"]
TRAIN += ["trainer.check_val_every_n_epoch=1"]
TWO_NODES = "trainer=ddp trainer.devices=8 trainer.num_nodes=2"
TRAIN_COMMAND, EVALUATE_COMMAND = r"\btrain\.py\b(?! resume=)", r"\bevaluate\.py\b"  # a resumed run has its settings
WITHOUT_CORPUS = r"^(?!.*\b(?:corpus|pairs)=)"


class Adaptation(NamedTuple):
    pattern: str
    replacement: str
    reason: str


def _added(settings: list[str]) -> str:
    return r"\g<0> " + shlex.join(settings)


ADAPTATIONS = (
    Adaptation(rf"\b{TWO_NODES}\b", "trainer=ddp_cpu trainer.devices=1 trainer.num_nodes=2", MACHINE),
    Adaptation(r"--nproc-per-node 8\b", "--nproc-per-node 1 --local-addr 127.0.0.1", MACHINE),
    Adaptation(r"\bFIRST_NODE:29500\b", f"127.0.0.1:{free_port()}", "both nodes are this machine"),
    Adaptation(r"\btrainer=ddp trainer\.devices=8\b", "trainer=ddp_cpu trainer.devices=1", MACHINE),
    Adaptation(r"\btrainer=ddp(?![\w])", "trainer=ddp_cpu", MACHINE),
    Adaptation(r"\btrainer=gpu\b", "trainer=cpu", MACHINE),
    Adaptation(r"\btortoise=(susnato|original)\b", r"\g<0> tortoise.device=cpu", MACHINE),
    Adaptation(
        r"\bhydra/launcher=slurm seed=0,1,2$",
        "hydra/launcher=submitit_local seed=0",
        "no cluster: a local job uses the same code",
    ),
    Adaptation(r"\bexperiment=(scratch|new_language)\b", r"\g<0> model=nano", SECONDS),
    Adaptation(r"\bexperiment=sweep\b", r"\g<0> hydra.sweeper.n_trials=1", SECONDS),
    Adaptation(
        rf"{WITHOUT_CORPUS}.*({TRAIN_COMMAND}|{EVALUATE_COMMAND}).*$",
        _added(CORPUS),
        "the corpus of `trained`, whose codes exist",
    ),
    Adaptation(
        r"(\bcodes=mixed\b.*)\bcodes\.num_candidates=",
        r"\1codes.ar.num_candidates=",
        "the setting of one of its sources",
    ),
    Adaptation(rf"{TRAIN_COMMAND}.*$", _added([*SMALL, *TRAIN]), SECONDS),
    Adaptation(rf"{EVALUATE_COMMAND}.*$", _added([*SMALL, *FEW_CANDIDATES]), SECONDS),
    Adaptation(r"\bclvp_train\.generate\b.*$", _added(SMALL), SECONDS),
    Adaptation(r"\bseed=0,1,2\b", "seed=0,1", SECONDS),
    Adaptation(r"--multirun .*$", _added(["test=false"]), SECONDS),
    Adaptation(
        r"^python -m clvp_train\.demo .*$",
        r"\g<0> port=7873 & until (: < /dev/tcp/127.0.0.1/7873) 2> /dev/null; do kill -0 $! || exit; sleep 0.2; done; "
        r"kill $!; wait $!; test $? = 143",
        "the page is tested in tests/e2e/test_demo.py",
    ),
    Adaptation(r"^make train$", f'make train ARGS="{" ".join([*CORPUS, *TRAIN])}"', SECONDS),
    Adaptation(r"^make test$", 'make test ARGS="tests/unit/doctor"', "the full suite contains this test"),
    Adaptation(r"^make (check|docs)$", r"make --dry-run \1", "CI runs make check, test_site.py runs make docs"),
    Adaptation(r"^\.ci/run$", "bash -n .ci/run", "it runs this test suite"),
)


def adapted(line: str) -> str:
    """The line that is run instead of `line`."""
    for adaptation in ADAPTATIONS:
        line = re.sub(adaptation.pattern, adaptation.replacement, line)
    return line
