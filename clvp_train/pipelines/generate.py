"""Generates text–code pairs ahead of training."""

from omegaconf import DictConfig

from clvp_train import pairs
from clvp_train.errors import UserError
from clvp_train.pipelines import build


def generate(cfg: DictConfig) -> None:
    """Makes the pairs of a corpus, or finds them, and prints their report."""
    build.all_ranks(cfg)
    if cfg.num_candidates is not None:
        if "num_candidates" not in cfg.codes:
            raise UserError(
                "num_candidates: not a setting of codes=dvae. A recording has one sequence of codes; use codes=ar."
            )
        cfg.codes.num_candidates = cfg.codes.num_eval_candidates = cfg.num_candidates
    folder = build.pairs(cfg, build.tortoise(cfg))
    if pairs.rank_and_world_size()[0] == 0:
        print("\n".join([*pairs.report_lines(pairs.read_manifest(folder).report), f"pairs: {folder}"]))
