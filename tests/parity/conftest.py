"""Reference implementations for the parity tests. None of their code is part of this repository."""

import shutil
import sys
import types
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
import tortoise_reference
from torch import nn


@pytest.fixture(scope="session")
def references(request: pytest.FixtureRequest) -> Path:
    """The cache of fetched references, kept between sessions."""
    return request.config.cache.mkdir("references")


@pytest.fixture(scope="session")
def tortoise_source(references: Path) -> Iterator[Path]:
    """The folder that contains tortoise-tts' `tortoise/`. During the session it is importable, together with those of its
    libraries that are not installed."""
    source = tortoise_reference.source(references)
    added = [str(source), str(tortoise_reference.packages(references))]
    sys.path.extend(added)
    yield source
    for path in added:
        sys.path.remove(path)


@pytest.fixture(scope="session")
def tortoise_generate(references: Path) -> Callable[..., dict]:
    """`tortoise_reference.generate` with its cache: tortoise-tts' own generation in a process with the libraries it pins."""
    return partial(tortoise_reference.generate, references)


@pytest.fixture(scope="session")
def tortoise_score(references: Path) -> Callable[..., list[list[float]]]:
    """`tortoise_reference.score` with its cache: tortoise-tts' own CLVP in a process with the libraries it pins."""
    return partial(tortoise_reference.score, references)


@pytest.fixture(scope="session")
def tiny_shape() -> dict[str, int]:
    """Arguments of `UnifiedVoice`: the published ones but for the size."""
    text = {"number_text_tokens": 255, "start_text_token": 255, "max_text_tokens": 60}
    speech = {"number_mel_codes": 98, "start_mel_token": 96, "stop_mel_token": 97, "max_mel_tokens": 100}
    return {"layers": 2, "model_dim": 64, "heads": 2, "max_conditioning_inputs": 2, **text, **speech}


@pytest.fixture(scope="session")
def tiny_ar(tortoise_source: Path, tiny_shape: dict[str, int], order_one: Callable[..., None]) -> nn.Module:
    """tortoise-tts' `UnifiedVoice` under our transformers, which is enough for all but its generation."""
    # what transformers 5 no longer has, used for spreading over devices and for a sampling that Tortoise leaves off
    parallel = types.ModuleType("transformers.utils.model_parallel_utils")
    parallel.get_device_map = parallel.assert_device_map = None
    typical = types.ModuleType("tortoise.utils.typical_sampling")
    typical.TypicalLogitsWarper = None
    for stub in (parallel, typical):
        sys.modules.setdefault(stub.__name__, stub)
    from tortoise.models.autoregressive import UnifiedVoice

    model = UnifiedVoice(**tiny_shape, checkpointing=False)
    order_one(model)
    with torch.no_grad():
        for block in model.conditioning_encoder.attn:
            block.proj_out.weight.normal_(std=tiny_shape["model_dim"] ** -0.5)  # zero in a fresh model
    return model.eval()


@pytest.fixture(scope="session")
def tiny_folder(tortoise_source: Path, tiny_ar: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Original files: the weights of `tiny_ar`, and the tokenizer and norms that tortoise-tts comes with."""
    folder = tmp_path_factory.mktemp("original")
    torch.save(tiny_ar.state_dict(), folder / "autoregressive.pth")
    for name in ("tokenizer.json", "mel_norms.pth"):
        shutil.copy(tortoise_source / "tortoise" / "data" / name, folder)
    return folder


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
