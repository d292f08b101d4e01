"""A run folder that somebody has sent sets values, but runs no code without `trust_run_folder=true`."""

import hydra
import pytest
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from clvp_train.errors import UserError
from clvp_train.io import CONF
from clvp_train.pipelines import resolvers  # noqa: F401
from clvp_train.pipelines.resume import resolve_resume

EVIL = "+callbacks.x._target_=torch.load"


@pytest.fixture
def resume(tmp_path):
    """Resolves `resume=sent`, a run with these overrides, in a command with those typed."""

    def resume(sent, typed=(), stored_in="checkpoint"):
        run = tmp_path / "sent"
        (run / "checkpoints").mkdir(parents=True)
        (run / "config").mkdir()
        stored = {"overrides": sent} if stored_in == "checkpoint" else {}
        torch.save({"clvp_run": stored}, run / "checkpoints/last.ckpt")
        (run / "config/overrides.yaml").write_text("".join(f"- {override!r}\n" for override in sent))
        (run / "outside.yaml").write_text("x:\n  _target_: os.system\n")
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = hydra.compose("train", [f"resume={run}", f"paths.output={run}", *typed], return_hydra_config=True)
            HydraConfig.instance().set_config(cfg)
            return resolve_resume(OmegaConf.masked_copy(cfg, [key for key in cfg if key != "hydra"]))

    return resume


@pytest.mark.parametrize(
    ("sent", "named"),
    [
        (EVIL, "callbacks.x._target_=torch.load"),
        ("callbacks.best._target_=os.system", "callbacks.best._target_=os.system"),
        ("+note={a:[{_target_:os.system}]}", "note.a.0._target_=os.system"),
        ("+note='${oc.create:{_target_:os.system}}'", "call a resolver"),
        ("+callbacks.x={_target_:'${oc.select:note.${resume},torch.load}'}", "call a resolver"),  # after the check
        ("+callbacks.x._target_=${resume}", "callbacks.x._target_="),
        ("callbacks=[../../../../../../../../{tmp}/sent/outside]", "os.system"),
        ("--config-dir=sent", "--config-dir=sent"),
        ("hydra.searchpath=[file:///tmp]", "hydra.searchpath"),
        ("trust_run_folder=true", "_target_=torch.load"),
    ],
)
def test_code_and_options_of_the_run_are_refused(resume, tmp_path, sent, named):
    stored_in = "checkpoint" if sent == EVIL else "overrides.yaml"
    with pytest.raises(UserError, match="resume=.*sent: the overrides of the run") as refused:
        resume(
            [sent.replace("{tmp}", str(tmp_path)), *([EVIL] if sent.startswith("trust") else [])], stored_in=stored_in
        )
    assert named in str(refused.value)


@pytest.mark.parametrize("sent", ["optim.lr=[1", "", "optim.lr=" + "9" * 5000], ids=["a list", "nothing", "digits"])
def test_an_override_that_cannot_be_read_is_refused(resume, sent):
    with pytest.raises(UserError, match="overrides: .* cannot be read"):
        resume([sent])


@pytest.mark.parametrize(
    ("sent", "typed"),
    [
        (["optim.lr=0.5", "loss=sigmoid", "logger=tensorboard"], []),
        ([EVIL], [EVIL]),
        ([EVIL], ["trust_run_folder=true"]),
    ],
)
def test_values_and_trusted_code_are_taken(resume, sent, typed):
    start = resume(sent, typed)
    assert set(sent) <= set(start.overrides) and "trust_run_folder=true" not in start.overrides
    assert (start.cfg.optim.lr == 0.5) == ("optim.lr=0.5" in sent)
