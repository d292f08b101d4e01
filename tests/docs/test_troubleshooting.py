"""The messages in docs/troubleshooting.md are those of the code."""

import ast
import re
from pathlib import Path

import pytest
import torch

from tests.docs.blocks import blocks
from tests.e2e.commands import EVALUATE, GENERATE, ROOT, TRAIN, run
from tests.e2e.conftest import BUDGET, CORPUS

PAGE = ROOT / "docs/troubleshooting.md"
QUOTED = ["\n".join(block.lines) for block in blocks(PAGE)]
OURS = [message for message in QUOTED if message.startswith("error: ")]
OF_LIBRARIES = {
    "Could not load this library": "_ops.py",
    "connectFullMesh failed": "lib/libtorch_cpu.so",
    "torch.OutOfMemoryError": "cuda/__init__.py",
}
CLIPS = ["corpus=manifest", "corpus.path=clips.csv", "codes=dvae"]
ORIGINAL = ["tortoise=original", "tortoise.folder=models", "tortoise.device=cpu"]
SMALL = ["split.test_percent=20", "split.val_percent=0"]


def templates() -> list[str]:
    """Every string of the package and the Makefile, with … for placeholders."""

    def text(node: ast.AST) -> str:
        if isinstance(node, ast.JoinedStr):
            return "".join(text(part) for part in node.values)
        return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else "…"

    files = [*ROOT.glob("clvp_train/**/*.py")]
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text()))]
    strings = [text(node) for node in nodes if isinstance(node, (ast.JoinedStr, ast.Constant))]
    return [*strings, Path(ROOT, "Makefile").read_text(), "error: trainer: "]


STRINGS = templates()


@pytest.mark.parametrize("message", OURS)
def test_quoted_message_is_in_the_code(message):
    if "backend found" in message:
        pytest.skip("contains a message of Lightning: tested below")
    message = re.sub(r"^error: (?!rank)|/usr/bin/python3|3\.14|train$", "…", message).replace("… is Python …", "…")
    for part in filter(None, (part.strip() for part in message.split("…"))):
        assert any(part in string for string in STRINGS), part


@pytest.mark.parametrize(("words", "file"), OF_LIBRARIES.items())
def test_quoted_message_of_a_library_is_in_the_library(words, file):
    assert any(words in message for message in QUOTED)
    path = Path(torch.__file__).with_name(file.split("/")[0]).joinpath(*file.split("/")[1:])
    assert words.removeprefix("torch.").encode() in path.read_bytes()


@pytest.mark.parametrize(
    ("script", "overrides", "start"),
    [
        (TRAIN, ["trainer=gpu"], "error: trainer: No supported gpu"),
        (TRAIN, [*CORPUS, "data.batch_size=5000"], "error: data.batch_size="),
        (TRAIN, [*CLIPS, *SMALL, "data.batch_size=2"], "error: the … split"),
        (TRAIN, ["trainer=ddp_cpu", "trainer.num_nodes=2"], "error: trainer.num_nodes="),
        (TRAIN, ["resume=outputs/train/DATE"], "error: … is finished"),
        (TRAIN, ["resume=outputs/train/DATE", "trainer.max_epochs=9", "seed=7"], "error: resume="),
        (TRAIN, [*CORPUS, *BUDGET, "optim.lr=1e30", "optim.warmup_ratio=0"], "error: training has diverged"),
        (GENERATE, ["corpus=text", "corpus.path=lines.txt", "output_dir=A_folder"], "error: …: contains pairs made"),
        (GENERATE, ["corpus=text", "corpus.path=lines.txt", "codes=dvae"], "error: utterance …: no audio"),
        (EVALUATE, ["checkpoint=empty.pth", *CORPUS], "error: checkpoint=…: not a CLVP"),
        (GENERATE, [*ORIGINAL, "tortoise.autoregressive=empty.pth"], "error: …: corrupt or not a checkpoint"),
        (GENERATE, ["tortoise.device=cuda"], "Found no NVIDIA driver"),
        (GENERATE, ["tortoise.name_or_path=who/knows"], "error: …: not a local folder"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " in value else "",
)
def test_quoted_message_is_printed(clone, script, overrides, start):
    if {"trainer=gpu", "tortoise.device=cuda"} & {*overrides} and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    folder = clone("")
    (folder / "FOLDER").rename(folder / "A_folder")
    (folder / "empty.pth").write_text("not found")
    (quoted,) = (message for message in QUOTED if message.startswith(start))
    done = run(script, overrides, folder)
    printed = done.stderr.strip().splitlines()[-1]
    assert done.status == 2 and re.search(re.escape(quoted).replace("…", ".+"), printed), printed
