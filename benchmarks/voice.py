"""What a model of voices is worth: wrong-voice detection among unseen voices, and what it changes in the pick.

    python benchmarks/voice.py --checkpoint RUN/model --voice VOICE_RUN/model --pairs VOICE_PAIRS --asr tiny.en

Draws 16 candidates of held-out sentences twice, in one voice and in all four, and prints two tables. `VOICE_PAIRS` are the
pairs that the model of voices was trained on. Drawn candidates and transcripts are kept in `--out`.
"""

import argparse
from pathlib import Path

import numpy as np
from training_variants import ROOT, draw_candidates

from clvp_train import Reranker
from clvp_train.data.datamodule import CLVPDataModule
from clvp_train.evaluation import find_recognizer, read_candidates
from clvp_train.evaluation.held_out import CandidateSets
from clvp_train.evaluation.judges import judge_by_asr
from clvp_train.metrics import interval
from clvp_train.pairs import read_recordings
from clvp_train.tortoise import FrozenTortoise

WEIGHTS = (0.0, 0.1, 0.3, 1.0, 3.0)


def candidates(out: Path, num_texts: int, one_voice: bool) -> CandidateSets:
    folder = str(draw_candidates(out, num_texts, "one_voice" if one_voice else "all_voices", one_voice))
    return read_candidates(CLVPDataModule(folder), folder, num_texts)


def wrong_voice_detection(voice: Reranker, pairs: str) -> str:
    """How often the codes of an unseen voice score higher with their reference than those of another voice do, over all pairs
    of utterances; the interval is over voices."""
    split = CLVPDataModule(pairs).splits["test"]
    items, voices = [split[row] for row in range(len(split))], np.array(split.column("voice", np.arange(len(split))))
    references, codes = ([item[name] for item in items] for name in ("input_ids", "speech_ids"))
    count = len(codes)
    of_reference, of_codes = [ids for ids in references for _ in range(count)], codes * count
    scores_NN = voice.scores(of_reference, of_codes, [True] * count**2).reshape(count, count)
    wins_NN = scores_NN.diagonal()[:, None] > scores_NN
    rates = [wins_NN[np.ix_(voices == name, voices != name)].mean() for name in np.unique(voices)]
    return f"{shown(np.array(rates))}, {len(rates)} voices, {len(voices)} utterances"


def picks(sets: CandidateSets, scores: dict[str, np.ndarray], weight: float) -> np.ndarray:
    """(N,) the candidate with the highest combined score of each text."""
    return np.argmax(sets.by_text(scores["text"] + weight * scores["voice"]), axis=1)


def shown(values_N: np.ndarray) -> str:
    low, high = interval(values_N)
    return f"{values_N.mean():.3f} ({low:.3f} to {high:.3f})"


def word_error_rate(errors_N: np.ndarray, lengths_N: np.ndarray) -> str:
    low, high = interval(np.stack([errors_N, lengths_N], axis=1), lambda means: means[:, 0] / means[:, 1])
    return f"{errors_N.sum() / lengths_N.sum():.3f} ({low:.3f} to {high:.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--checkpoint", "--voice", "--pairs", "--asr"):
        parser.add_argument(name, required=True)
    parser.add_argument("--references", default=str(ROOT / "data/nano/voices.parquet"))
    parser.add_argument("--out", type=Path, default=Path("voice"))
    parser.add_argument("--num-texts", type=int, default=200)
    args = parser.parse_args()

    args.out = args.out.absolute()
    args.out.mkdir(parents=True, exist_ok=True)
    reranker = Reranker.from_pretrained(args.checkpoint, voice=args.voice)
    assert reranker.voice is not None
    print(f"wrong-voice detection: {wrong_voice_detection(reranker.voice, args.pairs)}")
    clips: dict[str, list] = {}
    table = read_recordings(args.references, "--references")
    for name, codes in zip(table["voice"].to_pylist(), table["speech_ids"].to_pylist()):
        clips.setdefault(name, []).append(reranker.speech_ids(codes, name))
    tortoise, recognizer = FrozenTortoise.from_pretrained(ROOT / "data/nano/tortoise"), find_recognizer(args.asr)

    def scored(sets: CandidateSets, wanted: list[str]) -> dict[str, np.ndarray]:
        texts, codes = map(list, (map(reranker.text_ids, sets.pairs.texts, sets.pairs.texts), sets.pairs.codes))
        speech = [reranker.speech_ids(ids, "codes") for ids in codes]
        voices_ND = reranker.voice_embeddings([clips[voice][:16] for voice in wanted])
        of_voice = reranker.voice_scores(voices_ND, speech, sets.pairs.finished)
        return {"text": reranker.scores(texts, speech, sets.pairs.finished), "voice": of_voice}

    one, several = (candidates(args.out, args.num_texts, each) for each in (True, False))
    errors = judge_by_asr(one, tortoise, recognizer, str(args.out))["word_error_rate"]
    own, names = scored(one, list(one.pairs.voices)), sorted(set(several.pairs.voices))
    of_wanted = [scored(several, [name] * len(several.pairs)) for name in names]
    voice_NK = several.by_text([names.index(voice) for voice in several.pairs.voices])
    print("| voice weight | one voice: WER of the pick | all voices: pick in the wanted voice |")
    print("| --- | --- | --- |")
    every = np.arange(len(errors.lengths_N))
    print(
        f"| random pick | {word_error_rate(errors.errors_NK.mean(axis=1), errors.lengths_N)} | {1 / len(names):.3f} |"
    )
    for weight in WEIGHTS:
        right = [voice_NK[every, picks(several, scores, weight)] == number for number, scores in enumerate(of_wanted)]
        rate = word_error_rate(errors.errors_NK[every, picks(one, own, weight)], errors.lengths_N)
        print(f"| {weight:g} | {rate} | {shown(np.mean(right, axis=0))} |")


if __name__ == "__main__":
    main()
