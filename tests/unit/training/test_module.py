import math
import os
import signal

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader

from clvp_train.errors import Stopped, UserError
from clvp_train.metrics import retrieval_ranks, retrieval_summary
from clvp_train.models import load_clvp
from clvp_train.training import CLVPModule, LastCheckpoint, OptimConfig, TrainingConfig


def loader(batches):
    return DataLoader(batches, batch_size=None)


class GradientNorms(L.Callback):
    """The norm of the gradients that each step but the last was taken with."""

    def __init__(self):
        self.found = []

    def on_before_zero_grad(self, trainer, module, optimizer):
        gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
        if gradients:
            self.found.append(torch.nn.utils.get_total_norm(gradients).item())


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("limit", [1e-3, 0.0])
def test_gradients_are_clipped_under_the_fused_optimiser(model, batches, trainer_settings, precision, limit):
    norms = GradientNorms()
    trainer = L.Trainer(max_steps=4, precision=precision, callbacks=[norms], **trainer_settings)
    module = CLVPModule(model, optim=OptimConfig(gradient_clip_norm=limit), total_steps=4)
    trainer.fit(module, loader(batches))
    assert trainer.optimizers[0].defaults["fused"] and len(norms.found) == 3
    if limit:
        assert norms.found == pytest.approx([limit] * 3, rel=1e-2)
    else:
        assert min(norms.found) > 0.05


@pytest.mark.parametrize(("start", "end"), [(20.0, math.log(100)), (-3.0, 0.0)])
def test_the_logit_scale_stays_between_1_and_100(model, batches, trainer_settings, start, end):
    with torch.no_grad():
        model.logit_scale.fill_(start)
    trainer = L.Trainer(max_steps=1, **trainer_settings)
    trainer.fit(CLVPModule(model, optim=OptimConfig(lr=1e-9)), loader(batches))
    assert model.logit_scale.item() == pytest.approx(end, abs=1e-6)


def test_training_on_one_batch_brings_the_loss_down(model, batches, trainer_settings):
    class Losses(L.Callback):
        def __init__(self):
            self.found = []

        def on_train_batch_end(self, trainer, module, outputs, batch, batch_index):
            self.found.append(outputs["loss"].item())

    losses = Losses()
    trainer = L.Trainer(max_epochs=30, callbacks=[losses], **trainer_settings)
    trainer.fit(CLVPModule(model, optim=OptimConfig(lr=1e-2), total_steps=30), loader(batches[:1]))
    assert losses.found[-1] < 0.1 * losses.found[0]


@pytest.mark.parametrize("chunk_tokens", [0, 1, 16, 1000])
def test_embeddings_are_unit_vectors_and_no_size_of_chunks_changes_them(model, batches, chunk_tokens):
    text, speech = (
        CLVPModule(model.eval(), training=TrainingConfig(chunk_tokens)).eval().batch_encoder.embed(batches[0])
    )
    output = model(**{key: value for key, value in batches[0].items() if key != "text"})
    torch.testing.assert_close(text, output.text_embeds, atol=1e-5, rtol=0)
    torch.testing.assert_close(speech, output.speech_embeds, atol=1e-5, rtol=0)
    torch.testing.assert_close(text.norm(dim=1), torch.ones(6))


def without_attention_dropout(model):
    for tower in (model.config.text_config, model.config.speech_config):
        tower.attention_dropout = 0.0


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("has_gaps", [False, True])
@pytest.mark.parametrize("kind", ["mean", "first", "last"])
def test_packed_rows_have_the_embeddings_and_gradients_of_padded_rows(model, kind, has_gaps, cached):
    model.config.speech_config.summary_type = kind
    without_attention_dropout(model)
    lengths = [9, 1, 17, 4, 1, 8]
    mask = torch.arange(24) < torch.tensor(lengths)[:, None]
    if has_gaps:
        mask[0, 3:5] = mask[2, 1:9] = mask[5, 0] = False
    ids = torch.randint(1, 40, mask.shape, generator=torch.Generator().manual_seed(0))

    def run(packed):
        model.zero_grad()
        module = CLVPModule(model, training=TrainingConfig(20, packed=packed, cached_gradients=cached)).double().eval()
        embeds = module.batch_encoder.project("speech", ids, mask, lengths, has_gaps)
        (embeds * torch.arange(1.0, 7.0)[:, None]).sum().backward()
        return embeds, *(parameter.grad.clone() for parameter in model.speech_model.parameters())

    for packed, padded in zip(run(True), run(False), strict=True):
        torch.testing.assert_close(packed, padded, atol=1e-9, rtol=1e-9)


