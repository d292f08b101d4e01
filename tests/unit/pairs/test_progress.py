import logging

import pytest

from clvp_train.pairs import Progress, progress


@pytest.mark.parametrize(("seconds", "lines"), [(1e9, 1), (0.0, 5)], ids=["quick", "slow"])
def test_log_lines_without_a_terminal(monkeypatch, caplog, capsys, seconds, lines):
    monkeypatch.setattr(progress, "LOG_SECONDS", seconds)
    with caplog.at_level(logging.INFO), Progress(6, shown=True) as counted:
        counted.candidate(10)
        counted.candidate(30)
        counted.finish_part(3, 1)
        counted.finish_part(3)
    assert len(caplog.messages) == lines and capsys.readouterr().err == ""
    assert "6 of 6 candidates" in caplog.messages[-1] and "1 skipped" in caplog.messages[-1]


def test_other_ranks_and_failures_log_nothing(caplog):
    with caplog.at_level(logging.INFO), pytest.raises(KeyError), Progress(2, shown=True):
        raise KeyError
    with caplog.at_level(logging.INFO), Progress(2, shown=False) as counted:
        counted.finish_part(2)
    assert not caplog.messages
