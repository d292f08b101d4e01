"""From a config to the Hub: what `python -m clvp_train.push` and the end of `train.py` do."""

import os
from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from clvp_train import hub
from clvp_train.errors import UserError
from clvp_train.io import write_text

FOLDER = "hub"  # in the run folder


def push(cfg: DictConfig) -> None:
    """Publishes a model, or pairs."""
    settings: hub.HubConfig = instantiate(cfg.hub)
    if not settings.wanted:
        raise UserError(
            "repo_id must be set: add repo_id=me/clvp-en to the command, or hub=local to write the folder only"
        )
    if (cfg.checkpoint is None) == (cfg.pairs is None):
        raise UserError("set either checkpoint=… (a run folder of train.py) or pairs=… (a folder of pairs)")
    kind = "model" if cfg.pairs is None else "dataset"
    # what lies here is looked at before the Hub is asked
    trained = hub.find_trained(cfg.checkpoint, cfg.report) if cfg.pairs is None else None
    repo_id = _repository(settings, kind)
    folder = Path(cfg.paths.output) / FOLDER
    if trained is None:
        hub.write_pairs_folder(cfg.pairs, folder, settings)
    else:
        hub.write_model_folder(trained, folder, settings, repo_id)
    _finish(folder, settings, repo_id, kind)


def check_hub(cfg: DictConfig) -> tuple[hub.HubConfig, str | None]:
    """The settings of publishing, and the whole name of the repository, before training.

    Raises:
        UserError: a model could not be pushed there.
    """
    settings: hub.HubConfig = instantiate(cfg.hub)
    if settings.wanted and not cfg.test:
        raise UserError("test=false leaves out the report that a card is made of: leave out hub.… or test=false")
    return settings, _repository(settings, "model")


def publish_run(run: Path, settings: hub.HubConfig, repo_id: str | None) -> None:
    """Publishes what a training has just left in its run folder.

    Raises:
        UserError: the push broke off; the message says how it goes on.
    """
    try:
        folder = hub.write_model_folder(hub.find_trained(run), run / FOLDER, settings, repo_id)
        _finish(folder, settings, repo_id, "model")
    except UserError as error:
        place = os.path.relpath(run)
        raise UserError(
            f"the model is trained and kept in {place}, but not published: {error} "
            f"(python -m clvp_train.push checkpoint={place} repo_id={repo_id})"
        ) from None


def write_training_config(cfg: DictConfig, model: Path) -> None:
    """Writes all settings of a training beside its model, without the places of this machine that the program chose itself."""
    text = OmegaConf.to_yaml(cfg, resolve=True)
    for name in ("data", "output"):
        text = text.replace(str(cfg.paths[name]), f"${{paths.{name}}}")
    write_text(model / hub.TRAINING_CONFIG, text)


def _repository(settings: hub.HubConfig, kind: str) -> str | None:
    """The name of the repository; the whole one if something shall be pushed there."""
    return hub.check_access(settings, kind) if settings.push and settings.repo_id is not None else settings.repo_id


def _finish(folder: Path, settings: hub.HubConfig, repo_id: str | None, kind: str) -> None:
    if settings.push and repo_id is not None:
        print(f"published: {hub.push(folder, repo_id, settings, kind)}")
    else:
        print(f"to be published: {folder}")
