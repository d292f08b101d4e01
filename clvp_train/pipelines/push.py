"""Publishes a model or pairs on the Hub: `clvp_train.push`, and the last step of `train.py`."""

import os
import shlex
from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from transformers.utils.logging import disable_progress_bar

from clvp_train import hub
from clvp_train.errors import UserError
from clvp_train.io import write_text
from clvp_train.pipelines.config import without_secrets

FOLDER = "hub"  # in the run folder
disable_progress_bar()  # "Writing model shards" for a single file


def push(cfg: DictConfig) -> None:
    """Publishes a trained model, or pairs."""
    settings: hub.HubConfig = instantiate(cfg.hub)
    if not settings.is_enabled:
        raise UserError("repo_id must be set. Add repo_id=me/clvp-en, or hub=local to write the folder only.")
    if (cfg.checkpoint is None) == (cfg.pairs is None):
        raise UserError(
            "checkpoint, pairs: set one of them. checkpoint=… is a run folder of train.py, pairs=… a folder of pairs."
        )
    kind = "model" if cfg.pairs is None else "dataset"
    trained = hub.find_trained(cfg.checkpoint, cfg.report) if cfg.pairs is None else None  # local checks first
    repo_id = _check(settings, kind)
    folder = Path(cfg.paths.output) / FOLDER
    if trained is None:
        hub.write_pairs_folder(cfg.pairs, folder, settings)
    else:
        hub.write_model_folder(trained, folder, settings, repo_id)
    _upload(folder, settings, repo_id, kind)


def check_hub(cfg: DictConfig) -> tuple[hub.HubConfig, str | None]:
    """Checks before training that its model can be published.

    Returns:
        The settings, and the full name of the repository if the model is pushed.

    Raises:
        UserError: the model could not be published.
    """
    settings: hub.HubConfig = instantiate(cfg.hub)
    if settings.is_enabled and not cfg.test:
        raise UserError(
            "test=false: a model card needs the report on the test split. Remove test=false or the hub settings."
        )
    return settings, _check(settings, "model")


def publish_run(run: Path, settings: hub.HubConfig, repo_id: str | None) -> None:
    """Publishes the model of a finished run.

    Raises:
        UserError: the push failed; the message contains the command that resumes it.
    """
    try:
        folder = hub.write_model_folder(hub.find_trained(run), run / FOLDER, settings, repo_id)
        _upload(folder, settings, repo_id, "model")
    except UserError as error:
        path = os.path.relpath(run)
        raise UserError(
            f"the model is trained and saved in {path}, but it is not published: {error} "
            f"Publish it with python -m clvp_train.push {shlex.quote(f'checkpoint={path}')} repo_id={repo_id}"
        ) from None


def write_training_config(cfg: DictConfig, model: Path) -> None:
    """Writes the settings of a training to the folder of its model, without the default paths of this machine."""
    text = OmegaConf.to_yaml(OmegaConf.create(without_secrets(cfg)))
    for name in ("data", "output"):
        text = text.replace(str(cfg.paths[name]), f"${{paths.{name}}}")
    write_text(model / hub.TRAINING_CONFIG, text)


def _check(settings: hub.HubConfig, kind: str) -> str | None:
    """Checks licence, language, card template and access; returns the name of the repository, in full if it is pushed to."""
    _ = settings.metadata
    if settings.card is not None:
        hub.check_template(settings.card)
    return hub.check_access(settings, kind) if settings.push and settings.repo_id is not None else settings.repo_id


def _upload(folder: Path, settings: hub.HubConfig, repo_id: str | None, kind: str) -> None:
    hub.refuse_secrets(folder)
    if settings.push and repo_id is not None:
        print(f"published: {hub.push(folder, repo_id, settings, kind)}")
    else:
        print(f"folder to publish: {folder}")
