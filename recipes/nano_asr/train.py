"""Step 2: a character-level speech recogniser for the codes of the nano Tortoise.

    python train.py --work work --output nano_asr

Reads the output of `features.py`. Trains a small Wav2Vec2-BERT with CTC and saves it with its processor in the format
of transformers' "automatic-speech-recognition" pipeline. Resumes an interrupted run from `work/asr.pt`.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from torchmetrics.functional.text import word_error_rate
from transformers import (
    SeamlessM4TFeatureExtractor,
    Wav2Vec2BertConfig,
    Wav2Vec2BertForCTC,
    Wav2Vec2BertProcessor,
    Wav2Vec2CTCTokenizer,
)

LETTERS = "abcdefghijklmnopqrstuvwxyz"
NUM_HELD_OUT = 400


def make_processor(work: Path) -> Wav2Vec2BertProcessor:
    vocabulary = {letter: number for number, letter in enumerate(["[PAD]", "[UNK]", "|", *LETTERS])}
    file = work / "asr_vocab.json"
    file.write_text(json.dumps(vocabulary))
    tokenizer = Wav2Vec2CTCTokenizer(str(file), unk_token="[UNK]", pad_token="[PAD]", word_delimiter_token="|")
    return Wav2Vec2BertProcessor(SeamlessM4TFeatureExtractor(), tokenizer)


def make_model(vocab_size: int) -> Wav2Vec2BertForCTC:
    config = Wav2Vec2BertConfig(
        vocab_size=vocab_size,
        hidden_size=160,
        num_hidden_layers=5,
        num_attention_heads=4,
        intermediate_size=640,
        conv_depthwise_kernel_size=15,
        position_embeddings_type="relative_key",
        **dict.fromkeys(("hidden_dropout", "activation_dropout", "attention_dropout", "conformer_conv_dropout"), 0.0),
        **dict.fromkeys(("feat_proj_dropout", "final_dropout", "layerdrop"), 0.0),
        mask_time_prob=0.05,
        mask_feature_prob=0.05,
        ctc_loss_reduction="mean",
        ctc_zero_infinity=True,
        pad_token_id=0,
    )
    return Wav2Vec2BertForCTC(config)


class Clips:
    def __init__(self, work: Path, tokenizer: Wav2Vec2CTCTokenizer) -> None:
        self.frames, stored = np.load(work / "heard.npy", mmap_mode="r"), np.load(work / "heard.npz")
        self.offsets, self.texts = stored["offsets"], stored["texts"].tolist()
        self.labels = [torch.tensor(tokenizer(text)["input_ids"]) for text in self.texts]

    def batch(self, rows: list[int]) -> dict[str, torch.Tensor]:
        clips = [
            torch.from_numpy(self.frames[self.offsets[row] : self.offsets[row + 1]].astype(np.float32)) for row in rows
        ]
        lengths = torch.tensor([len(clip) for clip in clips])
        features = pad_sequence(clips, batch_first=True)
        return {
            "input_features": features,
            "attention_mask": (torch.arange(features.shape[1]) < lengths[:, None]).long(),
            "labels": pad_sequence([self.labels[row] for row in rows], batch_first=True, padding_value=-100),
        }


@torch.no_grad()
def held_out(model: Wav2Vec2BertForCTC, clips: Clips, processor: Wav2Vec2BertProcessor, rows: range) -> float:
    """The word error rate on `rows`."""
    model.eval()
    hypotheses = []
    for start in range(0, len(rows), 50):
        batch = clips.batch(list(rows[start : start + 50]))
        batch.pop("labels")
        hypotheses += processor.batch_decode(model(**batch).logits.argmax(dim=-1))
    model.train()
    return float(word_error_rate(hypotheses, [clips.texts[row] for row in rows]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("work"))
    parser.add_argument("--output", type=Path, default=Path("nano_asr"))
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--batch-size", type=int, default=48)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    args = parser.parse_args()

    torch.manual_seed(0)
    processor = make_processor(args.work)
    model, clips = make_model(len(processor.tokenizer)).train(), Clips(args.work, processor.tokenizer)
    tested, num_train = range(len(clips.texts) - NUM_HELD_OUT, len(clips.texts)), len(clips.texts) - NUM_HELD_OUT
    steps_per_epoch = num_train // args.batch_size
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=0.01, betas=(0.9, 0.98))
    num_steps, warmup = args.epochs * steps_per_epoch, 300
    saved, first = args.work / "asr.pt", 0
    if saved.exists():
        state = torch.load(saved, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["epoch"]
    print(f"{sum(parameter.numel() for parameter in model.parameters()) / 1e6:.1f} M parameters", flush=True)
    for epoch in range(first, args.epochs):
        rng = np.random.default_rng(epoch)
        # batches of similar lengths, in random order
        noisy = np.diff(clips.offsets)[:num_train] + rng.uniform(0, 20, num_train)
        batches = np.array_split(np.argsort(noisy), steps_per_epoch)
        for step, place in enumerate(rng.permutation(steps_per_epoch)):
            with torch.autocast("cpu", torch.bfloat16):
                loss = model(**clips.batch(batches[place].tolist())).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            done = epoch * steps_per_epoch + step
            for group in optimizer.param_groups:
                group["lr"] = args.lr * min((done + 1) / warmup, 1) * (1 - done / num_steps)
            optimizer.step()
            optimizer.zero_grad()
            if step % 50 == 0:
                print(f"epoch {epoch}, step {step}/{steps_per_epoch}: loss {loss.item():.3f}", flush=True)
        partial = saved.with_suffix(".partial")
        parts = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch + 1}
        torch.save(parts, partial)
        partial.replace(saved)
        print(f"epoch {epoch}: held-out word error rate {held_out(model, clips, processor, tested):.3f}", flush=True)
    model.half().save_pretrained(args.output)
    processor.save_pretrained(args.output)


if __name__ == "__main__":
    main()
