"""Push staged branches to the Hub, each in one commit.

A push that was interrupted is repeated: large files that arrived are not sent again, and a branch with the same files
gets no commit. The login is huggingface_hub's (`hf auth login`, or HF_TOKEN); this code never reads the token.
"""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from json import JSONDecodeError
from typing import TypeVar

from httpx2 import HTTPError
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, RepoCard
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, RevisionNotFoundError
from huggingface_hub.utils import logging

from cli import UserError
from model_cards.card import CARD
from model_cards.staging import Branch

T = TypeVar("T")
# Failed requests; failed Xet transfers; huggingface_hub's wrapper of both; a gateway's page where JSON is expected.
ERRORS = (HTTPError, ConnectionError, RuntimeError, JSONDecodeError)
WAITS = (1, 2, 4, 8, 16, 32)  # seconds before each new attempt
TEMPORARY = {408, 409, 412, 425, 429, 500, 502, 503, 504}  # 409 and 412: another push was faster
MAX_WAIT = 300  # seconds that Retry-After may ask for
GIT_ATTRIBUTES = ".gitattributes"  # written by the Hub


def push(branches: Sequence[Branch], private: bool, api: HfApi) -> None:
    """Push branches in their order and print what happened to each.

    Raises UserError if the login is missing or has no write access, or if the Hub stays out of reach.
    """
    logging.set_verbosity_error()  # an unchanged branch needs no warning
    with user_errors():
        for branch in branches:
            print(f"{push_branch(branch, private, api)}: {branch}", flush=True)
        for repository in sorted({branch.repository for branch in branches if branch.kind == "model"}):
            ours = {branch.revision for branch in branches if branch.repository == repository}
            refs = retry(lambda repository=repository: api.list_repo_refs(repository))  # type: ignore[misc]
            for name in sorted({ref.name for ref in refs.branches} - ours):
                print(f"left alone: model {repository}, branch {name}, which is not a size of this study")
    if private:
        print("a private Space reads private models only with a token: add one to it as the secret HF_TOKEN")


def check_login(api: HfApi) -> None:
    """Raise UserError if there is no login, or if the Hub refuses it."""
    with user_errors():
        retry(api.whoami)


@contextmanager
def user_errors() -> Iterator[None]:
    """Turn the errors of requests into UserError."""
    try:
        yield
    except LocalTokenNotFoundError:
        raise UserError("there is no login for the Hub: run hf auth login") from None
    except ERRORS as error:
        raise UserError(describe_error(error)) from None


def push_branch(branch: Branch, private: bool, api: HfApi) -> str:
    """Make a branch on the Hub equal to its folder, in one commit.

    Returns "pushed", "replaced" if there were other files, or "unchanged".
    """
    repository, kind = branch.repository, branch.kind
    paths = sorted(path for path in branch.folder.rglob("*") if path.is_file())
    files = {path.relative_to(branch.folder).as_posix(): path for path in paths}
    sdk = RepoCard.load(branch.folder / CARD).data.get("sdk") if kind == "space" else None
    retry(lambda: api.create_repo(repository, repo_type=kind, private=private, space_sdk=sdk, exist_ok=True))

    def attempt() -> str:
        try:
            head = api.repo_info(repository, repo_type=kind, revision=branch.revision).sha
        except RevisionNotFoundError:
            # A new branch starts at the first commit, which holds no file: it must not show another size meanwhile.
            head = api.list_repo_commits(repository, repo_type=kind)[-1].commit_id
            api.create_branch(repository, repo_type=kind, branch=branch.revision, revision=head, exist_ok=True)
        before = api.list_repo_files(repository, repo_type=kind, revision=head)
        gone = sorted({*before} - files.keys() - {GIT_ATTRIBUTES})
        # upload_folder would make several commits of a large folder.
        commit = api.create_commit(
            repository,
            [
                *(CommitOperationDelete(path) for path in gone),
                *(CommitOperationAdd(path, str(file)) for path, file in files.items()),
            ],
            repo_type=kind,
            revision=branch.revision,
            parent_commit=head,  # refused if another push was faster
            commit_message=f"The study's files ({branch.revision})",
        )
        if commit.oid == head:
            return "unchanged"
        older = api.list_repo_commits(repository, repo_type=kind, revision=head)
        return "replaced" if len(older) > 1 else "pushed"  # the first commit is the Hub's

    return retry(attempt)


def retry(call: Callable[[], T]) -> T:
    """Return the result of a call to the Hub, which is repeated after temporary errors."""
    for wait in WAITS:
        try:
            return call()
        except ERRORS as error:
            status, asked = _response(error)
            if (status is not None and status not in TEMPORARY) or asked > MAX_WAIT:
                raise
            seconds = max(wait, asked)
            reason = "the connection failed" if status is None else f"the Hub answers {status}"
            print(f"{reason}: trying again in {seconds:g} s", file=sys.stderr, flush=True)
            time.sleep(seconds)
    return call()


def describe_error(error: Exception) -> str:
    """Return one line that says what a user can do about a failed request."""
    status, _ = _response(error)
    if status == 401:
        return "the Hub refuses the login: run hf auth login again"
    if status == 403:
        return "the login has no write access there: choose another --namespace, or log in with a write token"
    reason = " ".join(str(error).split("\n")[0].split()) if status is None else f"it answers {status}"
    return f"the Hub is out of reach ({reason}): run the same command again, what has arrived is kept"


def _response(error: Exception) -> tuple[int | None, float]:
    """Return the status of a failed request, None without a response, and the seconds that it asks to wait.

    Raises the error again if it is not about the connection.
    """
    cause = error.__cause__ if isinstance(error, RuntimeError) else error
    if not isinstance(cause, HTTPError | ConnectionError | JSONDecodeError):
        raise error
    if not isinstance(cause, HfHubHTTPError):
        return None, 0.0
    asked = cause.response.headers.get("Retry-After", "")
    return cause.response.status_code, float(asked) if asked.isdecimal() else 0.0
