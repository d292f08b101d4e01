import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from clvp_train import CLVPConfig, CLVPModel, Ranking, Reranker
from clvp_train.errors import UserError
from clvp_train.metrics import percentile, score_table
from clvp_train.tortoise import Candidate
from clvp_train.tortoise.tokenizer import read_saved_tokenizer

TORTOISE = Path(__file__).parents[2] / "data/nano/tortoise"
TEXTS = ["It is.", "The light was divided from the darkness.", "It is.", "Twelve men sat down, and one of them spoke."]
NUM_CODES, MAX_CODES = 300, 24
TABLE = score_table(np.linspace(-0.9, 0.9, 50), np.linspace(-1, 0.2, 50))


def make_model(padding="mask", text_tokens=256):
    torch.manual_seed(0)
    tower = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 1}
    text, speech = tower | {"vocab_size": text_tokens}, tower | {"vocab_size": NUM_CODES}
    model = CLVPModel(CLVPConfig(text_config=text, speech_config=speech, projection_dim=16, padding=padding))
    for parameter in model.parameters():  # activations of order 1 make differences visible
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


@pytest.fixture
def tokenizer():
    return read_saved_tokenizer(TORTOISE)


def drawn(finished_share=0.7):
    """Candidates of many lengths for each text; text 1 has a single one."""
    draw = np.random.default_rng(1)
    sets = []
    for count in (5, 1, 7, 12):
        codes = [draw.integers(0, NUM_CODES, draw.integers(1, MAX_CODES + 1)).tolist() for _ in range(count)]
        sets.append([Candidate(tuple(ids), bool(draw.random() < finished_share), -3.0) for ids in codes])
    return sets


def one_at_a_time(model, text_ids, candidate, padding):
    """The cosine of one pair: unpadded, or padded as by `api.py` of tortoise-tts."""
    text, codes = list(text_ids), list(candidate.codes)
    if padding == "tortoise":
        text = [*text, 0]
        if candidate.finished:
            codes = (codes + [83] * MAX_CODES)[:MAX_CODES]
            if len(candidate.codes) < MAX_CODES:
                codes[-3:] = [45, 45, 248]
    with torch.no_grad():
        output = model(torch.tensor([text]), torch.tensor([codes]))
    return (output.text_embeds.double() @ output.speech_embeds.double().T).item()


@pytest.mark.parametrize("padding", ["mask", "tortoise"])
@pytest.mark.parametrize("chunk_tokens", [1, 48, 2048])
def test_scores_equal_those_of_one_pair_at_a_time(tokenizer, padding, chunk_tokens):
    alone, sets = make_model(padding), drawn()
    reranker = Reranker(make_model(padding), tokenizer, TABLE, chunk_tokens, MAX_CODES)
    rankings = reranker.rank(TEXTS, sets)
    assert len(rankings) == 4
    for text, candidates, ranking in zip(TEXTS, sets, rankings):
        expected = [one_at_a_time(alone, tokenizer(text)["input_ids"], each, padding) for each in candidates]
        np.testing.assert_allclose(ranking.scores, expected, atol=1e-5)
        assert ranking.order == tuple(sorted(range(len(candidates)), key=lambda index: -ranking.scores[index]))
        assert list(ranking.order) == np.argsort(expected)[::-1].tolist()
        assert ranking.percentiles == tuple(percentile(TABLE, score) for score in ranking.scores)
    spread = [max(ranking.scores) - min(ranking.scores) for ranking in rankings]
    assert max(spread) > 0.1, "scores must differ"


def test_scores_do_not_depend_on_other_texts_and_ids_equal_strings(tokenizer):
    reranker, sets = Reranker(make_model(), tokenizer), drawn()
    together = reranker.rank(TEXTS, sets)
    for text, candidates, ranking in zip(TEXTS, sets, together):
        ids = tokenizer(text)["input_ids"]
        for given in (text, ids, np.array(ids), torch.tensor(ids)):
            (alone,) = reranker.rank([given], [candidates])
            np.testing.assert_allclose(alone.scores, ranking.scores, atol=1e-5)
            assert alone.order == ranking.order and alone.percentiles is None


def test_the_first_of_equal_candidates_ranks_first(tokenizer):
    same, other = [7] * 20, [3, 250, 9]
    (ranking,) = Reranker(make_model(), tokenizer, chunk_tokens=1).rank(["It is."], [[other, same, same, other, same]])
    assert ranking.order in ((0, 3, 1, 2, 4), (1, 2, 4, 0, 3))
    assert len(set(ranking.scores)) == 2


