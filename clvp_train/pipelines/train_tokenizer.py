"""Trains a tokenizer on the texts of a corpus."""

from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig

from clvp_train.errors import UserError, check_number
from clvp_train.pipelines.config import validate
from clvp_train.tortoise.tokenizer import train_custom_tokenizer


def train_tokenizer(cfg: DictConfig) -> None:
    """Learns a tokenizer from a corpus's texts and writes it into a folder."""
    validate(cfg)
    output = Path(cfg.output_dir)
    if output.exists() and any(output.iterdir()):
        raise UserError(f"output_dir={output} is not empty: name a new folder")
    check_number("vocab_size", cfg.vocab_size, 1)
    corpus = instantiate(cfg.corpus)
    tokenizer = train_custom_tokenizer((utterance.text for _, utterance in corpus.stream(audio=False)), cfg.vocab_size)
    tokenizer.save_pretrained(output)
    print(f"{len(tokenizer)} tokens: {output}")
