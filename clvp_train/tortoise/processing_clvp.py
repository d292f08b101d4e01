"""CLVPProcessor: texts and speech to the inputs of CLVPModel, in the way of transformers' processors.

Imports torch, transformers, and files of this folder only: together they are uploaded to the Hub as remote code, as
`modeling_clvp.py` is.

Shapes: B batch, T text length, S speech length, N samples, M mel channels, F mel frames.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoConfig,
    AutoTokenizer,
    BatchFeature,
    ClvpFeatureExtractor,
    ClvpTokenizer,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    ProcessorMixin,
)
from transformers.utils import cached_file

from .dvae import CONFIG_FILE, DVAE_FOLDER, WEIGHTS_FILE, DiscreteVAE
from .normalizer import as_tortoise_reads, forget_loading_arguments
from .padding import Padding, pad
from .silence_padding import strip_padding

PROCESSOR_FILE = "processor_config.json"
HUB_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")


class CLVPProcessor(ProcessorMixin):
    """Prepares texts and speech for a `CLVPModel`: `model(**processor(text=texts, speech=codes))`.

    Args:
        feature_extractor: computes the mel features that the DVAE encodes.
        tokenizer: of the texts. Tortoise's normalises them as tortoise-tts does.
        dvae: encodes recordings; None: speech is given as codes.
        padding: that of the model, "mask" or "tortoise".
        max_codes: with padding "tortoise": the length that codes are padded to.
        num_codes: size of the model's speech vocabulary.
    """

    def __init__(
        self,
        feature_extractor: ClvpFeatureExtractor,
        tokenizer: PreTrainedTokenizerBase,
        dvae: DiscreteVAE | None = None,
        padding: str = "mask",
        max_codes: int = 500,
        num_codes: int = 8192,
    ) -> None:
        super().__init__(feature_extractor, tokenizer)
        self.tokenizer = as_tortoise_reads(tokenizer) if isinstance(tokenizer, ClvpTokenizer) else tokenizer
        forget_loading_arguments(self.tokenizer)
        self.dvae, self.padding, self.max_codes, self.num_codes = dvae, padding, max_codes, num_codes

    @classmethod
    def for_model(
        cls,
        config: PreTrainedConfig,
        tokenizer: PreTrainedTokenizerBase,
        feature_extractor: ClvpFeatureExtractor | None = None,
        dvae: DiscreteVAE | None = None,
        max_codes: int = 500,
    ) -> CLVPProcessor:
        """A processor with the padding and the speech vocabulary of a model's `CLVPConfig`."""
        num_codes = config.speech_config.vocab_size
        return cls(feature_extractor or ClvpFeatureExtractor(), tokenizer, dvae, config.padding, max_codes, num_codes)

    def __call__(
        self,
        text: str | Sequence[str] | None = None,
        speech: Any = None,
        audio: Any = None,
        sampling_rate: int | None = None,
        return_tensors: str = "pt",
        **kwargs: Any,
    ) -> BatchFeature:
        """Returns the inputs of `CLVPModel` for texts, speech, or both.

        Args:
            text: a text or a list of texts.
            speech: a sequence of speech codes (S,) or a list of them. Start and stop tokens, and what tortoise-tts or
                transformers pad codes with, are removed.
            audio: instead of `speech`, a recording (N,) or a list of them, mono samples in [-1, 1], which the DVAE encodes.
            sampling_rate: of `audio`, which must be 22 050 Hz; transformers logs a warning if it is not given.
            return_tensors: "pt" or "np".

        Returns:
            `input_ids` and `attention_mask` (B, T); `speech_ids` and `speech_attention_mask` (B, S).

        Raises:
            ValueError: neither text nor speech, both forms of speech, a recording without a DVAE or at another rate, a text or
                speech without tokens, ids outside of the vocabulary, or texts that a model with padding "tortoise" cannot
                encode in one batch.
        """
        if kwargs:
            raise TypeError(f"CLVPProcessor does not take {', '.join(kwargs)}.")
        if speech is not None and audio is not None:
            raise ValueError("speech, audio: set one of them. speech=… are codes, audio=… are recordings.")
        if text is None and speech is None and audio is None:
            raise ValueError("text, speech, audio: set at least one of them.")
        inputs = dict[str, torch.Tensor]()
        if text is not None:
            ids = self._text_ids([text] if isinstance(text, str) else text)
            zeros = 1 if self.padding == "tortoise" else 0  # no others, which such a model would read as text
            inputs |= zip(("input_ids", "attention_mask"), pad(ids, multiple=1, zeros=zeros))
        if speech is not None or audio is not None:
            codes = self._encode(audio, sampling_rate) if speech is None else self._speech_ids(_as_list(speech))
            names = ("speech_ids", "speech_attention_mask")
            inputs |= zip(names, Padding(self.padding, self.max_codes).speech(codes, [True] * len(codes)))
        return BatchFeature({name: ids.long().numpy() for name, ids in inputs.items()}, tensor_type=return_tensors)

    def _text_ids(self, texts: Sequence[str]) -> list[torch.Tensor]:
        ids = [torch.tensor(self.tokenizer(text)["input_ids"]).long() for text in texts]
        for number, (text, ids_T) in enumerate(zip(texts, ids)):
            if not len(ids_T):
                raise ValueError(f"text {number} {text[:40]!r}: no tokens. Use letters that the tokenizer knows.")
        if self.padding == "tortoise" and len({len(ids_T) for ids_T in ids}) > 1:
            raise ValueError(
                "text: a model with padding='tortoise' reads padding as text. Give texts one at a time, or use "
                "clvp_train.Reranker, which gives the same scores in batches."
            )
        return ids

    def _speech_ids(self, speech: Sequence[Any]) -> list[torch.Tensor]:
        codes = [torch.as_tensor(codes_S) for codes_S in speech]
        for number, codes_S in enumerate(codes):
            if codes_S.dim() != 1 or not len(codes_S) or codes_S.is_floating_point():
                raise ValueError(f"speech {number}: not a sequence of codes. Give recordings as audio=….")
        codes = [strip_padding(codes_S.long(), self.num_codes) for codes_S in codes]
        for number, codes_S in enumerate(codes):
            if codes_S.min() < 0 or codes_S.max() >= self.num_codes:
                raise ValueError(f"speech {number}: codes must be 0 to {self.num_codes - 1}.")
        return codes

    @torch.no_grad()
    def _encode(self, audio: Any, sampling_rate: int | None) -> list[torch.Tensor]:
        """Recordings to (S,) codes each."""
        if self.dvae is None:
            raise ValueError(
                "audio: this processor has no DVAE, which encodes recordings. Give codes as speech=…, or pass dvae=… to "
                "from_pretrained."
            )
        options: dict[str, Any] = {"truncation": False, "padding": False, "return_attention_mask": False}
        codes = list[torch.Tensor]()
        for clip_N in _as_list(audio):
            samples_N = np.asarray(clip_N)
            if samples_N.ndim != 1 or samples_N.dtype.kind != "f":
                raise ValueError("audio: not mono samples in [-1, 1]. Give one-dimensional floating-point arrays.")
            samples_N = samples_N.astype(np.float32)
            features = self.feature_extractor(samples_N, sampling_rate=sampling_rate, **options)["input_features"]
            mel_1MF = torch.from_numpy(np.asarray(features))
            codes += self.dvae.codes(mel_1MF, torch.tensor([mel_1MF.shape[-1]]))
        return codes

    def to_dict(self) -> dict[str, Any]:
        """The fields of processor_config.json."""
        without_weights = copy.copy(self)
        without_weights.dvae = None
        fields: dict[str, Any] = ProcessorMixin.to_dict(without_weights)
        del fields["dvae"]
        return fields

    def save_pretrained(self, save_directory: Any, push_to_hub: bool = False, **kwargs: Any) -> None:
        """As in transformers; a DVAE is saved in the subfolder dvae/."""
        Path(save_directory, "SHA256SUMS").unlink(missing_ok=True)  # of the files that are replaced, as for the model
        if self.dvae is not None:
            self.dvae.save_pretrained(Path(save_directory, DVAE_FOLDER))
        super().save_pretrained(save_directory, push_to_hub, **kwargs)

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, pretrained_model_name_or_path: Any, *, dvae: DiscreteVAE | None = None, **kwargs: Any
    ) -> CLVPProcessor:
        """Opens a folder or Hub id of a model that was saved with or without a processor.

        Args:
            pretrained_model_name_or_path: as in transformers.
            dvae: instead of the saved one.
            kwargs: `revision`, `token` etc., and fields of the processor.
        """
        name, hub = pretrained_model_name_or_path, {key: kwargs[key] for key in HUB_ARGUMENTS if key in kwargs}
        if _find(name, PROCESSOR_FILE, hub):
            processor = super().from_pretrained(name, **kwargs)
        else:  # a model of an earlier version
            kwargs.pop("_from_auto", None)
            tokenizer: Any = AutoTokenizer.from_pretrained(name, **kwargs)
            processor = cls.for_model(AutoConfig.from_pretrained(name, **kwargs), tokenizer)
        folder = str(Path(hub.pop("subfolder", None) or "", DVAE_FOLDER))
        files = [_find(name, file, hub | {"subfolder": folder}) for file in (CONFIG_FILE, WEIGHTS_FILE)]
        saved = [Path(file) for file in files if file]
        processor.dvae = DiscreteVAE.from_files(*saved) if dvae is None and len(saved) == len(files) else dvae
        return processor


def _find(name: Any, file: str, hub: dict[str, Any]) -> str | None:
    """The path of a file of a folder or Hub id; None if there is none."""
    found: str | None = cached_file(name, file, _raise_exceptions_for_missing_entries=False, **hub)
    return found


def _as_list(sequences: Any) -> Sequence[Any]:
    """A batch of sequences from one or several of them: a list of rows, an array, or a tensor."""
    if isinstance(sequences, (np.ndarray, torch.Tensor)):
        return list(sequences if sequences.ndim > 1 else sequences[None])
    return [sequences] if len(sequences) and np.ndim(sequences[0]) == 0 else sequences


# `save_pretrained` also copies this file and those that it imports from its folder
CLVPProcessor.register_for_auto_class()

__all__ = ["CLVPProcessor"]
