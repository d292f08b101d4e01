"""A folder into a repository, in one commit."""

from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

from clvp_train.hub.access import EMPTY, FAILURES, told
from clvp_train.hub.secrets import refuse_secrets
from clvp_train.hub.settings import HubConfig


def push(folder: Path, repo_id: str, hub: HubConfig, kind: str = "model") -> str:
    """Uploads a folder and makes one commit of it, so that others see all of it or nothing. What is uploaded already is not
    uploaded again, so that a broken push goes on.

    Args:
        folder: all of it but hidden files.
        repo_id: namespace/name, of `check_access`.
        hub: `overwrite` also takes out what the folder does not hold.
        kind: "model" or "dataset".

    Returns:
        Its address.

    Raises:
        UserError: it broke off, or holds a secret.
    """
    refuse_secrets(folder)
    api = HfApi()
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    names = {name for name in names if not any(part.startswith(".") for part in name.split("/"))}
    try:
        url = api.create_repo(repo_id, repo_type=kind, private=hub.private, exist_ok=True)
        stale = set(api.list_repo_files(repo_id, repo_type=kind)) - names - EMPTY if hub.overwrite else set()
        # `upload_folder` would make several commits of a large one
        api.create_commit(
            repo_id,
            [CommitOperationAdd(name, folder / name) for name in sorted(names)]
            + [CommitOperationDelete(name) for name in sorted(stale)],
            commit_message=f"{'Model' if kind == 'model' else 'Pairs'} by clvp_train",
            repo_type=kind,
        )
    except FAILURES as error:
        mend = "nothing of it can be seen there; type the same command again, which goes on"
        raise told(error, repo_id, f"the push to {repo_id} broke off", mend) from None
    return str(url)