def test_packed_rows_with_attention_dropout_are_refused(model):
    with pytest.raises(UserError, match=r"training.packed=true: .*attention_dropout=0"):
        CLVPModule(model, training=TrainingConfig(packed=True))


def test_metrics_are_those_of_all_texts_whatever_their_order_and_doubles(model, batches, trainer_settings):
    """As on ranks that come out short, a text may come twice, and anywhere."""
    model.eval()
    module = CLVPModule(model)
    text, speech = module.batch_encoder.embed(batches[0])
    order = torch.tensor([4, 1, 0, 5, 2, 3, 4, 1])
    shuffled = {key: value[order] for key, value in batches[0].items()}
    parts = [{key: value[part] for key, value in shuffled.items()} for part in (slice(0, 3), slice(3, 8))]

    class Look(L.Callback):
        def on_validation_end(self, trainer, module):
            self.found = module.validated

    look, expected = Look(), (text.detach(), speech.detach())
    trainer = L.Trainer(callbacks=[look], **trainer_settings)
    trainer.validate(module, loader(parts), verbose=False)
    found = look.found
    assert module.validated is None, "it is not kept during training"
    torch.testing.assert_close(found[:2], expected, atol=1e-6, rtol=0)
    both = [
        retrieval_summary(retrieval_ranks(*expected))[direction]["MRR"]
        for direction in ("text_to_speech", "speech_to_text")
    ]
    assert trainer.callback_metrics["val/MRR"].item() == pytest.approx(sum(both) / 2)


def test_a_diverged_model_is_reported_in_words(model, batches, trainer_settings):
    with torch.no_grad():
        model.text_projection.weight.fill_(float("nan"))
    with pytest.raises(UserError, match="diverged"):
        L.Trainer(**trainer_settings).validate(CLVPModule(model), loader(batches[:1]), verbose=False)


def test_gradients_that_are_not_finite_stop_training_before_they_are_applied(model, batches, trainer_settings):
    class Spoil(L.Callback):
        def on_train_batch_start(self, trainer, module, batch, batch_index):
            if trainer.global_step == 6:
                self.before = model.text_projection.weight.detach().clone()
                module.loss.register_forward_hook(
                    lambda loss, inputs, output: setattr(output, "loss", output.loss * 1e300)
                )

    spoil = Spoil()
    with pytest.raises(UserError, match=r"diverged: .* epoch 1, batch 2 .*step 6.*lower optim.lr"):
        L.Trainer(max_steps=9, callbacks=[spoil], **trainer_settings).fit(
            CLVPModule(model, total_steps=9), loader(batches)
        )
    assert torch.equal(model.text_projection.weight, spoil.before)


def test_hard_negatives_are_embedded_beside_the_codes(model, batches):
    batch, other = batches[0], batches[1]
    negatives = {
        "negative_ids": torch.nn.functional.pad(other["speech_ids"], (0, 8)),
        "negative_attention_mask": torch.nn.functional.pad(other["speech_attention_mask"], (0, 8)),
    }
    module = CLVPModule(model, training=TrainingConfig(chunk_tokens=40)).eval()
    text, speech = module.batch_encoder.embed(batch | negatives)
    assert (len(text), len(speech)) == (6, 12)
    expected = torch.cat([module.batch_encoder.embed(batch)[1], module.batch_encoder.embed(other)[1]])
    torch.testing.assert_close(speech, expected, atol=1e-5, rtol=0)


def test_the_noise_of_a_batch_depends_on_its_place_and_not_on_what_came_before(model, batches, trainer_settings):
    class Seeds(L.Callback):
        def __init__(self):
            self.found = []

        def on_train_batch_end(self, *args):
            self.found.append(torch.initial_seed())
            torch.rand(3)

    def seeds(seed):
        noted = Seeds()
        trainer = L.Trainer(max_epochs=2, callbacks=[noted], **trainer_settings)
        trainer.fit(CLVPModule(model, total_steps=8, seed=seed), loader(batches))
        return noted.found

    assert seeds(0) == seeds(0) and len({*seeds(0), *seeds(1)}) == 16


class Look(L.Callback):
    """Which step last.ckpt holds whenever a batch starts."""

    def __init__(self, path):
        self.path, self.found = path, []

    def on_train_batch_start(self, trainer, *args):
        held = torch.load(self.path, weights_only=True)["global_step"] if self.path.exists() else None
        self.found.append((trainer.global_step, held))


