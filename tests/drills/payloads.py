"""What `hostile` tries."""

from typing import Any

from clvp_train.pairs import SCHEMA

NUMBERS = (-1, 0, float("nan"), float("inf"), 1e30, 2**63, "many")
DEEP = "[" * 100_000
COMMANDS = [  # with settings that all numbers occur in
    ("train", ["paths.output=out", "callbacks=[default,ema]", "loss=sigmoid"]),
    (
        "train",
        ["paths.output=out", "loss=listwise", "codes=stored", "codes.path=a", "tortoise=original", "tortoise.folder=a"],
    ),
    ("generate", []),
    ("evaluate", ["checkpoint=a"]),
    ("rerank", ["checkpoint=a", "candidates=a"]),
    ("train_tokenizer", []),
    ("demo", []),
]
# of a run folder; {} is the file that code would create
OVERRIDES = [
    *[
        r"",
        r"+callbacks.x={_target_:pathlib.Path.touch,self:{_target_:pathlib.Path,_args_:['{}']}}",
        r"+callbacks.x={_target_:os.system,_args_:['touch {}']}",
        r"+callbacks.x={_target_:builtins.open,_args_:['{}',w]}",
        r"callbacks.best._target_=os.system",
        r"+callbacks.x._target_=hydra.utils.instantiate",
        r"+note='${oc.create:{_target_:os.system,_args_:[touch {}]}}'",
        r"optim.optimizer._target_=os.system",
        r"callbacks=[../../../../../../../{}]",
        r"--config-dir=/tmp",
        r"--multirun",
        r"-cd=/tmp",
        r"hydra.searchpath=[file:///tmp]",
        r"hydra.run.dir=/tmp/elsewhere",
        r"hydra/launcher=slurm",
        r"optim.lr=[1",
        r"optim.lr=many",
        r"nowhere=1",
        r"=",
        r"",
    ][1:],
    "optim.lr=" + "9" * 5000,
    "+note=" + "[" * 300,
    "\0",
]
OVERRIDE_FILES = [
    "!!python/object/apply:pathlib.Path.touch [!!python/name:a]",
    "&a [*a]",
    DEEP,
    "7",
    "{a: 1}",
    "- [a]",
    "\0",
    "- 7",
]
# in a checkpoint, about its run
STORED: list[dict[str, Any]] = [
    {"overrides": [7, None]},
    {"overrides": {}},
    {"overrides": "--x"},
    {"has_mark": [], "overrides": [[]]},
]
MARKS = ("[]", "7", "null", DEEP, "{", '{"length": {}}')  # finished.json
PICKLES = ("a.ckpt", "a.pth", "a.pt", "a.safetensors", "pytorch_model.bin", "autoregressive.pth", "model.safetensors")
# of a model card
TEMPLATES = [
    r"",
    r"{{ ''.__class__.__mro__[1].__subclasses__() }}",
    r"{{ cycler.__init__.__globals__.os.system('touch {}') }}",
    r"{{ self.__init__.__globals__.__builtins__.open('{}', 'w') }}",
    r"{{ lipsum.__globals__['os'].system('touch {}') }}",
    r"{{ namespace.__init__.__globals__ }}",
    r"{{ name.format.__globals__ }}",
    r"{{ '{0.__class__.__mro__}'.format(name) }}",
    r"{% include '/etc/passwd' %}",
    r"{% import 'os' as os %}",
    r"{% extends '/etc/passwd' %}",
    r"{{ metrics.clear() }}",
    r"{{ range(10 ** 9) | list }}",
    r"{% for i in range(3) %}",
    r"{{ unknown }}",
    r"{{ metrics.unknown.value }}",
    r"{{ 1 / 0 }}",
    r"",
][1:-1]
MARKUP = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[a](javascript:alert(1))",
    "a|b\n# c",
    "`{{ 7 * 7 }}`",
]
MANIFEST_CHANGES: list[dict[str, Any]] = [
    *({"shards": [{"name": "a.parquet", "rows": 1, "bytes": 1, "sha256": text}]} for text in ("/../../x", "", None, 7)),
    *({"shards": [{"name": name}]} for name in ("../a.parquet", "/etc/passwd", ".a.parquet", "a/b.parquet", 7, None)),
    *(
        {"shards": [{"sha256": "0" * 64, "name": "a.parquet"} | bad]}
        for bad in ({"rows": -1, "bytes": 1}, {"rows": "1"})
    ),
    *({"shards": value} for value in (None, 7, "text", [[]], [None], [7])),
    *(
        {name: value}
        for name in ("num_shards", "text_vocab_size", "settings", "report", "complete")
        for value in (None, "1")
    ),
    *({"text_vocab_size": number} for number in (-1, 0, 2**70)),
    {"shards": []},
    {"unknown": 1},
    {"report": {"pairs": 7}},
    {"corpus": "../../x"},
    {"sha256": "0" * 64},
]
HALF = b"half of it"
CONTENTS = [
    b"",
    HALF,
    b"\0" * 64,
    b"[]",
    b"null",
    b"{}",
    b'{"a": ' + b"9" * 5000 + b"}",
    DEEP.encode(),
    None,
]  # None: a folder
NAMES = ("sentences.txt", "rms", "cut_off", "checkpoints/best-step=858.ckpt", "It is clear that the monkey is hungry.")
ROW_CHANGES = [
    *({name: None} for name in SCHEMA.names),
    *({name: ids} for name in ("input_ids", "speech_ids") for ids in ([], [-1], [32], [2**31 - 1], [None], [1, None])),
    *({"split": split} for split in ("dev", "")),
    *({"text": text} for text in ("", "\0", "a" * 100_000)),
    *({"log_probability": value} for value in (float("nan"), float("inf"))),
    {"candidate": -1},
]
