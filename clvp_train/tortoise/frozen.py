"""The frozen Tortoise: from texts, voices and recordings to token ids, conditioning latents and speech codes."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from clvp_train.errors import UserError
from clvp_train.io.digests import file_digest
from clvp_train.models.weight_files import resolve_folder
from clvp_train.tortoise.audio import HOP_LENGTH, SAMPLE_RATE, fit_length, log_mel
from clvp_train.tortoise.autoregressive import Positions
from clvp_train.tortoise.dvae import CONFIG_FILE, DVAE_FOLDER
from clvp_train.tortoise.generation import Candidate, CandidateSampler, Prompt
from clvp_train.tortoise.original_checkpoint import AUTOREGRESSIVE_FILE, OriginalFiles, read_original
from clvp_train.tortoise.parts import Dtype, TortoiseParts
from clvp_train.tortoise.tokenizer import (
    TOKENIZER_FILE,
    TortoiseTokenizer,
    read_custom_tokenizer,
    read_original_tokenizer,
    read_saved_tokenizer,
)
from clvp_train.tortoise.transformers_checkpoint import folder_files, read_folder, write_folder


class FrozenTortoise:
    """Tortoise's tokenizer, conditioning encoder, AR and optional DVAE, in eval mode and without gradients.

    Args:
        parts: the models and their settings.
        source: the checkpoint's path, for errors.
        files: the files of the parts, for `fingerprint`; default: those of the composite folder `source`.
        tokenizer: a folder with a custom tokenizer for the texts, which the AR does not understand; None: Tortoise's.
    """

    def __init__(
        self,
        parts: TortoiseParts,
        source: Path,
        files: Sequence[Path] = (),
        tokenizer: str | Path | None = None,
    ) -> None:
        self.source, self.sampling, self._files = source, parts.sampling, tuple(files)
        self._own_tokenizer, self.feature_extractor = parts.tokenizer, parts.feature_extractor
        self.tokenizer: PreTrainedTokenizerBase = self._own_tokenizer
        self.custom_tokenizer = tokenizer
        if tokenizer is not None:
            self.tokenizer = read_custom_tokenizer(tokenizer)
        self.autoregressive = parts.autoregressive.eval().requires_grad_(False)
        self.dvae = None if parts.dvae is None else parts.dvae.eval().requires_grad_(False)
        self._sampler = CandidateSampler(self.autoregressive, self.sampling)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        positions: Positions = "served",
        sampling: dict[str, Any] | None = None,
        device: str = "cpu",
        dtype: Dtype = "float32",
        tokenizer: str | Path | None = None,
    ) -> "FrozenTortoise":
        """Opens a folder or Hub id in transformers' composite Clvp format, see `transformers_checkpoint.py`, or a folder of
        original files, see `from_original`.

        Args:
            name_or_path: local folder, or Hub id such as `susnato/clvp_dev`.
            positions: how speech positions are counted, see `AutoRegressive`.
            sampling: fields of `Sampling` that override those of the folder; None leaves one unchanged.
            device: where the models run.
            dtype: of the AR. In bfloat16 rounding depends on the batch, so a candidate occasionally differs from the one that
                would be drawn alone; in float32 they are equal.
            tokenizer: a folder with a custom tokenizer for the texts, see `train_custom_tokenizer`; None: Tortoise's.

        Raises:
            UserError: the folder does not exist or has no Tortoise, weights do not fit, or a setting is unknown.
        """
        folder = resolve_folder(name_or_path)
        if _is_original(folder):
            settings: dict[str, Any] = {"positions": positions, "sampling": sampling, "device": device, "dtype": dtype}
            return cls.from_original(folder, tokenizer=tokenizer, **settings)
        parts = read_folder(folder, positions, sampling or {}).to(device, dtype)
        return cls(parts, folder, tokenizer=tokenizer)

    @classmethod
    def from_original(
        cls,
        folder: str | Path,
        autoregressive: str | Path | None = None,
        tokenizer: str | Path | None = None,
        mel_norms: str | Path | None = None,
        dvae: str | Path | None = None,
        heads: int | None = None,
        positions: Positions = "served",
        sampling: dict[str, Any] | None = None,
        device: str = "cpu",
        dtype: Dtype = "float32",
    ) -> "FrozenTortoise":
        """Opens tortoise-tts' original files, or fine-tuned ones of the same kind, without executing pickled code.

        Texts are normalised and tokenized as in tortoise-tts, except that writing systems other than Latin are dropped; those
        of another language's `tokenizer.json` are not normalised, see `read_original_tokenizer`.

        Args:
            folder: the folder of the files that are not given below.
            autoregressive: the AR; default `autoregressive.pth`.
            tokenizer: default `tokenizer.json`, from tortoise-tts' `tortoise/data`; or a folder, as in `from_pretrained`.
            mel_norms: divisors of the mel features; default `mel_norms.pth`, from the same place.
            dvae: DL-Art-School's DVAE; default `dvae.pth` if it exists.
            heads: attention heads of the AR; None: width // 64, as published.
            positions, sampling, device, dtype: as in `from_pretrained`.

        Raises:
            UserError: a file is missing, damaged or of another kind, or a setting is unknown.
        """
        custom = tokenizer if tokenizer is not None and Path(tokenizer).expanduser().is_dir() else None
        own = None if custom is not None else tokenizer
        files = OriginalFiles.find(folder, autoregressive=autoregressive, tokenizer=own, mel_norms=mel_norms, dvae=dvae)
        parts = read_original(files, heads, positions, sampling or {}).to(device, dtype)
        return cls(parts, files.autoregressive, files.all(), custom)

    @staticmethod
    def load_tokenizer(name_or_path: str | Path) -> TortoiseTokenizer:
        """The tokenizer alone, without the models."""
        folder = resolve_folder(name_or_path)
        if _is_original(folder):
            return read_original_tokenizer(OriginalFiles.find(folder).tokenizer)
        return read_saved_tokenizer(folder)

    @property
    def device(self) -> torch.device:
        return self.autoregressive.head.weight.device

    @property
    def num_speech_tokens(self) -> int:
        """Size of the codebook, without the AR's start and stop tokens."""
        return self.autoregressive.start_speech

    @property
    def num_text_tokens(self) -> int:
        """Size of the text vocabulary; with Tortoise's own tokenizer, the number of embeddings in the AR."""
        own = self.autoregressive.text_embedding.num_embeddings
        return own if self.custom_tokenizer is None else len(self.tokenizer)

    @property
    def seconds_per_code(self) -> float:
        """The duration of the recording that a code of the DVAE stands for."""
        assert self.dvae is not None, "the Tortoise has no DVAE"
        return HOP_LENGTH * 2**self.dvae.config.num_layers / SAMPLE_RATE

    def check_can_generate(self) -> None:
        """Raises UserError if texts have a custom tokenizer, which the AR was not trained with."""
        if self.custom_tokenizer is not None:
            raise UserError(
                f"tortoise.tokenizer={self.custom_tokenizer}: not the tokenizer of the AR of {self.source}. Use codes=dvae, or "
                "an AR that was trained with this tokenizer, in the AR's own folder."
            )

    def tokenize(self, text: str) -> list[int]:
        """Token ids of a text, for the AR.

        Raises:
            UserError: the text has more tokens than the AR has positions, or the tokenizer is a custom one.
        """
        self.check_can_generate()
        ids = self.tokenizer(text)["input_ids"]
        limit = self.autoregressive.max_text_tokens
        if len(ids) > limit:
            start = text if len(text) <= 40 else text[:40] + "…"
            raise UserError(
                f"text {start!r}: {len(ids)} tokens, more than the {limit} positions in the AR of {self.source}. Shorten or "
                "split it."
            )
        return ids

    @torch.inference_mode()
    def conditioning_latent(self, clips: Sequence[torch.Tensor]) -> torch.Tensor:
        """The conditioning latent of a voice: the mean of the latents of its reference clips.

        Args:
            clips: (N,) samples each, 22 050 Hz.

        Returns:
            (D,) vector.
        """
        samples_BN = torch.stack([fit_length(clip) for clip in clips]).to(self.device)
        mels_BMF = log_mel(samples_BN, self.feature_extractor.mel_norms).to(self.autoregressive.head.weight.dtype)
        return self.autoregressive.conditioning_encoder(mels_BMF).float().mean(dim=0)

    def candidates(
        self,
        texts: Sequence[Sequence[int]],
        latents: torch.Tensor,
        num_candidates: int,
        seeds: Sequence[int] | int = 0,
        batch_size: int | None = None,
        on_candidate: Callable[[Candidate], None] | None = None,
    ) -> list[list[Candidate]]:
        """Draws candidates for texts. Each depends only on its text, voice and seed, not on the others in the batch.

        Args:
            texts: lists of token ids, see `tokenize`; many at a time are faster, because free slots take the next one.
            latents: (D,) one voice for all, or (B, D) one per text.
            num_candidates: K, candidates per text.
            seeds: one for all texts, or one per text; candidate k of a text uses the seed (seed, k).
            batch_size: candidates drawn in parallel; None: see `CandidateSampler.draw`.
            on_candidate: called with each candidate when it ends.

        Returns:
            K candidates per text.
        """
        latents_BD = latents.expand(len(texts), -1) if latents.dim() == 1 else latents
        per_text = [seeds] * len(texts) if isinstance(seeds, int) else list(seeds)
        prompts = [
            Prompt(latent_D, tuple(text), (seed, k))
            for latent_D, text, seed in zip(latents_BD.cpu(), texts, per_text)
            for k in range(num_candidates)
        ]
        drawn = self._sampler.draw(prompts, batch_size, on_candidate)
        return [drawn[start : start + num_candidates] for start in range(0, len(drawn), num_candidates)]

    @torch.inference_mode()
    def speech_codes(self, clips: Sequence[torch.Tensor]) -> list[list[int]]:
        """Encodes recordings with the DVAE, one list of codes per clip, independent of the other clips.

        Args:
            clips: (N,) samples each, 22 050 Hz.

        Raises:
            UserError: the Tortoise has no DVAE.
        """
        if self.dvae is None:
            raise UserError(
                f"{self.source}: no DVAE, which encodes recordings. Use codes=ar, or add a folder {DVAE_FOLDER}/ with "
                "config.json and model.safetensors; to original files add dvae.pth."
            )
        mels = [log_mel(clip.to(self.device), self.feature_extractor.mel_norms) for clip in clips]
        lengths_B = torch.tensor([mel.shape[1] for mel in mels], device=self.device)
        longest = int(lengths_B.max())
        mels_BMF = torch.stack([torch.nn.functional.pad(mel, (0, longest - mel.shape[1])) for mel in mels])
        return [ids.tolist() for ids in self.dvae.codes(mels_BMF, lengths_B)]

    def fingerprint(self) -> str:
        """Hex digest of everything that determines the codes: weights, tokenizer, features, positions and sampling."""
        dtype = str(self.autoregressive.head.weight.dtype)
        settings = [self.autoregressive.positions, repr(self.sampling), dtype, str(self.autoregressive.num_heads)]
        files = list(self._files or folder_files(self.source))
        if self.custom_tokenizer is not None:
            files.append(Path(self.custom_tokenizer).expanduser() / TOKENIZER_FILE)
        digests = [f"{file.name} {file_digest(file)}" for file in files]
        return hashlib.sha256("\n".join([*digests, *settings]).encode()).hexdigest()

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype = torch.float32) -> None:
        """Writes a folder for `from_pretrained`, with the AR's own tokenizer and without CLVP encoders."""
        parts = TortoiseParts(
            self.autoregressive, self._own_tokenizer, self.feature_extractor, self.dvae, self.sampling
        )
        write_folder(parts, Path(folder), dtype)


def _is_original(folder: Path) -> bool:
    return (folder / AUTOREGRESSIVE_FILE).is_file() and not (folder / CONFIG_FILE).exists()
