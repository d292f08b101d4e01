from pathlib import Path

import numpy as np
import torch

from clvp_train import CLVPConfig, CLVPModel, Reranker
from clvp_train.demo.session import DemoSession
from clvp_train.tortoise import FrozenTortoise
from clvp_train.tortoise.audio import load_audio

DATA = Path(__file__).parents[3] / "data/nano"


def model(text_tokens: int) -> CLVPModel:
    torch.manual_seed(0)
    tower = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 1}
    text, speech = tower | {"vocab_size": text_tokens}, tower | {"vocab_size": 2048}
    return CLVPModel(CLVPConfig(text_config=text, speech_config=speech, projection_dim=16))


def test_candidates_are_compared_with_the_clips_of_the_chosen_voice():
    tortoise, voice = FrozenTortoise.from_pretrained(DATA / "tortoise"), Reranker(model(2049))
    reranker = Reranker(model(256), tortoise.tokenizer, voice=voice, voice_weight=1000)
    rows = DemoSession(tortoise, reranker, DATA / "voices", 5).draw("It was not so.", "slt", 0, lambda candidate: None)
    clips = tortoise.speech_codes([load_audio(file) for file in sorted((DATA / "voices/slt").iterdir())])
    scores = [np.mean([voice.rank([clip], [[row.candidate]])[0].scores for clip in clips]) for row in rows]
    combined = [row.combined for row in rows]
    assert combined == sorted(combined, reverse=True)
    assert len(set(scores)) == 5 and scores == sorted(scores, reverse=True)
