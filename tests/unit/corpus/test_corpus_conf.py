"""Every conf/corpus file instantiates and sets exactly the fields of its reader."""

from dataclasses import fields
from pathlib import Path

import hydra.utils
import pytest
from omegaconf import OmegaConf

import clvp_train.corpus

GROUP = Path(__file__).parents[3] / "conf" / "corpus"
FILES = [file for file in sorted(GROUP.glob("*.yaml")) if file.stem != "nano"]  # which adds codes to nano_text


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_instantiates(file):
    config = OmegaConf.create({"paths": {"data": "data"}, "corpus": OmegaConf.load(file)})
    required = {key for key in config.corpus if OmegaConf.is_missing(config.corpus, key)}
    for key in required:
        config.corpus[key] = "given"
    corpus = hydra.utils.instantiate(config.corpus)
    assert type(corpus) is getattr(clvp_train.corpus, type(corpus).__name__)
    assert {field.name for field in fields(corpus)} == set(config.corpus) - {"_target_"}
    for field in fields(corpus):
        value = getattr(corpus, field.name)
        assert value == ("given" if field.name in required else config.corpus[field.name])
        if field.name not in required and file.stem != "nano_text":
            assert value == field.default, f"{field.name}: YAML and reader have different defaults"
    assert isinstance(corpus.name, str) and corpus.name
