import pytest
import torch

from clvp_train.errors import UserError
from clvp_train.tortoise.autoregressive import KeyValueCache

LATENT_WIDTH, START, STOP = 64, 96, 97


def masks(mask_BP: torch.Tensor, length: int) -> torch.Tensor:
    """What each of `length` positions may attend to: the prompt's real ones and all codes, up to itself."""
    real = torch.nn.functional.pad(mask_BP, (0, length - mask_BP.shape[1]), value=True)
    return ((torch.ones(length, length).tril() > 0) & real[:, None] | torch.eye(length).bool())[:, None]


@pytest.mark.parametrize("positions", ["served", "trained"])
def test_a_prompt_is_latent_start_text_two_stops_and_start_of_speech(make_model, positions):
    model = make_model(positions)
    latents = torch.randn(2, LATENT_WIDTH, generator=torch.Generator().manual_seed(1))
    prompt, mask = model.prompt(latents, [[11, 12, 13], [21]])
    assert prompt.shape == (2, 8, LATENT_WIDTH)
    assert mask.tolist() == [[True] * 8, [False] * 2 + [True] * 6]
    for row, (latent, text) in enumerate(zip(latents, [[11, 12, 13], [21]])):
        ids = torch.tensor([255, *text, 0, 0])
        spoken = model.text_embedding(ids) + model.text_position(torch.arange(len(ids)))
        start = model.speech_embedding.weight[START] + model.speech_position.weight[0]
        expected = torch.cat([latent[None], spoken, start[None]])
        torch.testing.assert_close(prompt[row, -len(expected) :], expected)


@pytest.mark.parametrize(("positions", "expected"), [("served", [0, 2, 3, 4]), ("trained", [0, 1, 2, 3])])
def test_speech_positions(make_model, positions, expected):
    model = make_model(positions)
    model.speech_embedding.weight.zero_()
    whole = model.speech_vectors(torch.zeros(1, 4, dtype=torch.long), first=0)[0]
    torch.testing.assert_close(whole, model.speech_position.weight[expected])
    torch.testing.assert_close(
        model.speech_vectors(torch.zeros(1, 2, dtype=torch.long), first=2)[0],
        model.speech_position.weight[expected[2:]],
    )


def test_an_unknown_way_to_count_positions_is_named(make_model):
    with pytest.raises(UserError, match="positions='serve'.*served, trained"):
        make_model("serve")


def test_the_longest_text_and_the_most_codes_have_a_position_row(make_model):
    model = make_model("served")
    prompt, _ = model.prompt(torch.zeros(1, LATENT_WIDTH), [[5] * model.max_text_tokens])
    assert prompt.shape[1] == 1 + model.text_position.num_embeddings + 1
    model.speech_vectors(torch.full((1, model.max_codes), 3), first=1)
    with pytest.raises(IndexError):
        model.prompt(torch.zeros(1, LATENT_WIDTH), [[5] * (model.max_text_tokens + 1)])


@torch.no_grad()
@pytest.mark.parametrize("positions", ["served", "trained"])
def test_steps_with_a_cache_equal_one_pass_without(make_model, positions):
    model = make_model(positions)
    draw = torch.Generator().manual_seed(1)
    prompt, mask = model.prompt(torch.randn(3, LATENT_WIDTH, generator=draw), [[5], [7, 8, 9, 10], list(range(1, 40))])
    codes = torch.randint(0, START, (3, 12), generator=draw)
    P, L = prompt.shape[1], prompt.shape[1] + 12
    whole = model.logits(torch.cat([prompt, model.speech_vectors(codes, first=1)], dim=1), masks(mask, L))

    cache = KeyValueCache((len(model.blocks), 3, model.num_heads, P + 1, LATENT_WIDTH // model.num_heads), prompt)
    logits = model.logits(prompt, masks(mask, P), cache)
    for step in range(12):
        torch.testing.assert_close(logits[:, -1], whole[:, P - 1 + step], rtol=0, atol=1e-4)
        if cache.length == cache.keys.shape[3]:
            cache.grow(5)
        mask = torch.nn.functional.pad(mask, (0, 1), value=True)
        vectors = model.speech_vectors(codes[:, step : step + 1], first=step + 1)
        logits = model.logits(vectors, mask[:, None, None], cache)
    torch.testing.assert_close(logits[:, -1], whole[:, -1], rtol=0, atol=1e-4)
    assert cache.length == L


def test_growing_and_dropping_rows_keep_what_is_cached():
    cache = KeyValueCache((2, 4, 1, 3, 2), torch.zeros(()))
    cache.keys.copy_(torch.randn(cache.keys.shape))
    cache.values.copy_(torch.randn(cache.values.shape))
    keys, values = cache.keys.clone(), cache.values.clone()
    cache.keep(torch.tensor([0, 3]))
    cache.grow(4)
    assert cache.keys.shape == cache.values.shape == (2, 2, 1, 7, 2)
    assert torch.equal(cache.keys[:, :, :, :3], keys[:, [0, 3]])
    assert torch.equal(cache.values[:, :, :, :3], values[:, [0, 3]])
