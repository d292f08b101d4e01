import numpy as np
import pyarrow as pa
import pytest

from clvp_train.errors import UserError
from clvp_train.pairs import Codec

CODES_QT = [[1, 2, 3], [4, 5, 6], [7, 7, 7]]  # three streams


@pytest.mark.parametrize(
    ("settings", "codes", "ids"),
    [
        ({}, [3, 1, 2], [3, 1, 2]),
        ({}, "3 1 2", [3, 1, 2]),
        ({}, CODES_QT, [1, 2, 3]),
        ({"num_streams": 2, "streams": "flatten"}, CODES_QT, [1, 14, 2, 15, 3, 16]),
        ({"num_streams": 2, "streams": "delay"}, CODES_QT, [1, 2, 14, 3, 15, 16]),
        ({"layout": "frames_first"}, np.transpose(CODES_QT), [1, 2, 3]),
        ({"offset": 100}, [105, 100], [5, 0]),
        ({"start_code": 10, "stop_code": 11, "pad_code": 12}, [10, 5, 6, 12, 11, 7], [5, 6]),
        ({"pad_code": -100}, [5, 6, -100, -100], [5, 6]),
    ],
)
@pytest.mark.parametrize("arrow", [False, True])
def test_codes_become_ids(settings, codes, ids, arrow):
    codec = Codec(10, 50, **settings)
    cell = pa.array([codes if isinstance(codes, str) else np.asarray(codes).tolist()])[0] if arrow else codes
    found, finished = codec(cell.as_py() if isinstance(cell, pa.StringScalar) else cell)
    assert found.tolist() == ids and found.dtype == np.int32 and finished
    assert codec.num_ids == 10 * codec.streams_kept and codec.ids_per_second == 50 * codec.streams_kept


def test_codes_without_a_stop_code_are_not_finished():
    assert not Codec(10, 50, stop_code=11)([1, 2])[1]


@pytest.mark.parametrize(
    ("settings", "codes", "message"),
    [
        ({}, [], "no codes"),
        ({}, None, "no codes"),
        ({"stop_code": 11}, [11, 1], "no codes"),
        ({}, [1.5], "not integers"),
        ({}, "1 b", "invalid literal"),
        ({}, [1, None], "not integers"),
        ({}, [[1, 2], [3]], "different lengths"),
        ({}, [9, 10], "code 10 is outside of the vocabulary, which is 0 to 9"),
        ({"offset": 100}, [99], "code 99 is outside of the vocabulary, which is 100 to 109"),
        ({"num_streams": 4}, CODES_QT, r"shape \(3, 3\) are not 4 streams with streams_first"),
        ({"num_streams": 2}, [1, 2], "are not 2 streams"),
    ],
)
def test_other_codes_are_refused(settings, codes, message):
    with pytest.raises(ValueError, match=message):
        Codec(10, 50, **settings)(codes)


def test_unknown_settings_are_refused():
    with pytest.raises(UserError, match="codec.streams=sum: unknown. Choose one of first, flatten, delay"):
        Codec(10, 50, streams="sum")