def test_plain_codes_count_as_finished(tokenizer):
    reranker = Reranker(make_model("tortoise"), tokenizer, max_codes=MAX_CODES)
    codes = tuple(range(10))
    drawn = [Candidate(codes, finished, 0.0) for finished in (True, False)]
    candidates = [codes, *drawn, np.array(codes), torch.tensor(codes)]
    (ranking,) = reranker.rank(["It is."], [candidates])
    assert ranking.scores[0] == ranking.scores[1] == ranking.scores[3] == ranking.scores[4] != ranking.scores[2]


def test_repeated_texts_are_embedded_once(tokenizer):
    model, rows = make_model(), []
    model.text_model.register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    Reranker(model, tokenizer).rank(TEXTS, [[[1, 2]]] * 4)
    assert sum(rows) == 3


def test_empty_input_gives_an_empty_list(tokenizer):
    assert Reranker(make_model(), tokenizer).rank([], []) == []


@pytest.mark.parametrize(
    ("texts", "candidates", "words"),
    [
        (["a", " "], [[[1]], [[1]]], ["text 1 ' '", "no tokens"]),
        (["日本"], [[[1]]], ["text 0 '日本'", "no tokens"]),
        (["日本, 5!"], [[[1]]], ["text 0 '日本, 5!'", "less than half of the letters"]),
        (["a", "b"], [[[1]], []], ["text 1 'b'", "no candidates"]),
        (["a", "b"], [[[1]]], ["2 texts", "candidates: 1 lists"]),
        (["a" * 60], [[[1], []]], ["candidate 1 of text 0 'aaa", "…'", "no codes"]),
        (["a"], [[[1], [2, NUM_CODES]]], ["candidate 1 of text 0 'a'", f"code {NUM_CODES}", f"0 to {NUM_CODES - 1}"]),
        (["a"], [[[-1]]], ["code -1"]),
        (["a"], [[[1.5]]], ["candidate 0", "integers"]),
        (["a"], [[[[1], [2]]]], ["candidate 0", "integers"]),
        (["a"], [["code"]], ["candidate 0", "integers"]),
        ([[3, 256]], [[[1]]], ["text 0: token 256", "0 to 255"]),
        ([[]], [[[1]]], ["text 0: no tokens"]),
    ],
)
def test_bad_input_is_reported_with_its_text(tokenizer, texts, candidates, words):
    with pytest.raises(UserError) as raised:
        Reranker(make_model(), tokenizer).rank(texts, candidates)
    for word in words:
        assert word in str(raised.value)


def test_too_few_codes_for_silence_padding():
    model = make_model()
    model.config.speech_config.vocab_size, model.config.padding = 96, "tortoise"
    with pytest.raises(UserError, match="96 speech codes.*padding=tortoise"):
        Reranker(model)


@pytest.fixture
def folder(tmp_path, tokenizer):
    make_model("tortoise").save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "model/score_table.json").write_text(json.dumps(TABLE))
    return tmp_path / "model"


def test_a_folder_provides_tokenizer_table_and_padding(folder, tokenizer):
    sets = drawn()
    expected = Reranker(make_model("tortoise"), tokenizer, TABLE, max_codes=MAX_CODES).rank(TEXTS, sets)
    assert Reranker.from_pretrained(folder, max_codes=MAX_CODES).rank(TEXTS, sets) == expected
    (folder / "score_table.json").unlink()
    rankings = Reranker.from_pretrained(str(folder), max_codes=MAX_CODES).rank(TEXTS, sets)
    assert rankings == [Ranking(ranking.order, ranking.scores, None) for ranking in expected]
    for changes in ({"percent": [0]}, {"true": ["x"] * len(TABLE["true"])}, {"log_probability_weight": "heavy"}, None):
        (folder / "score_table.json").write_text(json.dumps(changes and TABLE | changes))
        with pytest.raises(UserError, match="score_table.json: corrupt"):
            Reranker.from_pretrained(folder)


