"""A path that is typed as a shell accepts it arrives in the config, and what Hydra reads in its own way still does."""

import pytest
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from clvp_train.errors import UserError
from clvp_train.io import CONF
from clvp_train.pipelines.paths import expand_paths, is_path, quote_paths

ODD = [
    "run/best-step=3.ckpt",
    "~/LJSpeech-1.1",
    "/data/[v2]",
    "[v2]",
    "[v2]/a,b/[v3]",
    "takes (2)",
    "data(2)",
    "Jürgen",
]
ODD += [
    "データ/声",
    "R&B",
    "it's",
    '5" disk',
    "2024_01_15",
    "1e3",
    "007",
    "true",
    "a,b",
    "{x}",
    "a;b#c!",
    "mix: 50%",
    "a\\",
    "-x",
]
ODD += [
    "C:\\speech\\",
    "$HOME's",
    "`x`",
    "<new>",
    "naïve\u00a0space",
    "emoji 🎙",
    "s3://bucket/lr=1",
    "'tis",
    "^x",
    "a  b",
]
PLAIN = [
    "null",
    "",
    "/data/LJSpeech-1.1",
    "${oc.env:USER}/x",
    "'a=b'",
    '"it\'s"',
    r"a\=b",
    r"my\ data",
    "a b",
    "s3://a/b",
]


def read(*arguments):
    """The settings of a command as Hydra and this package read them."""
    cfg = OmegaConf.create()
    for override in OverridesParser.create().parse_overrides(quote_paths(list(arguments))):
        OmegaConf.update(cfg, override.key_or_group, override.value())
    expand_paths(cfg)
    return cfg


@pytest.mark.parametrize("path", ODD)
def test_a_path_arrives_as_typed_also_a_second_time_and_in_lists(path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    given = quote_paths([f"corpus.root={path}", f"+callbacks.mine.dirpath={path}"])
    assert quote_paths(given) == given, "the ranks of a run read them again"
    expected = path.replace("~/", "/home/me/")
    cfg = read(*given)
    assert cfg.corpus.root == cfg.callbacks.mine.dirpath == expected
    if not set(path) & set(",{") and path[0] != "'":
        cfg = read(f"checkpoint=[{path}, /other,{path}]", f"pairs={{a:{path},b:{{path:{path},weight:2}}}}")
        assert cfg.checkpoint == [expected, "/other", expected]
        assert cfg.pairs == {"a": expected, "b": {"path": expected, "weight": 2}}


@pytest.mark.parametrize("value", PLAIN)
def test_what_hydra_reads_is_left_alone(value):
    assert quote_paths([f"corpus.root={value}"]) == [f"corpus.root={value}"]


@pytest.mark.parametrize(
    "argument",
    [
        "optim.lr=[1",
        "seed=007",
        "~callbacks.best",
        "--config-dir=a(b",
        "trainer.devices=[0,1]",
        "split=[v2]",
        "-m",
        "corpus=é",
    ],
)
def test_other_arguments_are_left_alone(argument):
    assert quote_paths([argument]) == [argument]


def test_lists_stay_lists_unless_a_folder_has_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert read("checkpoint=[v2]").checkpoint == ["v2"]
    assert read("checkpoint=['a,b',[c]/d]").checkpoint == ["a,b", "[c]/d"]
    for name in ("[v2]", "a,b", r"a\ b"):
        (tmp_path / name).mkdir()
        assert read(f"checkpoint={name}").checkpoint == name


@pytest.mark.parametrize(
    ("value", "jobs"),
    [
        ("a,b", ["a", "b"]),
        ("run/a=1,~/b,[v2]", ["run/a=1", "~/b", "[v2]"]),
        ("choice(a,b)", ["a", "b"]),
        ("2024_01_15,'x,y'", ["2024_01_15", "x,y"]),
    ],
)
def test_a_sweep_over_paths(value, jobs):
    argument = quote_paths(["--multirun", f"corpus.root={value}"])[1]
    (batch,) = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides([argument]), None)
    assert [OverridesParser.create().parse_override(*job).value() for job in batch] == jobs


def test_the_folder_that_hydra_creates_is_expanded_before(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert quote_paths(["hydra.run.dir=~/lr=1"]) == ["hydra.run.dir='/home/me/lr=1'"]


def test_paths_of_yaml_files(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    cfg = OmegaConf.create(
        {"corpus": {"root": "~/x", "text_column": "~"}, "pairs": ["~/a", {"path": "~", "weight": 2}]}
    )
    expand_paths(cfg)
    assert cfg == {
        "corpus": {"root": "/home/me/x", "text_column": "~"},
        "pairs": ["/home/me/a", {"path": "/home/me", "weight": 2}],
    }
    with pytest.raises(UserError, match="corpus.root=20240115: not a path. Put it in quotes"):
        expand_paths(OmegaConf.create({"corpus": {"root": 20240115}}))


def test_every_setting_of_the_configs_that_is_a_path_is_known():
    """Those whose comments speak of files, folders or checkpoints."""
    words = ("folder", "file", "path", "checkpoint", "a .ckpt", "template")
    unknown = []
    for file in sorted(CONF.rglob("*.yaml")):
        parts = [] if file.parent == CONF else [file.parent.relative_to(CONF).as_posix().replace("/", ".")]
        for line in file.read_text().splitlines():
            key, _, rest = line.partition(":")
            value, _, comment = rest.partition("#")
            if key.isidentifier() and value.strip() in ("null", "???") and any(word in comment for word in words):
                unknown += [name for name in [".".join([*parts, key])] if not is_path(name)]
    assert unknown == ["data.eval_pairs", "data.val_pairs"], "names"
