"""tortoise-tts' original files: keys, shapes, bad files, and conversion to transformers' format."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from transformers import ClvpModelForConditionalGeneration

from clvp_train.errors import UserError
from clvp_train.tortoise import FrozenTortoise, Sampling
from clvp_train.tortoise.autoregressive import AutoRegressive, attend_causally
from clvp_train.tortoise.dvae import DiscreteVAE, DVAEConfig
from clvp_train.tortoise.original_checkpoint import (
    from_original,
    from_original_dvae,
    original_config,
    original_dvae_config,
)
from tests.original_tortoise import SMALL, original_state, save_dvae, write_parts

PUBLISHED = {
    "width": 1024,
    "layers": 30,
    "codes": 8192,
    "mel_blocks": 6,
    "text_positions": 404,
    "speech_positions": 608,
}


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    return original_state(**SMALL)


@pytest.fixture
def folder(state, tmp_path) -> Path:
    folder = tmp_path / "original"
    write_parts(folder, state)
    return folder


def draw_of(tortoise: FrozenTortoise) -> list:
    latent = torch.randn(128, generator=torch.Generator().manual_seed(0))
    texts = [tortoise.tokenize(text) for text in ("one", "a rather longer sentence than that, in 1984")]
    return [[candidate.codes for candidate in row] for row in tortoise.candidates(texts, latent, 2)]


def test_every_key_of_the_published_file_is_converted():
    with torch.device("meta"):
        original = original_state(**PUBLISHED)
        config = original_config(original, "here")
        model = AutoRegressive(config)
        ours = from_original(original, model.state_dict().keys(), model.num_heads, "here")
    assert {key: tensor.shape for key, tensor in ours.items()} == {
        key: tensor.shape for key, tensor in model.state_dict().items()
    }
    decoder = config.decoder_config
    assert (decoder.num_hidden_layers, decoder.hidden_size, decoder.num_attention_heads) == (30, 1024, 16)
    assert (model.start_text, model.stop_text, model.start_speech, model.stop_speech) == (255, 0, 8192, 8193)
    assert list(decoder.decoder_fixing_codes) == [83, 45, 45, 248]


def test_query_key_and_value_are_ordered_by_head(state):
    rows = torch.arange(3 * 128.0)
    state["conditioning_encoder.attn.1.qkv.bias"] = rows
    state["conditioning_encoder.attn.1.qkv.weight"] = rows[:, None, None].expand(-1, 128, 1)
    model = AutoRegressive(original_config(state, "here"))
    ours = from_original(state, model.state_dict().keys(), model.num_heads, "here")
    for part, name in enumerate("qkv"):
        start = 64 * part
        expected = torch.cat([rows[start : start + 64], rows[192 + start : 192 + start + 64]])
        projection = f"conditioning_encoder.mel_attn_blocks.1.{name}_proj"
        assert torch.equal(ours[f"{projection}.bias"], expected)
        assert torch.equal(ours[f"{projection}.weight"], expected[:, None].expand(-1, 128))


def test_a_folder_opens_with_all_its_parts(folder, state):
    dvae = save_dvae(folder)
    tortoise = FrozenTortoise.from_pretrained(folder, sampling={"top_k": 7, "temperature": None})
    # 500 codes by default, but only 102 positions
    assert tortoise.sampling == Sampling(top_k=7, max_codes=102)
    assert tortoise.num_speech_tokens == 96
    assert torch.equal(tortoise.autoregressive.head.weight, state["mel_head.weight"])
    assert tortoise.feature_extractor.mel_norms == torch.linspace(4.0, 8.0, 80).tolist()
    clips = [torch.rand(9000, generator=torch.Generator().manual_seed(1)) - 0.5]
    features = torch.zeros(1, 80, 36)
    lengths = torch.tensor([36])
    assert torch.equal(tortoise.dvae.codes(features, lengths)[0], dvae.eval().codes(features, lengths)[0])
    assert len(tortoise.speech_codes(clips)[0]) == 9
    assert FrozenTortoise.load_tokenizer(folder)("So.")["input_ids"] == tortoise.tokenize("So.")


def test_given_files_replace_those_in_the_folder(folder, tmp_path):
    save_dvae(folder)
    before = FrozenTortoise.from_original(folder)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    names = {"autoregressive": "autoregressive.pth", "tokenizer": "tokenizer.json", "mel_norms": "mel_norms.pth"}
    names["dvae"] = "dvae.pth"
    moved = {name: (folder / file).rename(elsewhere / f"my_{file}") for name, file in names.items()}
    after = FrozenTortoise.from_original(folder, **moved)
    assert draw_of(after) == draw_of(before) and after.dvae is not None
    assert str(after.source).endswith("my_autoregressive.pth")


def test_extra_keys_of_a_fine_tuned_file_change_nothing(folder, state):
    before = draw_of(FrozenTortoise.from_original(folder))
    again = {f"inference_model.transformer.{key}": tensor for key, tensor in state.items() if key.startswith("gpt.")}
    torch.save(state | again | {"gpt.wte.weight": state["mel_embedding.weight"]}, folder / "autoregressive.pth")
    assert draw_of(FrozenTortoise.from_original(folder)) == before


def test_conversion_to_the_format_of_transformers(folder, tmp_path):
    save_dvae(folder)
    original = FrozenTortoise.from_original(folder, positions="trained")
    original.save_pretrained(tmp_path / "composite")
    again = FrozenTortoise.from_pretrained(tmp_path / "composite", positions="trained")
    assert draw_of(again) == draw_of(original)
    clips = [torch.rand(9000, generator=torch.Generator().manual_seed(1)) - 0.5]
    assert torch.equal(again.conditioning_latent(clips), original.conditioning_latent(clips))
    assert again.speech_codes(clips) == original.speech_codes(clips)
    for model in ("autoregressive", "dvae"):
        ours, theirs = getattr(again, model).state_dict(), getattr(original, model).state_dict()
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert again.sampling == original.sampling
    assert again.feature_extractor.mel_norms == original.feature_extractor.mel_norms
    assert again.tokenizer.bpe_ranks == original.tokenizer.bpe_ranks
    composite, info = ClvpModelForConditionalGeneration.from_pretrained(
        tmp_path / "composite", output_loading_info=True
    )
    assert not info["unexpected_keys"] and not info["mismatched_keys"]
    assert all(
        key.startswith(("text_encoder_model.", "speech_encoder_model.", "logit_scale")) for key in info["missing_keys"]
    )
    codes = torch.tensor([[96, 5, 6, 7]])
    ar = original.autoregressive
    with torch.no_grad():
        theirs = composite.eval().speech_decoder_model(input_ids=codes).logits
        ours = ar.logits(ar.stack(ar.speech_vectors(codes, torch.arange(4)), attend_causally))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


def test_the_fingerprint_follows_every_file_and_the_heads(folder, tmp_path):
    save_dvae(folder)
    prints = [
        FrozenTortoise.from_original(folder).fingerprint(),
        FrozenTortoise.from_original(folder, heads=4).fingerprint(),
    ]
    (folder / "README.md").write_text("a card")
    assert FrozenTortoise.from_pretrained(folder).fingerprint() == prints[0]
    torch.save(torch.ones(80), folder / "mel_norms.pth")
    prints.append(FrozenTortoise.from_original(folder).fingerprint())
    (folder / "dvae.pth").unlink()
    prints.append(FrozenTortoise.from_original(folder).fingerprint())
    assert len(set(prints)) == 4


class Malice:
    """Writes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


