"""What is published: models and pairs with their cards, in one commit or in a local folder."""

from clvp_train.hub.access import check_access
from clvp_train.hub.model_folder import write_model_folder
from clvp_train.hub.pairs_folder import write_pairs_folder
from clvp_train.hub.push import push
from clvp_train.hub.run import TRAINING_CONFIG, Trained, find_trained
from clvp_train.hub.settings import HubConfig

__all__ = [
    "TRAINING_CONFIG",
    "HubConfig",
    "Trained",
    "check_access",
    "find_trained",
    "push",
    "write_model_folder",
    "write_pairs_folder",
]
