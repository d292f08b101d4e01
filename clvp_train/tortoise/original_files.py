"""A Tortoise in the files that its author published and fine-tuning tools write."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import ClvpFeatureExtractor

from clvp_train.errors import UserError
from clvp_train.models.weight_files import read_state_dict, read_stored
from clvp_train.tortoise.audio import NUM_MELS
from clvp_train.tortoise.autoregressive import AutoRegressive, Positions
from clvp_train.tortoise.dvae import DiscreteVAE
from clvp_train.tortoise.original import from_original, from_original_dvae, original_config, original_dvae_config
from clvp_train.tortoise.parts import TortoiseParts, choose_sampling, fill
from clvp_train.tortoise.tokenizer import read_original_tokenizer

AUTOREGRESSIVE_FILE = "autoregressive.pth"


@dataclass(frozen=True)
class OriginalFiles:
    """Where the parts of an original Tortoise lie."""

    autoregressive: Path  # tortoise-tts' `autoregressive.pth`, or a fine-tuned one
    tokenizer: Path  # tortoise-tts' `tortoise/data/tokenizer.json`
    mel_norms: Path  # tortoise-tts' `tortoise/data/mel_norms.pth`
    dvae: Path | None = None  # DL-Art-School's `dvae.pth`

    @classmethod
    def find(cls, folder: str | Path, **given: str | Path | None) -> "OriginalFiles":
        """The files that are given, and those of a folder for the rest; a DVAE only if there is one."""
        folder, paths = (
            Path(folder).expanduser(),
            {name: Path(path).expanduser() for name, path in given.items() if path},
        )
        dvae = folder / "dvae.pth"
        return cls(
            autoregressive=paths.get("autoregressive", folder / AUTOREGRESSIVE_FILE),
            tokenizer=paths.get("tokenizer", folder / "tokenizer.json"),
            mel_norms=paths.get("mel_norms", folder / "mel_norms.pth"),
            dvae=paths.get("dvae", dvae if dvae.is_file() else None),
        )

    def all(self) -> list[Path]:
        return [file for file in (self.autoregressive, self.tokenizer, self.mel_norms, self.dvae) if file is not None]


def read_original(
    files: OriginalFiles, heads: int | None, positions: Positions, sampling: dict[str, Any]
) -> TortoiseParts:
    """Opens the files, none of which may execute code.

    Args:
        heads: of the AR; None takes width // 64.
        positions: see `AutoRegressive`.
        sampling: fields of `Sampling` to set otherwise than tortoise-tts does.

    Raises:
        UserError: a file is missing, damaged or holds something else, keys are missing or unknown, or shapes do not fit.
    """
    there = "there from tortoise-tts' folder tortoise/data, or give its path"
    for file, mend in (
        (files.autoregressive, "give the path of the AR's weights"),
        (files.tokenizer, f"copy tokenizer.json {there}"),
        (files.mel_norms, f"copy mel_norms.pth {there}"),
    ):
        if not file.is_file():
            raise UserError(f"{file} is missing: {mend}")
    source = str(files.autoregressive)
    original = read_state_dict(files.autoregressive)
    config = original_config(original, source, heads)
    autoregressive = AutoRegressive(config, positions)
    state = from_original(original, autoregressive.state_dict().keys(), autoregressive.num_heads, source)
    fill(autoregressive, state, f"{source}: its weights do not fit together")
    tokenizer = read_original_tokenizer(files.tokenizer)
    if tokenizer.vocab_size > autoregressive.start_text:
        raise UserError(
            f"{files.tokenizer} has {tokenizer.vocab_size} tokens and the AR in {source} knows {autoregressive.start_text}: "
            "give the tokenizer that it was trained with"
        )
    return TortoiseParts(
        autoregressive=autoregressive,
        tokenizer=tokenizer,
        feature_extractor=ClvpFeatureExtractor(mel_norms=_read_mel_norms(files.mel_norms)),
        dvae=None if files.dvae is None else _read_dvae(files.dvae),
        sampling=choose_sampling(sampling, autoregressive),
    )


def _read_mel_norms(file: Path) -> list[float]:
    norms = read_stored(file)
    if not isinstance(norms, torch.Tensor) or norms.shape != (NUM_MELS,) or not bool((norms != 0).all()):
        raise UserError(
            f"{file} does not hold {NUM_MELS} divisors, one a mel channel: give tortoise-tts' mel_norms.pth"
        )
    return norms.float().tolist()


def _read_dvae(file: Path) -> DiscreteVAE:
    original = read_state_dict(file)
    dvae = DiscreteVAE(original_dvae_config(original, str(file)))
    state = from_original_dvae(original, dvae.state_dict().keys(), str(file))
    fill(dvae, state, f"{file}: its weights do not fit together")
    return dvae
