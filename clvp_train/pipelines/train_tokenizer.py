"""Trains a tokenizer on the texts of a corpus."""

from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig

from clvp_train.errors import UserError
from clvp_train.io.digests import recording_digests
from clvp_train.tortoise.tokenizer import train_custom_tokenizer


def train_tokenizer(cfg: DictConfig) -> None:
    """Trains a tokenizer on the texts of a corpus and writes it to a folder."""
    output = Path(cfg.output_dir)
    if output.exists() and any(output.iterdir()):
        raise UserError(f"output_dir={output}: not empty. Choose a new folder.")
    corpus = instantiate(cfg.corpus)
    tokenizer = train_custom_tokenizer((utterance.text for _, utterance in corpus.stream(audio=False)), cfg.vocab_size)
    with recording_digests(output):
        tokenizer.save_pretrained(output)
    print(f"{len(tokenizer)} tokens: {output}")
