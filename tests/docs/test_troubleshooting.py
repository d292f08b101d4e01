"""The messages in docs/troubleshooting.md are those of the code."""

import ast
import re
from pathlib import Path

import pytest
import torch

from tests.docs.blocks import blocks
from tests.e2e.commands import ROOT

QUOTED = ["\n".join(block.lines) for block in blocks(ROOT / "docs/troubleshooting.md")]
# messages of libraries -> the file of torch or Lightning that contains them
OF_LIBRARIES = {
    "Could not load this library": "torch/_ops.py",
    "connectFullMesh failed": "torch/lib/libtorch_cpu.so",
    "OutOfMemoryError": "torch/cuda/__init__.py",
    "No supported gpu backend found": "lightning/pytorch/trainer/connectors/accelerator_connector.py",
    "Found no NVIDIA driver": "torch/lib/libc10_cuda.so",
}


def strings() -> list[str]:
    """Every string of the package and of the Makefile, with … for what is filled in."""

    def text(node: ast.AST) -> str:
        if isinstance(node, ast.JoinedStr):
            return "".join(map(text, node.values))
        return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else "…"

    nodes = [node for file in ROOT.glob("clvp_train/**/*.py") for node in ast.walk(ast.parse(file.read_text()))]
    return [*map(text, nodes), Path(ROOT, "Makefile").read_text()]


STRINGS = strings()
LIBRARY_MESSAGES = [message for message in QUOTED if any(words in message for words in OF_LIBRARIES)]


@pytest.mark.parametrize("message", [message for message in QUOTED if message not in LIBRARY_MESSAGES])
def test_quoted_message_is_in_the_code(message):
    for part in re.split("…", message.removeprefix("error: ")):
        assert any(part.strip() in string for string in STRINGS), part


@pytest.mark.parametrize(("words", "file"), OF_LIBRARIES.items())
def test_quoted_message_of_a_library_is_in_the_library(words, file):
    assert any(words in message for message in QUOTED)
    path = Path(torch.__file__).parents[1] / file
    if "cuda.so" in file and not path.exists():
        pytest.skip("torch is built without CUDA")
    assert words.encode() in path.read_bytes()
