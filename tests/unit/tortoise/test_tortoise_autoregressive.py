import pytest
import torch

from clvp_train.errors import UserError
from clvp_train.tortoise.decoder import KeyValueCache

LATENT_WIDTH, START, STOP = 64, 96, 97


@pytest.mark.parametrize("positions", ["served", "trained"])
def test_a_prompt_is_latent_start_text_and_two_stops(make_model, positions):
    model = make_model(positions)
    latents = torch.randn(2, LATENT_WIDTH, generator=torch.Generator().manual_seed(1))
    prompt, lengths = model.prompt(latents, [[11, 12, 13], [21]])
    assert prompt.shape == (2, 7, LATENT_WIDTH) and lengths.tolist() == [7, 5]
    for row, (latent, text) in enumerate(zip(latents, [[11, 12, 13], [21]])):
        ids = torch.tensor([255, *text, 0, 0])
        spoken = model.text_embedding(ids) + model.text_position(torch.arange(len(ids)))
        expected = torch.cat([latent[None], spoken])
        torch.testing.assert_close(prompt[row, : len(expected)], expected)


@pytest.mark.parametrize(("positions", "expected"), [("served", [0, 2, 3, 4]), ("trained", [0, 1, 2, 3])])
def test_speech_positions(make_model, positions, expected):
    model = make_model(positions)
    model.speech_embedding.weight.zero_()
    vectors = model.speech_vectors(torch.zeros(1, 4, dtype=torch.long), torch.arange(4))
    torch.testing.assert_close(vectors[0], model.speech_position.weight[expected])


def test_unknown_positions_are_refused(make_model):
    with pytest.raises(UserError, match="positions=serve.*served, trained"):
        make_model("serve")


def test_the_longest_text_and_the_most_codes_have_positions(make_model):
    model = make_model("served")
    prompt, _ = model.prompt(torch.zeros(1, LATENT_WIDTH), [[5] * model.max_text_tokens])
    assert prompt.shape[1] == 1 + model.text_position.num_embeddings
    model.speech_vectors(torch.full((1, model.max_codes), 3), torch.arange(1, model.max_codes + 1))
    with pytest.raises(IndexError):
        model.prompt(torch.zeros(1, LATENT_WIDTH), [[5] * (model.max_text_tokens + 1)])


@torch.no_grad()
@pytest.mark.parametrize("positions", ["served", "trained"])
def test_each_row_of_a_ragged_batch_has_the_logits_of_the_row_alone(make_model, positions):
    model = make_model(positions)
    draw = torch.Generator().manual_seed(1)
    latents = torch.randn(3, LATENT_WIDTH, generator=draw)
    texts, lengths = [[5], [7, 8, 9, 10], list(range(1, 40))], [12, 3, 7]
    codes = torch.randint(0, START, (3, 12), generator=draw)
    together = model(latents, texts, codes)
    assert together.shape == (3, 13, STOP + 1)
    for row, length in enumerate(lengths):
        alone = model(latents[row : row + 1], [texts[row]], codes[row : row + 1, :length])
        torch.testing.assert_close(together[row, : length + 1], alone[0], rtol=0, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("positions", ["served", "trained"])
def test_steps_with_a_cache_equal_one_pass_without(make_model, positions):
    """Slots that start at different steps, in a cache that another sequence has used before."""
    model = make_model(positions)
    draw = torch.Generator().manual_seed(1)
    latents = torch.randn(3, LATENT_WIDTH, generator=draw)
    texts, starts = [[5], [7, 8, 9, 10], list(range(1, 40))], [0, 4, 9]
    codes = torch.randint(0, START, (3, 12), generator=draw)
    expected = model(latents, texts, codes)
    cache = KeyValueCache((len(model.blocks), 3, model.num_heads, 80, LATENT_WIDTH // model.num_heads), latents)
    cache.keys.normal_(generator=draw)
    cache.values.normal_(generator=draw)
    lengths, steps = torch.zeros(3, dtype=torch.long), torch.zeros(3, dtype=torch.long)
    spoken = torch.cat([torch.full((3, 1), START), codes], dim=1)
    for now in range(22):
        for row in (row for row in range(3) if starts[row] == now):
            prompt, length = model.prompt(latents[row : row + 1], [texts[row]])
            model.stack(prompt, cache.prefill(torch.tensor([row]), torch.tensor([0])))
            lengths[row], steps[row] = length[0], 0
        vectors = model.speech_vectors(spoken.gather(1, steps[:, None]), steps[:, None])
        logits = model.logits(model.stack(vectors, cache.step(lengths + steps, 64)))[:, 0]
        for row in range(3):
            if 0 <= now - starts[row] <= 12:
                torch.testing.assert_close(logits[row], expected[row, now - starts[row]], rtol=0, atol=1e-4)
        steps = (steps + 1).clamp(max=12)


def test_a_prompt_is_copied_to_all_slots_that_share_it():
    cache = KeyValueCache((1, 5, 1, 4, 2), torch.zeros(()))
    k = torch.arange(8.0).view(2, 1, 2, 2)
    cache.prefill(torch.tensor([0, 3, 4]), torch.tensor([1, 0, 1]))(0, k, k, k + 100)
    assert cache.keys[0, :, 0, :2].tolist() == [
        k[1, 0].tolist(),
        [[0, 0]] * 2,
        [[0, 0]] * 2,
        k[0, 0].tolist(),
        k[1, 0].tolist(),
    ]
    assert torch.equal(cache.values[0, [0, 3, 4], :, :2], k[[1, 0, 1]] + 100)
    assert not cache.keys[:, :, :, 2:].any()


def test_moved_slots_keep_their_cache():
    cache = KeyValueCache((2, 4, 1, 6, 2), torch.zeros(()))
    cache.keys.copy_(torch.randn(cache.keys.shape))
    cache.values.copy_(torch.randn(cache.values.shape))
    keys, values = cache.keys.clone(), cache.values.clone()
    cache.move(torch.tensor([1, 3]), 5)
    assert torch.equal(cache.keys[:, :2, :, :5], keys[:, [1, 3], :, :5])
    assert torch.equal(cache.values[:, :2, :, :5], values[:, [1, 3], :, :5])
