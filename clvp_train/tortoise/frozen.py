"""The frozen Tortoise: texts, voices and recordings to token ids, latents and speech codes."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from transformers import ClvpConfig, ClvpFeatureExtractor, ClvpTokenizer

from clvp_train.errors import UserError
from clvp_train.tortoise.audio import fit_length, log_mel
from clvp_train.tortoise.autoregressive import AutoRegressive, Positions
from clvp_train.tortoise.calm import write_calm
from clvp_train.tortoise.candidates import Candidate, draw
from clvp_train.tortoise.composite import from_composite, to_composite
from clvp_train.tortoise.dvae import DiscreteVAE, DVAEConfig
from clvp_train.tortoise.sampling import Sampling
from clvp_train.weights import file_digest, read_weights, resolve_folder, weight_files

DVAE_FOLDER = "dvae"
SAMPLING_FILE = "sampling.json"
Dtype = Literal["float32", "bfloat16"]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class TortoiseParts:
    """What a frozen Tortoise is made of."""

    autoregressive: AutoRegressive
    tokenizer: ClvpTokenizer
    feature_extractor: ClvpFeatureExtractor
    dvae: DiscreteVAE | None = None
    sampling: Sampling = Sampling()


class FrozenTortoise:
    """Tortoise's front half without gradients, in eval mode: tokenizer, conditioning encoder, AR, and its DVAE if it has one.

    Args:
        parts: the models and their settings.
        source: where they came from, for errors and fingerprints.
    """

    def __init__(self, parts: TortoiseParts, source: Path) -> None:
        self.source, self.sampling = source, parts.sampling
        self.tokenizer, self.feature_extractor = _with_header(parts.tokenizer), parts.feature_extractor
        self.autoregressive = parts.autoregressive.eval().requires_grad_(False)
        self.dvae = None if parts.dvae is None else parts.dvae.eval().requires_grad_(False)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        positions: Positions = "served",
        sampling: dict[str, Any] | None = None,
        device: str = "cpu",
        dtype: Dtype = "float32",
    ) -> "FrozenTortoise":
        """Opens a folder or Hub id in transformers' composite Clvp format.

        A subfolder `dvae/` (config.json, model.safetensors) brings the DVAE, and a file `sampling.json` other sampling
        defaults than tortoise-tts'; both are this package's additions to the format.

        Args:
            name_or_path: local folder, or Hub id such as `susnato/clvp_dev`.
            positions: how speech positions are counted, see `AutoRegressive`.
            sampling: fields of `Sampling` to set otherwise than the folder does; None leaves one as it is.
            device: where the models run.
            dtype: of the AR. In bfloat16 rounding differs with the batch, so that now and then a candidate differs from the
                one that would be drawn alone; in float32 they are the same.

        Raises:
            UserError: no such folder, no composite Clvp checkpoint, weights that do not fit, or an unknown setting.
        """
        if dtype not in DTYPES:
            raise UserError(f"tortoise.dtype={dtype}: choose one of {', '.join(DTYPES)}")
        folder = resolve_folder(name_or_path)
        config = _read_config(folder)
        autoregressive = AutoRegressive(config, positions)
        state = from_composite(read_weights(folder), autoregressive.state_dict().keys(), str(folder))
        _load(autoregressive, state, folder)
        dvae = _read_dvae(folder / DVAE_FOLDER) if (folder / DVAE_FOLDER).is_dir() else None
        defaults = _read_json(folder / SAMPLING_FILE) if (folder / SAMPLING_FILE).exists() else {}
        chosen = {name: value for name, value in (sampling or {}).items() if value is not None}
        parts = TortoiseParts(
            autoregressive=autoregressive.to(device, DTYPES[dtype]),
            tokenizer=_read_part(ClvpTokenizer, folder),
            feature_extractor=_read_part(ClvpFeatureExtractor, folder),
            dvae=None if dvae is None else dvae.to(device),
            sampling=_sampling({**defaults, **chosen}, autoregressive),
        )
        return cls(parts, folder)

    @staticmethod
    def load_tokenizer(name_or_path: str | Path) -> ClvpTokenizer:
        """The tokenizer alone, without the models."""
        return _with_header(_read_part(ClvpTokenizer, resolve_folder(name_or_path)))

    @property
    def device(self) -> torch.device:
        return self.autoregressive.head.weight.device

    @property
    def num_speech_tokens(self) -> int:
        """Size of the codebook, without the AR's start and stop tokens."""
        return self.autoregressive.start_speech

    def tokenize(self, text: str) -> list[int]:
        """Token ids of a text.

        Raises:
            UserError: the text is longer than the AR's positions allow.
        """
        ids = self.tokenizer(text)["input_ids"]
        limit = self.autoregressive.max_text_tokens
        if len(ids) > limit:
            start = text if len(text) <= 40 else text[:40] + "…"
            raise UserError(
                f"text {start!r} has {len(ids)} tokens, more than the {limit} that the AR of {self.source} can read: split it"
            )
        return ids

    @torch.inference_mode()
    def latent(self, clips: Sequence[torch.Tensor]) -> torch.Tensor:
        """The conditioning latent of a voice: the mean over its reference clips' latents.

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
        on_step: Callable[[int], None] | None = None,
    ) -> list[list[Candidate]]:
        """Draws candidates for a batch of texts. Each depends on its text, voice and seed alone, not on the batch.

        Args:
            texts: B lists of token ids, see `tokenize`.
            latents: (D,) one voice for all, or (B, D) one a text.
            num_candidates: K, how many to draw of each text.
            seeds: one for all texts, or one a text; candidate k of a text draws from (seed, k).
            on_step: called after every decoding step with the number of codes drawn.

        Returns:
            B lists of K candidates.
        """
        latents_BD = latents.expand(len(texts), -1) if latents.dim() == 1 else latents
        per_text = [seeds] * len(texts) if isinstance(seeds, int) else list(seeds)
        drawn = draw(
            self.autoregressive,
            latents_BD.repeat_interleave(num_candidates, dim=0),
            [text for text in texts for _ in range(num_candidates)],
            [(seed, k) for seed in per_text for k in range(num_candidates)],
            self.sampling,
            on_step,
        )
        return [drawn[start : start + num_candidates] for start in range(0, len(drawn), num_candidates)]

    @torch.inference_mode()
    def speech_codes(self, clips: Sequence[torch.Tensor]) -> list[list[int]]:
        """The DVAE's codes of recordings, one list of ids a clip, whatever the lengths in the batch.

        Args:
            clips: (N,) samples each, 22 050 Hz.

        Raises:
            UserError: this Tortoise has no DVAE.
        """
        if self.dvae is None:
            raise UserError(
                f"{self.source} has no DVAE, so it cannot turn recordings into codes: use codes=ar, or add a folder "
                f"{DVAE_FOLDER}/ with config.json and model.safetensors"
            )
        mels = [log_mel(clip.to(self.device), self.feature_extractor.mel_norms) for clip in clips]
        lengths_B = torch.tensor([mel.shape[1] for mel in mels], device=self.device)
        longest = int(lengths_B.max())
        mels_BMF = torch.stack([torch.nn.functional.pad(mel, (0, longest - mel.shape[1])) for mel in mels])
        return [ids.tolist() for ids in self.dvae.codes(mels_BMF, lengths_B)]

    def write_calm(self, codes_BS: torch.Tensor) -> torch.Tensor:
        """`calm.write_calm` with this Tortoise's stop token and calm codes."""
        calm, *tail = self.autoregressive.config.decoder_config.decoder_fixing_codes
        return write_calm(codes_BS, self.autoregressive.stop_speech, calm, tail)

    def fingerprint(self) -> str:
        """Hex digest of all that shapes the codes: weights, tokenizer, features, positions and sampling."""
        files = [
            *weight_files(self.source),
            *sorted(self.source.glob("*.json")),
            *sorted(self.source.glob("merges.txt")),
        ]
        files += sorted((self.source / DVAE_FOLDER).glob("*"))
        dtype = str(self.autoregressive.head.weight.dtype)
        settings = [self.autoregressive.positions, repr(self.sampling), dtype]
        digests = [f"{file.name} {file_digest(file)}" for file in files]
        return hashlib.sha256("\n".join([*digests, *settings]).encode()).hexdigest()

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype = torch.float32) -> None:
        """Writes the folder that `from_pretrained` opens, without CLVP encoders. float16 halves its size."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.autoregressive.config.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        self.feature_extractor.save_pretrained(folder)
        composite = to_composite(self.autoregressive.state_dict())
        metadata = {"format": "pt"}
        save_file({key: tensor.to(dtype) for key, tensor in composite.items()}, folder / "model.safetensors", metadata)
        defaults = {field.name: getattr(self.sampling, field.name) for field in fields(Sampling)}
        (folder / SAMPLING_FILE).write_text(json.dumps(defaults, indent=2) + "\n")
        if self.dvae is not None:
            (folder / DVAE_FOLDER).mkdir(exist_ok=True)
            (folder / DVAE_FOLDER / "config.json").write_text(json.dumps(self.dvae.config.to_dict(), indent=2) + "\n")
            state = {key: tensor.to(dtype).contiguous() for key, tensor in self.dvae.state_dict().items()}
            save_file(state, folder / DVAE_FOLDER / "model.safetensors", metadata)


def _read_config(folder: Path) -> ClvpConfig:
    file = folder / "config.json"
    if not file.exists():
        raise UserError(f"{folder} holds no config.json: give a folder in transformers' composite Clvp format")
    kind = _read_json(file).get("model_type")
    if kind != "clvp":
        raise UserError(f"{file} describes a model of type {kind!r}, not a composite Clvp ('clvp') with an AR in it")
    return ClvpConfig.from_pretrained(folder)


def _read_json(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read ({error}): copy it again from where the checkpoint came from") from None


def _read_part(part: type[ClvpTokenizer] | type[ClvpFeatureExtractor], folder: Path) -> Any:
    try:
        return part.from_pretrained(folder)
    except (OSError, TypeError, ValueError):
        raise UserError(f"{folder} holds no {part.__name__}: copy its files beside the weights") from None


def _with_header(tokenizer: ClvpTokenizer) -> ClvpTokenizer:
    """transformers reads merges.txt from its second line on, but saves it without a header: the first merge would be lost."""
    tokenizer.add_bpe_version_header = True
    return tokenizer


def _read_dvae(folder: Path) -> DiscreteVAE:
    file = folder / "config.json"
    try:
        dvae = DiscreteVAE(DVAEConfig(**_read_json(file)))
    except TypeError as error:
        raise UserError(f"{file} describes no DVAE: {error}") from None
    _load(dvae, read_weights(folder), folder)
    return dvae


def _load(model: torch.nn.Module, state: dict[str, torch.Tensor], folder: Path) -> None:
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip()
        raise UserError(f"{folder}: weights do not fit the config.json beside them: {reason}") from None


def _sampling(settings: dict[str, Any], autoregressive: AutoRegressive) -> Sampling:
    vocab_size = autoregressive.head.out_features
    try:
        settings = {**settings, "penalised_ids": tuple(settings.get("penalised_ids", Sampling.penalised_ids))}
        sampling = Sampling(**settings)
        if not all(0 <= code < vocab_size for code in sampling.penalised_ids):
            raise ValueError(f"{sampling}: needs penalised_ids below {vocab_size}")
    except (TypeError, ValueError) as error:
        raise UserError(f"sampling: {error}; known settings: {[field.name for field in fields(Sampling)]}") from None
    return replace(sampling, max_codes=min(sampling.max_codes, autoregressive.max_codes))
