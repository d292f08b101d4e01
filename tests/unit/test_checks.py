"""What is wrong with a training is reported together, before any codes are drawn."""

import pytest
from hydra.errors import InstantiationException
from omegaconf import OmegaConf

from clvp_train import CLVPConfig, CLVPModel
from clvp_train.errors import Findings, UserError
from clvp_train.io import DATA
from clvp_train.pipelines.checks import check_pairs
from clvp_train.pipelines.data import given_pairs
from clvp_train.tortoise import FrozenTortoise

TOWER = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1}


@pytest.fixture(scope="module")
def tortoise():
    return FrozenTortoise.from_pretrained(DATA / "nano/tortoise")


def model(text, speech):
    towers = {f"{tower}_config": TOWER | {"vocab_size": size} for tower, size in (("text", text), ("speech", speech))}
    return CLVPModel(CLVPConfig(projection_dim=64, **towers))


def config(folder, count, test_percent=10, val_percent=10, batch_size=8, voices=DATA / "nano/voices", **codes):
    (folder / "lines.txt").write_text("".join(f"sentence number {number}\n" for number in range(count)))
    return OmegaConf.create(
        {
            "pairs": None,
            "corpus": {"_target_": "clvp_train.corpus.TextLines", "path": str(folder / "lines.txt")},
            "codes": {"_target_": "clvp_train.pairs.ARCodes", "voices": str(voices), **codes},
            "split": {"test_percent": test_percent, "val_percent": val_percent},
            "data": {"batch_size": batch_size},
        }
    )


@pytest.mark.parametrize("pairs", [[], ["a", {"path": "b", "weight": -1}], {"a": {"path": 1}}, {"a": ["b"]}, 3])
def test_what_is_no_folder_of_pairs_is_refused(pairs):
    with pytest.raises(UserError, match="pairs=.*: not folders. .* with weights ≥ 0"):
        given_pairs(pairs)


@pytest.mark.parametrize(
    ("settings", "models", "expected"),
    [
        ({}, {}, []),
        ({"count": 45, "batch_size": 64}, {}, ["data.batch_size=64: larger than the 3"]),
        ({"val_percent": 0}, {}, ["val split is empty"]),
        ({"test_percent": 0, "val_percent": 0}, {}, ["val split is empty", "test split is empty"]),
        ({"num_candidates": 0}, {}, ["data.batch_size=8: larger than the 0 training texts"]),
        ({"voices": "nowhere", "batch_size": 999}, {}, ["codes.voices=nowhere", "data.batch_size=999"]),
        ({}, {"model.checkpoint": (255, 8192)}, ["model.checkpoint: 255 text tokens", "8192 speech tokens"]),
        (
            {"batch_size": 999},
            {"checkpoint=a": (256, 2048), "checkpoint=b": (256, 2049)},
            ["checkpoint=b: 2049 speech tokens, but those of tortoise=", "data.batch_size=999"],
        ),
    ],
    ids=str,
)
def test_findings(tmp_path, tortoise, settings, models, expected):
    found, models = Findings(), {name: model(*sizes) for name, sizes in models.items()}
    check_pairs(config(tmp_path, **{"count": 100} | settings), lambda: tortoise, models, found, ("val", "test"))
    findings = [finding for finding in found if "single text" not in finding]
    assert all(any(part in finding for finding in findings) for part in expected), found
    assert len(findings) == len(expected)


def test_a_tortoise_that_cannot_be_opened_hides_nothing(tmp_path):
    def missing():
        raise UserError("tortoise: missing.")

    found = Findings()
    assert check_pairs(config(tmp_path, 20, batch_size=99), missing, {}, found, ()) is None
    assert found[0] == "tortoise: missing." and found[1].startswith("data.batch_size=99: larger than the")
    with pytest.raises(UserError, match="tortoise: missing. data.batch_size=99"):
        found.report()


def test_other_errors_are_not_collected():
    found = Findings()
    with found.collecting():
        raise InstantiationException("of a target") from UserError("a: wrong. Correct it.")
    assert found == ["a: wrong. Correct it."]
    with pytest.raises(ZeroDivisionError), found.collecting():
        _ = 1 / 0
    Findings().report()
