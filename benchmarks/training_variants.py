"""What re-ranking is worth after each way of training: variants of `train.py`, judged on the same candidates.

    python benchmarks/training_variants.py --asr FOLDER_OR_SIZE --out variants --jobs 2

Draws 16 candidates in one voice for held-out sentences, trains each variant with two seeds, evaluates with `evaluate.py`, and
prints a table. Finished runs are kept, so that an interrupted benchmark continues. `--asr` is a model as in `rerank.asr`.
"""

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean

from clvp_train.corpus import split_of

ROOT = Path(__file__).resolve().parents[1]
NEVER = 1e-9  # weight of a source that training does not use; its pairs are still evaluated
RECORDINGS, AR = f"codes.ar.weight={NEVER}", f"codes.recordings.weight={NEVER}"
PERTURBED, JUDGED, LISTWISE = "data.num_hard_negatives=1", "data.num_judged_negatives=1", "loss=listwise"
VARIANTS = {
    "AR": [AR],
    "recordings": [RECORDINGS],
    "mixed": [],
    "recordings, perturbed negatives": [RECORDINGS, PERTURBED],
    "mixed, perturbed negatives": [PERTURBED],
    "mixed, judged negatives": [JUDGED],
    "mixed, judged negatives, listwise": [JUDGED, LISTWISE],
    "mixed, perturbed and judged negatives": [PERTURBED, JUDGED],
}
# candidates in one voice, so that a text's differ in quality and not in voice
POOL = ["codes.ar.num_candidates=2", "codes.ar.one_voice=true", "codes/judge@codes.ar.judge=recordings"]
POOL += ["codes.ar.judge.recordings=${codes.recordings.path}"]


def run(*command: str, log: Path) -> None:
    with log.open("w") as file:
        subprocess.run([sys.executable, *command], cwd=ROOT, stdout=file, stderr=file, check=True)


def draw_candidates(out: Path, num_texts: int, name: str = "candidates", one_voice: bool = True) -> Path:
    """The folder with 16 candidates of each of the first held-out sentences, in one voice or in all."""
    lines = (ROOT / "data/nano/sentences.txt").read_text().splitlines()
    texts = [line for line in lines if split_of(line, test_percent=5, val_percent=3) == "test"][:num_texts]
    (out / "texts.txt").write_text("\n".join(texts) + "\n")
    settings = ["corpus=text", f"corpus.path={out}/texts.txt", "split.test_percent=100", "split.val_percent=0"]
    settings += ["num_candidates=16", f"codes.one_voice={one_voice}", f"output_dir={out}/{name}"]
    run("-m", "clvp_train.generate", *settings, f"hydra.run.dir={out}/generate", log=out / f"{name}.txt")
    return out / name


def measure(variant: str, seed: int, args: argparse.Namespace) -> dict:
    """Trains and evaluates one variant unless that is done, and returns the metrics."""
    folder = args.out / f"{variant.replace(', ', '-').replace(' ', '_')}-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    codes = f"paths.codes={args.out}/codes"
    if not (folder / "model").exists():
        settings = [*POOL, *VARIANTS[variant], *args.override, f"seed={seed}", "test=false", codes]
        run("train.py", *settings, f"hydra.run.dir={folder}", log=folder / "train.txt")
    if not (folder / "report/metrics.json").exists():
        settings = [
            f"rerank.pairs={args.out}/candidates",
            f"rerank.num_texts={args.num_texts}",
            f"rerank.asr={args.asr}",
        ]
        settings += [*POOL, codes, f"checkpoint={folder}/model", f"hydra.run.dir={folder}"]
        run("evaluate.py", *settings, log=folder / "evaluate.txt")
    return json.loads((folder / "report/metrics.json").read_text())


def row(variant: str, seed: int, metrics: dict) -> str:
    def shown(result: dict, digits: int = 3) -> str:
        low, high = result["interval"]
        return f"{result['value']:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"

    words, letters, mel = (
        metrics["rerank"][name] for name in ("word_error_rate", "character_error_rate", "mel_distance")
    )
    retrieval = [metrics[way]["R@1"] for way in ("text_to_speech", "speech_to_text")]
    cells = [
        variant,
        seed,
        " / ".join(f"{value:.3f}" for value in retrieval),
        f"{mean(each['rate'] for each in metrics['perturbations']):.3f}",
    ]
    cells += [shown(words["gain"]), shown(letters["gain"]), shown(mel["gap_closed"]["pick"], 2)]
    cells += [
        shown(words["gain_likeliest"]),
        shown(words["gain_combined"]),
        f"{mel['correlation']['pick']['value']:.2f}",
    ]
    return f"| {' | '.join(map(str, cells))} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--asr", required=True)
    parser.add_argument("--out", type=Path, default=Path("variants"))
    parser.add_argument("--variants", nargs="*", default=list(VARIANTS), choices=VARIANTS)
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1])
    parser.add_argument("--num-texts", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=2, help="trainings at once, with one thread each")
    parser.add_argument("override", nargs="*", help="settings of every training, after --")
    args = parser.parse_args()

    args.out = args.out.absolute()
    args.out.mkdir(parents=True, exist_ok=True)
    os.environ["OMP_NUM_THREADS"] = "1"
    draw_candidates(args.out, args.num_texts)
    measure(args.variants[0], args.seeds[0], args)  # draws what all variants use
    runs = [(variant, seed) for variant in args.variants for seed in args.seeds]
    with ThreadPoolExecutor(args.jobs) as pool:
        results = list(pool.map(lambda each: measure(*each, args), runs))
    print(
        "| training | seed | R@1 | detection | pick: WER | pick: CER | pick: mel gap closed | likeliest: WER | both: WER | ρ |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for (variant, seed), metrics in zip(runs, results):
        print(row(variant, seed, metrics))


if __name__ == "__main__":
    main()
