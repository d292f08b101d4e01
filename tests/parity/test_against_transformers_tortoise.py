"""The frozen Tortoise against transformers' Clvp: features, silence padding, sampling, latents and greedy codes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    ClvpConfig,
    ClvpFeatureExtractor,
    ClvpModelForConditionalGeneration,
    DynamicCache,
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)
from transformers.models.clvp.modeling_clvp import ClvpConditioningEncoder

from clvp_train.tortoise import FrozenTortoise, Sampling
from clvp_train.tortoise.audio import load_audio, log_mel
from clvp_train.tortoise.autoregressive import num_groups
from clvp_train.tortoise.sampling import next_codes
from clvp_train.tortoise.silence_padding import pad_with_silence

NANO = Path(__file__).parents[2] / "data" / "nano"
START, STOP, MAX_CODES = 96, 97, 150
TEXTS = ["so", "a good deal longer than the others, and then some", "he had gone", "it was not to be"]
GREEDY = {"temperature": 0, "repetition_penalty": 1.0, "max_codes": MAX_CODES}


@pytest.fixture(scope="module")
def reference(order_one):
    encoder = {"hidden_size": 64, "intermediate_size": 64, "projection_dim": 64, "num_attention_heads": 1}
    stack = {"hidden_size": 96, "num_hidden_layers": 3, "num_attention_heads": 3, "num_mel_attn_blocks": 2}
    ids = {"vocab_size": STOP + 1, "bos_token_id": START, "eos_token_id": STOP}
    config = ClvpConfig(
        text_config={"num_hidden_layers": 1, **encoder},
        speech_config={"num_hidden_layers": 1, "vocab_size": START, **encoder},
        decoder_config={**stack, **ids, "max_position_embeddings": 202, "max_text_tokens": 70},
    )
    model = ClvpModelForConditionalGeneration(config)
    for part in (model.conditioning_encoder, model.speech_decoder_model):
        order_one(part)
    with torch.no_grad():  # so that voice and text matter besides the position, and some rows stop
        reference_decoder = model.speech_decoder_model.model.decoder
        reference_decoder.position_embeds_layer.weight.mul_(0.3)
        for layer in reference_decoder.layers:
            layer.attn.q_proj.weight.mul_(3.0)
        model.speech_decoder_model.lm_head.bias[STOP] += 1.0
    return model.eval()


@pytest.fixture(scope="module")
def folder(reference, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tortoise")
    reference.save_pretrained(folder)
    FrozenTortoise.load_tokenizer(NANO / "tortoise").save_pretrained(folder)
    ClvpFeatureExtractor(mel_norms=[1.0 + channel / 40 for channel in range(80)]).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def clips():
    return [load_audio(NANO / "voices" / voice / "1.flac") for voice in ("rms", "awb", "slt")]


def test_log_mel_of_speech(clips):
    norms = [1.0 + channel / 40 for channel in range(80)]
    extractor = ClvpFeatureExtractor(mel_norms=norms)
    for clip in clips:
        expected = extractor(clip.numpy(), sampling_rate=22_050, max_length=len(clip)).input_features[0]
        ours = log_mel(clip, norms).numpy()
        assert ours.shape == expected.shape
        # float32 against float64: measured 6e-5 at most, 2e-6 on average
        np.testing.assert_allclose(ours, expected, rtol=0, atol=3e-4)
        assert np.abs(ours - expected).mean() < 1e-5


@torch.no_grad()
def test_conditioning_latents(reference, folder, clips):
    ours = FrozenTortoise.from_pretrained(folder)
    features = ClvpFeatureExtractor.from_pretrained(folder)(
        [clip.numpy() for clip in clips], sampling_rate=22_050, return_tensors="pt"
    ).input_features
    expected = reference.conditioning_encoder(features, input_ids=torch.ones(3, 1, dtype=torch.long))[:, 0]
    for clip, latent in zip(clips, expected):
        torch.testing.assert_close(ours.conditioning_latent([clip]), latent, rtol=0, atol=2e-4)  # of order 1
    torch.testing.assert_close(ours.conditioning_latent(clips), expected.mean(dim=0), rtol=0, atol=2e-4)


@torch.no_grad()
def conditioning(reference, text: list[int], latent: torch.Tensor) -> torch.Tensor:
    """transformers' prefix [latent, 255, text, 0, 0] for one text, as in its `generate`, with the given latent."""
    silence = torch.zeros(1, 80, 4)
    prefix = reference.conditioning_encoder(silence, input_ids=torch.tensor([[*text, 0]]))
    prefix[:, 0] = latent
    return prefix


