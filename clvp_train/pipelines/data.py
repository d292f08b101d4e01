"""The sources of speech codes, folders of pairs and batches that a config describes."""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from transformers import PreTrainedTokenizerBase

from clvp_train.corpus import Corpus, Split
from clvp_train.data.datamodule import CLVPDataModule
from clvp_train.data.dataset import PairDataset
from clvp_train.errors import UserError
from clvp_train.pairs import CodeSource, Plan, generate, make_plan, open_tokenizer
from clvp_train.pipelines import interfaces
from clvp_train.pipelines.interfaces import build_part
from clvp_train.tortoise import FrozenTortoise

OpenTortoise = Callable[[], FrozenTortoise]
NUM_TEXTS = 100  # whose tokens are compared, of each split


def tortoise_of(cfg: DictConfig) -> OpenTortoise:
    """A function that returns the Tortoise of the config, and opens it when it is first called."""
    return cache(lambda: instantiate(cfg.tortoise))


class PairsPlan(NamedTuple):
    """The pairs that a config asks for, before any codes are drawn. Sources keep what they have inspected."""

    corpus: Corpus
    sources: dict[str, CodeSource]
    plans: dict[str, Plan]  # of each source

    @property
    def num_texts(self) -> dict[Split, int]:
        """Distinct texts in each split of all sources together, those that will be skipped included."""
        splits: tuple[Split, ...] = ("train", "val", "test")
        hashes = {split: [plan.texts[split] for plan in self.plans.values()] for split in splits}
        return {split: len(np.unique(np.concatenate(of_split))) for split, of_split in hashes.items()}


def plan_pairs(cfg: DictConfig, tortoise: FrozenTortoise) -> PairsPlan:
    """Checks every source of `cfg.codes` before the first one draws codes for hours. Raises UserError for bad input."""
    corpus, sources = build_part("corpus", cfg.corpus, interfaces.Corpus), code_sources(cfg)
    settings = {**cfg.split, "cache_dir": OmegaConf.select(cfg, "paths.codes")}
    plans = {name: make_plan(corpus, tortoise, source, **settings) for name, source in sources.items()}
    return PairsPlan(corpus, sources, plans)


def make_datamodule(cfg: DictConfig, tortoise: OpenTortoise, plan: PairsPlan | None = None) -> CLVPDataModule:
    """The batches of the folders in `cfg.pairs`, or else of those that are made from `cfg.codes`.

    Args:
        cfg: of a command.
        tortoise: of the config.
        plan: of `plan_pairs`, if it was made before.

    Raises:
        UserError: bad input, or folders that do not belong together.
    """
    if cfg.get("pairs") is not None:
        folders, weights = given_pairs(cfg.pairs)
    else:
        plan = plan or plan_pairs(cfg, tortoise())
        folders = generate_pairs(cfg, plan, tortoise())
        weights = {name: source.weight for name, source in plan.sources.items()}
    built: CLVPDataModule = instantiate(cfg.data, pairs=folders, weights=weights)
    if len(folders) > 1:
        _check_same_tokenizer(built)
    return built


def code_sources(cfg: DictConfig) -> dict[str, CodeSource]:
    """The sources of speech codes in `cfg.codes` by name: one, or several named ones, without those that are set to null.

    Raises:
        UserError: there is none, or a named one has no `_target_`.
    """
    if "_target_" in cfg.codes:
        source: CodeSource = build_part("codes", cfg.codes, interfaces.CodeSource)
        return {source.name: source}
    nodes = {str(name): node for name, node in cfg.codes.items() if node is not None}
    for name, node in nodes.items():
        if not (isinstance(node, DictConfig) and "_target_" in node):
            raise UserError(f"codes.{name}: not a source of speech codes. Remove it, or add '+codes@codes.{name}=ar'.")
    if not nodes:
        raise UserError("codes: no source of speech codes. Choose one, such as codes=ar.")
    return {name: build_part(f"codes.{name}", node, interfaces.CodeSource) for name, node in nodes.items()}


def generate_pairs(cfg: DictConfig, plan: PairsPlan, tortoise: FrozenTortoise) -> dict[str, str]:
    """The folder of pairs of each source, by name, made if it is not there yet."""
    (corpus, sources, plans), folder = plan, cfg.get("output_dir")
    return {
        name: generate(
            corpus,
            tortoise,
            source,
            cache_dir=cfg.paths.codes,
            folder=f"{folder}/{name}" if folder is not None and len(sources) > 1 else folder,
            plan=plans[name],
            **cfg.split,
        )
        for name, source in sources.items()
    }


def given_pairs(pairs: Any) -> tuple[dict[str, str], dict[str, float]]:
    """The folders of the setting `pairs` and their weights, by name.

    Args:
        pairs: a folder, a list of folders, or folders by name. Each is a path, or a path with a weight.

    Raises:
        UserError: it has another form.
    """
    given = OmegaConf.to_container(pairs, resolve=True) if OmegaConf.is_config(pairs) else pairs
    items = list(given.values()) if isinstance(given, dict) else given if isinstance(given, list) else [given]
    folders: list[dict[str, Any]] = [item if isinstance(item, dict) else {"path": item} for item in items]
    for folder in folders or [{}]:
        weight, is_folder = folder.get("weight", 1), isinstance(folder.get("path"), str)
        is_number = isinstance(weight, (int, float)) and not isinstance(weight, bool)
        if not (is_folder and is_number and weight >= 0 and folder.keys() <= {"path", "weight"}):
            raise UserError(
                f"pairs={given}: not folders. Set a folder, a list of folders, or folders by name as in "
                "{a:A,b:{path:B,weight:2}}, with weights ≥ 0."
            )
    paths = [folder["path"] for folder in folders]
    names = list(map(str, given)) if isinstance(given, dict) else short_names(paths)
    return dict(zip(names, paths)), {name: folder.get("weight", 1) for name, folder in zip(names, folders)}


def short_names(paths: Sequence[str]) -> list[str]:
    """The shortest ends of the paths that distinguish them, as names of folders."""
    parts = [[part for part in Path(path).parts if part != "/"] for path in paths]
    for depth in range(1, max(map(len, parts)) + 1):
        short = ["-".join(each[-depth:]) for each in parts]
        if len(set(short)) == len(paths):
            return short
    return [f"{number}-{each[-1]}" for number, each in enumerate(parts, start=1)]


def token_difference(tokenizer: PreTrainedTokenizerBase, pairs: PairDataset) -> str:
    """How the tokens of the first texts differ from those of a tokenizer; "" if they do not."""
    places = pairs.text_index.first()[:NUM_TEXTS]
    for place, text in zip(places, pairs.column("text", places)):
        ids, stored = tokenizer(text)["input_ids"], pairs[place]["input_ids"].tolist()
        if ids != stored:
            return f"{text[:40]!r} gives {ids[:8]}… and {stored[:8]}…"
    return ""


def _check_same_tokenizer(datamodule: CLVPDataModule) -> None:
    """Raises UserError if the tokens of a folder are not those of the tokenizer of the evaluated folder."""
    if datamodule.manifest.matches_voices:
        return
    tokenizer, mixture = open_tokenizer(datamodule.folder), datamodule.mixture
    for name, splits in mixture.splits.items():
        for pairs in splits.values():
            if difference := token_difference(tokenizer, pairs):
                raise UserError(
                    f"{mixture.folders[name]}: its tokenizer differs from that of the pairs in {datamodule.folder} "
                    f"({difference}). Use pairs made with the same tokenizer."
                )
