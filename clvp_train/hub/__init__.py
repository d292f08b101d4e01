"""Publishing: folders of models and pairs with their cards, pushed to the Hugging Face Hub in one commit."""

from clvp_train.hub.access import HubConfig, check_access
from clvp_train.hub.card import check_template, recipe
from clvp_train.hub.folders import write_model_folder, write_pairs_folder
from clvp_train.hub.push import push, refuse_secrets
from clvp_train.hub.run import TRAINING_CONFIG, Trained, describe, find_trained, read_settings, run_of, settings_file

__all__ = [
    "TRAINING_CONFIG",
    "HubConfig",
    "Trained",
    "check_access",
    "check_template",
    "describe",
    "find_trained",
    "push",
    "read_settings",
    "recipe",
    "refuse_secrets",
    "run_of",
    "settings_file",
    "write_model_folder",
    "write_pairs_folder",
]
