import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import ClvpModelForConditionalGeneration

from clvp_train.errors import UserError
from clvp_train.io.digests import DIGESTS
from clvp_train.tortoise import FrozenTortoise
from clvp_train.tortoise.audio import fit_length, load_audio, log_mel
from clvp_train.tortoise.autoregressive import PROMPT_FRAME
from clvp_train.tortoise.decoder import STATIC_BUCKET, KeyValueCache, slot_bytes
from clvp_train.tortoise.generation import FREE_SHARE, CandidateSampler

TEXTS = ["one", "a rather longer sentence than that", "and so on"]


def codes_of(rows) -> list[list[tuple[int, ...]]]:
    """Without the log-probabilities, whose last digits depend on the batch."""
    return [[candidate.codes for candidate in row] for row in rows]


def candidates_of(tortoise: FrozenTortoise, num_candidates: int = 2):
    latent = torch.randn(tortoise.autoregressive.head.in_features, generator=torch.Generator().manual_seed(0))
    return codes_of(tortoise.candidates([tortoise.tokenize(text) for text in TEXTS], latent, num_candidates))


def noises(*lengths: int) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return [torch.rand(length, generator=draw) - 0.5 for length in lengths]


@pytest.fixture
def folder(random_tortoise, tmp_path) -> Path:
    """Without digests, so that it can be edited."""
    folder = Path(shutil.copytree(random_tortoise.source, tmp_path / "tortoise"))
    (folder / DIGESTS).unlink()
    return folder


def edit(file: Path, **settings) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


@pytest.mark.parametrize("which", ["random_tortoise", "nano"])
def test_save_and_open(request, tmp_path, which):
    tortoise = request.getfixturevalue(which)
    tortoise.save_pretrained(tmp_path / "again")
    again = FrozenTortoise.from_pretrained(tmp_path / "again")
    assert again.sampling == tortoise.sampling
    assert again.tokenize("So be it.") == tortoise.tokenize("So be it.")
    assert candidates_of(again) == candidates_of(tortoise)
    clips = noises(30_000, 9000)
    assert again.speech_codes(clips) == tortoise.speech_codes(clips)
    torch.testing.assert_close(again.conditioning_latent(clips), tortoise.conditioning_latent(clips), rtol=0, atol=0)


def test_no_merge_is_lost_by_saving_a_tokenizer(nano, sentences, tmp_path):
    """transformers drops the first line of merges.txt when it reads, and writes no header there by itself."""
    tokenizer = FrozenTortoise.load_tokenizer(nano.source)
    for copy in ("one", "two", "three"):
        tokenizer.save_pretrained(tmp_path / copy)
        tokenizer = FrozenTortoise.load_tokenizer(tmp_path / copy)
    nano.save_pretrained(tmp_path / "complete")
    complete = FrozenTortoise.load_tokenizer(tmp_path / "complete")
    assert list(tokenizer.bpe_ranks) == list(complete.bpe_ranks) == list(nano.tokenizer.bpe_ranks)
    for sentence in sentences[:100]:
        assert tokenizer(sentence)["input_ids"] == complete(sentence)["input_ids"] == nano.tokenize(sentence)


def test_float16_files_run_in_float32(random_tortoise, tmp_path):
    random_tortoise.save_pretrained(tmp_path, dtype=torch.float16)
    for file in ("model.safetensors", "dvae/model.safetensors"):
        assert (tmp_path / file).stat().st_size < 0.6 * (random_tortoise.source / file).stat().st_size
    again = FrozenTortoise.from_pretrained(tmp_path)
    assert {p.dtype for p in (*again.autoregressive.parameters(), *again.dvae.parameters())} == {torch.float32}
    assert len(candidates_of(again)) == 3


def test_clvp_encoders_in_a_composite_change_nothing(random_tortoise, folder):
    complete = ClvpModelForConditionalGeneration(random_tortoise.autoregressive.config).state_dict()
    ar = load_file(folder / "model.safetensors")
    assert ar.keys() < complete.keys()
    save_file(complete | ar, folder / "model.safetensors", {"format": "pt"})
    assert candidates_of(FrozenTortoise.from_pretrained(folder)) == candidates_of(random_tortoise)


def test_everything_is_frozen(random_tortoise):
    models = (random_tortoise.autoregressive, random_tortoise.dvae)
    assert not any(module.training for model in models for module in model.modules())
    assert not any(parameter.requires_grad for model in models for parameter in model.parameters())
    assert not random_tortoise.conditioning_latent(noises(5000)).requires_grad


def test_candidates_by_text_seed_and_voice(random_tortoise):
    latent, other = torch.randn(2, 64, generator=torch.Generator().manual_seed(0))
    texts = [random_tortoise.tokenize(text) for text in TEXTS]
    three = codes_of(random_tortoise.candidates(texts, latent, 3, seeds=[5, 6, 7]))
    assert [len(row) for row in three] == [3, 3, 3]
    assert len({codes for row in three for codes in row}) == 9
    for text, seed, row in zip(texts, [5, 6, 7], three):
        assert codes_of(random_tortoise.candidates([text], latent, 2, seeds=seed)) == [row[:2]]
    latents = torch.stack([latent, other, latent])
    voices = codes_of(random_tortoise.candidates(texts, latents, 1, seeds=[5, 6, 7]))
    assert [voices[0][0], voices[2][0]] == [three[0][0], three[2][0]] and voices[1][0] != three[1][0]


