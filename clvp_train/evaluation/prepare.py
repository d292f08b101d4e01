"""From a folder of pairs to what checkpoints are judged by."""

from dataclasses import dataclass, replace

from clvp_train.codes import open_tokenizer
from clvp_train.data import CLVPDataModule
from clvp_train.errors import UserError, check_number
from clvp_train.evaluation.evaluation_data import EvaluationData
from clvp_train.evaluation.faults import FaultSuite, in_codes, in_texts, in_voices
from clvp_train.evaluation.held_out import CandidateSets, HeldOut
from clvp_train.evaluation.word_errors import count_word_errors
from clvp_train.tortoise import FrozenTortoise

FAULTS, RERANK, WORD_ERRORS, REFERENCE = "mistakes", "re-ranking", "word error rate", "Fréchet distance"


@dataclass(frozen=True)
class RerankConfig:
    """Of which candidates the best is picked. The names are those of the settings in `rerank`."""

    pairs: str | None = None  # a folder of pairs; None: the evaluated ones, or candidates drawn for them
    num_texts: int = 200
    num_candidates: int = 16  # where they are drawn
    asr: str | None = None  # a transformers model that writes them down

    def __post_init__(self) -> None:
        check_number("rerank.num_texts", self.num_texts, 0)
        check_number("rerank.num_candidates", self.num_candidates, 2)


def prepare(datamodule: CLVPDataModule, faults: FaultSuite, reference: str | None = None) -> EvaluationData:
    """The test split, mistakes in it, and what it is compared with, without candidates.

    Args:
        datamodule: of the pairs.
        faults: which mistakes are made.
        reference: a folder of pairs, whose test split's codes are the reference.

    Raises:
        UserError: a split is empty.
    """
    datamodule.check_not_empty("test")
    pairs, left_out = HeldOut.first_candidates(datamodule.splits["test"]), {}
    made = []
    if faults.num_pairs == 0:
        left_out[FAULTS] = "faults.num_pairs=0"
    else:
        tokenizer = open_tokenizer(datamodule.folder)
        made = [*in_codes(pairs, faults), *in_texts(pairs, faults, lambda text: tokenizer(text)["input_ids"])]
    if reference is None:
        left_out[REFERENCE] = (
            "set reference=FOLDER to pairs whose codes are as they should be, those of recordings for one"
        )
        return EvaluationData(pairs, made, left_out=left_out)
    others = CLVPDataModule(reference)
    _check_vocabularies(others, datamodule, f"reference={reference}")
    others.check_not_empty("test")
    return EvaluationData(pairs, made, reference=HeldOut.first_candidates(others.splits["test"]), left_out=left_out)


def add_candidates(
    data: EvaluationData,
    datamodule: CLVPDataModule,
    folder: str | None,
    why_none: str,
    rerank: RerankConfig,
    faults: FaultSuite,
    tortoise: FrozenTortoise | None,
) -> EvaluationData:
    """Adds the candidates of a folder, and what an ASR model understands of them.

    Args:
        data: without candidates.
        datamodule: of the evaluated pairs.
        folder: pairs whose test split has several candidates a text; None: there is none, for the reason `why_none`.
        why_none: see `folder`.
        rerank: how many texts, and the ASR model.
        faults: as in `prepare`; its shares serve for changes of voice too.
        tortoise: with the DVAE that knows the codes; None: no word error rates.

    Raises:
        UserError: the folder's codes are another Tortoise's, its test split has no text with two candidates, or the ASR
            model cannot be opened.
    """
    if folder is None:
        return replace(data, left_out=data.left_out | {RERANK: why_none})
    others = datamodule if str(folder) == str(datamodule.folder) else CLVPDataModule(folder)
    _check_vocabularies(others, datamodule, f"rerank.pairs={folder}")
    sets = CandidateSets.read(others.splits["test"], rerank.num_texts)
    if sets is None:
        raise UserError(
            f"rerank.pairs={folder}: no text of its test split has more than one candidate: draw some with `python -m "
            "clvp_train.generate … num_candidates=16 split.test_percent=100 split.val_percent=0 output_dir=FOLDER`"
        )
    spoilt = in_voices(sets, faults) if faults.num_pairs else []
    data = replace(data, candidates=sets, voice_faults=spoilt)
    if rerank.asr is None:
        return replace(
            data, left_out=data.left_out | {WORD_ERRORS: "set rerank.asr to a speech recogniser of transformers"}
        )
    if tortoise is None or tortoise.dvae is None:
        return replace(
            data, left_out=data.left_out | {WORD_ERRORS: "the Tortoise has no DVAE, which would make codes audible"}
        )
    errors, num_words = count_word_errors(sets, tortoise, rerank.asr)
    return replace(data, word_errors=errors, num_words=num_words)


def _check_vocabularies(others: CLVPDataModule, datamodule: CLVPDataModule, name: str) -> None:
    there, here = others.manifest, datamodule.manifest
    if (there.text_vocab_size, there.speech_vocab_size) != (here.text_vocab_size, here.speech_vocab_size):
        raise UserError(
            f"{name} has {there.text_vocab_size} text tokens and {there.speech_vocab_size} speech codes, but the evaluated "
            f"pairs in {datamodule.folder} have {here.text_vocab_size} and {here.speech_vocab_size}: give pairs of one Tortoise"
        )