@pytest.mark.parametrize(
    ("every", "held", "end"),
    [
        (None, [None, None, None, None, 4, 4, 4, 4, 8], 9),
        (3, [None, None, None, 3, 3, 3, 6, 6, 6], 9),
        (5, [None, None, None, None, None, 5, 5, 5, 5], 9),
    ],
)
def test_last_ckpt_is_kept_new_while_training_runs(model, batches, trainer_settings, tmp_path, every, held, end):
    path = tmp_path / "made" / "last.ckpt"
    last, look = LastCheckpoint(path.parent, every), Look(path)
    trainer = L.Trainer(max_steps=9, callbacks=[last, look], **trainer_settings | {"enable_checkpointing": True})
    trainer.fit(CLVPModule(model, total_steps=9), loader(batches))
    assert look.found == list(enumerate(held))
    assert torch.load(path, weights_only=True)["global_step"] == end
    assert last.last_model_path == str(path)
    assert sorted(file.name for file in path.parent.iterdir()) == ["before-last.ckpt", "last.ckpt"]


def test_a_signal_that_arrives_while_the_ranks_agree_stops_training_in_the_next_step(
    model, batches, trainer_settings, tmp_path, monkeypatch
):
    last = LastCheckpoint(tmp_path)

    def maximum(*flags):
        if last._saved_step == 0 and not last._signal:
            os.kill(os.getpid(), signal.SIGUSR1)
        return list(flags)

    monkeypatch.setattr(last, "_maximum", maximum)
    trainer = L.Trainer(max_steps=9, callbacks=[last], **trainer_settings | {"enable_checkpointing": True})
    with pytest.raises(Stopped):
        trainer.fit(CLVPModule(model, total_steps=9), loader(batches))
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 1


def test_nothing_trained_means_no_checkpoint(model, batches, trainer_settings, tmp_path):
    last = LastCheckpoint(tmp_path)
    L.Trainer(max_epochs=0, callbacks=[last], **trainer_settings | {"enable_checkpointing": True}).fit(
        CLVPModule(model), loader(batches)
    )
    assert last.last_model_path == "" and not list(tmp_path.glob("*.ckpt"))


def test_a_checkpoint_opens_without_pickled_code_and_gives_the_same_embeddings(
    model, batches, trainer_settings, tmp_path
):
    model.config.padding = "tortoise"
    trainer = L.Trainer(max_steps=2, **trainer_settings)
    module = CLVPModule(model)
    trainer.fit(module, loader(batches))
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    stored = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert stored["clvp_config"]["model_type"] == "clvp_train" and stored["clvp_config"]["projection_dim"] == 16
    loaded = load_clvp(tmp_path / "a.ckpt")
    assert loaded.config.padding == "tortoise" and not loaded.training
    module.eval()
    expected, found = module.batch_encoder.embed(batches[0]), CLVPModule(loaded).batch_encoder.embed(batches[0])
    assert torch.equal(expected[0], found[0]) and torch.equal(expected[1], found[1])
    rounded = [torch.as_tensor(part.logit_scale) for part in (model, loaded)]
    assert torch.equal(*rounded) and rounded[0].item() != pytest.approx(2.6592, abs=1e-6), "trained"


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_settable_number_of_steps_in_a_row_is_skipped(model, batches, trainer_settings, precision, caplog):
    class Spoil(L.Callback):
        def __init__(self, steps):
            self.steps, self.weights = steps, []

        def on_train_batch_start(self, trainer, module, batch, batch_index):
            self.weights.append(model.text_projection.weight.detach().clone())
            with torch.no_grad():
                model.logit_scale.fill_(float("nan") if trainer.global_step in self.steps else 1.0)

    def fit(steps):
        spoil, module = Spoil(steps), CLVPModule(model, total_steps=9, training=TrainingConfig(max_skipped_steps=2))
        L.Trainer(max_steps=8, precision=precision, callbacks=[spoil], **trainer_settings).fit(module, loader(batches))
        return [torch.equal(a, b) for a, b in zip(spoil.weights, spoil.weights[1:])]

    assert fit({2, 3, 5}) == [False, False, True, True, False, True, False]
    assert caplog.text.count("step skipped") == 3 and "epoch 1, batch 1" in caplog.text
    with pytest.raises(UserError, match=r"step 4\), 3 in a row.*max_skipped_steps"):
        fit({2, 3, 4})


def test_weights_of_16_bits_are_refused(model, batches, trainer_settings):
    with pytest.raises(UserError, match="bf16-true.*Set trainer.precision=bf16-mixed"):
        L.Trainer(precision="bf16-true", **trainer_settings).fit(CLVPModule(model), loader(batches))
