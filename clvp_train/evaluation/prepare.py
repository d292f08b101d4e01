"""From a folder of pairs to what checkpoints are judged by."""

from dataclasses import dataclass, replace

from clvp_train.data.datamodule import CLVPDataModule
from clvp_train.errors import UserError, check_number
from clvp_train.evaluation.asr import count_word_errors
from clvp_train.evaluation.evaluation_data import EvaluationData
from clvp_train.evaluation.held_out import CandidateSets, HeldOut
from clvp_train.evaluation.perturbation_suite import PerturbationSuite, in_codes, in_texts, in_voices
from clvp_train.pairs import open_tokenizer, read_manifest
from clvp_train.tortoise import FrozenTortoise

PERTURBATIONS, WORD_ERRORS, REFERENCE = "mistakes", "word error rate", "Fréchet distance"


@dataclass(frozen=True)
class RerankConfig:
    """Of which candidates the best is picked. The names are those of the settings in `rerank`."""

    pairs: str | None = None  # a folder of pairs; None: the evaluated ones, or candidates drawn for them
    num_texts: int = 100
    num_candidates: int = 16  # where they are drawn
    asr: str | None = None  # a transformers model that writes them down

    def __post_init__(self) -> None:
        check_number("rerank.num_texts", self.num_texts, 0)
        check_number("rerank.num_candidates", self.num_candidates, 2)


def prepare(
    datamodule: CLVPDataModule, perturbations: PerturbationSuite, reference: str | None = None, limit: int | None = None
) -> EvaluationData:
    """The test split, mistakes in it, and what it is compared with, without candidates.

    Args:
        datamodule: of the pairs.
        perturbations: which mistakes are made.
        reference: a folder of pairs, whose test split's codes are the reference.
        limit: codes that are served at most; None: all.

    Raises:
        UserError: the test split holds less than two texts, or the reference other codes or too few.
    """
    datamodule.check_test_split()
    pairs, left_out = HeldOut.first_candidates(datamodule.splits["test"], limit), {}
    made, other = [], None
    if perturbations.num_pairs == 0:
        left_out[PERTURBATIONS] = "perturbations.num_pairs=0"
    else:
        tokenizer = open_tokenizer(datamodule.folder)
        made = [
            *in_codes(pairs, perturbations, limit),
            *in_texts(pairs, perturbations, lambda text: tokenizer(text)["input_ids"]),
        ]
    if reference is None:
        left_out[REFERENCE] = (
            "set reference=FOLDER to pairs whose codes are as they should be, those of recordings for one"
        )
    else:
        others = _other_pairs(reference, datamodule, "reference")
        others.check_test_split()
        other = HeldOut.first_candidates(others.splits["test"], limit)
    return EvaluationData(pairs, made, reference=other, left_out=left_out)


def add_candidates(
    data: EvaluationData,
    datamodule: CLVPDataModule,
    folder: str,
    num_texts: int,
    perturbations: PerturbationSuite,
    limit: int | None = None,
) -> EvaluationData:
    """Adds the candidates of a folder, and changes of voice.

    Args:
        data: without candidates.
        datamodule: of the evaluated pairs.
        folder: pairs whose test split has several candidates a text.
        num_texts: at most.
        perturbations: as in `prepare`.
        limit: as in `prepare`.

    Raises:
        UserError: the folder's codes are another Tortoise's, or its test split has no text with two candidates.
    """
    same = str(folder) == str(datamodule.folder)
    others = datamodule if same else _other_pairs(folder, datamodule, "rerank.pairs")
    sets = CandidateSets.read(others.splits["test"], num_texts, limit)
    if sets is None:
        raise UserError(
            f"rerank.pairs={folder}: no text of its test split has more than one candidate: draw some with `python -m "
            "clvp_train.generate … num_candidates=16 split.test_percent=100 split.val_percent=0 output_dir=FOLDER`"
        )
    spoilt = in_voices(data.pairs, sets, perturbations) if perturbations.num_pairs else []
    return replace(data, candidates=sets, perturbations=[*data.perturbations, *spoilt])


def add_word_errors(data: EvaluationData, folder: str, tortoise: FrozenTortoise, asr: str) -> EvaluationData:
    """Adds what an ASR model understands of the candidates of a folder. Without a DVAE that knows their codes, says so.

    Raises:
        UserError: the ASR model cannot be opened.
    """
    made_with, wrong = read_manifest(folder).settings.get("tortoise"), ""
    if tortoise.dvae is None:
        wrong = f"tortoise={tortoise.source} has no DVAE, which would make codes audible"
    elif made_with != tortoise.fingerprint():
        wrong = f"the candidates are not of tortoise={tortoise.source}, so that its DVAE does not know their codes: name theirs"
    if wrong or data.candidates is None:
        return replace(data, left_out=data.left_out | {WORD_ERRORS: wrong})
    errors, num_words = count_word_errors(data.candidates, tortoise, asr)
    return replace(data, word_errors=errors, num_words=num_words)


def _other_pairs(folder: str, datamodule: CLVPDataModule, setting: str) -> CLVPDataModule:
    """Raises UserError if there are none, or those of a Tortoise with other tokens or codes."""
    others = CLVPDataModule(folder)
    there, here = others.manifest, datamodule.manifest
    if (there.text_vocab_size, there.speech_vocab_size) != (here.text_vocab_size, here.speech_vocab_size):
        raise UserError(
            f"{setting}={folder} has {there.text_vocab_size} text tokens and {there.speech_vocab_size} speech codes, but the "
            f"evaluated pairs in {datamodule.folder} have {here.text_vocab_size} and {here.speech_vocab_size}: give pairs of "
            "one Tortoise"
        )
    return others