def test_an_ar_of_another_language_reads_its_own_tokenizer(folder, tmp_path):
    letters = {letter: id_ for id_, letter in enumerate("адеж5", start=3)}
    put_tokenizer(vocab=SPECIAL | letters)(folder)
    tortoise = FrozenTortoise.from_original(folder)
    assert tortoise.tokenize("Да, 5") == [letters["д"], letters["а"], 1, 2, letters["5"]]
    tortoise.save_pretrained(tmp_path / "composite")
    assert FrozenTortoise.from_pretrained(tmp_path / "composite").tokenize("даже") == tortoise.tokenize("Даже")
    assert FrozenTortoise.load_tokenizer(folder)("да")["input_ids"] == tortoise.tokenize("да")


AR, DVAE, NORMS, TOKENIZER = "autoregressive.pth", "dvae.pth", "mel_norms.pth", "tokenizer.json"
SPECIAL = {"[STOP]": 0, "[UNK]": 1, "[SPACE]": 2}
CORRUPT = "corrupt or not a checkpoint"


def change(**changes):
    """Sets tensors of autoregressive.pth, or removes those that are None."""

    def damage(folder: Path) -> None:
        state = torch.load(folder / AR, weights_only=True) | {k.replace("__", "."): v for k, v in changes.items()}
        torch.save({key: tensor for key, tensor in state.items() if tensor is not None}, folder / AR)

    return damage


