"""CLVPProcessor against `FrozenTortoise` and `Reranker`, and as transformers opens it."""

import json

import numpy as np
import pytest
import torch
from transformers import AutoProcessor

from clvp_train import CLVPConfig, CLVPModel, CLVPProcessor, Reranker
from clvp_train.tortoise.audio import load_audio
from clvp_train.tortoise.tokenizer import train_custom_tokenizer

TEXTS = ["The “light” was good in 1984.", "It was not so."]
CODES = [[5, 90, 17, 3], [8, 2, 2, 61, 40, 7]]
TOWER = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 1}


@pytest.fixture
def make(random_tortoise):
    """A model and its processor, with a DVAE of 96 codes."""

    def make(padding="mask", num_codes=96):
        torch.manual_seed(0)
        speech = TOWER | {"vocab_size": num_codes}
        model = CLVPModel(CLVPConfig(text_config=TOWER, speech_config=speech, projection_dim=16, padding=padding))
        parts = random_tortoise.tokenizer, random_tortoise.feature_extractor, random_tortoise.dvae
        return model.eval(), CLVPProcessor.for_model(model.config, *parts, max_codes=20)

    return make


@pytest.mark.parametrize(("padding", "num_codes"), [("mask", 96), ("tortoise", 300)])
def test_scores_are_those_of_the_reranker(make, padding, num_codes):
    model, processor = make(padding, num_codes)
    sampled = [[num_codes, *CODES[0], num_codes + 1, num_codes + 1], CODES[1]]  # with start and stop tokens
    with torch.no_grad():
        outputs = [model(**processor(text=text, speech=sampled)) for text in TEXTS]
    scores = torch.cat([output.text_embeds @ output.speech_embeds.T for output in outputs])
    ranked = Reranker(model, processor.tokenizer, max_codes=20).rank(TEXTS, [CODES, CODES])
    np.testing.assert_allclose(scores, [ranking.scores for ranking in ranked], atol=1e-5)


def test_recordings_become_the_codes_of_the_tortoise(make, nano_folder, random_tortoise):
    _, processor = make()
    clips = [load_audio(nano_folder / f"voices/slt/{clip}.flac")[: 20_000 * clip] for clip in (1, 2)]
    inputs = processor(text=TEXTS, audio=[clip.numpy() for clip in clips], sampling_rate=22_050)
    assert [ids[mask > 0].tolist() for ids, mask in zip(inputs["speech_ids"], inputs["speech_attention_mask"])] == (
        random_tortoise.speech_codes(clips)
    )
    assert [ids[mask > 0].tolist() for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"])] == (
        [random_tortoise.tokenize(text) for text in TEXTS]
    )


def test_it_is_saved_with_the_model_and_opened_by_auto_processor(make, random_tortoise, tmp_path, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a question about custom code"))
    model, processor = make("tortoise")
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    opened = AutoProcessor.from_pretrained(tmp_path)
    assert type(opened) is CLVPProcessor and opened.max_codes == 20
    assert opened.feature_extractor.mel_norms == processor.feature_extractor.mel_norms
    assert json.loads((tmp_path / "processor_config.json").read_text())["num_codes"] == 96
    assert opened.tokenizer(TEXTS[0])["input_ids"] == random_tortoise.tokenize(TEXTS[0])
    weights = opened.dvae.state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in processor.dvae.state_dict().items())
    assert not any("local_files_only" in file.read_text() for file in tmp_path.glob("*.json"))
    # as earlier versions saved it
    (tmp_path / "processor_config.json").unlink()
    earlier = AutoProcessor.from_pretrained(tmp_path)
    assert (earlier.padding, earlier.num_codes) == ("tortoise", 96)
    assert torch.equal(earlier(text=TEXTS[0])["input_ids"], opened(text=TEXTS[0])["input_ids"])


def test_a_custom_tokenizer_is_opened_with_its_own_ids(make, sentences, tmp_path):
    model, _ = make()
    custom = train_custom_tokenizer(sentences[:50], 60)
    for part in (model, CLVPProcessor.for_model(model.config, custom)):
        part.save_pretrained(tmp_path)
    inputs = AutoProcessor.from_pretrained(tmp_path)(text=sentences[60])
    assert inputs["input_ids"].tolist() == [custom(sentences[60])["input_ids"]]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "text, speech, audio: set at least one"),
        ({"speech": CODES, "audio": np.zeros(9)}, "set one of them"),
        ({"text": ["!", ""]}, "text 1 '': no tokens"),
        ({"speech": [CODES[0], [96, 97]]}, "speech 1: codes must be 0 to 95"),
        ({"speech": np.zeros(30)}, "speech 0: not a sequence of codes"),
        ({"audio": np.zeros(9000), "sampling_rate": 16_000}, "sampling rate of 22050"),
        ({"audio": np.zeros(9000, np.int16), "sampling_rate": 22_050}, "not mono samples in"),
    ],
)
def test_bad_input_is_refused(make, inputs, message):
    with pytest.raises(ValueError, match=message):
        make()[1](**inputs)


def test_inputs_that_do_not_fit_the_processor_are_refused(make):
    with pytest.raises(ValueError, match="Give texts one at a time"):
        make("tortoise")[1](text=TEXTS)
    model, processor = make()
    with pytest.raises(ValueError, match="no DVAE"):
        CLVPProcessor.for_model(model.config, processor.tokenizer)(audio=np.zeros(9000))
