"""Licence and languages of a card, as the Hub accepts them."""

import difflib
import re
from collections.abc import Iterable
from typing import Any

from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

from clvp_train.errors import UserError

# https://huggingface.co/docs/hub/repositories-licenses
LICENSES = """
apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m
afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5
cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0
cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0
cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl
lgpl-2.1 lgpl-3.0 isc h-research intel-research lppl-1.3c ms-pl apple-ascl apple-amlr mpl-2.0 odc-by odbl openmdw-1.0
openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl lgpl-lr deepfloyd-if-license
fair-noncommercial-research-license llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 grok2-community gemma unknown
other
"""
ISO_639_1 = """
aa ab ae af ak am an ar as av ay az ba be bg bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de dv dz ee el en eo es
et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id ie ig ii ik io is it iu ja jv ka kg ki
kj kk kl km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lu lv mg mh mi mk ml mn mr ms mt my na nb nd ne ng nl nn no
nr nv ny oc oj om or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd se sg sh si sk sl sm sn so sq sr ss st su sv sw ta
te tg th ti tk tl tn to tr ts tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo za zh zu
"""
SPECIAL = ("code", "multilingual")


def license_id(given: str) -> str:
    """The Hub's identifier of a licence, such as cc-by-4.0 for CC-BY-4.0, CC BY 4.0 and cc_by_4.0.

    Raises:
        UserError: the Hub does not know it.
    """
    name = re.sub(r"[\s_-]+", "-", str(given).strip().lower())
    name = re.sub(r"-(only|or-later)$", "", name)  # SPDX's identifiers of GNU licences
    if name in LICENSES.split():
        return name
    close = difflib.get_close_matches(name, LICENSES.split(), n=3)
    advice = f"Use {' or '.join(close)}" if close else "Use an identifier such as apache-2.0 or cc-by-4.0"
    raise UserError(f"hub.license={given}: not a licence of the Hub. {advice}, or other.")


def language_codes(given: Any) -> str | list[str] | None:
    """The ISO 639 codes of one language or several, each a code, a code with a region such as zh-CN, or an English name.

    Args:
        given: a language, several in a list or separated by commas, or None.

    Returns:
        One code, or several in a list.

    Raises:
        UserError: one of them is not a language.
    """
    if given is None:
        return None
    several = isinstance(given, Iterable) and not isinstance(given, str)
    codes = list(dict.fromkeys(_language_code(item) for item in (given if several else str(given).split(","))))
    return codes[0] if len(codes) == 1 else codes or None


def _language_code(given: Any) -> str:
    name = str(given).strip().lower()
    code = TO_LANGUAGE_CODE.get(name, re.split("[-_]", name)[0])
    code = "jv" if code == "jw" else code  # Whisper's code of Javanese
    if code in SPECIAL or code in ISO_639_1.split() or re.fullmatch("[a-z]{3}", code):
        return code
    close = difflib.get_close_matches(name, TO_LANGUAGE_CODE, n=1) if len(name) > 3 else []
    advice = (
        f"Did you mean {close[0]}?" if close else "Use an ISO 639 code such as en, or an English name such as german."
    )
    raise UserError(f"hub.language={given}: not a language of the Hub. {advice}")
