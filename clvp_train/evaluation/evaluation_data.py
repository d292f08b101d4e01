"""The data that checkpoints are evaluated on, made from a folder of pairs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from clvp_train.data.datamodule import CLVPDataModule
from clvp_train.errors import UserError
from clvp_train.evaluation.held_out import CandidateSets, HeldOut
from clvp_train.evaluation.perturbation_suite import (
    PerturbationSuite,
    PerturbedPairs,
    change_voices,
    perturb_codes,
    perturb_texts,
)
from clvp_train.metrics import Judge
from clvp_train.pairs import open_tokenizer

RERANKING, WORD_ERRORS, MEL_DISTANCE = "re-ranking", "word error rate", "mel distance"  # keys of `left_out`


@dataclass(frozen=True)
class RerankConfig:
    """Settings of the re-ranking part, in the config group `rerank`."""

    pairs: str | None = (
        None  # folder of pairs with several candidates per text; None: the evaluated pairs, or drawn now
    )
    num_texts: int = 100  # at most; 0 skips the part
    num_candidates: int = 16  # per text, if they are drawn now
    asr: str | None = None  # speech recognition model for word and character error rates, see `find_recognizer`
    recordings: str | None = None  # codes of recordings, see `stored_recordings`; None: the corpus's audio


@dataclass(frozen=True)
class EvaluationData:
    """The data of an evaluation, the same for all checkpoints that are compared."""

    pairs: HeldOut  # one per distinct text
    perturbations: Sequence[PerturbedPairs] = ()  # of `pairs`
    candidates: CandidateSets | None = None
    judges: Mapping[str, Judge] = field(default_factory=dict)  # of the candidates, by name
    others: Mapping[str, HeldOut] = field(default_factory=dict)  # of other folders of pairs, by name
    reference: HeldOut | None = None  # the Fréchet distance compares the codes of `pairs` with these
    left_out: dict[str, str] = field(default_factory=dict)  # part of the report: why it is not measured
    matches_voices: bool = False  # the texts of `pairs` are voices, see `pairs.Manifest.matches_voices`


@dataclass(frozen=True)
class Reranking:
    """The candidates of an evaluation. They are few, unlike the texts of the test split, and need Tortoise."""

    candidates: CandidateSets | None = None
    judges: Mapping[str, Judge] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)  # as in `EvaluationData`


def check_inputs(datamodule: CLVPDataModule, suite: PerturbationSuite, reference: str | None = None) -> None:
    """Raises what `prepare` would raise, without reading the texts."""
    datamodule.check_split("test")
    if suite.num_pairs and not datamodule.manifest.matches_voices:
        open_tokenizer(datamodule.folder)
    if reference is not None:
        _open_pairs(reference, datamodule, "reference").check_split("test")


def prepare(
    datamodule: CLVPDataModule,
    suite: PerturbationSuite,
    reranking: Reranking,
    reference: str | None = None,
    limit: int | None = None,
) -> EvaluationData:
    """Reads the test split, perturbs copies of it, and adds candidates and reference.

    Args:
        datamodule: of the pairs.
        suite: number, sizes and seed of the perturbations.
        reranking: the candidates.
        reference: folder of pairs whose test split is the reference.
        limit: number of codes that the model sees at most; None: all.

    Raises:
        UserError: the test split has fewer than two texts, or the reference has another vocabulary or too few texts.
    """
    datamodule.check_split("test")
    pairs, left_out = HeldOut.first_candidates(datamodule.splits["test"], limit), {}
    if suite.num_pairs == 0:
        left_out["perturbations"] = "perturbations.num_pairs=0"
    elif datamodule.manifest.matches_voices:
        left_out["perturbations"] = "the pairs match voices, which they do not change"
    if reference is None:
        left_out["Fréchet distance"] = "set reference to a folder of reference pairs, such as codes of recordings"
    return EvaluationData(
        pairs,
        () if "perturbations" in left_out else _perturbations(datamodule, pairs, suite, reranking, limit),
        reranking.candidates,
        reranking.judges,
        others={
            name: HeldOut.first_candidates(splits["test"], limit)
            for name, splits in datamodule.mixture.splits.items()
            if name != datamodule.mixture.evaluated and len(splits["test"].text_index) > 1
        },
        reference=None if reference is None else _reference(reference, datamodule, limit),
        left_out=left_out | reranking.left_out,
        matches_voices=datamodule.manifest.matches_voices,
    )


def _perturbations(
    datamodule: CLVPDataModule, pairs: HeldOut, suite: PerturbationSuite, reranking: Reranking, limit: int | None
) -> list[PerturbedPairs]:
    tokenizer = open_tokenizer(datamodule.folder)
    perturbed = perturb_codes(pairs, suite, limit)
    perturbed += perturb_texts(pairs, suite, lambda text: tokenizer(text)["input_ids"])
    if reranking.candidates is not None:
        perturbed += change_voices(pairs, reranking.candidates, suite)
    return perturbed


def _reference(folder: str, datamodule: CLVPDataModule, limit: int | None) -> HeldOut:
    opened = _open_pairs(folder, datamodule, "reference")
    opened.check_split("test")
    return HeldOut.first_candidates(opened.splits["test"], limit)


def read_candidates(datamodule: CLVPDataModule, folder: str, num_texts: int, limit: int | None = None) -> CandidateSets:
    """The candidates of a folder of pairs.

    Args:
        datamodule: of the evaluated pairs.
        folder: pairs whose test split has several candidates per text.
        num_texts: at most.
        limit: as in `prepare`.

    Raises:
        UserError: the folder has another vocabulary, or no text with two candidates in its test split.
    """
    same = str(folder) == str(datamodule.folder)
    others = datamodule if same else _open_pairs(folder, datamodule, "rerank.pairs")
    sets = CandidateSets.read(others.splits["test"], num_texts, limit)
    if sets is None:
        raise UserError(
            f"rerank.pairs={folder}: no text of its test split has more than one candidate. Generate some with `python -m "
            "clvp_train.generate … num_candidates=16 split.test_percent=100 split.val_percent=0 output_dir=FOLDER`."
        )
    return sets


def _open_pairs(folder: str, datamodule: CLVPDataModule, setting: str) -> CLVPDataModule:
    """Raises UserError if the folder holds no pairs, or pairs with other vocabularies."""
    others = CLVPDataModule(folder, cache_gb=datamodule.cache_gb)
    there, here = others.manifest, datamodule.manifest
    if (there.text_vocab_size, there.speech_vocab_size) != (here.text_vocab_size, here.speech_vocab_size):
        raise UserError(
            f"{setting}={folder}: {there.text_vocab_size} text tokens and {there.speech_vocab_size} speech codes, but the "
            f"evaluated pairs in {datamodule.folder} have {here.text_vocab_size} and {here.speech_vocab_size}. Use pairs of "
            "the same Tortoise."
        )
    return others
