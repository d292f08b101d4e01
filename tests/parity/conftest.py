"""References that parity tests run beside ours. Nothing of theirs is kept in this repository."""

import importlib.util
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

TORTOISE = "tortoise-tts==3.0.0"
EINOPS = "einops==0.8.2"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "tortoise: runs tortoise-tts 3.0.0, downloaded once unless TORTOISE_TTS_SOURCE is set"
    )


def _pip(*arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments],
        capture_output=True,
        check=False,
        text=True,
    )
    if done.returncode:
        pytest.fail(
            f"pip {' '.join(arguments)} failed; set TORTOISE_TTS_SOURCE to an unpacked {TORTOISE} (the folder that "
            f"contains tortoise/) to run without a network.\n{done.stderr}"
        )


def _into(target: Path, fill: Callable[[Path], None]) -> Path:
    """`target`, filled beside and moved in place, so that no other process sees half of it."""
    if not target.exists():
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            (draft := Path(scratch) / "draft").mkdir()
            fill(draft)
            try:
                draft.rename(target)
            except OSError:
                assert target.exists(), f"{target} could not be written"
    return target


def _fetch_tortoise(folder: Path) -> None:
    # Source only, and never installed: its pinned requirements conflict with ours.
    _pip("download", "--no-deps", "--no-binary", ":all:", "--dest", str(folder), TORTOISE)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as stream:
        stream.extractall(folder, filter="data")
    archive.unlink()
    (unpacked,) = folder.iterdir()
    (unpacked / "tortoise").rename(folder / "tortoise")


@pytest.fixture(scope="session")
def tortoise_source(request: pytest.FixtureRequest) -> Iterator[Path]:
    """The folder that contains tortoise-tts' `tortoise/`, on `sys.path` for as long as the session lasts."""
    cache = request.config.cache.mkdir("references")
    given = os.environ.get("TORTOISE_TTS_SOURCE")
    source = Path(given) if given else _into(cache / "tortoise-tts-3.0.0", _fetch_tortoise)
    if not (source / "tortoise" / "models" / "clvp.py").is_file():
        pytest.fail(
            f"{source} does not contain tortoise/models/clvp.py: set TORTOISE_TTS_SOURCE to an unpacked {TORTOISE}."
        )
    added = [str(source)]
    if importlib.util.find_spec("einops") is None:
        added.append(
            str(_into(cache / "einops", lambda folder: _pip("install", "--no-deps", "--target", str(folder), EINOPS)))
        )
    sys.path.extend(added)
    yield source
    for path in added:
        sys.path.remove(path)


@pytest.fixture(scope="session")
def order_one() -> Callable[..., None]:
    """Fill a module at random so that every activation, attention logits included, is of order 1.

    Under the usual small weights attention is nearly uniform and the branches hardly count: any two models would agree.
    """

    @torch.no_grad()
    def fill(module: nn.Module, embedding_std: float = 1.0) -> None:
        draw = torch.Generator().manual_seed(0)
        for name, parameter in module.named_parameters():
            if "emb" in name:
                parameter.normal_(std=embedding_std, generator=draw)
            elif parameter.ndim == 2:
                parameter.normal_(std=parameter.shape[1] ** -0.5, generator=draw)
            elif parameter.ndim == 1:
                around = 0.0 if name.endswith("bias") else 1.0
                parameter.normal_(mean=around, std=0.2, generator=draw)

    return fill
