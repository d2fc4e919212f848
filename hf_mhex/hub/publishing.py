"""Publishing of a saved folder as a Hub repository: one commit of what belongs there, and nothing else."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

from hf_mhex.families import FAMILIES
from hf_mhex.hub.contents import Contents, model_contents
from hf_mhex.hub.space import space_contents

PATIENCE = 20.0  # seconds after which a fault is no longer waited out


@dataclass(frozen=True)
class Publication:
    """What was sent and where: paths with their bytes, what the repository had already, what stayed behind and why.

    `commit` is the new one, or the one that had everything already; None after a dry run.
    """

    repo_id: str
    url: str
    commit: str | None
    tag: str | None
    pull_request: str | None
    sent: dict[str, int]
    unchanged: tuple[str, ...]
    removed: tuple[str, ...]
    left_out: dict[str, str]
    task: str | None = None

    @property
    def snippet(self) -> str | None:
        """Two lines that load what was published, pinned to the commit; None for a Space and after a dry run."""
        if not (self.task and self.commit):
            return None
        pinned = f'revision="{self.commit}", trust_remote_code=True'
        return f'from transformers import pipeline\npipe = pipeline("{self.task}", model="{self.repo_id}", {pinned})'


def publish(
    folder: str | PathLike,
    repo_id: str,
    *,
    private: bool = False,
    create_pr: bool = False,
    dry_run: bool = False,
    tag: str | None = None,
    message: str = "Publish model",
    token: str | None = None,
    endpoint: str | None = None,
) -> Publication:
    """Send a saved MHEX folder to the Hub in one commit: weights, code, processor, card, pictures and metrics.

    The folder is only read. What does not belong in a repository (training arguments, optimizer states, pickles,
    checkpoints) stays behind, local paths are taken out of the tokenizer's configuration, and a secret or a local path
    elsewhere stops everything. Only what differs from the repository moves, so a repeated publish completes one that
    was interrupted. Weights and code of the repository that the folder no longer has are removed by the same commit.

    Args:
        folder: written by `save_pretrained`, with its tokenizer or image processor; its README.md is the card (one is
            made from the template if there is none).
        repo_id: "user/name".
        private: for a repository that is made now; an existing public one is refused then.
        create_pr: open a pull request instead of committing to main; it gets no tag.
        dry_run: send nothing, say what would go.
        tag: name for this release. Without one, it is made from the model's files ("model-" and twelve digits): a
            change of the card alone keeps it.
        message: title of the commit.
        token: a Hub token with the right to write; the logged-in user's if None.
        endpoint: the Hub's address; HF_ENDPOINT's if None.

    Raises ValueError for a folder or an argument that cannot be published, and for metadata that the Hub rejects,
    PermissionError for a token that it refuses, ConnectionError where it fails or is cut off for longer than some
    seconds, OSError where it has no space left. After each of them the repository is as it was; only of a pull request
    whose answer was lost nobody knows, and the ConnectionError says so.
    """
    api = HfApi(endpoint=endpoint, token=token)
    contents = model_contents(folder, repo_id, tag, token, create_pr)
    return _publish(api, contents, repo_id, private, create_pr, dry_run, message, "model")


def publish_space(
    models: Sequence[str],
    repo_id: str,
    *,
    private: bool = False,
    create_pr: bool = False,
    dry_run: bool = False,
    message: str = "Publish app",
    token: str | None = None,
    endpoint: str | None = None,
) -> Publication:
    """Send the app (`hf_mhex.hub.app`) to a Space that shows `models`, Hub ids with a pinned revision ("user/name@v1").

    The Space holds this package's source, so that it needs nothing that is not on PyPI. The other arguments and the
    errors are those of `publish`.
    """
    api = HfApi(endpoint=endpoint, token=token)
    contents = space_contents(models, repo_id)
    return _publish(api, contents, repo_id, private, create_pr, dry_run, message, "space", space_sdk="gradio")


def _publish(
    api, contents: Contents, repo_id, private, create_pr, dry_run, message, repo_type, **create
) -> Publication:
    """Compare, send and tag; repo_type is "model" or "space"."""
    prefix = "" if repo_type == "model" else f"{repo_type}s/"
    url = f"{api.endpoint}/{prefix}{repo_id}"
    if not dry_run:
        _insist(
            lambda: api.create_repo(repo_id, private=private or None, exist_ok=True, repo_type=repo_type, **create),
            repo_id,
            contents,
        )

    def attempt():
        remote = _remote(api, repo_id, repo_type)
        if remote is None and not dry_run:
            raise ConnectionError("it was made, but cannot be seen yet")
        _check_remote(api, remote, contents, repo_id, private, repo_type)
        sent, unchanged, removed = contents.difference(remote)
        if dry_run or not (sent or removed):
            return sent, unchanged, removed, remote and remote.sha, None
        operations = [CommitOperationAdd(path_in_repo=path, path_or_fileobj=contents.files[path]) for path in sent] + [
            CommitOperationDelete(path_in_repo=path) for path in removed
        ]
        made = api.create_commit(
            repo_id,
            operations,
            commit_message=message,
            create_pr=create_pr,
            parent_commit=remote.sha,
            repo_type=repo_type,
        )
        return sent, unchanged, removed, made.oid, made.pr_url

    try:
        sent, unchanged, removed, commit, pull_request = _insist(attempt, repo_id, contents, create_pr)
    except ConnectionError as error:
        if dry_run:
            raise ConnectionError(
                f"a dry run compares with what {api.endpoint} holds, which cannot be asked about {repo_id!r} "
                f"({error}); nothing was sent."
            ) from error
        raise
    if contents.tag and not dry_run:
        _insist(lambda: api.create_tag(repo_id, tag=contents.tag, revision=commit, exist_ok=True), repo_id, contents)
    family = FAMILIES.get(contents.family)
    return Publication(
        repo_id=repo_id,
        url=url,
        commit=None if dry_run else commit,
        tag=contents.tag,
        pull_request=pull_request,
        sent={path: contents.size(path) for path in sent},
        unchanged=tuple(unchanged),
        removed=tuple(removed),
        left_out=contents.left_out,
        task=None if family is None else family.input.saliency_task,
    )


def _remote(api: HfApi, repo_id: str, repo_type: str):
    """What the repository holds now, or None where there is none."""
    try:
        return api.repo_info(repo_id, repo_type=repo_type, files_metadata=True)
    except RepositoryNotFoundError as error:
        if error.response.status_code == 401:
            raise
        return None


def _check_remote(api: HfApi, remote, contents: Contents, repo_id: str, private: bool, repo_type: str) -> None:
    """Raise ValueError where the repository is public though it should not be, holds another model, or has the tag."""
    if remote is None:
        return
    if private and not remote.private:
        raise ValueError(
            f"private=True, but {repo_id!r} exists and is public; name a new repository, or make it private first."
        )
    family = (remote.config or {}).get("model_type") if repo_type == "model" else None
    if family not in (None, contents.family):
        raise ValueError(
            f"repo_id={repo_id!r} exists and holds a {family!r} model, not a {contents.family!r}; name a new one."
        )
    if contents.tag_given:
        tags = {tag.name: tag.target_commit for tag in api.list_repo_refs(repo_id, repo_type=repo_type).tags}
        sent, _, removed = contents.difference(remote)
        if contents.tag in tags and (tags[contents.tag] != remote.sha or sent or removed):
            raise ValueError(
                f"tag={contents.tag!r} exists in {repo_id!r} at {tags[contents.tag]}, which differs; name a new tag."
            )


def _insist(call: Callable, repo_id: str, contents: Contents, create_pr: bool = False):
    """The result of `call`, repeated while the server is busy or the connection fails, or a clear error.

    A pull request that may have been opened is not opened again.
    """
    started, wait, handled = time.monotonic(), 0.5, sys.exc_info()[1]
    while True:
        try:
            return call()
        except Exception as error:
            root = _root(error, handled)
            if create_pr and _lost_commit(root):
                raise ConnectionError(
                    f"the Hub did not answer whether it opened the pull request for {repo_id!r} "
                    f"({type(root).__name__}); look there, and publish again only if it is not open."
                ) from error
            if not _passing(root) or time.monotonic() - started + wait > PATIENCE:
                raise _clear(root, repo_id, contents) from error
            given = getattr(getattr(root, "response", None), "headers", {}).get("Retry-After", "")
            time.sleep(max(wait, min(float(given), PATIENCE) if given.isdecimal() else 0.0))
            wait *= 2


def _root(error: BaseException, handled: BaseException | None) -> BaseException:
    """The error at the bottom that says something: of the server or of the connection, where there is one.

    Args:
        handled: what the caller was handling when the work began, and what lies below it: no part of the chain.
    """
    if isinstance(error, ValueError) and "Invalid metadata" in str(error):
        return error
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) not in (None, handled):
        chain.append(cause)
    telling = [link for link in chain if isinstance(link, HfHubHTTPError) or _is_transport(link)]
    return telling[0] if telling else chain[0]


def _is_transport(error: BaseException) -> bool:
    return any(kind.__name__ == "TransportError" for kind in type(error).__mro__) or isinstance(error, ConnectionError)


def _lost_commit(error: BaseException) -> bool:
    """Whether a commit was sent of which nobody knows whether it was made."""
    if isinstance(error, json.JSONDecodeError):
        return True
    found: Any = error.response if isinstance(error, HfHubHTTPError) else error
    try:
        address = str(found.request.url)
    except (AttributeError, RuntimeError):  # httpx raises the second where no request was made
        return False
    failed = _is_transport(error) if found is error else found.status_code >= 500
    return failed and "/commit/" in address


def _passing(error: BaseException) -> bool:
    """Whether a repetition may help: a busy or failing server, a head that moved, a connection that was cut."""
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in (408, 409, 412, 425, 429, 500, 502, 503, 504)
    return _is_transport(error) or isinstance(error, json.JSONDecodeError)


def _clear(error: BaseException, repo_id: str, contents: Contents) -> BaseException:
    """The error to show: what is wrong, that nothing is half done, and the cure, without the token."""
    again = "nothing was committed, and the same publish completes it"
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        said = (error.server_message or "").strip() or f"HTTP {status}"
        said = said.replace(contents.secret, "***") if contents.secret else said
        if status == 401:
            return PermissionError(
                f"token was refused for {repo_id!r} ({said}); run `hf auth login`, or give one that may write."
            )
        if status == 403:
            return PermissionError(f"token may not write to {repo_id!r} ({said}); use one with the right to write.")
        if status in (413, 507):
            return OSError(f"the Hub has no space left for {repo_id!r} ({said}); make room there: {again}.")
        if status == 400 and "metadata" in said.lower():
            return ValueError(f"README.md: the Hub rejects the card's metadata ({said}); {again} once it is corrected.")
        if isinstance(error, RevisionNotFoundError):
            return ValueError(f"{repo_id!r} lost the commit to build on ({said}); repeat the publish.")
        return ConnectionError(f"the Hub failed for {repo_id!r} ({said}); {again}.")
    if isinstance(error, json.JSONDecodeError) or _is_transport(error):
        return ConnectionError(
            f"the connection to the Hub failed for {repo_id!r} ({str(error) or type(error).__name__}); repeat the same "
            "publish to complete it."
        )
    if isinstance(error, ValueError) and "Invalid metadata" in str(error):
        said = " ".join(str(error).split())
        return ValueError(f"README.md: the Hub rejects the card's metadata ({said}); {again} once it is corrected.")
    return error
