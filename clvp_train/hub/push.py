"""Uploads a folder to a repository in one commit."""

import shutil
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token

from clvp_train.errors import UserError
from clvp_train.hub.access import INITIAL_FILES, REQUEST_ERRORS, HubConfig, check_card, no_write_access, reason
from clvp_train.io import README
from clvp_train.io.sanitize import MIN_SECRET_LENGTH, find_secret

BINARY_SUFFIXES = (".safetensors", ".parquet")


def push(folder: Path, repo_id: str, hub: HubConfig, kind: str = "model") -> str:
    """Uploads a folder and commits it at once, so that others see all files or none. Files that are uploaded already are not
    uploaded again, so that an interrupted push resumes.

    Args:
        folder: hidden files are left out.
        repo_id: namespace/name, of `check_access`.
        hub: with `overwrite`, files that the folder does not contain are deleted from the repository.
        kind: "model" or "dataset".

    Returns:
        The URL of the repository.

    Raises:
        UserError: the push failed.
    """
    if (folder / README).exists():
        check_card((folder / README).read_text(encoding="utf-8"), kind)  # first, so that no empty repository remains
    api = HfApi()
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    names = {name for name in names if not any(part.startswith(".") for part in name.split("/"))}
    try:
        url = api.create_repo(repo_id, repo_type=kind, private=hub.private, exist_ok=True)
        stale = set(api.list_repo_files(repo_id, repo_type=kind)) - names - INITIAL_FILES if hub.overwrite else set()
        # upload_folder would split a large folder into several commits
        api.create_commit(
            repo_id,
            [CommitOperationAdd(name, folder / name) for name in sorted(names)]
            + [CommitOperationDelete(name) for name in sorted(stale)],
            commit_message=f"{'Model' if kind == 'model' else 'Pairs'} by clvp_train",
            repo_type=kind,
        )
    except REQUEST_ERRORS as error:
        raise no_write_access(error, repo_id) or UserError(
            f"{repo_id}: the push failed ({reason(error)}). Nothing was published; run the same command again to resume."
        ) from None
    return str(url)


def refuse_secrets(folder: Path) -> None:
    """Removes a folder to publish, and raises UserError, if a text file in it contains a secret (`find_secret`)."""
    token = (get_token() or "").encode()
    token = token if len(token) >= MIN_SECRET_LENGTH else b""
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.suffix in BINARY_SUFFIXES:
            continue
        data = path.read_bytes()
        name = "the Hub token" if token and token in data else find_secret(data)
        if name is not None:
            shutil.rmtree(folder)
            raise UserError(
                f"{path.relative_to(folder)}: contains {name}, so nothing was published. Remove it from the settings and "
                "logs of the run, and revoke it."
            )
