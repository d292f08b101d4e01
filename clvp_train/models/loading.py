"""Opens a trained CLVP in any supported format."""

import hashlib
import json
import pickle
from pathlib import Path
from typing import Any, cast

from safetensors import SafetensorError
from torch import nn

from clvp_train.errors import UserError
from clvp_train.io.digests import check_digests
from clvp_train.models.configuration_clvp import CLVPConfig
from clvp_train.models.modeling_clvp import CLVPModel
from clvp_train.models.weight_files import CONTAINS_CODE, WEIGHT_FILES, load_tensors, resolve_folder

CONFIG_KEY = "clvp_config"  # key in a .ckpt: the model's configuration as a plain dict
MODEL_PREFIX = "model."  # prefix of the model's weights in a .ckpt's state_dict
_NOT_A_CLVP = (ValueError, OSError, EOFError, RuntimeError, KeyError, TypeError, AttributeError, ImportError)
SUPPORTED = "a .ckpt of this package, a folder of save_pretrained, a Hub id or a clvp2.pth"


def load_clvp(checkpoint: str | Path, config: dict[str, Any] | None = None) -> CLVPModel:
    """Opens a checkpoint in eval mode and float32.

    Args:
        checkpoint: a .ckpt of this package, tortoise-tts' `clvp2.pth`, or a folder or Hub id in the format of
            `save_pretrained` or of transformers' composite Clvp.
        config: fields of `CLVPConfig` to override, such as `padding`; None leaves a field unchanged.

    Raises:
        UserError: the checkpoint does not exist, is damaged or is of another kind.
    """
    path = resolve_checkpoint(checkpoint)
    try:
        if path.is_dir():
            model = _from_folder(path)
        elif path.suffix == ".ckpt":
            model = _from_lightning(path)
        else:
            model = CLVPModel.from_tortoise(path)
    except (*_NOT_A_CLVP, SafetensorError, pickle.UnpicklingError) as error:
        reason = CONTAINS_CODE if isinstance(error, pickle.UnpicklingError) else " ".join(str(error).split())
        raise UserError(f"checkpoint={checkpoint}: not a CLVP ({reason[:400]}). Use {SUPPORTED}.") from None
    for name, value in (config or {}).items():
        if value is not None:
            setattr(model.config, name, value)
    return model.float().eval()


def weights_digest(model: CLVPModel) -> str:
    """SHA-256 in hex of the names and float32 values of all weights; independent of the storage format."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().float().contiguous().numpy().data)
    return digest.hexdigest()


def move_to_device(model: nn.Module, device: str, setting: str = "device") -> None:
    """Moves a model to a device. Raises UserError with the name of the setting if the device is not available."""
    try:
        model.to(device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"{setting}={device}: not available ({reason}). Set {setting}=cpu, or fix the driver."
        ) from None


def resolve_checkpoint(checkpoint: str | Path) -> Path:
    """Returns the file or folder of a checkpoint, downloading a Hub id. Raises UserError if it does not exist."""
    path = Path(checkpoint).expanduser()
    if path.suffix in (".ckpt", ".pth", ".pt") and not path.exists():
        raise UserError(f"checkpoint={checkpoint}: not found. Use {SUPPORTED}.")
    return path if path.is_file() else resolve_folder(checkpoint)


def _from_lightning(path: Path) -> CLVPModel:
    stored = load_tensors(path)
    if not isinstance(stored, dict) or CONFIG_KEY not in stored:
        raise ValueError(f"a Lightning checkpoint without {CONFIG_KEY!r}")
    model = CLVPModel(CLVPConfig(**stored[CONFIG_KEY]))
    weights = stored["state_dict"].items()  # may also hold those of the loss
    ours = {key.removeprefix(MODEL_PREFIX): tensor for key, tensor in weights if key.startswith(MODEL_PREFIX)}
    model.load_state_dict(ours)
    return model


def _from_folder(folder: Path) -> CLVPModel:
    file = folder / "config.json"
    if not file.exists():
        raise ValueError("the folder has no config.json")
    check_digests(folder, file.name, *WEIGHT_FILES)
    kind = json.loads(file.read_text(encoding="utf-8")).get("model_type")
    if kind == "clvp":
        return CLVPModel.from_transformers(folder)
    if kind != CLVPConfig.model_type:
        raise ValueError(f"its config.json has model_type {kind!r}")
    model, info = cast(Any, CLVPModel.from_pretrained(folder, output_loading_info=True))
    if info["missing_keys"]:  # transformers would initialise them at random
        raise ValueError(f"weights are missing: {sorted(info['missing_keys'])}")
    return model
