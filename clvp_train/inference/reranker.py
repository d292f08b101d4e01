"""Picking the candidate that says a text best. Shapes: N pairs, T text length, S speech length, D width."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch.nn.functional import normalize
from transformers import PreTrainedTokenizerBase

from clvp_train.data.collate import Padding
from clvp_train.errors import UserError, check_number
from clvp_train.inference.chunked_encoding import encode_in_chunks
from clvp_train.metrics import percentile, read_score_table
from clvp_train.models import CLVPModel, load_clvp, resolve_checkpoint
from clvp_train.tortoise.generation import Candidate
from clvp_train.tortoise.silence_padding import SILENCE_CODE, SILENCE_TAIL
from clvp_train.tortoise.tokenizer import read_saved_tokenizer

Codes = Sequence[int] | np.ndarray | torch.Tensor
Text = str | Codes


@dataclass(frozen=True)
class Ranking:
    """How the candidates of one text compare."""

    order: tuple[int, ...]  # places of candidates, the best first; of equal ones the first
    scores: tuple[float, ...]  # cosine similarity of the text and each candidate, in the order given
    percentiles: tuple[float, ...] | None  # per cent of true pairs that score lower; None without a score table


class Reranker:
    """Scores candidates by a trained CLVP, as it is served.

    Args:
        model: taken over: put into eval mode, and made to honour the masks of batches whatever its padding.
        tokenizer: of texts; None if all texts are given as token ids.
        score_table: of `metrics.score_table`; None for rankings without percentiles.
        chunk_size: sequences that an encoder takes at once, sorted by length.
        max_codes: with a model of padding "tortoise": codes that it is served.
        source: what to call the model in messages.

    Raises:
        UserError: a bad setting, or a model that cannot be padded as it says that it is served.
    """

    def __init__(
        self,
        model: CLVPModel,
        tokenizer: PreTrainedTokenizerBase | None = None,
        score_table: dict[str, Any] | None = None,
        chunk_size: int = 32,
        max_codes: int = 500,
        source: str = "the model",
    ) -> None:
        check_number("chunk_size", chunk_size, 1)
        check_number("max_codes", max_codes, 1 + len(SILENCE_TAIL))
        config = model.config
        self.num_codes, calm = config.speech_config.vocab_size, max(SILENCE_CODE, *SILENCE_TAIL)
        if config.padding == "tortoise" and self.num_codes <= calm:
            raise UserError(
                f"{source} has {self.num_codes} codes, too few for its padding=tortoise, which takes code {calm}"
            )
        self.padding = Padding(config.padding, max_codes)
        # what tortoise-tts scores one by one and unpadded comes to the same in a batch whose masks count
        config.text_config.padding = config.speech_config.padding = "mask"
        self.model, self.tokenizer, self.score_table = model.eval(), tokenizer, score_table
        self.chunk_size, self.source = chunk_size, source

    @classmethod
    def from_pretrained(
        cls,
        checkpoint: str | Path,
        tokenizer: str | Path | None = None,
        device: str = "cpu",
        chunk_size: int = 32,
        max_codes: int = 500,
    ) -> "Reranker":
        """Opens a checkpoint with the tokenizer and the score table that lie beside it.

        Args:
            checkpoint: whatever `models.load_clvp` opens: the folder `model` of a run, a Hub id, a .ckpt, a `clvp2.pth`.
            tokenizer: a folder with the tokenizer of texts; None: the checkpoint's own, if it is a folder that has one.
            device: where the model runs.
            chunk_size, max_codes: as above.

        Raises:
            UserError: there is no such checkpoint, tokenizer or device, or one is damaged.
        """
        path = resolve_checkpoint(checkpoint)
        beside = path if (path / "tokenizer_config.json").exists() else None
        folder = beside if tokenizer is None else Path(tokenizer).expanduser()
        reader = None if folder is None else read_saved_tokenizer(folder)
        table, model = read_score_table(path), load_clvp(path)
        try:
            cast(torch.nn.Module, model).to(device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).partition("\n")[0]
            raise UserError(f"device={device} cannot be used ({reason}): set device=cpu, or mend the driver") from None
        return cls(model, reader, table, chunk_size, max_codes, f"checkpoint={checkpoint}")

    def rank(self, texts: Sequence[Text], candidates: Sequence[Sequence[Candidate | Codes]]) -> list[Ranking]:
        """Ranks the candidates of each text.

        Args:
            texts: strings, or token ids (T,) each.
            candidates: of each text one or more: codes (S,), without a stop token, or what `FrozenTortoise.candidates` drew.
                Of plain codes it is taken that the AR ended them itself.

        Returns:
            One ranking a text.

        Raises:
            UserError: a text without tokens or candidates, ids that the model does not know, or strings without a tokenizer.
        """
        if len(texts) != len(candidates):
            raise UserError(
                f"{len(texts)} texts with candidates of {len(candidates)}: give a list of candidates for each"
            )
        text_ids, speech_ids, finished = list[torch.Tensor](), list[torch.Tensor](), list[bool]()
        for number, (text, of_text) in enumerate(zip(texts, candidates)):
            name = _name(number, text)
            if not len(of_text):
                raise UserError(f"{name} has no candidates: give one or more")
            text_ids += [self.text_ids(text, name)] * len(of_text)
            for place, candidate in enumerate(of_text):
                codes, ended = _drawn(candidate)
                speech_ids.append(self.speech_ids(codes, f"candidate {place} of {name}"))
                finished.append(ended)
        scores_N = self.scores(text_ids, speech_ids, finished)
        ends = np.cumsum([len(of_text) for of_text in candidates])[:-1]
        return [self._ranking(scores) for scores in np.split(scores_N, ends)] if len(texts) else []

    def text_ids(self, text: Text, name: str) -> torch.Tensor:
        """(T,) token ids of a text, which messages call `name`.

        Raises:
            UserError: it gives none, or some that the model does not know, or it is a string and there is no tokenizer.
        """
        if isinstance(text, str):
            if self.tokenizer is None:
                raise UserError(
                    f"{self.source} comes without a tokenizer, so that it cannot read {name}: set tokenizer to a folder that "
                    "holds one, or give texts as token ids"
                )
            ids = self.tokenizer(text)["input_ids"] if text.strip() else []
            if not ids:
                raise UserError(
                    f"{name} gives no tokens: write it in letters that the tokenizer of {self.source} knows"
                )
            text = ids
        return self._ids(text, self.model.config.text_config.vocab_size, "token", name)

    def speech_ids(self, codes: Codes, name: str) -> torch.Tensor:
        """(S,) codes of a candidate, which messages call `name`. Raises UserError as `text_ids` does."""
        return self._ids(codes, self.num_codes, "code", name)

    @torch.inference_mode()
    def scores(
        self, texts: Sequence[torch.Tensor], speech: Sequence[torch.Tensor], finished: Sequence[bool]
    ) -> np.ndarray:
        """(N,) cosine similarities of texts with codes, float64. What occurs several times is embedded once.

        Args:
            texts: (T,) token ids each, of `text_ids`.
            speech: (S,) codes each, of `speech_ids`.
            finished: whether the AR ended them itself.
        """
        if not len(texts):
            return np.empty(0)
        text_of_N, first = _distinct([ids.numpy().tobytes() for ids in texts])
        texts_XD = self._embed(self.model.get_text_features, *self.padding.texts([texts[place] for place in first]))
        speech_of_N, first = _distinct([(ids.numpy().tobytes(), ended) for ids, ended in zip(speech, finished)])
        padded = self.padding.speech([speech[place] for place in first], [finished[place] for place in first])
        speech_XD = self._embed(self.model.get_speech_features, *padded)
        return (texts_XD[text_of_N] * speech_XD[speech_of_N]).sum(dim=1).numpy()

    def percentiles(self, scores: np.ndarray) -> list[float] | None:
        """Per cent of true pairs that score lower; None without a score table."""
        return None if self.score_table is None else [percentile(self.score_table, score) for score in scores.tolist()]

    def _embed(self, encode: Callable[..., torch.Tensor], ids_XL: torch.Tensor, mask_XL: torch.Tensor) -> torch.Tensor:
        def on_device(ids: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
            device = self.model.device
            return encode(ids.to(device), None if mask is None else mask.to(device))

        embeds_XD = encode_in_chunks(on_device, ids_XL, mask_XL, self.chunk_size)
        return normalize(embeds_XD.cpu().double(), dim=-1)

    def _ranking(self, scores: np.ndarray) -> Ranking:
        found = self.percentiles(scores)
        order = np.argsort(-scores, kind="stable")
        return Ranking(tuple(order.tolist()), tuple(scores.tolist()), None if found is None else tuple(found))

    def _ids(self, ids: Codes, size: int, kind: str, name: str) -> torch.Tensor:
        try:
            ids_L = torch.as_tensor(ids)
        except (TypeError, ValueError, RuntimeError) as error:
            raise UserError(f"{name} is no sequence of {kind}s ({error}): give whole numbers") from None
        if not ids_L.numel():
            raise UserError(f"{name} has no {kind}s: give one or more, or leave it out")
        if ids_L.dim() != 1 or ids_L.is_floating_point() or ids_L.dtype == torch.bool:
            raise UserError(f"{name} is no sequence of {kind}s: give whole numbers, one after another")
        ids_L = ids_L.cpu().long()  # a smallest of uint16 is unknown to torch
        low, high = ids_L.min().item(), ids_L.max().item()
        if low < 0 or high >= size:
            raise UserError(
                f"{name} has {kind} {low if low < 0 else high}, but {self.source} knows 0 to {size - 1}: it is of another "
                "Tortoise than the model was trained with"
            )
        return ids_L


def _name(number: int, text: Text) -> str:
    if not isinstance(text, str):
        return f"text {number}"
    start = text if len(text) <= 40 else text[:40] + "…"
    return f"text {number} {start!r}"


def _drawn(candidate: Candidate | Codes) -> tuple[Codes, bool]:
    """Codes, and whether the AR ended them itself."""
    return (candidate.codes, candidate.finished) if isinstance(candidate, Candidate) else (candidate, True)


def _distinct(keys: Sequence[Any]) -> tuple[list[int], list[int]]:
    """The number of each key among the distinct ones, and where these occur first."""
    numbers = dict[Any, int]()
    of_keys = [numbers.setdefault(key, len(numbers)) for key in keys]
    return of_keys, np.unique(of_keys, return_index=True)[1].tolist()


__all__ = ["Ranking", "Reranker"]
