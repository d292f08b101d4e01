"""Builds the objects that a config describes."""

import dataclasses
import json
import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import lightning as L
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf

from clvp_train import pairs as pairs_
from clvp_train.corpus import Texts
from clvp_train.data.datamodule import CLVPDataModule
from clvp_train.errors import Findings, UserError
from clvp_train.evaluation import RerankConfig, Reranking, corpus_recordings, stored_recordings
from clvp_train.evaluation.judges import Recordings
from clvp_train.io.process_rank import rank_and_world_size
from clvp_train.models import CLVPModel
from clvp_train.models.weight_files import resolve_folder
from clvp_train.pipelines import interfaces
from clvp_train.pipelines.data import OpenTortoise, code_sources, token_difference
from clvp_train.pipelines.launch import on_all_ranks
from clvp_train.tortoise import FrozenTortoise
from clvp_train.tortoise.tokenizer import read_saved_tokenizer
from clvp_train.tortoise.warm_start import warm_start
from clvp_train.training import CLVPModule, RunState
from clvp_train.training.optim import build_optimizer, build_scheduler
from clvp_train.training.run_state import STEPS

warnings.filterwarnings("ignore", message=".*LeafSpec.*")  # Lightning's own use of a deprecated torch name


def all_ranks(cfg: DictConfig) -> None:
    """Returns on every rank of the run, see `launch.on_all_ranks`."""
    logging.disable(logging.INFO)  # the trainer that runs repeats it
    try:
        wanted = trainer(cfg, logger=False, enable_checkpointing=False, plugins=LightningEnvironment())
    finally:
        logging.disable(logging.NOTSET)
    on_all_ranks(wanted, cfg)


def seed(cfg: DictConfig) -> None:
    L.seed_everything(cfg.seed, workers=True, verbose=rank_and_world_size()[0] == 0)


def candidates(
    cfg: DictConfig, datamodule: CLVPDataModule, rerank: RerankConfig, tortoise: OpenTortoise
) -> tuple[str | None, str]:
    """The folder of pairs whose test split has several candidates per text, drawn now if necessary; or None and the reason.

    With several folders the candidates are those of the AR, whichever folder is evaluated.
    """
    if rerank.num_texts == 0:
        return None, "rerank.num_texts=0"
    if rerank.pairs is not None:
        return rerank.pairs, ""
    if datamodule.manifest.matches_voices:
        return None, "the pairs match voices"
    test, mixture = datamodule.splits["test"], datamodule.mixture
    has_candidates = datamodule.manifest.settings.get("columns.candidate") is not None  # of `import_pairs`
    if has_candidates and (test.text_index.sizes() > 1).any():
        return str(datamodule.folder), ""
    drawn_by_ar = [name for name, manifest in mixture.manifests.items() if manifest.source == pairs_.ARCodes.name]
    name = next(iter(drawn_by_ar), mixture.evaluated)
    manifest = mixture.manifests[name]
    if drawn_by_ar and manifest.settings.get("codes.num_eval_candidates", 1) > 1:
        return str(mixture.folders[name]), ""
    source = next((source for source in code_sources(cfg).values() if isinstance(source, pairs_.ARCodes)), None)
    advice = (
        "Draw candidates with `python -m clvp_train.generate … num_candidates=16` and set rerank.pairs to their folder."
    )
    if not manifest.tortoise:
        return None, "the pairs have one candidate per text. Import candidates with columns.candidate=…."
    if not drawn_by_ar or source is None or source.needs_audio:
        return None, f"the pairs have one candidate per text. {advice}"
    frozen = tortoise()
    if frozen.fingerprint() != manifest.settings.get("tortoise"):
        return None, f"the pairs have one candidate per text and were not made with tortoise={frozen.source}. {advice}"
    texts = Texts(test.column("text", test.text_index.first()[: rerank.num_texts]), f"{manifest.corpus} test")
    return _draw(texts, frozen, source, rerank.num_candidates, cfg.paths.codes), ""