def test_a_conditioning_latent_is_the_mean_over_clips_of_six_seconds(random_tortoise):
    clips = noises(3000, 200_000, 132_300)
    latents = [random_tortoise.conditioning_latent([clip]) for clip in clips]
    together = random_tortoise.conditioning_latent(clips)
    assert together.shape == (64,)
    torch.testing.assert_close(together, torch.stack(latents).mean(dim=0))
    torch.testing.assert_close(latents[1], random_tortoise.conditioning_latent([clips[1][:132_300]]), rtol=0, atol=0)
    mel = log_mel(fit_length(clips[0]), random_tortoise.feature_extractor.mel_norms)[None]
    torch.testing.assert_close(latents[0], random_tortoise.autoregressive.conditioning_encoder(mel)[0])


def test_recordings_in_a_batch_are_encoded_as_alone(nano, nano_folder):
    clips = [load_audio(path) for path in sorted((nano_folder / "voices").glob("*/*.flac"))[:4]]
    clips = [clips[0], clips[1][:20_001], clips[2][:663], clips[3][:50_000]]
    together = nano.speech_codes(clips)
    assert together == [nano.speech_codes([clip])[0] for clip in clips]
    assert [len(codes) for codes in together] == [-(-(len(clip) // 256 + 1) // 4) for clip in clips]
    assert all(0 <= code < nano.num_speech_tokens for codes in together for code in codes)


def test_the_longest_text(random_tortoise):
    limit = random_tortoise.autoregressive.max_text_tokens
    texts = {len(random_tortoise.tokenizer("q" * length)["input_ids"]): "q" * length for length in range(1, 100)}
    random_tortoise.candidates([random_tortoise.tokenize(texts[limit])], torch.zeros(64), 1)
    with pytest.raises(UserError, match=f"'qqqq.*{limit + 1} tokens.*{limit}"):
        random_tortoise.tokenize(texts[limit + 1])


def test_without_a_dvae_only_recordings_fail(random_tortoise, folder):
    shutil.rmtree(folder / "dvae")
    tortoise = FrozenTortoise.from_pretrained(folder)
    assert tortoise.dvae is None and candidates_of(tortoise) == candidates_of(random_tortoise)
    with pytest.raises(UserError, match="no DVAE"):
        tortoise.speech_codes(noises(5000))


def test_sampling_comes_from_the_folder_then_from_the_caller(folder):
    edit(folder / "sampling.json", top_k=7, temperature=0.3)
    sampling = FrozenTortoise.from_pretrained(folder, sampling={"temperature": 0.5}).sampling
    assert (sampling.top_k, sampling.temperature) == (7, 0.5)
    (folder / "sampling.json").unlink()
    published = FrozenTortoise.from_pretrained(folder).sampling
    assert (published.temperature, published.top_k, published.top_p) == (0.8, 50, 0.8)
    assert (published.repetition_penalty, published.penalised_ids) == (2.0, (1,))
    assert published.max_codes == 200  # 500, or as many as there are positions


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"topk": 3}, "topk.*Known settings.*top_k"),
        ({"top_p": 0}, "top_p"),
        ({"max_codes": 0}, "max_codes"),
        ({"temperature": "hot"}, "sampling"),
        ({"penalised_ids": 3}, "sampling"),
        ({"penalised_ids": [98]}, "penalised_ids.*below 98"),
    ],
)
def test_an_invalid_sampling_setting_is_refused(random_tortoise, setting, message):
    with pytest.raises(UserError, match=message):
        FrozenTortoise.from_pretrained(random_tortoise.source, sampling=setting)


def change_decoder(folder: Path, **settings) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["decoder_config"] |= settings
    (folder / "config.json").write_text(json.dumps(config))


BROKEN = {
    "no config": (lambda folder: (folder / "config.json").unlink(), "no config.json"),
    "config is not JSON": (lambda folder: (folder / "config.json").write_text("{"), "config.json: cannot be read"),
    "another model": (lambda folder: edit(folder / "config.json", model_type="gpt2"), "'gpt2'"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "no weights"),
    "damaged weights": (lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 99), "model.safetensors"),
    "more layers": (lambda folder: change_decoder(folder, num_hidden_layers=3), "keys missing"),
    "fewer layers": (lambda folder: change_decoder(folder, num_hidden_layers=1), "unknown"),
    "another width": (lambda folder: change_decoder(folder, vocab_size=120), "size mismatch"),
    "no tokenizer": (lambda folder: (folder / "vocab.json").unlink(), "ClvpTokenizer"),
    "no features": (lambda folder: (folder / "preprocessor_config.json").unlink(), "ClvpFeatureExtractor"),
    "sampling is not JSON": (
        lambda folder: (folder / "sampling.json").write_text("{"),
        "sampling.json: cannot be read",
    ),
    "no DVAE config": (lambda folder: (folder / "dvae" / "config.json").unlink(), "dvae.config.json: cannot be read"),
    "odd DVAE config": (lambda folder: edit(folder / "dvae" / "config.json", depth=3), "depth"),
    "another DVAE": (lambda folder: edit(folder / "dvae" / "config.json", hidden_dim=16), "size mismatch"),
    "no DVAE weights": (lambda folder: (folder / "dvae" / "model.safetensors").unlink(), "dvae: no weights"),
    "damaged DVAE": (lambda folder: (folder / "dvae" / "model.safetensors").write_bytes(b"x" * 99), "dvae"),
}


