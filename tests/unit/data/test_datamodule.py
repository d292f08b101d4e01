import lightning as L
import pytest
import torch

from clvp_train.data.datamodule import CLVPDataModule
from clvp_train.errors import UserError


def test_pairs_come_out_as_they_were_written(write_pairs):
    module = CLVPDataModule(write_pairs(train=6, candidates=2))
    train = module.splits["train"]
    assert len(train) == 12 and len(train.text_index) == 6
    for text, places in enumerate(train.text_index):
        for candidate, place in enumerate(places):
            pair = train[place]
            assert pair["input_ids"].tolist() == [1 + text] * (1 + text % 5)
            assert pair["speech_ids"].tolist() == [text] * (2 + text) + [candidate]
            assert pair["speech_ids"].dtype == torch.int64


def test_equal_texts_count_once_and_share_their_candidates(write_pairs):
    folder = write_pairs(train=6, candidates=2, extra=("TRAIN 0!", "train  1", "another"))
    train = CLVPDataModule(folder, batch_size=7).splits["train"]
    assert len(train) == 15 and len(train.text_index) == 7
    assert [len(places) for places in train.text_index] == [3, 3, 2, 2, 2, 2, 1]


def test_loaders_give_complete_batches_and_first_candidates(write_pairs):
    module = CLVPDataModule(write_pairs(), batch_size=8, eval_batch_size=3)
    batches = list(module.train_dataloader())
    assert len(batches) == module.steps_per_epoch == 2 and all(len(batch["input_ids"]) == 8 for batch in batches)
    (val,) = module.val_dataloader()
    batches = list(val)
    assert [len(batch["text"]) for batch in batches] == [3, 2]
    assert torch.cat([batch["text"] for batch in batches]).tolist() == list(range(5))


def lists(loader):
    """Batches as plain lists."""
    return [{name: value.tolist() for name, value in batch.items()} for batch in loader]


def drawn(module):
    return lists(module.train_dataloader())


@pytest.mark.parametrize(("start", "num_workers"), [("fork", 2), ("spawn", 1)])
def test_workers_give_the_batches_of_a_single_process(write_pairs, start, num_workers):
    folder = write_pairs()
    alone = CLVPDataModule(folder, batch_size=4, num_hard_negatives=2)
    shared = CLVPDataModule(folder, batch_size=4, num_hard_negatives=2, num_workers=num_workers)
    shared.loader_settings["multiprocessing_context"] = start
    assert drawn(shared) == drawn(alone) and len(drawn(alone)) == 5
    assert {"key", "negative_ids", "negative_attention_mask"} < drawn(alone)[0].keys()


@pytest.mark.parametrize("skipped", [0, 2, 3])
def test_a_run_resumes_with_the_same_batches_and_negatives(write_pairs, skipped):
    folder = write_pairs()
    complete, resumed = (CLVPDataModule(folder, batch_size=6, num_hard_negatives=2) for _ in range(2))
    resumed.resume_at(0, skipped)
    assert drawn(resumed) == drawn(complete)[skipped:] and len(resumed.train_dataloader()) == 3
    resumed.resume_at(1, skipped)
    loaders = [module.train_dataloader() for module in (complete, resumed)]
    early = lists(loaders[1])  # as loader processes prefetch them, before set_epoch
    for epoch, start in ((1, skipped), (2, 0)):
        for loader in loaders:
            loader.batch_sampler.sampler.set_epoch(epoch)
        every, others = map(lists, loaders)
        assert others == every[start:], "another epoch is complete"
        assert epoch == 2 or others == early


def test_training_has_keys_and_negatives_and_evaluation_has_texts(write_pairs):
    module = CLVPDataModule(write_pairs(), batch_size=8, num_hard_negatives=3)
    batch, evaluated = (next(iter(loader)) for loader in (module.train_dataloader(), *module.val_dataloader()))
    assert len(set(batch["key"].tolist())) == 8 and len(batch["negative_ids"]) == 24
    negatives = {"negative_ids", "negative_attention_mask", "negative_lengths"}
    assert evaluated.keys() == batch.keys() - negatives - {"key"} | {"text"}


def test_all_loaders_use_the_padding(write_pairs):
    module = CLVPDataModule(write_pairs(speech_vocab_size=249), batch_size=8, num_hard_negatives=1, max_codes=20)
    module.padding = "tortoise"
    for loader in (module.train_dataloader(), *module.val_dataloader()):
        batch = next(iter(loader))
        assert batch["speech_ids"].shape[1] == 20 and [45, 45, 248] in batch["speech_ids"][:, -3:].tolist()
    module.padding = "mask"
    assert next(iter(module.train_dataloader()))["speech_ids"].shape[1] == 16


def test_tortoise_padding_needs_its_codes_in_the_pairs(write_pairs):
    module = CLVPDataModule(write_pairs(speech_vocab_size=248))
    with pytest.raises(UserError, match="padding=tortoise: .* 83 .* 248.* have 248 speech codes"):
        module.padding = "tortoise"
    assert module.padding == "mask"


@pytest.mark.parametrize(
    ("settings", "world_size", "message"),
    [
        ({"batch_size": 1}, 1, "data.batch_size must be at least 2"),
        ({"batch_size": 2}, 4, "data.batch_size=2: .* not divisible by 4 processes"),
        ({"batch_size": 21}, 1, "data.batch_size=21: larger than the 20 training texts"),
    ],
)
def test_a_batch_that_does_not_fit_is_refused(write_pairs, settings, world_size, message):
    with pytest.raises(UserError, match=message):
        CLVPDataModule(write_pairs(), **settings).check(world_size)


@pytest.mark.parametrize("split", ["val", "test"])
def test_an_empty_split_is_reported_with_its_setting(write_pairs, split):
    module = CLVPDataModule(write_pairs(**{split: 0}), batch_size=4)
    for act in (lambda: module.check(1), lambda: module.check_split(split)):
        with pytest.raises(UserError, match=f"the {split} split is empty. Raise split.{split}_percent"):
            act()


def test_an_empty_split_matters_only_if_it_is_evaluated(write_pairs):
    CLVPDataModule(write_pairs(test=0), batch_size=4).check(1, ("val",))
    with pytest.raises(UserError, match="test split has a single text"):
        CLVPDataModule(write_pairs(test=1, name="single"), batch_size=4).check(1)


class Recorder(L.LightningModule):
    """Records the batches of each epoch."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: dict[int, list] = {}

    def training_step(self, batch, batch_index):
        assert len(batch["input_ids"]) == 5
        lengths = batch["speech_attention_mask"].sum(dim=1)
        last = batch["speech_ids"].gather(1, lengths[:, None] - 1)[:, 0]
        pairs = zip(batch["speech_ids"][:, 0].tolist(), last.tolist())
        self.seen.setdefault(self.current_epoch, []).extend(pairs)
        return self.weight.sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_a_trainer_changes_order_and_candidates_with_the_epoch(write_pairs, tmp_path):
    """Lightning, not this package, must call the sampler's set_epoch."""
    recorder = Recorder()
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=3,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(recorder, train_dataloaders=CLVPDataModule(write_pairs(), batch_size=5).train_dataloader())
    orders = [[text for text, _ in recorder.seen[epoch]] for epoch in range(3)]
    assert len({tuple(order) for order in orders}) == 3
    assert all(sorted(order) == list(range(20)) for order in orders)
    for text in range(20):
        assert {dict(recorder.seen[epoch])[text] for epoch in range(3)} == {0, 1, 2}