@torch.no_grad()
def greedy_loop(reference, prefix: torch.Tensor, positions: str) -> tuple[int, ...]:
    """Greedy codes over transformers' decoder, one forward pass per code, with explicit position ids."""
    model = reference.speech_decoder_model
    decoder = model.model.decoder
    start = decoder.input_embeds_layer.weight[START] + decoder.position_embeds_layer.weight[0]
    x = torch.cat([prefix, start[None, None]], dim=1)
    positions_1L = torch.arange(x.shape[1])[None]
    # the decoder adds a position embedding to all inputs, so those of the prompt are subtracted first
    inputs = {"inputs_embeds": x - decoder.position_embeds_layer(positions_1L), "position_ids": positions_1L}
    cache, codes = DynamicCache(config=model.config), []
    while len(codes) < MAX_CODES:
        code = int(model(**inputs, past_key_values=cache, use_cache=True).logits[0, -1].argmax())
        if code == STOP:
            break
        codes.append(code)
        position = len(codes) + 1 if positions == "served" else len(codes)
        inputs = {"input_ids": torch.tensor([[code]]), "position_ids": torch.tensor([[position]])}
    return tuple(codes)


@pytest.fixture(scope="module")
def latents():
    return torch.randn(len(TEXTS), 96, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("positions", ["served", "trained"])
def test_greedy_codes_of_a_batch_equal_a_loop_over_each_prompt(reference, folder, latents, positions):
    ours = FrozenTortoise.from_pretrained(folder, positions=positions, sampling=GREEDY)
    texts = [ours.tokenize(text) for text in TEXTS]
    drawn = [candidate.codes for (candidate,) in ours.candidates(texts, latents, 1)]
    prefixes = [conditioning(reference, text, latent) for text, latent in zip(texts, latents)]
    assert drawn == [greedy_loop(reference, prefix, positions) for prefix in prefixes]
    assert len(set(drawn)) == len(TEXTS) and len({len(codes) for codes in drawn}) > 1


@torch.no_grad()
@pytest.mark.parametrize("penalty", [1.0, 2.0])
def test_greedy_codes_equal_generate_of_one_prompt(reference, folder, latents, penalty):
    """`generate` counts speech positions 0, 2, 3, …; those of the prompt must be passed."""
    # transformers penalises the start token and drawn codes, tortoise-tts also placeholder 1
    settings = {**GREEDY, "repetition_penalty": penalty, "penalised_ids": []}
    ours = FrozenTortoise.from_pretrained(folder, sampling=settings)
    for text, latent in zip(TEXTS, latents):
        ids = ours.tokenize(text)
        prefix = conditioning(reference, ids, latent)
        generated = reference.speech_decoder_model.generate(
            conditioning_embeds=prefix,
            position_ids=torch.arange(prefix.shape[1] + 1)[None],
            do_sample=False,
            max_new_tokens=MAX_CODES,
            repetition_penalty=penalty,
            eos_token_id=STOP,
            pad_token_id=STOP,
        )[0, 1:].tolist()
        ((candidate,),) = ours.candidates([ids], latent, 1)
        assert candidate.finished == (generated[-1] == STOP)
        assert list(candidate.codes) == generated[: len(generated) - candidate.finished]


@pytest.mark.parametrize("width", [16, 32, 48, 64, 96, 128, 256, 512, 768, 1000, 1024])
def test_group_norm_groups(width):
    assert num_groups(width) == ClvpConditioningEncoder.compute_groupnorm_groups(None, width)


def test_silence_padding(reference):
    codes = reference.config.decoder_config.decoder_fixing_codes
    draw = torch.Generator().manual_seed(0)
    for length in (1, 2, 3, 4, 5, 9, 40):
        ids = torch.randint(0, START, (200, length), generator=draw)
        ids[torch.rand(200, length, generator=draw) < 0.1] = STOP
        # transformers removes the start token first
        expected = reference.fix_speech_decoder_output(torch.nn.functional.pad(ids, (1, 0), value=START))
        assert torch.equal(pad_with_silence(ids, STOP, codes[0], codes[1:]), expected)


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(),
        Sampling(temperature=1.0, top_k=10, top_p=0.5, repetition_penalty=1.0),
        Sampling(temperature=1.5, top_k=1000, top_p=0.95, repetition_penalty=1.3),
        Sampling(temperature=0.3, top_k=3, top_p=1.0, repetition_penalty=0.7),
    ],
    ids=repr,
)
@pytest.mark.parametrize("spread", [0.5, 3.0])
def test_distribution_of_the_next_code(sampling, spread):
    """Evenly spread draws have the distribution of transformers' processors."""
    draws, vocabulary, draw = 20_000, 120, torch.Generator().manual_seed(int(spread))
    processors = LogitsProcessorList([RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty)])
    processors += [TemperatureLogitsWarper(sampling.temperature), TopKLogitsWarper(sampling.top_k)]
    processors += [TopPLogitsWarper(sampling.top_p)]
    for _ in range(10):
        logits = torch.randn(vocabulary, generator=draw) * spread
        before = torch.randint(0, vocabulary, (30,), generator=draw)
        expected = processors(before[None], logits[None].clone())[0].softmax(0)
        penalised = torch.zeros(vocabulary, dtype=torch.bool)
        penalised[before] = True
        grid = (torch.arange(draws) + 0.5) / draws
        drawn, _ = next_codes(logits.expand(draws, -1), penalised.expand(draws, -1), grid, sampling)
        shares = drawn.bincount(minlength=vocabulary) / draws
        torch.testing.assert_close(shares, expected, rtol=0, atol=2 / draws)
        assert not shares[expected == 0].any()
        assert shares[expected > 2 / draws].all()
