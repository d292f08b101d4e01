"""A short sample of `files`; the complete run is `python -m tests.drills.files`."""

from tests.drills.files import rows


def test_a_flipped_bit_in_any_kind_of_file_is_refused_or_harmless(capfd):
    *_, total = rows(flips=44, seed=1)
    assert total.startswith("| **all** |") and total.endswith("| 0 | 0 |"), capfd.readouterr()
