"""What hard negatives do: models side by side, in retrieval and in telling a text's codes from codes with a mistake.

    python train.py hydra.run.dir=plain
    python train.py hydra.run.dir=hard data.num_hard_negatives=1
    python benchmarks/hard_negatives.py PAIRS plain/model hard/model    # PAIRS: the folder that both were trained on

Every text of the test split, its first candidate, and one faulty copy for each mistake and size. Intervals are 95% of a
bootstrap over texts.
"""

import argparse

import numpy as np
import torch

from clvp_train.data import CLVPDataModule
from clvp_train.data.collate import Collate
from clvp_train.faults import FAULTS
from clvp_train.metrics import retrieval
from clvp_train.models import load_clvp
from clvp_train.training import CLVPModule

SHARES = (0.1, 0.25, 0.5)


@torch.no_grad()
def embed(module: CLVPModule, pairs: list[dict]) -> tuple[torch.Tensor, torch.Tensor]:
    collate = Collate(module.model.config.padding)
    parts = [module.embed(collate(pairs[start : start + 256])) for start in range(0, len(pairs), 256)]
    text_ND, speech_ND = (torch.cat(part) for part in zip(*parts))
    return text_ND, speech_ND


def interval(caught_N: torch.Tensor) -> str:
    draws = np.random.default_rng(0).integers(len(caught_N), size=(2000, len(caught_N)))
    low, high = np.percentile(caught_N.numpy()[draws].mean(axis=1), [2.5, 97.5])
    return f"{caught_N.mean():.3f} ({low:.3f} to {high:.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", help="a folder of pairs")
    parser.add_argument("models", nargs="+")
    args = parser.parse_args()
    split = CLVPDataModule(args.pairs).splits["test"]
    pairs = [split[places[0]] for places in split.candidates]
    modules = {path: CLVPModule(load_clvp(path)).eval() for path in args.models}
    embeds = {path: embed(module, pairs) for path, module in modules.items()}
    rows = []
    metrics = {path: retrieval(*both) for path, both in embeds.items()}
    for direction in ("text_to_speech", "speech_to_text"):
        words = f"R@1, {direction.replace('_', ' ')}, gallery of {len(pairs)}"
        rows.append([words, *(f"{metrics[path][direction]['R@1']:.3f}" for path in modules)])
    for name, fault in FAULTS.items():
        for share in SHARES:
            rng = np.random.default_rng(0)
            codes = [pair["speech_ids"].numpy() for pair in pairs]
            faulty = [fault(one, rng, share, codes[rng.integers(len(codes))]) for one in codes]
            copies = [{**pair, "speech_ids": torch.from_numpy(one)} for pair, one in zip(pairs, faulty)]
            row = [f"{name}, {share:.0%}"]
            for path, module in modules.items():
                text_ND, speech_ND = embeds[path]
                wrong_ND = embed(module, copies)[1]
                row.append(interval(((text_ND * speech_ND).sum(1) > (text_ND * wrong_ND).sum(1)).double()))
            rows.append(row)
    print(f"| true codes outscore faulty ones | {' | '.join(args.models)} |\n|{' --- |' * (1 + len(args.models))}")
    for row in rows:
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