def _draw(texts: Texts, tortoise: FrozenTortoise, source: pairs_.ARCodes, num_candidates: int, cache_dir: str) -> str:
    """Draws several candidates of each text, or finds those drawn before. Returns their folder."""
    # in one voice, as Tortoise re-ranks; in small shards, so that all ranks draw
    settings: dict[str, Any] = {"num_candidates": num_candidates, "num_eval_candidates": num_candidates}
    settings |= {"one_voice": True, "shard_size": 16, "judge": None}
    source = dataclasses.replace(source, **settings)
    return pairs_.generate(texts, tortoise, source, cache_dir=cache_dir, test_percent=100, val_percent=0)


def recordings(cfg: DictConfig, datamodule: CLVPDataModule, rerank: RerankConfig, data: Reranking) -> Recordings:
    """Recordings of the texts with candidates, in the voices of these; {} if there are none."""
    assert data.candidates is not None
    path = rerank.recordings or datamodule.mixture.folders.get("recordings")
    if path is not None:
        return stored_recordings(str(path), data.candidates)
    return corpus_recordings(instantiate(cfg.corpus), data.candidates)


def check_tokenizer(checkpoint: str, datamodule: CLVPDataModule) -> None:
    """Raises UserError if a folder or Hub id of `save_pretrained` holds another tokenizer than the pairs were made with."""
    if Path(checkpoint).is_file() or datamodule.manifest.matches_voices:
        return
    folder = resolve_folder(checkpoint)
    if not (folder / "tokenizer_config.json").exists():
        return
    difference = token_difference(read_saved_tokenizer(folder), datamodule.splits["test"])
    if difference:
        raise UserError(
            f"checkpoint={checkpoint}: its tokenizer differs from that of the pairs in {datamodule.folder} ({difference}). "
            "Use pairs made with the tokenizer of the checkpoint."
        )


def recording_parts(tortoise: FrozenTortoise) -> dict[str, Any]:
    """The parts of a Tortoise that encode recordings, for the processor of a model that is trained on its codes."""
    return {"feature_extractor": tortoise.feature_extractor, "dvae": tortoise.dvae}


def is_from_scratch(cfg: DictConfig) -> bool:
    """Whether `cfg.model` describes a new model, not a checkpoint."""
    return "_target_" in cfg.model.get("config", {})


def model(
    cfg: DictConfig, datamodule: CLVPDataModule, tortoise: OpenTortoise, loaded: CLVPModel | None = None
) -> CLVPModel:
    """The model of `cfg.model`, or `loaded` if it was opened before. One from scratch gets the vocabulary sizes of the pairs
    unless the config sets them, and with `cfg.warm_start` the embeddings of the Tortoise that made the pairs. Also sets the
    padding of the DataModule to the model's.
    Raises UserError if the model does not fit the pairs or the memory.
    """
    settings, manifest = cfg.model.copy(), datamodule.manifest
    from_scratch = is_from_scratch(cfg)
    if from_scratch:
        for tower, size in (("text", manifest.text_vocab_size), ("speech", manifest.speech_vocab_size)):
            if OmegaConf.select(settings.config, f"{tower}_config.vocab_size") is None:
                OmegaConf.update(settings.config, f"{tower}_config.vocab_size", size, force_add=True)
    try:
        built: CLVPModel = loaded if loaded is not None else instantiate(settings, _convert_="all")
    except InstantiationException as error:
        if "allocate memory" not in str(error):
            raise
        raise UserError("model: does not fit into memory. Set smaller sizes in model.config.") from None
    interfaces.check_part("model", built, interfaces.Model)
    match_padding_and_vocabulary(built, datamodule, "model")
    if from_scratch and cfg.warm_start and cfg.pairs is None:
        warm_start(built, tortoise())
    return built.train()  # a loaded model is in eval mode


def check_optim(module: CLVPModule) -> None:
    """Raises UserError if the optimiser or the schedule of a module does not fit its interface."""
    optimizer = build_optimizer(module, module.optim, fused=False)
    interfaces.check_part("optim.optimizer", optimizer, interfaces.Optimizer)
    if (schedule := build_scheduler(optimizer, module.optim, module.total_steps)) is not None:
        interfaces.check_part("optim.scheduler", schedule, interfaces.Schedule)


def match_padding_and_vocabulary(model: CLVPModel, datamodule: CLVPDataModule, name: str) -> None:
    """Sets the padding of the DataModule to the model's.

    Raises:
        UserError: the vocabularies of the model, which messages call `name`, and of the pairs differ.
    """
    manifest, config = datamodule.manifest, model.config
    needed = (manifest.text_vocab_size, manifest.speech_vocab_size)
    has = (config.text_config.vocab_size, config.speech_config.vocab_size)
    Findings(vocabulary_findings(name, has, needed, f"the pairs in {datamodule.folder}")).report()
    datamodule.padding = config.padding


