"""The Hub of the tests: commits are whole or absent, rights are checked, and faults happen as they are named."""

import httpx2
import hub_server
import pytest
from hub_server import Faults
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, hf_hub_download
from huggingface_hub.errors import BadRequestError, HfHubHTTPError, RemoteEntryNotFoundError

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # huggingface_hub's own

REPO = "band/model"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with hub_server.hub_server() as server:
        HfApi(server.endpoint, token=server.token).create_repo(REPO)
        yield server


def commit(hub, *operations, token=None, **settings):
    """Add files, given as (path, content), or apply operations, in one commit."""
    files = [CommitOperationAdd(*part) if isinstance(part, tuple) else part for part in operations]
    api = HfApi(hub.endpoint, token=hub.token if token is None else token)
    return api.create_commit(REPO, files, commit_message="change", **settings)


def files(hub):
    return {path: data for path, data in hub.tree("model", REPO).items() if path != ".gitattributes"}


@pytest.mark.parametrize(
    ("operation", "error"),
    [
        (CommitOperationDelete("none"), RemoteEntryNotFoundError),
        (("w.bin", b"large"), BadRequestError),
        (("README.md", b"---\nlicense: free\n---\n"), ValueError),
    ],
)
def test_a_commit_of_which_one_part_is_wrong_changes_nothing(hub, monkeypatch, operation, error):
    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    monkeypatch.setattr("huggingface_hub._commit_api._upload_files", lambda **_: None)  # large files stay away
    with pytest.raises(error):
        commit(hub, ("a", b"1"), operation)
    assert files(hub) == {}


def test_of_two_commits_upon_the_same_head_the_second_is_refused(hub):
    head = hub.repositories["model", REPO].branches["main"]
    commit(hub, ("a", b"1"), parent_commit=head)
    with pytest.raises(HfHubHTTPError, match="412"):
        commit(hub, ("a", b"2"), parent_commit=head)
    assert files(hub) == {"a": b"1"}


def test_only_the_writing_token_changes_anything_and_no_token_goes_to_the_storage(hub):
    commit(hub, ("w.bin", bytes(1000)))
    for token, status in ((False, "401"), ("hf_other", "401"), (hub.reading_token, "403")):
        with pytest.raises(HfHubHTTPError, match=status):
            commit(hub, ("a", b"1"), token=token)
        with pytest.raises(HfHubHTTPError, match=status):
            HfApi(hub.endpoint, token=token).create_repo("band/new")
    assert files(hub) == {"w.bin": bytes(1000)}
    assert len(hub.repositories) == 1
    hf_hub_download(REPO, "w.bin", endpoint=hub.endpoint, token=hub.token)
    stored = [(line.split()[0], header) for line, header in hub.requests if "/storage/" in line]
    assert stored == [("PUT", None), ("GET", None)]


@pytest.mark.parametrize(
    ("kind", "error", "took_effect"),
    [
        ("cut before", httpx2.TransportError, 0),
        ("cut after", httpx2.TransportError, 1),
        ("cut body", httpx2.TransportError, 1),
        *((status, HfHubHTTPError, 0) for status in ("403", "409", "412", "429", "500", "503")),
    ],
)
def test_a_commit_with_a_fault_has_taken_effect_or_not(hub, kind, error, took_effect):
    hub.faults = Faults([kind], only="/commit/")
    with pytest.raises(error):
        commit(hub, ("a", b"1"))
    assert len(hub.history("model", REPO)) == 1 + took_effect
    commit(hub, ("a", b"1"))
    assert files(hub) == {"a": b"1"}
    assert len(hub.history("model", REPO)) == 2
