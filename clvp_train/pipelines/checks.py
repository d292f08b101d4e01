"""What can be known about pairs, splits and models before any codes are drawn."""

from collections.abc import Mapping, Sequence

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from clvp_train.corpus import Corpus, Split, split_of_hash, text_hash
from clvp_train.data.datamodule import batch_findings, split_findings
from clvp_train.errors import Findings
from clvp_train.io.process_rank import rank_and_world_size
from clvp_train.models import CLVPModel
from clvp_train.pipelines.build import is_from_scratch, vocabulary_findings
from clvp_train.pipelines.data import OpenTortoise, PairsPlan, plan_pairs


def check_pairs(
    cfg: DictConfig,
    tortoise: OpenTortoise,
    models: Mapping[str, CLVPModel],
    found: Findings,
    evaluated: Sequence[Split],
    trains: bool = True,
) -> PairsPlan | None:
    """Plans the pairs that will be made, and adds to `found` what is wrong with Tortoise, corpus, sources of codes, splits,
    batch size and vocabularies.

    Args:
        cfg: if it has `pairs`, nothing is checked: such folders are checked when they are opened.
        tortoise: of the config.
        models: those that are loaded, by their name in messages.
        evaluated: the splits that must have texts.
        trains: whether batches are drawn from the training split.

    Returns:
        The plan; None if there is none.
    """
    if cfg.pairs is not None:
        return None
    plan, num_texts = None, None
    with found.collecting():
        frozen = tortoise()
        for name, has in _vocabularies(cfg, models).items():
            needed = (frozen.num_text_tokens, frozen.num_speech_tokens)
            found += vocabulary_findings(name, has, needed, f"those of tortoise={frozen.source}")
        plan = plan_pairs(cfg, frozen)
        num_texts = plan.num_texts
    with found.collecting():
        corpus = plan.corpus if plan is not None else instantiate(cfg.corpus)
        num_texts = num_texts or _num_texts(corpus, cfg.split)
        if trains and "batch_size" in cfg.data:
            num_ranks = rank_and_world_size()[1]
            found += batch_findings(cfg.data.batch_size, num_ranks, num_texts["train"], corpus.source)
        for split in evaluated:
            found += split_findings(split, num_texts[split], corpus.source)
    return plan


def _vocabularies(cfg: DictConfig, models: Mapping[str, CLVPModel]) -> dict[str, tuple[int | None, int | None]]:
    """The sizes of the text and speech vocabulary of each model; of one from scratch those that its config sets."""
    sizes: dict[str, tuple[int | None, int | None]] = {
        name: (model.config.text_config.vocab_size, model.config.speech_config.vocab_size)
        for name, model in models.items()
    }
    if "model" in cfg and is_from_scratch(cfg):
        text, speech = (
            OmegaConf.select(cfg.model, f"config.{tower}_config.vocab_size") for tower in ("text", "speech")
        )
        sizes["model"] = (text, speech)
    return sizes


def _num_texts(corpus: Corpus, split: DictConfig) -> dict[Split, int]:
    """Distinct texts in each split of a corpus for which there is no plan."""
    texts: dict[Split, set[int]] = {"train": set(), "val": set(), "test": set()}
    for _, utterance in corpus.stream(audio=False):
        hash_ = text_hash(utterance.text)
        texts[split_of_hash(hash_, split.test_percent, split.val_percent)].add(hash_)
    return {name: len(of_split) for name, of_split in texts.items()}
