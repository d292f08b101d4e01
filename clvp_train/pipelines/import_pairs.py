"""Imports texts and codes of any codec as pairs, for `import_pairs` and for tables in `pairs=…` of other commands."""

from hydra.utils import instantiate
from omegaconf import DictConfig

from clvp_train import pairs
from clvp_train.errors import UserError
from clvp_train.pipelines.data import given_pairs
from clvp_train.tortoise.tokenizer import code_tokenizer, load_tokenizer


def import_pairs(cfg: DictConfig) -> None:
    """Writes a folder of pairs, or finds it, and prints its report."""
    folder = pairs.import_pairs(
        instantiate(cfg.source), _importer(cfg), name=cfg.name, cache_dir=cfg.paths.codes, folder=cfg.output_dir
    )
    print("\n".join([*pairs.report_lines(pairs.read_manifest(folder).report), f"pairs: {folder}"]))


def import_tables(cfg: DictConfig) -> None:
    """Imports the tables in `cfg.pairs`, unless that was done before, and replaces each with its folder of pairs, so that the
    settings of a run name the folders. Does nothing without `cfg.codec`.

    Raises:
        UserError: there is a codec and no table, or a table cannot be imported.
    """
    if cfg.get("codec") is None:
        return
    given, weights = given_pairs(cfg.pairs) if cfg.pairs is not None else ({}, {})
    tables = [name for name, path in given.items() if not pairs.Storage(path).exists(pairs.MANIFEST)]
    if not tables:
        raise UserError("codec: pairs names no table of texts and codes. Set pairs=FILE, or remove codec=….")
    importer = _importer(cfg)
    for name in tables:
        table = instantiate(cfg.source, name=given[name])
        try:
            given[name] = pairs.import_pairs(table, importer, cache_dir=cfg.paths.codes)
        except UserError as error:  # whose messages name the setting of the other command
            raise UserError(str(error).replace("source.name", "pairs")) from None
    cfg.pairs = {name: {"path": path, "weight": weights[name]} for name, path in given.items()}


def _importer(cfg: DictConfig) -> pairs.Importer:
    codec = instantiate(cfg.codec)
    return pairs.Importer(
        instantiate(cfg.columns),
        codec,
        code_tokenizer(codec.num_ids) if cfg.match == "voice" else load_tokenizer(cfg.tokenizer),
        match=cfg.match,
        bad_rows=cfg.bad_rows,
        shard_size=cfg.shard_size,
        **cfg.split,
    )
