"""Generates text–code pairs ahead of training."""

from hydra.utils import instantiate
from omegaconf import DictConfig

from clvp_train import pairs
from clvp_train.errors import UserError
from clvp_train.io.process_rank import rank_and_world_size
from clvp_train.pipelines import build
from clvp_train.pipelines.data import generate_pairs, plan_pairs


def generate(cfg: DictConfig) -> None:
    """Makes the pairs of a corpus, or finds them, and prints their report, for each source of speech codes."""
    build.all_ranks(cfg)
    if cfg.num_candidates is not None:
        nodes = [cfg.codes] if "_target_" in cfg.codes else cfg.codes.values()
        drawing = [node for node in nodes if node is not None and "num_candidates" in node]
        if not drawing:
            raise UserError(
                "num_candidates: no source of codes draws candidates. Use codes=ar, or remove this setting."
            )
        for node in drawing:
            node.num_candidates = node.num_eval_candidates = cfg.num_candidates
    tortoise = instantiate(cfg.tortoise)
    folders = generate_pairs(cfg, plan_pairs(cfg, tortoise), tortoise).values()
    if rank_and_world_size()[0] == 0:
        for folder in folders:
            print("\n".join([*pairs.report_lines(pairs.read_manifest(folder).report), f"pairs: {folder}"]))
