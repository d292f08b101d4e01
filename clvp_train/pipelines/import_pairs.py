"""Imports texts and codes of any codec as pairs."""

from hydra.utils import instantiate
from omegaconf import DictConfig

from clvp_train import pairs
from clvp_train.tortoise.tokenizer import code_tokenizer, load_tokenizer


def import_pairs(cfg: DictConfig) -> None:
    """Writes a folder of pairs, or finds it, and prints its report."""
    codec = instantiate(cfg.codec)
    importer = pairs.Importer(
        instantiate(cfg.columns),
        codec,
        code_tokenizer(codec.num_ids) if cfg.match == "voice" else load_tokenizer(cfg.tokenizer),
        match=cfg.match,
        bad_rows=cfg.bad_rows,
        shard_size=cfg.shard_size,
        **cfg.split,
    )
    folder = pairs.import_pairs(
        instantiate(cfg.source), importer, name=cfg.name, cache_dir=cfg.paths.codes, folder=cfg.output_dir
    )
    print("\n".join([*pairs.report_lines(pairs.read_manifest(folder).report), f"pairs: {folder}"]))
