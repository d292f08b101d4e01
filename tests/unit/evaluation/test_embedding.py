import numpy as np
import pytest
import torch

from clvp_train.data.collate import Collate
from clvp_train.evaluation import Embedder


def test_sequences_are_embedded_as_if_alone_and_in_the_given_order(embedder, model, held_out):
    pairs = held_out(23)
    texts, speech = embedder.texts(pairs.input_ids), embedder.speech(pairs.codes, pairs.finished)
    assert texts.shape == speech.shape == (23, 16) and texts.dtype == torch.float32
    with torch.no_grad():
        for row in range(23):
            ids, codes = (torch.from_numpy(rows[row])[None] for rows in (pairs.input_ids, pairs.codes))
            torch.testing.assert_close(texts[row], model.get_text_features(ids)[0], atol=1e-5, rtol=0)
            torch.testing.assert_close(speech[row], model.get_speech_features(codes)[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_results_do_not_depend_on_the_batch_size(embedder, held_out, batch_size):
    pairs = held_out(11)
    other = Embedder(embedder.module, embedder.trainer, embedder.collate, batch_size)
    torch.testing.assert_close(other.texts(pairs.input_ids), embedder.texts(pairs.input_ids), atol=1e-5, rtol=0)


def test_padding_follows_the_collate(embedder, held_out):
    pairs = held_out(3)
    padded = Embedder(embedder.module, embedder.trainer, Collate("tortoise", max_codes=30), 5)
    assert not torch.allclose(padded.texts(pairs.input_ids), embedder.texts(pairs.input_ids), atol=1e-3)
    ended = [np.append(ids, 0) for ids in pairs.input_ids]
    torch.testing.assert_close(padded.texts(pairs.input_ids), embedder.texts(ended), atol=1e-5, rtol=0)
