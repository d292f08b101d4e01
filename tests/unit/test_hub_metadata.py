"""Licences and languages of cards are those that the Hub knows, however they are written."""

import pytest

from clvp_train.errors import UserError
from clvp_train.hub import HubConfig
from clvp_train.hub.metadata import language_codes, license_id


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("CC-BY-4.0", "cc-by-4.0"),
        ("CC BY-SA 4.0", "cc-by-sa-4.0"),
        ("Apache_2.0", "apache-2.0"),
        ("GPL-3.0-or-later", "gpl-3.0"),
        (" MIT ", "mit"),
        ("OpenRAIL++", "openrail++"),
        ("unknown", "unknown"),
    ],
)
def test_a_licence(given, expected):
    assert license_id(given) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [("CC-BY-5.0", "cc-by-4.0"), ("apache", "apache-2.0"), ("proprietary", "other"), ("", "identifier such as")],
)
def test_a_licence_that_the_hub_does_not_know(given, message):
    with pytest.raises(UserError, match=f"hub.license={given}: not a licence of the Hub.*{message}"):
        license_id(given)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, None),
        ("en", "en"),
        ("zh-CN", "zh"),
        ("pt_BR", "pt"),
        ("english", "en"),
        ("Mandarin", "zh"),
        ("javanese", "jv"),
        ("yue", "yue"),
        ("multilingual", "multilingual"),
        (["en", "German", "de-AT", "sr-Latn"], ["en", "de", "sr"]),
        ("en, french", ["en", "fr"]),
        ([], None),
    ],
)
def test_languages(given, expected):
    assert language_codes(given) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [("jp", "ISO 639"), ("cn", "ISO 639"), ("engliish", "Did you mean english"), (["en", "??"], "=.. not"), (7, "=7")],
)
def test_what_is_no_language(given, message):
    with pytest.raises(UserError, match=message.replace("=..", r"=\?\?:")):
        HubConfig(language=given).metadata  # noqa: B018