def put(name: str, content):
    """Replaces a file by these bytes, or by this object as torch saves it; None removes it."""

    def damage(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        if isinstance(content, bytes):
            (folder / name).write_bytes(content)
        elif content is not None:
            torch.save(content, folder / name)

    return damage


def put_tokenizer(**changes):
    model = {"type": "BPE", "vocab": SPECIAL, "merges": []} | changes
    return put(TOKENIZER, json.dumps({"model": model}).encode())


BROKEN = [
    (put(AR, None), "autoregressive.pth: not found"),
    (change(gpt__h__1__ln_1__bias=None, final_norm__bias=None), "2 keys missing .*final_norm.bias.*0 unknown"),
    (change(mel_embedding__weight=None), "1 keys missing .*mel_embedding.weight"),
    (change(decoder__weight=torch.zeros(2)), "0 keys missing.*1 unknown .*decoder.weight"),
    (change(final_norm__bias=torch.zeros(3)), "final_norm.bias"),
    (change(conditioning_encoder__attn__0__qkv__bias=torch.zeros(7)), "mel_attn_blocks.0.q_proj.bias"),
    (change(mel_embedding__weight=torch.zeros(7)), "mel_embedding.weight"),
    (lambda folder: (folder / AR).write_bytes((folder / AR).read_bytes()[:5000]), CORRUPT),
    (put(AR, b"<!doctype html><html>404"), CORRUPT),
    (put(AR, b""), CORRUPT),
    (put(AR, DVAEConfig()), CORRUPT),
    (put(AR, pickle.dumps(Malice(Path("harm")), protocol=2)), CORRUPT),
    (put(AR, {"a": Malice(Path("harm"))}), CORRUPT),
    (put(AR, [torch.zeros(2)]), "contains a list"),
    (put(AR, {"model": {}, "step": 3}), "contains a dict"),
    (put(NORMS, None), "mel_norms.pth: not found. Copy"),
    (put(NORMS, torch.ones(100)), "80 divisors"),
    (put(NORMS, torch.zeros(80)), "80 divisors"),
    (put(TOKENIZER, None), "tokenizer.json: not found. Copy"),
    (put(TOKENIZER, b"{"), "not a tokenizer of tortoise-tts"),
    (put_tokenizer(vocab=[["a", 0.1]]), "not a tokenizer of tortoise-tts"),
    (put_tokenizer(vocab={"a": 0}), "not a tokenizer of tortoise-tts"),
    (put_tokenizer(vocab={**SPECIAL, "д": 3}, merges=["д а"]), "not a tokenizer of tortoise-tts"),
    (put_tokenizer(vocab={**SPECIAL, **{f"t{n}": n for n in range(3, 300)}}), "300 tokens, but the AR in .* has 255"),
    (lambda folder: save_dvae(folder, 64), "DVAE has 64 codes and the AR 96"),
    (lambda folder: (folder / DVAE).write_bytes((folder / AR).read_bytes()), "not a DVAE"),
]


@pytest.mark.parametrize(("damage", "reason"), BROKEN)
def test_errors_name_the_file_and_no_code_runs(folder, monkeypatch, damage, reason):
    monkeypatch.chdir(folder)
    damage(folder)
    with pytest.raises(UserError, match=reason) as raised:
        FrozenTortoise.from_original(folder)
    assert "\n" not in str(raised.value) and not (folder / "harm").exists()


@pytest.mark.parametrize("heads", [0, 3])
def test_heads_that_do_not_divide_the_width_are_refused(folder, heads):
    with pytest.raises(UserError, match=rf"tortoise.heads={heads}: not a divisor of the width 128"):
        FrozenTortoise.from_original(folder, heads=heads)


@pytest.mark.parametrize(("num_layers", "num_res_blocks", "kernel_size"), [(2, 3, 3), (1, 1, 5)])
def test_the_shape_of_a_dvae_is_derived_from_its_weights(num_layers, num_res_blocks, kernel_size):
    config = DVAEConfig(80, 32, 6, 8, num_layers, num_res_blocks, kernel_size)
    state = DiscreteVAE(config).state_dict()
    assert original_dvae_config(state, "here") == config
    stored = state | {"discrete_loss.accumulator": torch.zeros(1), "discrete_loss.accumulator_index": torch.zeros(1)}
    assert from_original_dvae(stored, state.keys(), "here").keys() == state.keys()
    with pytest.raises(UserError, match="1 unknown .*codebook.project_in.weight"):
        from_original_dvae(state | {"codebook.project_in.weight": torch.zeros(1)}, state.keys(), "here")
