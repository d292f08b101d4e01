"""Whether a push can succeed, asked before the work that it is for."""

from typing import Any

from huggingface_hub import HfApi, constants, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError, RepositoryNotFoundError
from huggingface_hub.utils import validate_repo_id

from clvp_train.errors import UserError
from clvp_train.hub.settings import HubConfig

Who = dict[str, Any]
EMPTY = frozenset({".gitattributes"})  # the files of a new repository
FAILURES = (HTTPError, OSError, RuntimeError, ValueError)  # of a request; HfHubHTTPError is one of the first


def check_access(hub: HubConfig, kind: str = "model") -> str:
    """The whole name, namespace/name, of a repository that the user may write to and that is free.

    Args:
        hub: with a `repo_id`.
        kind: "model" or "dataset".

    Raises:
        UserError: no network, no valid token, no right to write there, a bad name, or one that is taken.
    """
    assert hub.repo_id is not None
    if constants.is_offline_mode():
        raise UserError(
            "HF_HUB_OFFLINE is set, so nothing can be pushed: unset it, or add hub=local to write the folder only"
        )
    try:
        validate_repo_id(hub.repo_id)
    except HFValidationError as error:
        raise UserError(
            f"repo_id={hub.repo_id} is no name for a repository ({error}): give one such as me/clvp-en"
        ) from None
    who = _who()
    repo_id = hub.repo_id if "/" in hub.repo_id else f"{who['name']}/{hub.repo_id}"
    _check_rights(who, repo_id)
    _check_free(repo_id, hub.overwrite, kind)
    return repo_id


def _who() -> Who:
    if get_token() is None:
        raise UserError("no token for the Hub: log in with `hf auth login`, or set HF_TOKEN to one that may write")
    try:
        return HfApi().whoami()
    except FAILURES as error:
        if _status(error) in (401, 403):
            raise UserError(
                "the Hub does not know this token: log in with `hf auth login`, or set HF_TOKEN anew"
            ) from None
        raise _failed("the Hub cannot be asked", error, "check the network and HF_ENDPOINT") from None


def _check_rights(who: Who, repo_id: str) -> None:
    namespace = repo_id.split("/")[0]
    roles = {who["name"]: "admin"} | {one["name"]: one.get("roleInOrg") for one in who.get("orgs", ())}
    mend = f"use a name of {who['name']}/…, or ask for the rights"
    if namespace not in roles:
        raise UserError(f"repo_id={repo_id}: {who['name']} is no member of {namespace}: {mend}")
    if roles[namespace] == "read":
        raise UserError(f"repo_id={repo_id}: {who['name']} may only read in {namespace}: {mend}")
    token = who.get("auth", {}).get("accessToken", {})
    scopes = token.get("fineGrained", {}).get("scoped", ())
    allowed = {scope["entity"].get("name") for scope in scopes if "repo.write" in scope.get("permissions", ())}
    if token.get("role") == "read" or (token.get("role") == "fineGrained" and not allowed & {namespace, repo_id}):
        raise UserError(
            f"repo_id={repo_id}: the Hub token may not write there: make one with that right, and log in with it"
        )


def _check_free(repo_id: str, overwrite: bool, kind: str) -> None:
    try:
        found = HfApi().repo_info(repo_id, repo_type=kind)
        files = {one.rfilename for one in found.siblings or ()}
        if overwrite:
            HfApi().auth_check(repo_id, repo_type=kind, write=True)
    except RepositoryNotFoundError:
        return
    except FAILURES as error:
        raise told(error, repo_id, "the Hub cannot be asked", "check the network and HF_ENDPOINT") from None
    if files - EMPTY and not overwrite:
        raise UserError(
            f"repo_id={repo_id} is taken: it holds {len(files - EMPTY)} files; give another name, or hub.overwrite=true to "
            "replace them"
        )


def told(error: BaseException, repo_id: str, what: str, mend: str) -> UserError:
    """What a failed request means for the user: no rights, or else `what`, the reason, and `mend`."""
    if _status(error) in (401, 403):
        return UserError(
            f"repo_id={repo_id}: the Hub does not let this token write there: ask for the rights, or use another"
        )
    return _failed(what, error, mend)


def _failed(what: str, error: BaseException, mend: str) -> UserError:
    cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
    reason = next((line.strip() for line in str(cause).splitlines() if line.strip()), type(cause).__name__)
    return UserError(f"{what} ({reason}): {mend}")


def _status(error: BaseException) -> int | None:
    return error.response.status_code if isinstance(error, HfHubHTTPError) else None
