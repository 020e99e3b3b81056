"""The Hub of the tests, as huggingface_hub sees it: what makes the tests of a push worth anything."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import hub_server
import pytest
from hub_server import Faults
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    constants,
    hf_hub_download,
    snapshot_download,
)
from huggingface_hub.errors import BadRequestError, HfHubHTTPError, RemoteEntryNotFoundError, RevisionNotFoundError

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # huggingface_hub's own

REPO = "band/model"
LARGE = bytes(range(256)) * 400


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with hub_server.hub_server() as server:
        yield server


@pytest.fixture
def api(hub):
    api = HfApi(hub.endpoint, token=hub.token)
    api.create_repo(REPO)
    return api


def commit(api, *operations, **settings):
    """Add files, given as (path, content), or apply operations, in one commit."""
    files = [CommitOperationAdd(*part) if isinstance(part, tuple) else part for part in operations]
    return api.create_commit(REPO, files, commit_message="change", **settings)


def shown(hub, revision="main"):
    return {path: data for path, data in hub.tree("model", REPO, revision).items() if path != ".gitattributes"}


def test_a_commit_is_one_state_and_the_same_again_is_none(hub, api):
    first = commit(api, ("README.md", b"---\nlicense: mit\n---\n"), ("a/b.txt", b"one"), ("w.safetensors", LARGE))
    again = commit(api, ("a/b.txt", b"one"), ("w.safetensors", LARGE))
    assert again.oid == first.oid == api.model_info(REPO).sha
    assert len(hub.history("model", REPO)) == 2
    assert hub.history("model", REPO)[0].keys() == {".gitattributes"}
    assert [*hub.uploads.values()] == [len(LARGE)]
    listed = {entry.path: getattr(entry, "lfs", None) is not None for entry in api.list_repo_tree(REPO, recursive=True)}
    assert listed == {".gitattributes": 0, "README.md": 0, "a": 0, "a/b.txt": 0, "w.safetensors": 1}
    assert api.model_info(REPO).card_data.license == "mit"


def test_of_many_commits_upon_the_same_head_one_succeeds(hub, api, monkeypatch):
    head, check = api.model_info(REPO).sha, hub_server.check_card
    monkeypatch.setattr(hub_server, "check_card", lambda card: time.sleep(0.005) or check(card))

    def push(number):
        try:
            commit(api, ("a", b"%d" % number), ("b", b"%d" % number), parent_commit=head)
        except HfHubHTTPError as error:
            return error.response.status_code
        return 200

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(push, range(8)))
    assert sorted(answers) == [200] + [412] * 7
    winner = b"%d" % answers.index(200)
    assert shown(hub) == {"a": winner, "b": winner}


@pytest.mark.parametrize(
    ("operations", "error"),
    [
        ([("a", b"1"), CommitOperationDelete("none")], RemoteEntryNotFoundError),
        ([("a", b"1"), ("w.bin", b"large")], BadRequestError),
        ([("a", b"1"), ("README.md", b"---\nlicense: free\n---\n")], ValueError),
        ([("a", b"1"), ("README.md", b"---\nlicense: [\n---\n")], ValueError),
    ],
)
def test_a_commit_of_which_one_part_is_wrong_changes_nothing(hub, api, monkeypatch, operations, error):
    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    monkeypatch.setattr("huggingface_hub._commit_api._upload_files", lambda **_: None)  # large files stay away
    with pytest.raises(error):
        commit(api, *operations)
    assert shown(hub) == {}


@pytest.mark.usefixtures("api")
def test_an_upload_that_does_not_match_its_hash_is_refused(hub):
    assert httpx2.put(f"{hub.storage}/storage/model/{REPO}/{'0' * 64}", content=b"other").status_code == 400


def test_branches_move_by_themselves(hub, api):
    start = api.model_info(REPO).sha
    commit(api, ("a", b"1"))
    api.create_branch(REPO, branch="small", revision=start)
    commit(api, ("a", b"2"), revision="small")
    assert (shown(hub), shown(hub, "small")) == ({"a": b"1"}, {"a": b"2"})
    assert {ref.name for ref in api.list_repo_refs(REPO).branches} == {"main", "small"}
    assert [each.commit_id for each in api.list_repo_commits(REPO, revision="small")][-1] == start
    with pytest.raises(RevisionNotFoundError):
        commit(api, ("a", b"3"), revision="none")


def test_only_the_holder_of_the_writing_token_changes_anything_and_no_token_goes_to_the_storage(hub, api):
    commit(api, ("w.bin", LARGE))
    for token, status in ((False, 401), ("hf_other", 401), (hub.reading_token, 403)):
        other = HfApi(hub.endpoint, token=token)
        for call in (lambda other=other: commit(other, ("a", b"1")), lambda other=other: other.create_repo("band/new")):
            with pytest.raises(HfHubHTTPError) as refused:
                call()
            assert refused.value.response.status_code == status
    assert shown(hub) == {"w.bin": LARGE}
    assert len(hub.repositories) == 1
    hf_hub_download(REPO, "w.bin", endpoint=hub.endpoint, token=hub.token)
    stored = [(line.split()[0], header) for line, header in hub.requests if "/storage/" in line]
    assert stored == [("PUT", None), ("GET", None)]


def test_a_snapshot_is_what_a_revision_shows_and_a_broken_download_continues(hub, api, monkeypatch):
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    first = commit(api, ("w.bin", LARGE), ("a/b.txt", b"one")).oid
    commit(api, CommitOperationDelete("a/b.txt"))
    hub.faults = Faults(["cut body"], only="GET /storage/")
    for revision in ("main", first):
        root = Path(snapshot_download(REPO, revision=revision, endpoint=hub.endpoint, token=False))
        found = {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        assert found == hub.tree("model", REPO, revision)
    assert hub.faults.done
    with pytest.raises(RemoteEntryNotFoundError):
        hf_hub_download(REPO, "none", endpoint=hub.endpoint, token=False)


@pytest.mark.parametrize(
    ("kind", "error", "took_effect"),
    [
        ("cut before", httpx2.TransportError, 0),
        ("cut after", httpx2.TransportError, 1),
        ("cut body", httpx2.TransportError, 1),
        *((status, HfHubHTTPError, 0) for status in ("401", "403", "409", "412", "429", "500", "502", "503")),
    ],
)
def test_a_commit_with_a_fault_has_taken_effect_or_not(hub, api, kind, error, took_effect):
    hub.faults = Faults([kind], only="/commit/")
    with pytest.raises(error):
        commit(api, ("a", b"1"), ("b", b"1"))
    assert len(hub.history("model", REPO)) == 1 + took_effect
    commit(api, ("a", b"1"), ("b", b"1"))
    assert shown(hub) == {"a": b"1", "b": b"1"}
    assert len(hub.history("model", REPO)) == 2
