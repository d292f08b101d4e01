"""Step 7: exports the nano Tortoise in transformers' composite format and selects reference clips of its voices.

    python export.py --work work --out ../../data/nano

Writes `tortoise/` (weights in float16) and `voices/VOICE/*.flac` below `--out`.
"""

import argparse
import shutil
from pathlib import Path

import numpy as np
import torch
from train_ar import HELD_OUT, ar_config
from train_dvae import Features
from transformers import ClvpFeatureExtractor, ClvpTokenizer

from clvp_train.tortoise import FrozenTortoise, Sampling, TortoiseParts
from clvp_train.tortoise.audio import HOP_LENGTH, SAMPLE_RATE
from clvp_train.tortoise.autoregressive import AutoRegressive
from clvp_train.tortoise.dvae import DiscreteVAE, DVAEConfig

VOICES = ("slt", "rms", "awb", "joe")
CLIPS_PER_VOICE = 2
CLIP_SECONDS = (3.0, 4.0)
# codes recur more often than with Tortoise's 8192 entries: its penalty of 2.0 would distort the speech
SAMPLING = Sampling(repetition_penalty=1.0, max_codes=160)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("work"))
    parser.add_argument("--out", type=Path, default=Path("../../data/nano"))
    args = parser.parse_args()

    features = Features(args.work)
    saved = torch.load(args.work / "dvae.pt", weights_only=True)
    dvae = DiscreteVAE(DVAEConfig(**saved["config"]))
    dvae.load_state_dict(saved["state_dict"])
    config = ar_config()
    config.decoder_config.decoder_fixing_codes = silence_codes(dvae.eval(), features.mel_norms)
    autoregressive = AutoRegressive(config)
    autoregressive.load_state_dict(torch.load(args.work / "ar.pt", weights_only=True))
    tokenizer = ClvpTokenizer.from_pretrained(args.work / "tortoise")
    extractor = ClvpFeatureExtractor(mel_norms=[round(float(norm), 5) for norm in features.mel_norms])
    tortoise = FrozenTortoise(TortoiseParts(autoregressive, tokenizer, extractor, dvae, SAMPLING), args.work)
    tortoise.save_pretrained(args.out / "tortoise", dtype=torch.float16)

    seconds = np.diff(features.offsets) * HOP_LENGTH / SAMPLE_RATE
    for voice in VOICES:
        folder = args.out / "voices" / voice
        folder.mkdir(parents=True, exist_ok=True)
        fits = (features.speakers == voice) & (seconds > CLIP_SECONDS[0]) & (seconds < CLIP_SECONDS[1])
        for number, index in enumerate(np.flatnonzero(fits[:-HELD_OUT])[:CLIPS_PER_VOICE], start=1):
            shutil.copy(args.work / "audio" / f"{index:06d}.flac", folder / f"{number}.flac")
            print(f"{voice} {number}: {features.texts[index]}")
    size = sum(file.stat().st_size for file in args.out.rglob("*") if file.is_file())
    print(f"{args.out}: {size / 2**20:.1f} MiB")


def silence_codes(dvae: DiscreteVAE, mel_norms: np.ndarray) -> list[int]:
    """The code of silence and the last three codes of a silent clip, for silence padding."""
    silence = torch.full((1, 80, 200), float(np.log(1e-5))) / torch.from_numpy(mel_norms).float()[:, None]
    codes = dvae.codes(silence, torch.tensor([200]))[0].tolist()
    return [codes[len(codes) // 2], *codes[-3:]]


if __name__ == "__main__":
    main()