@pytest.mark.parametrize(("damage", "reason"), BROKEN.values(), ids=BROKEN.keys())
def test_errors_name_the_folder_and_the_problem(folder, damage, reason):
    damage(folder)
    with pytest.raises(UserError, match=reason) as raised:
        FrozenTortoise.from_pretrained(folder)
    assert str(folder) in str(raised.value) and "\n" not in str(raised.value)


def test_a_missing_folder_or_a_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="not a folder"):
        FrozenTortoise.from_pretrained(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="a file"):
        FrozenTortoise.from_pretrained(tmp_path / "file")
    with pytest.raises(UserError, match="ClvpTokenizer"):
        FrozenTortoise.load_tokenizer(tmp_path)


def test_the_tokenizer_opens_without_the_models(random_tortoise, folder):
    (folder / "model.safetensors").unlink()
    assert FrozenTortoise.load_tokenizer(folder)("So.")["input_ids"] == random_tortoise.tokenize("So.")


def test_the_fingerprint_depends_on_the_content_only(random_tortoise, folder):
    again = FrozenTortoise.from_pretrained(folder)
    (folder / "README.md").write_text("a card")
    assert again.fingerprint() == again.fingerprint() == random_tortoise.fingerprint()
    candidates_of(again)
    assert again.fingerprint() == random_tortoise.fingerprint()


def add_to(file: Path, key: str) -> None:
    weights = load_file(file)
    weights[key] = weights[key] + 1e-3
    save_file(weights, file, {"format": "pt"})


CHANGES = {
    "weights": lambda folder: add_to(folder / "model.safetensors", "speech_decoder_model.lm_head.bias"),
    "dvae": lambda folder: add_to(folder / "dvae" / "model.safetensors", "encoder.0.0.bias"),
    "no dvae": lambda folder: shutil.rmtree(folder / "dvae"),
    "mel norms": lambda folder: edit(folder / "preprocessor_config.json", mel_norms=[2.0] * 80),
    "merges": lambda folder: (folder / "merges.txt").write_text("#version: 0.2\na b\n"),
    "silence": lambda folder: change_decoder(folder, decoder_fixing_codes=[1, 2, 3, 4]),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_the_fingerprint_changes_with_every_relevant_file(random_tortoise, folder, change):
    change(folder)
    assert FrozenTortoise.from_pretrained(folder).fingerprint() != random_tortoise.fingerprint()


def test_the_fingerprint_changes_with_positions_and_sampling(random_tortoise):
    source = random_tortoise.source
    opened = [
        random_tortoise,
        FrozenTortoise.from_pretrained(source, positions="trained"),
        FrozenTortoise.from_pretrained(source, sampling={"temperature": 0.7}),
        FrozenTortoise.from_pretrained(source, sampling={"max_codes": 119}),
        FrozenTortoise.from_pretrained(source, sampling={"penalised_ids": [1, 2]}),
    ]
    assert len({tortoise.fingerprint() for tortoise in opened}) == 5


def test_slots_fit_the_free_memory_of_a_gpu(folder, monkeypatch):
    tortoise = FrozenTortoise.from_pretrained(folder, sampling={"max_codes": 4})
    size, cache = slot_bytes(tortoise.autoregressive, tortoise.sampling, 20), KeyValueCache
    shape = (len(tortoise.autoregressive.blocks), 1, 1, STATIC_BUCKET, tortoise.autoregressive.head.in_features)
    cached = cache(shape, tortoise.autoregressive.head.weight)
    assert (
        cached.keys.nbytes + cached.values.nbytes < size < 3 * (cached.keys.nbytes + cached.values.nbytes) + 32 * 1000
    )
    texts, latents = [[3] * (20 - PROMPT_FRAME)], torch.zeros(tortoise.autoregressive.head.in_features)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (int(10.5 * size / FREE_SHARE), 0))
    for device, batch_size, expected in (("cpu", None, 40), ("cuda:1", None, 10), ("cuda:1", 3, 3)):
        monkeypatch.setattr(CandidateSampler, "device", torch.device(device))
        tortoise.candidates(texts, latents, 40, batch_size=batch_size)
        assert tortoise._sampler.decoder.num_slots == expected