def test_a_checkpoint_without_tokenizer_takes_ids_or_another_folder(tmp_path, tokenizer):
    model = make_model("tortoise")
    torch.save(
        {"clvp_config": model.config.to_dict(), "state_dict": {f"model.{k}": v for k, v in model.state_dict().items()}},
        tmp_path / "a.ckpt",
    )
    reranker = Reranker.from_pretrained(tmp_path / "a.ckpt")
    (by_ids,) = reranker.rank([tokenizer("It is.")["input_ids"]], [[[1, 2], [3]]])
    with pytest.raises(UserError, match=r"text 0 'It is.'.*a.ckpt has no tokenizer.*tokenizer to a folder"):
        reranker.rank(["It is."], [[[1, 2], [3]]])
    (by_name,) = Reranker.from_pretrained(tmp_path / "a.ckpt", tokenizer=TORTOISE).rank(["It is."], [[[1, 2], [3]]])
    assert by_name == by_ids and by_ids.percentiles is None
    for arguments, words in (
        ({"checkpoint": tmp_path / "b.ckpt"}, "b.ckpt"),
        ({"checkpoint": tmp_path / "nowhere"}, "nowhere"),
        ({"checkpoint": tmp_path / "a.ckpt", "tokenizer": tmp_path}, "ClvpTokenizer"),
        ({"checkpoint": tmp_path / "a.ckpt", "device": "abacus"}, "device=abacus"),
    ):
        with pytest.raises(UserError, match=words):
            Reranker.from_pretrained(**arguments)


def test_log_probabilities_count_with_a_weight(folder):
    sets = drawn()
    sets[2] = [Candidate(each.codes, each.finished, -float(row)) for row, each in enumerate(sets[2])]
    plain = Reranker.from_pretrained(folder, max_codes=MAX_CODES).rank(TEXTS, sets)
    (folder / "score_table.json").write_text(json.dumps(TABLE | {"log_probability_weight": 0.7}))
    for weight in ("stored", 0.7):
        rankings = Reranker.from_pretrained(folder, max_codes=MAX_CODES, log_probability_weight=weight).rank(
            TEXTS, sets
        )
        for candidates, before, ranking in zip(sets, plain, rankings):
            per_code = [each.log_probability / (len(each.codes) + each.finished) for each in candidates]
            combined = np.array(before.scores) + 0.7 * np.array(per_code)
            assert ranking.scores == before.scores and ranking.combined_scores == pytest.approx(combined)
            assert ranking.order == tuple(np.argsort(-combined).tolist())
        assert rankings[2].order != plain[2].order
    reranker = Reranker.from_pretrained(folder, max_codes=MAX_CODES, log_probability_weight=-2)
    without = [each.codes for each in sets[2]]
    (ranking,) = reranker.rank(TEXTS[2:3], [[*without[:-1], sets[2][-1]]])
    assert ranking.combined_scores == ranking.scores, "one candidate has a log-probability, the others have none"


def test_voices_count_where_all_candidates_have_references(tokenizer):
    sets, voice = drawn(), Reranker(make_model(text_tokens=NUM_CODES))
    reranker = Reranker(make_model(), tokenizer, TABLE, voice=voice, voice_weight=0.5)
    clips = [[[5, 6, 7], [8, 9]], [], [[1] * 9], [[2, 3]]]
    for candidates, references, ranking in zip(sets, clips, reranker.rank(TEXTS, sets, clips)):
        scores = [voice.rank([clip], [candidates])[0].scores for clip in references]
        if references:
            assert ranking.voice_scores == pytest.approx(np.mean(scores, axis=0), abs=1e-5)
            assert ranking.combined_scores == pytest.approx(
                np.array(ranking.scores) + 0.5 * np.mean(scores, axis=0), abs=1e-5
            )
            assert ranking.order == tuple(np.argsort(-np.array(ranking.combined_scores)).tolist())
        else:
            assert ranking.voice_scores is None and ranking.combined_scores == ranking.scores
    with pytest.raises(UserError, match="voice: a model of 256 text tokens and 300 speech codes, not one of voices"):
        Reranker(make_model(), tokenizer, voice=Reranker(make_model()))
    with pytest.raises(UserError, match="there is no model of voices"):
        Reranker(make_model(), tokenizer).rank(TEXTS, sets, clips)


@pytest.mark.parametrize("weight", ["stored", "some", float("nan")])
def test_a_weight_that_does_not_exist_is_reported(folder, weight):
    with pytest.raises(UserError, match=f"log_probability_weight={weight}"):
        Reranker.from_pretrained(folder, log_probability_weight=weight)


def test_lightning_is_not_needed(folder):
    code = "import sys; sys.modules['lightning'] = None; from clvp_train import Reranker; "
    code += f"print(Reranker.from_pretrained({str(folder)!r}).rank(['It is.'], [[[1], [2]]])[0].order)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0 and done.stdout.strip() in ("(0, 1)", "(1, 0)"), done.stderr