def vocabulary_findings(name: str, has: Sequence[int | None], needed: Sequence[int], pairs: str) -> Iterator[str]:
    """How the vocabularies of a model differ from those of pairs.

    Args:
        name: of the model, for messages.
        has: its text and speech tokens; None fits any pairs.
        needed: those of the pairs.
        pairs: what they are, for messages.
    """
    for kind, of_model, of_pairs in zip(("text", "speech"), has, needed):
        if of_model is not None and of_model != of_pairs:
            yield (
                f"{name}: {of_model} {kind} tokens, but {pairs} have {of_pairs}: they are made with another Tortoise. Set "
                "tortoise=… to the one that the model was trained with; for other codecs, codec=… and tokenizer=…."
            )


def run_state(
    cfg: DictConfig,
    overrides: list[str],
    trainer: L.Trainer,
    datamodule: CLVPDataModule,
    model: CLVPModel,
    total_steps: int,
) -> RunState:
    """What every checkpoint of this run stores about it: the settings that must not change when it is resumed, those that may,
    and the overrides that it was started with."""

    def group(name: str) -> dict[str, Any]:
        settings = cast(dict[str, Any], OmegaConf.to_container(cfg[name], resolve=True))
        return {f"{name}.{key}": value for key, value in settings.items()}

    config, mixture = model.config.to_dict(), datamodule.mixture
    described = {key: config[key] for key in sorted(config) if key != "transformers_version"}
    fixed = {
        "model": json.dumps(described, default=str),
        "fingerprint of the pairs": ", ".join(manifest.fingerprint for manifest in mixture.manifests.values()),
        **({"weights of the pairs": list(mixture.weights.values())} if len(mixture.folders) > 1 else {}),
        "seed": cfg.seed,
        "data.batch_size": datamodule.batch_size,
        "trainer.accumulate_grad_batches": trainer.accumulate_grad_batches,
        "data.cache_gb": datamodule.cache_gb,  # determines the order
    }
    free = {
        "number of processes": trainer.world_size,
        STEPS: total_steps,
        "precision": str(trainer.precision),
    }
    free |= {key: value for key, value in (group("data") | group("training")).items() if key not in fixed}
    return RunState(fixed | group("loss") | group("optim"), free, overrides)


def named(cfg: DictConfig, group: str) -> list[Any]:
    """The objects of a group of named configs, such as callbacks; one that is set to null is left out."""
    interface = {"callbacks": interfaces.Callback, "logger": interfaces.Logger}[group]
    nodes = {f"{group}.{name}": node for name, node in (cfg.get(group) or {}).items() if node is not None}
    return [interfaces.build_part(name, node, interface) for name, node in nodes.items()]


def evaluation_trainer(cfg: DictConfig) -> L.Trainer:
    """The trainer of `cfg.trainer` without logger and checkpoints, in full precision and over all batches."""
    full = {"precision": "32-true", "limit_test_batches": 1.0, "fast_dev_run": False, "profiler": None}
    # in a log file every refresh of a bar would be a line
    has_bar = sys.stdout.isatty() and cfg.trainer.get("enable_progress_bar") is not False
    return trainer(cfg, logger=False, enable_checkpointing=False, enable_progress_bar=has_bar, **full)


def trainer(cfg: DictConfig, **settings: Any) -> L.Trainer:
    """The trainer of `cfg.trainer` with further arguments of its constructor."""
    try:
        built: L.Trainer = instantiate(cfg.trainer, **settings)
        # its handler of SIGTERM would end an evaluation with status 0, and broadcast to ranks that are elsewhere; no setting of
        # the Trainer leaves it out
        built._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
        return built
    except InstantiationException as error:
        from_lightning = str(error).startswith("Error in call to target 'lightning.")
        if not from_lightning and not isinstance(error.__cause__, MisconfigurationException):
            raise  # out of a class of the user's own
        raise UserError(
            f"trainer: {str(error.__cause__ or error).rstrip('.')}. Check the settings of trainer=…."
        ) from None
