"""Staged branches → the Hub: each in one commit, so that what is visible is always whole, old or new.

A push that was cut off is repeated: large files that have arrived are not sent again, and a branch whose files are the
same gets no commit. The login is huggingface_hub's (`hf auth login`, or HF_TOKEN); its token is never read here.
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
from model_cards.publish import CARD
from model_cards.staging import Branch

T = TypeVar("T")
# By requests, by Xet, what hides either of an upload, and by a gateway's page where the client expects JSON.
ERRORS = (HTTPError, ConnectionError, RuntimeError, JSONDecodeError)
WAITS = (1, 2, 4, 8, 16, 32)  # seconds before a request is repeated
PASSING = {408, 409, 412, 425, 429, 500, 502, 503, 504}  # 409 and 412: another push came between
GIT_ATTRIBUTES = ".gitattributes"  # the Hub's own
LONGEST_WAIT = 300  # seconds; limits on uploads last for an hour at most, and are better waited for by hand


def push(branches: Sequence[Branch], private: bool, api: HfApi) -> None:
    """Push branches in their order, saying what became of each.

    Raises UserError with one line if the login is missing or may not write, or if the Hub cannot be had for long.
    """
    logging.set_verbosity_error()  # an unchanged branch is no reason for a warning
    with one_line():
        for branch in branches:
            done = push_branch(branch, private, api)
            print(f"{done}: {branch.kind} {branch.repository}, branch {branch.revision}", flush=True)
        for repository in sorted({branch.repository for branch in branches if branch.kind == "model"}):
            ours = {branch.revision for branch in branches if branch.repository == repository}
            refs = patiently(lambda repository=repository: api.list_repo_refs(repository))  # type: ignore[misc]
            for name in sorted({ref.name for ref in refs.branches} - ours):
                print(f"left alone: model {repository}, branch {name}, which is no size of this study")
    if private:
        print("a private Space reads private models only with a token: give it one as its secret HF_TOKEN")


def check_login(api: HfApi) -> None:
    """Raise UserError with one line if there is no login, or if the Hub does not take it."""
    with one_line():
        patiently(api.whoami)


@contextmanager
def one_line() -> Iterator[None]:
    """Turn the errors of requests into the door's."""
    try:
        yield
    except LocalTokenNotFoundError:
        raise UserError("there is no login for the Hub: run hf auth login") from None
    except ERRORS as error:
        raise UserError(explain(error)) from None


def push_branch(branch: Branch, private: bool, api: HfApi) -> str:
    """Make a branch on the Hub what its folder is, in one commit.

    Returns "pushed", "replaced" if there were other files, or "unchanged".
    """
    repository, kind = branch.repository, branch.kind
    paths = sorted(path for path in branch.folder.rglob("*") if path.is_file())
    files = {path.relative_to(branch.folder).as_posix(): path for path in paths}
    sdk = RepoCard.load(branch.folder / CARD).data.get("sdk") if kind == "space" else None
    patiently(lambda: api.create_repo(repository, repo_type=kind, private=private, space_sdk=sdk, exist_ok=True))

    def attempt() -> str:
        try:
            head = api.repo_info(repository, repo_type=kind, revision=branch.revision).sha
        except RevisionNotFoundError:
            # from the first commit, which holds no file: until it has its own it must not show another size's
            start = api.list_repo_commits(repository, repo_type=kind)[-1].commit_id
            api.create_branch(repository, repo_type=kind, branch=branch.revision, revision=start, exist_ok=True)
            head = start
        before = api.list_repo_files(repository, repo_type=kind, revision=head)
        # Not by upload_folder, which makes several commits of a large folder.
        made = api.create_commit(
            repository,
            [
                *(CommitOperationDelete(path) for path in sorted({*before} - files.keys() - {GIT_ATTRIBUTES})),
                *(CommitOperationAdd(path, str(file)) for path, file in files.items()),
            ],
            repo_type=kind,
            revision=branch.revision,
            parent_commit=head,  # refused if another push came between
            commit_message=f"The study's files ({branch.revision})",
        )
        if made.oid == head:
            return "unchanged"
        older = api.list_repo_commits(repository, repo_type=kind, revision=head)
        return "replaced" if len(older) > 1 else "pushed"  # the first commit is the Hub's own

    return patiently(attempt)


def patiently(call: Callable[[], T]) -> T:
    """Return what a call to the Hub returns; where the reason may pass, it is repeated after each of WAITS."""
    for wait in WAITS:
        try:
            return call()
        except ERRORS as error:
            status, asked = _answer(error)
            if (status is not None and status not in PASSING) or asked > LONGEST_WAIT:
                raise
            seconds = max(wait, asked)
            reason = "the connection broke" if status is None else f"the Hub answers {status}"
            print(f"{reason}: trying again in {seconds:g} s", file=sys.stderr, flush=True)
            time.sleep(seconds)
    return call()


def explain(error: Exception) -> str:
    """Return one line that says what a user can do."""
    status, _ = _answer(error)
    if status == 401:
        return "the Hub does not take the login: run hf auth login again"
    if status == 403:
        return "the login may not write there: give --namespace a name that it may write to, or a token with that right"
    reason = " ".join(str(error).split("\n")[0].split()) if status is None else f"it answers {status}"
    return f"the Hub cannot be had ({reason}): run the same command again, what has arrived is kept"


def _answer(error: Exception) -> tuple[int | None, float]:
    """Return an error's status, None if there was no answer, and the seconds that it asks to wait.

    Raises the error again if it is not about the connection.
    """
    cause = error.__cause__ if isinstance(error, RuntimeError) else error
    if not isinstance(cause, HTTPError | ConnectionError | JSONDecodeError):
        raise error
    if not isinstance(cause, HfHubHTTPError):
        return None, 0.0
    asked = cause.response.headers.get("Retry-After", "")
    return cause.response.status_code, float(asked) if asked.isdecimal() else 0.0
