"""Where to publish, and whether a push can succeed. This is checked before the work whose result is pushed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from huggingface_hub import HfApi, RepoCard, constants, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError, RepositoryNotFoundError
from huggingface_hub.utils import validate_repo_id

from clvp_train.errors import UserError
from clvp_train.hub.metadata import language_codes, license_id

INITIAL_FILES = frozenset({".gitattributes"})  # the files of a new repository
REQUEST_ERRORS = (HTTPError, OSError, RuntimeError, ValueError)  # HfHubHTTPError is an HTTPError


@dataclass(frozen=True)
class HubConfig:
    """Settings of the `hub` group. `repo_id` and `push` decide whether anything is published."""

    repo_id: str | None = None  # name, or namespace/name, on the Hub; None: do not push
    push: bool = True  # False: only write the folder that would be pushed
    private: bool = True
    overwrite: bool = False  # replace the content of the repository; False: refuse a repository that is not empty
    license: str = "unknown"  # the Hub's identifier of the licence, such as apache-2.0 or cc-by-4.0
    language: str | Sequence[str] | None = None  # language of the texts, or several: codes such as en, or English names
    card: str | None = None  # Jinja template of the model card; None: the template of this package

    @property
    def is_enabled(self) -> bool:
        """Whether anything is published or written."""
        return self.repo_id is not None or not self.push

    @property
    def metadata(self) -> dict[str, Any]:
        """Licence and language as the metadata of a card contains them. Raises UserError if the Hub does not know them."""
        return {"license": license_id(self.license), "language": language_codes(self.language)}


def check_access(hub: HubConfig, kind: str = "model") -> str:
    """Returns the full name, namespace/name, of a repository that is empty or new and that the user may write to.

    Args:
        hub: with a `repo_id`.
        kind: "model" or "dataset".

    Raises:
        UserError: no network, no valid token, no write access, an invalid name, a repository that is not empty, or a licence or
            language that the Hub refuses.
    """
    assert hub.repo_id is not None
    if constants.is_offline_mode():
        raise UserError(
            "HF_HUB_OFFLINE is set: nothing can be pushed. Unset it, or add hub=local to write the folder only."
        )
    try:
        validate_repo_id(hub.repo_id)
    except HFValidationError as error:
        raise UserError(f"repo_id={hub.repo_id}: not a valid name ({error}). Use a name such as me/clvp-en.") from None
    user = _user()
    repo_id = hub.repo_id if "/" in hub.repo_id else f"{user['name']}/{hub.repo_id}"
    _check_rights(user, repo_id)
    _check_free(repo_id, hub.overwrite, kind)
    present = {name: value for name, value in hub.metadata.items() if value is not None}
    check_card(f"---\n{yaml.safe_dump(present)}---\n", kind)
    return repo_id


def check_card(text: str, kind: str = "model") -> None:
    """Raises UserError if the Hub refuses the metadata of a card, with all that it says. Creates nothing.

    Args:
        text: of the README.md.
        kind: "model" or "dataset".
    """
    try:
        RepoCard(text, ignore_metadata_errors=True).validate(kind)
    except HfHubHTTPError:
        return  # a mirror that cannot validate; the commit is checked again
    except ValueError as error:
        message = " ".join(str(error).split())
        raise UserError(f"the Hub refuses the card: {message} Correct hub.license, hub.language or the card.") from None
    except REQUEST_ERRORS as error:
        raise _not_reachable(error) from None


def _user() -> dict[str, Any]:
    """The account of the token, as the Hub describes it."""
    if get_token() is None:
        raise UserError(
            "no token for the Hub. Log in with `hf auth login`, or set HF_TOKEN to a token with write access."
        )
    try:
        return HfApi().whoami()
    except REQUEST_ERRORS as error:
        if _status(error) in (401, 403):
            raise UserError("invalid token for the Hub. Log in with `hf auth login`, or set HF_TOKEN.") from None
        raise _not_reachable(error) from None


def _check_rights(user: dict[str, Any], repo_id: str) -> None:
    """Compares the roles of the user and the scopes of the token with the repository, without a request."""
    namespace = repo_id.split("/")[0]
    roles = {user["name"]: "admin"} | {org["name"]: org.get("roleInOrg") for org in user.get("orgs", ())}
    advice = f"Use {user['name']}/…, or ask for write access."
    if namespace not in roles:
        raise UserError(f"repo_id={repo_id}: {user['name']} is not a member of {namespace}. {advice}")
    if roles[namespace] == "read":
        raise UserError(f"repo_id={repo_id}: {user['name']} has read access only in {namespace}. {advice}")
    token = user.get("auth", {}).get("accessToken", {})
    scopes = token.get("fineGrained", {}).get("scoped", ())
    writable = {scope["entity"].get("name") for scope in scopes if "repo.write" in scope.get("permissions", ())}
    if token.get("role") == "read" or (token.get("role") == "fineGrained" and not writable & {namespace, repo_id}):
        raise UserError(f"repo_id={repo_id}: the token has no write access. Create one that has, and log in with it.")


def _check_free(repo_id: str, overwrite: bool, kind: str) -> None:
    try:
        info = HfApi().repo_info(repo_id, repo_type=kind)
        if overwrite:
            HfApi().auth_check(repo_id, repo_type=kind, write=True)
    except RepositoryNotFoundError:
        return
    except REQUEST_ERRORS as error:
        raise no_write_access(error, repo_id) or _not_reachable(error) from None
    files = {sibling.rfilename for sibling in info.siblings or ()} - INITIAL_FILES
    if files and not overwrite:
        raise UserError(
            f"repo_id={repo_id}: the repository contains {len(files)} files. Choose another name, or set hub.overwrite=true "
            "to replace them."
        )


def no_write_access(error: BaseException, repo_id: str) -> UserError | None:
    """The error to raise if the Hub refused the token; None if a request failed for another reason."""
    if _status(error) not in (401, 403):
        return None
    return UserError(
        f"repo_id={repo_id}: the Hub refused write access to this token. Ask for it, or use another token."
    )


def reason(error: BaseException) -> str:
    """What made a request fail, in one line."""
    # httpx errors arrive wrapped in a RuntimeError that names no reason
    cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
    return " ".join(str(cause).split()) or type(cause).__name__


def _not_reachable(error: BaseException) -> UserError:
    return UserError(f"the Hub cannot be reached ({reason(error)}). Check the network and HF_ENDPOINT.")


def _status(error: BaseException) -> int | None:
    return error.response.status_code if isinstance(error, HfHubHTTPError) else None
