"""Re-ranks candidates with a trained CLVP. Shapes: N pairs, X distinct sequences, T text length, S speech length, D width."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch.nn.functional import normalize
from transformers import PreTrainedTokenizerBase

from clvp_train.errors import UserError
from clvp_train.inference.chunked_encoding import default_chunk_tokens, encode_in_chunks
from clvp_train.metrics import TokenPairs, percentile, read_score_table, read_token_pairs, weight_of
from clvp_train.models import CLVPModel, load_clvp, move_to_device, resolve_checkpoint
from clvp_train.tortoise.generation import Candidate
from clvp_train.tortoise.padding import Padding
from clvp_train.tortoise.silence_padding import IGNORED, SILENCE_CODE, SILENCE_TAIL, strip_padding
from clvp_train.tortoise.tokenizer import loses_most_letters, read_saved_tokenizer

Ids = Sequence[int] | np.ndarray | torch.Tensor
Text = str | Ids

__all__ = ["Ranking", "Reranker"]


@dataclass(frozen=True)
class Ranking:
    """The ranked candidates of one text."""

    order: tuple[int, ...]  # indices of the candidates, the highest score first; of equal scores the first candidate
    scores: tuple[float, ...]  # cosine similarity of the text and each candidate, in the given order
    percentiles: tuple[float, ...] | None  # percentage of matched pairs with a lower score; None without a score table
    combined_scores: tuple[float, ...] | None = None  # `Reranker.combined`, which `order` is by; None: by `scores`
    voice_scores: tuple[float, ...] | None = None  # similarity to the reference clips; None without any


class Reranker:
    """Scores candidates with a trained CLVP.

    Args:
        model: is put into eval mode, and changed to use attention masks, whatever its padding.
        tokenizer: of texts; None if all texts are given as token ids.
        score_table: of `metrics.score_table`; None for rankings without percentiles.
        chunk_tokens: positions that an encoder processes at once, see `encode_in_chunks`; None: a default by device.
        max_codes: for a model with padding "tortoise": the length that codes are padded to.
        source: name of the model in messages.
        log_probability_weight: candidates are ranked by score + weight × log-probability per code under the AR, if all of a
            text carry one. 0: by the score alone.
        voice: re-ranker of a model of voices, which was trained on pairs of `import_pairs` with match=voice; None: there is
            none.
        voice_weight: candidates are ranked by score + weight × voice score, if there is `voice` and a text has references.
        token_pairs: of the training texts; None: no text counts as unfamiliar.

    Raises:
        UserError: the model lacks the codes that its padding needs, or `voice` has other codes or reads texts.
    """

    def __init__(
        self,
        model: CLVPModel,
        tokenizer: PreTrainedTokenizerBase | None = None,
        score_table: dict[str, Any] | None = None,
        chunk_tokens: int | None = None,
        max_codes: int = 500,
        source: str = "the model",
        log_probability_weight: float = 0.0,
        voice: "Reranker | None" = None,
        voice_weight: float = 1.0,
        token_pairs: TokenPairs | None = None,
    ) -> None:
        config = model.config
        self.num_codes, needed = config.speech_config.vocab_size, 1 + max(SILENCE_CODE, *SILENCE_TAIL)
        if config.padding == "tortoise" and self.num_codes < needed:
            raise UserError(
                f"{source}: {self.num_codes} speech codes, but padding=tortoise needs at least {needed}. Use padding=mask."
            )
        self.padding = Padding(config.padding, max_codes)
        # tortoise-tts scores pairs one by one and unpadded; a batch with masks gives the same scores
        config.text_config.padding = config.speech_config.padding = "mask"
        self.model, self.tokenizer, self.score_table = model.eval(), tokenizer, score_table
        self.chunk_tokens = default_chunk_tokens(model.device) if chunk_tokens is None else chunk_tokens
        self.source, self.log_probability_weight = source, log_probability_weight
        self.voice, self.voice_weight = voice, voice_weight
        if voice is not None:
            read, compared = voice.model.config.text_config.vocab_size, voice.num_codes
            if compared != self.num_codes or read < compared:
                raise UserError(
                    f"voice: a model of {read} text tokens and {compared} speech codes, not one of voices for the "
                    f"{self.num_codes} codes of {source}. Use one that was trained on them with match=voice."
                )
        self.token_pairs = token_pairs

    @classmethod
    def from_pretrained(
        cls,
        checkpoint: str | Path,
        tokenizer: str | Path | None = None,
        device: str = "cpu",
        chunk_tokens: int | None = None,
        max_codes: int = 500,
        log_probability_weight: float | str | None = None,
        voice: str | Path | None = None,
        voice_weight: float = 1.0,
    ) -> "Reranker":
        """Loads a checkpoint with its tokenizer and score table.

        Args:
            checkpoint: as in `models.load_clvp`: the `model` folder of a run, a Hub id, a .ckpt, a `clvp2.pth`.
            tokenizer: folder with the tokenizer of texts; None: the one in the checkpoint's folder, if there is one.
            device: of the model.
            chunk_tokens, max_codes: as above.
            log_probability_weight: as above; None: 0; "stored": the one in the score table, which an evaluation with a judge
                has chosen.
            voice: checkpoint of a model of voices; None: there is none.
            voice_weight: as above.

        Raises:
            UserError: the checkpoint, tokenizer or device does not exist, or is corrupt, or there is no such weight.
        """
        path = resolve_checkpoint(checkpoint)
        own = path if (path / "tokenizer_config.json").exists() else None
        folder = own if tokenizer is None else Path(tokenizer).expanduser()
        reader = None if folder is None else read_saved_tokenizer(folder)
        table = read_score_table(path)
        weight, model = weight_of(log_probability_weight, table, checkpoint), load_clvp(path)
        move_to_device(model, device)
        try:
            of_voices = None if voice is None else cls.from_pretrained(voice, None, device, chunk_tokens, max_codes)
        except UserError as error:
            raise UserError(str(error).replace("checkpoint=", "voice=")) from None
        name = f"checkpoint={checkpoint}"
        pairs = read_token_pairs(path)
        return cls(model, reader, table, chunk_tokens, max_codes, name, weight, of_voices, voice_weight, pairs)

    def rank(
        self,
        texts: Sequence[Text],
        candidates: Sequence[Sequence[Candidate | Ids]],
        references: Sequence[Sequence[Ids]] | None = None,
    ) -> list[Ranking]:
        """Ranks the candidates of each text.

        Args:
            texts: strings, or token ids (T,) each.
            candidates: one or more for each text: codes (S,), as tortoise-tts pads them or without padding, or results of
                `FrozenTortoise.candidates`. Plain codes count as finished: ended by the AR before its limit. They carry no
                log-probability.
            references: for each text the codes of zero or more clips of the voice that it should be spoken in, each (S,);
                None: there are none.

        Returns:
            One ranking per text.

        Raises:
            UserError: a text without tokens or candidates, ids that the model does not know, strings without a tokenizer, or
                references without a model of voices.
        """
        for name, lists in (("candidates", candidates), ("references", references)):
            if lists is not None and len(lists) != len(texts):
                raise UserError(
                    f"{name}: {len(lists)} lists, but there are {len(texts)} texts. Give one list of {name} per text."
                )
        if references is not None and self.voice is None:
            raise UserError("references: there is no model of voices to compare them with. Set voice to one.")
        text_ids, speech_ids, finished = list[torch.Tensor](), list[torch.Tensor](), list[bool]()
        per_code, clips = list[float](), list[list[torch.Tensor]]()
        for number, (text, of_text, of_voice) in enumerate(zip(texts, candidates, references or [()] * len(texts))):
            name = _text_name(number, text)
            if not len(of_text):
                raise UserError(f"{name}: no candidates. Give at least one.")
            text_ids += [self.text_ids(text, name)] * len(of_text)
            clips.append([self.speech_ids(clip, f"reference of {name}") for clip in of_voice])
            for index, candidate in enumerate(of_text):
                drawn = candidate if isinstance(candidate, Candidate) else None
                codes = cast(Ids, candidate) if drawn is None else drawn.codes
                speech_ids.append(self.speech_ids(codes, f"candidate {index} of {name}"))
                finished.append(drawn is None or drawn.finished)
                per_code.append(np.nan if drawn is None else drawn.log_probability_per_code)
        if not len(texts):
            return []
        ends = np.cumsum([len(of_text) for of_text in candidates])[:-1]
        scores_N, voice_N = self.scores(text_ids, speech_ids, finished), np.full(len(per_code), np.nan)
        if self.voice is not None:
            sizes = torch.tensor([len(of_text) for of_text in candidates])
            voices_ND = self.voice_embeddings(clips).repeat_interleave(sizes, dim=0)
            voice_N = self.voice_scores(voices_ND, speech_ids, finished)
        return [self._ranking(*of_text) for of_text in zip(*(np.split(x, ends) for x in (scores_N, per_code, voice_N)))]

    def is_unfamiliar(self, text: Text) -> bool:
        """Whether a text is unlike those of the training, see `metrics.TokenPairs`: its scores then mean little.

        Raises:
            UserError: as `text_ids`.
        """
        return self.token_pairs is not None and self.token_pairs.is_unfamiliar(self.text_ids(text, "text").tolist())

    def text_ids(self, text: Text, name: str) -> torch.Tensor:
        """Returns (T,) token ids of a text, which messages call `name`.

        Raises:
            UserError: there are none, or some that the model does not know, or the text is a string and there is no tokenizer
                that knows its letters.
        """
        if isinstance(text, str):
            if self.tokenizer is None:
                raise UserError(
                    f"{name}: cannot be read, because {self.source} has no tokenizer. Set tokenizer to a folder with one, or "
                    "give texts as token ids."
                )
            ids = self.tokenizer(text)["input_ids"] if text.strip() else []
            if not ids or loses_most_letters(self.tokenizer, text):
                problem = "less than half of the letters have tokens" if ids else "no tokens"
                raise UserError(f"{name}: {problem}. Use letters that the tokenizer of {self.source} knows.")
            text = ids
        return self._checked(self._tensor(text, "token", name), self.model.config.text_config.vocab_size, "token", name)

    def speech_ids(self, codes: Ids, name: str) -> torch.Tensor:
        """Returns (S,) codes of a candidate without its padding, see `strip_padding`. Messages call it `name`. Raises UserError
        as `text_ids` does. Codes may be floats of integer values, as a table with gaps stores them."""
        codes_S = self._tensor(codes, "code", name)
        if codes_S.dim() == 1:
            if codes_S.is_floating_point():
                codes_S = codes_S.nan_to_num(nan=IGNORED[0])
                codes_S = codes_S.long() if codes_S.equal(codes_S.round()) else codes_S
            codes_S = strip_padding(codes_S, self.num_codes)
        return self._checked(codes_S, self.num_codes, "code", name)

    @torch.inference_mode()
    def scores(
        self, texts: Sequence[torch.Tensor], speech: Sequence[torch.Tensor], finished: Sequence[bool]
    ) -> np.ndarray:
        """Returns (N,) cosine similarities of texts with codes, float64. Repeated sequences are embedded once.

        Args:
            texts: (T,) token ids each, of `text_ids`.
            speech: (S,) codes each, of `speech_ids`.
            finished: whether the AR ended the codes before its limit.
        """
        if not len(texts):
            return np.empty(0)
        return (self._embed_texts(texts) * self._embed_speech(speech, finished)).sum(dim=1).numpy()

    @torch.inference_mode()
    def voice_embeddings(self, references: Sequence[Sequence[torch.Tensor]]) -> torch.Tensor:
        """Returns (V, D) the mean of the normalised embeddings of each voice's reference clips, float64; NaN where there are
        none. `voice` must not be None.

        Args:
            references: (S,) codes each, of `speech_ids`.
        """
        assert self.voice is not None
        clips, counts_V = (
            [clip for of_voice in references for clip in of_voice],
            torch.tensor(list(map(len, references))),
        )
        sums_VD = torch.zeros(len(references), self.voice.model.config.projection_dim, dtype=torch.float64)
        if clips:
            voice_of_X = torch.arange(len(references)).repeat_interleave(counts_V)
            sums_VD.index_add_(0, voice_of_X, self.voice._embed_texts(clips))
        return sums_VD / counts_V[:, None]

    @torch.inference_mode()
    def voice_scores(
        self, voices_ND: torch.Tensor, speech: Sequence[torch.Tensor], finished: Sequence[bool]
    ) -> np.ndarray:
        """Returns (N,) the mean cosine similarity of each candidate with the reference clips of its voice; NaN where there are
        none. `voice` must not be None.

        Args:
            voices_ND: of `voice_embeddings`, for each candidate.
            speech, finished: as in `scores`.
        """
        assert self.voice is not None
        return (voices_ND * self.voice._embed_speech(speech, finished)).sum(dim=1).numpy()

    @property
    def combines(self) -> bool:
        """Whether candidates may be ranked by more than their score."""
        return bool(self.log_probability_weight) or self.voice is not None

    def percentiles(self, scores: np.ndarray) -> list[float] | None:
        """Returns the percentage of matched pairs with a lower score; None without a score table."""
        return None if self.score_table is None else [percentile(self.score_table, score) for score in scores.tolist()]

    def combined(
        self,
        scores_N: np.ndarray,
        per_code_N: np.ndarray,
        voice_N: np.ndarray,
        texts_N: np.ndarray | int = 0,
    ) -> np.ndarray:
        """Returns (N,) what candidates are ranked by: score + weight × log-probability per code + weight × voice score. What is
        unknown for a candidate counts for none of its text.

        Args:
            scores_N: of `scores`.
            per_code_N: log-probabilities per code under the AR; NaN if unknown.
            voice_N: of `voice_scores`.
            texts_N: the number of each candidate's text; by default all are of one text.
        """
        texts_N = np.broadcast_to(texts_N, scores_N.shape)
        combined_N = scores_N.copy()
        for weight, values_N in ((self.log_probability_weight, per_code_N), (self.voice_weight, voice_N)):
            is_known_N = ~np.isin(texts_N, texts_N[np.isnan(values_N)])
            combined_N += np.where(is_known_N, weight * values_N, 0.0)
        return combined_N

    def _embed_texts(self, texts: Sequence[torch.Tensor]) -> torch.Tensor:
        """(N, D) normalised embeddings, float64."""
        text_of_N, first = _distinct([ids.numpy().tobytes() for ids in texts])
        padded = self.padding.texts([texts[index] for index in first])
        return self._embed(self.model.get_text_features, *padded)[text_of_N]

    def _embed_speech(self, speech: Sequence[torch.Tensor], finished: Sequence[bool]) -> torch.Tensor:
        """(N, D) normalised embeddings, float64."""
        speech_of_N, first = _distinct([(ids.numpy().tobytes(), ended) for ids, ended in zip(speech, finished)])
        padded = self.padding.speech([speech[index] for index in first], [finished[index] for index in first])
        return self._embed(self.model.get_speech_features, *padded)[speech_of_N]

    def _embed(self, encode: Callable[..., torch.Tensor], ids_XL: torch.Tensor, mask_XL: torch.Tensor) -> torch.Tensor:
        def on_device(ids: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
            device = self.model.device
            return encode(ids.to(device), None if mask is None else mask.to(device))

        embeds_XD = encode_in_chunks(on_device, ids_XL, mask_XL, self.chunk_tokens)
        return normalize(embeds_XD.cpu().double(), dim=-1)

    def _ranking(self, scores: np.ndarray, per_code: np.ndarray, voice: np.ndarray) -> Ranking:
        percentiles, combined = self.percentiles(scores), self.combined(scores, per_code, voice)
        return Ranking(
            tuple(np.argsort(-combined, kind="stable").tolist()),
            tuple(scores.tolist()),
            None if percentiles is None else tuple(percentiles),
            tuple(combined.tolist()) if self.combines else None,
            None if np.isnan(voice).any() else tuple(voice.tolist()),
        )

    def _tensor(self, ids: Ids, kind: str, name: str) -> torch.Tensor:
        try:
            ids_L = torch.as_tensor(ids)
        except (TypeError, ValueError, RuntimeError) as error:
            raise UserError(f"{name}: not a sequence of {kind}s ({error}). Give integers.") from None
        if not ids_L.numel():
            raise UserError(f"{name}: no {kind}s. Give at least one, or leave it out.")
        return ids_L

    def _checked(self, ids_L: torch.Tensor, size: int, kind: str, name: str) -> torch.Tensor:
        if ids_L.dim() != 1 or ids_L.is_floating_point() or ids_L.dtype == torch.bool:
            raise UserError(f"{name}: not a sequence of {kind}s. Give a one-dimensional sequence of integers.")
        ids_L = ids_L.cpu().long()  # torch has no min for uint16
        low, high = ids_L.min().item(), ids_L.max().item()
        if low < 0 or high >= size:
            raise UserError(
                f"{name}: {kind} {low if low < 0 else high}, but {self.source} knows 0 to {size - 1}. "
                "Use the Tortoise that the model was trained with."
            )
        return ids_L


def _text_name(number: int, text: Text) -> str:
    if not isinstance(text, str):
        return f"text {number}"
    start = text if len(text) <= 40 else text[:40] + "…"
    return f"text {number} {start!r}"


def _distinct(keys: Sequence[Any]) -> tuple[list[int], list[int]]:
    """The number of each key among the distinct keys, and the index at which each of these occurs first."""
    numbers = dict[Any, int]()
    of_keys = [numbers.setdefault(key, len(numbers)) for key in keys]
    return of_keys, np.unique(of_keys, return_index=True)[1].tolist()
