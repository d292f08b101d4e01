"""Step 9: what a speech recognition model hears: word and character error rates of held-out recordings, and of what each step
makes of them.

    python hear.py --work work --out ../../data/nano --asr FOLDER_OR_SIZE

Prints one row each for the recordings, their log-mels, their DVAE codes (both through Griffin-Lim), and codes that the AR draws
for their texts in their voices. `--asr` is a model as in `rerank.asr`.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from torchmetrics.functional.text import char_error_rate, word_error_rate
from train_dvae import HELD_OUT, Features
from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

from clvp_train.evaluation import find_recognizer
from clvp_train.tortoise import FrozenTortoise
from clvp_train.tortoise.audio import load_audio
from clvp_train.tortoise.vocoder import mels_to_audio, synthesize

normalize = EnglishTextNormalizer({})  # five and 5 are the same word


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("work"))
    parser.add_argument("--out", type=Path, default=Path("../../data/nano"))
    parser.add_argument("--asr", required=True)
    parser.add_argument("--num-clips", type=int, default=100)
    parser.add_argument("--num-candidates", type=int, default=4, help="of each text")
    args = parser.parse_args()

    tortoise = FrozenTortoise.from_pretrained(args.out / "tortoise")
    transcribe = find_recognizer(args.asr).open(torch.device("cpu"))
    features = Features(args.work)
    held_out = np.arange(len(features) - HELD_OUT, len(features))
    clips = [index for index in held_out if not features.speakers[index].endswith("telephone")][: args.num_clips]
    texts = [str(features.texts[index]) for index in clips]
    recordings = [load_audio(args.work / "audio" / f"{index:06d}.flac") for index in clips]
    latents = {
        voice: tortoise.conditioning_latent(
            [load_audio(file) for file in sorted((args.out / "voices" / voice).iterdir())]
        )
        for voice in sorted({str(features.speakers[index]) for index in clips})
    }
    drawn = tortoise.candidates(
        [tortoise.tokenize(text) for text in texts],
        torch.stack([latents[str(features.speakers[index])] for index in clips]),
        args.num_candidates,
    )
    heard = {
        "recordings": (texts, recordings),
        "log-mels": (texts, [mels_to_audio(tortoise, features.clip(index)[None])[0] for index in clips]),
        "DVAE codes": (texts, synthesize(tortoise, tortoise.speech_codes(recordings))),
        "candidates": (
            [text for text in texts for _ in range(args.num_candidates)],
            synthesize(tortoise, [candidate.codes for candidates in drawn for candidate in candidates]),
        ),
    }
    print(f"finished: {np.mean([candidate.finished for candidates in drawn for candidate in candidates]):.3f}")
    print("| | clips | WER | CER |\n| --- | --- | --- | --- |")
    for name, (references, audio) in heard.items():
        order = sorted(range(len(audio)), key=lambda row: len(audio[row]))  # equal lengths are heard together
        blocks = [order[start : start + 32] for start in range(0, len(order), 32)]
        transcripts = dict(zip(order, [text for block in blocks for text in transcribe([audio[row] for row in block])]))
        heard_texts = [normalize(transcripts[row]) for row in range(len(audio))]
        expected = [normalize(text) for text in references]
        rates = [rate(heard_texts, expected).item() for rate in (word_error_rate, char_error_rate)]
        print(f"| {name} | {len(audio)} | {rates[0]:.3f} | {rates[1]:.3f} |", flush=True)


if __name__ == "__main__":
    main()
