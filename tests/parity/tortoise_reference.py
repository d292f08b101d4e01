"""tortoise-tts 3.0.0 as a reference implementation. None of its code is part of this repository.

Its source and the old libraries that it pins are fetched once. They conflict with ours, so whatever needs them runs in a
separate process, see `tortoise_worker.py`.
"""

import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

TORTOISE = "tortoise-tts==3.0.0"
# transformers as pinned, and the newest compatible releases of its dependencies. Without tokenizers: 4.31.0 requires a version
# that has no wheel for Python 3.12, but runs GPT-2 without it.
PACKAGES = ("transformers==4.31.0", "huggingface_hub==0.25.2", "einops==0.8.2", "inflect==5.6.2", "unidecode==1.4.0")
SOURCE_VARIABLE, PACKAGES_VARIABLE = "TORTOISE_TTS_SOURCE", "TORTOISE_TTS_PACKAGES"
WORKER = Path(__file__).with_name("tortoise_worker.py")


def source(cache: Path) -> Path:
    """The folder that contains `tortoise/`: TORTOISE_TTS_SOURCE if set, else below `cache`, fetched if it is not there."""
    folder = _given_or_fetched(SOURCE_VARIABLE, cache / "tortoise-tts-3.0.0", _fetch_source)
    if not (folder / "tortoise" / "models" / "autoregressive.py").is_file():
        raise FileNotFoundError(
            f"{folder} does not contain tortoise/models: set {SOURCE_VARIABLE} to an unpacked {TORTOISE}"
        )
    return folder


def packages(cache: Path) -> Path:
    """The folder that `pip install --no-deps --target` filled with PACKAGES: TORTOISE_TTS_PACKAGES if set, else below `cache`."""
    folder = _given_or_fetched(PACKAGES_VARIABLE, cache / "tortoise-tts-packages", _fetch_packages)
    if not (folder / "transformers" / "__init__.py").is_file():
        raise FileNotFoundError(f"{folder} does not contain transformers: set {PACKAGES_VARIABLE} to {PACKAGES}")
    return folder


def generate(cache: Path, texts: Sequence[Sequence[int]], latent: torch.Tensor, **request: Any) -> dict[str, Any]:
    """Runs `tortoise_worker.py` in a separate process and returns its answer.

    Args:
        cache: folder of the reference; created if missing.
        texts: token ids of each text.
        latent: (D,) the voice.
        request: the worker's other settings.
    """
    return _ask(cache, {"texts": [*map(list, texts)], "latent": latent.tolist(), **request})


def score(
    cache: Path,
    clvp: Path,
    texts: Sequence[Sequence[int]],
    candidates: Sequence[Sequence[Sequence[int]]],
    **request: Any,
) -> list[list[float]]:
    """Scores by tortoise-tts' own `CLVP`, likewise, which see."""
    sets = {"texts": [*map(list, texts)], "candidates": [[*map(list, codes)] for codes in candidates]}
    return _ask(cache, {"clvp": str(clvp), **sets, **request})["scores"]


def _ask(cache: Path, request: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch:
        asked, answered = Path(scratch) / "request.json", Path(scratch) / "answer.json"
        asked.write_text(json.dumps(request))
        folders = [str(source(cache)), str(packages(cache))]
        command = [sys.executable, str(WORKER), *folders, str(asked), str(answered)]
        done = subprocess.run(command, capture_output=True, check=False, text=True)
        if done.returncode:
            raise RuntimeError(f"{WORKER.name} failed:\n{done.stderr}")
        return json.loads(answered.read_text())


def _given_or_fetched(variable: str, target: Path, fetch: Callable[[Path], None]) -> Path:
    """Fills a temporary folder and renames it to `target`, so that no other process sees it incomplete."""
    if given := os.environ.get(variable):
        return Path(given)
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            (draft := Path(scratch) / "draft").mkdir()
            try:
                fetch(draft)
            except subprocess.CalledProcessError as error:
                raise RuntimeError(
                    f"pip could not fetch a reference; set {variable} to a folder that holds it to run without a network.\n"
                    f"{error.stderr}"
                ) from None
            try:
                draft.rename(target)
            except OSError:
                assert target.exists(), f"{target} could not be written"
    return target


def _fetch_source(folder: Path) -> None:
    _pip("download", "--no-deps", "--no-binary", ":all:", "--dest", str(folder), TORTOISE)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as stream:
        stream.extractall(folder, filter="data")
    archive.unlink()
    (unpacked,) = folder.iterdir()
    (unpacked / "tortoise").rename(folder / "tortoise")


def _fetch_packages(folder: Path) -> None:
    _pip("install", "--no-deps", "--target", str(folder), *PACKAGES)


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    subprocess.run(command, capture_output=True, check=True, text=True)
