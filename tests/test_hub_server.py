"""The Hub of the tests, as huggingface_hub itself finds it."""

import json
import os
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import hub_server
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub_server import PASSING, Faults
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    ModelCard,
    close_session,
    constants,
    hf_hub_download,
    snapshot_download,
)
from huggingface_hub.errors import (
    BadRequestError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

# huggingface_hub hands large files to httpx2 as it no longer wants them
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

REPO = "band/model"
CARD = "---\nlicense: mit\ntags: [music]\n---\n# A model\n"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with hub_server.hub_server() as server:
        yield server
        close_session()


@pytest.fixture
def waits(monkeypatch):
    """The seconds for which the client would wait; it does not."""
    slept = []
    monkeypatch.setattr(time, "sleep", slept.append)
    return slept


@pytest.fixture
def api(hub):
    api = HfApi(hub.endpoint, token=hub.token)
    api.create_repo(REPO)
    return api


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "model"
    (root / "logs").mkdir(parents=True)
    (root / "README.md").write_text(CARD)
    (root / "config.json").write_text("{}")
    (root / "logs" / "a.txt").write_text("one")
    (root / "model.safetensors").write_bytes(bytes(range(256)) * 400)
    return root


def add(path: str, content: bytes | str) -> CommitOperationAdd:
    return CommitOperationAdd(path, content.encode() if isinstance(content, str) else content)


def files(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def without_attributes(tree: dict[str, bytes]) -> dict[str, bytes]:
    return {path: content for path, content in tree.items() if path != ".gitattributes"}


# Push


def test_a_pushed_folder_is_one_commit_and_the_same_again_is_none(hub, api, folder):
    pushed = api.upload_folder(repo_id=REPO, folder_path=folder)
    again = api.upload_folder(repo_id=REPO, folder_path=folder)
    assert again.oid == pushed.oid == api.model_info(REPO).sha
    first, second = hub.history("model", REPO)
    assert first.keys() == {".gitattributes"}
    assert without_attributes(second) == without_attributes(hub.tree("model", REPO)) == files(folder)
    assert list(hub.uploads.values()) == [102400]
    assert [entry.lfs is not None for entry in api.get_paths_info(REPO, ["config.json", "model.safetensors"])] == [0, 1]
    assert api.model_info(REPO).card_data.license == "mit"
    assert [commit.title for commit in api.list_repo_commits(REPO)][1:] == ["initial commit"]


def test_files_that_the_folder_has_no_longer_are_deleted_by_pattern(hub, api, folder):
    api.upload_folder(repo_id=REPO, folder_path=folder)
    (folder / "logs" / "a.txt").rename(folder / "logs" / "b.txt")
    api.upload_folder(repo_id=REPO, folder_path=folder, delete_patterns="logs/*")
    assert without_attributes(hub.tree("model", REPO)) == files(folder)
    api.delete_folder("logs", REPO)
    assert "logs/b.txt" not in hub.tree("model", REPO)


def test_a_large_file_is_sent_once_and_is_not_lost_when_the_commit_fails(hub, api, folder):
    hub.faults = Faults(["500"], only="/commit/")
    with pytest.raises(HfHubHTTPError, match="500"):
        api.upload_folder(repo_id=REPO, folder_path=folder)
    assert len(hub.history("model", REPO)) == 1
    api.upload_folder(repo_id=REPO, folder_path=folder)
    assert list(hub.uploads.values()) == [102400]
    assert without_attributes(hub.tree("model", REPO)) == files(folder)


def test_a_commit_upon_another_head_is_refused_as_a_whole(hub, api):
    head = api.model_info(REPO).sha
    api.create_commit(REPO, [add("a", "1")], commit_message="one", parent_commit=head)
    with pytest.raises(HfHubHTTPError, match="A commit has happened since") as refused:
        api.create_commit(REPO, [add("a", "2")], commit_message="two", parent_commit=head)
    assert refused.value.response.status_code == 412
    assert without_attributes(hub.tree("model", REPO)) == {"a": b"1"}


def test_of_many_who_push_upon_the_same_head_one_succeeds(hub, api, monkeypatch):
    head = api.model_info(REPO).sha
    check = hub_server.check_card
    monkeypatch.setattr(hub_server, "check_card", lambda *card: time.sleep(0.005) or check(*card))

    def push(number: int) -> int:
        operations = [add("a", f"{number}"), add("b", f"{number}")]
        try:
            api.create_commit(REPO, operations, commit_message="mine", parent_commit=head)
        except HfHubHTTPError as error:
            return error.response.status_code
        return 200

    with ThreadPoolExecutor(8) as pool:
        said = list(pool.map(push, range(8)))
    assert sorted(said) == [200] + [412] * 7
    winner = f"{said.index(200)}".encode()
    assert without_attributes(hub.tree("model", REPO)) == {"a": winner, "b": winner}


@pytest.mark.parametrize(
    ("operations", "error"),
    [
        ([add("a", "1"), CommitOperationDelete("none")], RemoteEntryNotFoundError),
        ([add("a", "1"), CommitOperationDelete("none/")], RemoteEntryNotFoundError),
        ([add("a", "1"), add("w.bin", "large")], BadRequestError),
    ],
)
def test_a_commit_of_which_one_part_is_wrong_changes_nothing(hub, api, monkeypatch, operations, error):
    monkeypatch.setattr("huggingface_hub._commit_api._upload_files", lambda **_: None)  # what is large stays away
    with pytest.raises(error):
        api.create_commit(REPO, operations, commit_message="wrong")
    assert len(hub.history("model", REPO)) == 1


def test_what_is_binary_or_matches_gitattributes_or_is_over_10_mib_is_large_and_what_gitignore_names_stays(api):
    api.create_commit(REPO, [add(".gitignore", "*.log\n")], commit_message="ignore")
    large = {"a.npy": b"text", "b.dat": b"\0", "c.dat": b"\xff", "d.txt": b"a" * (10 * 2**20 + 1)}
    regular = {"e.txt": "é".encode() * 300, "f.txt": b"a" * 600}
    operations = [add(path, content) for path, content in {**large, **regular, "g.log": b"x"}.items()]
    api.create_commit(REPO, operations, commit_message="all")
    listed = {entry.path: entry.lfs is not None for entry in api.list_repo_tree(REPO)}
    assert listed == {".gitattributes": False, ".gitignore": False} | dict.fromkeys(large, True) | dict.fromkeys(
        regular, False
    )


@pytest.mark.usefixtures("api")
def test_an_upload_that_is_not_what_its_name_says_is_refused(hub):
    address = f"{hub.storage}/storage/model/{REPO}/{'0' * 64}"
    assert httpx2.put(address, content=b"other").status_code == 400
    assert not hub.repositories["model", REPO].large


# Repositories, branches, rights


def test_a_repository_is_made_once(api):
    with pytest.raises(HfHubHTTPError, match="You already created this model repo") as refused:
        api.create_repo(REPO)
    assert refused.value.response.status_code == 409
    assert api.create_repo(REPO, exist_ok=True).repo_id == REPO
    api.create_repo("orchestra/tunes", repo_type="dataset")
    api.create_repo("band/demo", repo_type="space", space_sdk="gradio")
    assert api.dataset_info("orchestra/tunes").sha
    assert api.space_info("band/demo").sdk == "gradio"
    assert [api.repo_exists(REPO, repo_type=kind) for kind in ("model", "dataset")] == [True, False]


def test_branches_and_tags_stand_where_they_were_set(hub, api):
    start = api.model_info(REPO).sha
    api.create_commit(REPO, [add("a", "1")], commit_message="one")
    api.create_branch(REPO, branch="size/s", revision=start)
    api.create_branch(REPO, branch="size/m")
    api.create_tag(REPO, tag="v1")
    api.create_commit(REPO, [add("a", "2")], commit_message="two", revision="size/s")
    api.create_commit(REPO, [add("a", "3")], commit_message="three")
    shown = {
        revision: without_attributes(hub.tree("model", REPO, revision)) for revision in ("main", "size/s", "size/m")
    }
    assert shown == {"main": {"a": b"3"}, "size/s": {"a": b"2"}, "size/m": {"a": b"1"}}
    assert without_attributes(hub.tree("model", REPO, "v1")) == {"a": b"1"}
    assert [len(hub.history("model", REPO, branch)) for branch in shown] == [3, 2, 1]
    assert without_attributes(hub.history("model", REPO, "size/s")[0]) == {}
    with pytest.raises(HfHubHTTPError, match="Reference already exists"):
        api.create_branch(REPO, branch="size/m")
    api.create_branch(REPO, branch="size/m", exist_ok=True)
    api.delete_branch(REPO, branch="size/m")
    refs = api.list_repo_refs(REPO)
    assert {branch.name for branch in refs.branches} == {"main", "size/s"}
    assert [tag.name for tag in refs.tags] == ["v1"]
    with pytest.raises(RevisionNotFoundError):
        api.model_info(REPO, revision="size/m")
    with pytest.raises(RevisionNotFoundError):
        api.create_commit(REPO, [add("a", "4")], commit_message="four", revision="size/m")


def status(call) -> int:
    with pytest.raises(HfHubHTTPError) as refused:
        call()
    return refused.value.response.status_code


def test_who_has_no_right_to_it_changes_nothing_and_sees_nothing_private(hub, api):
    api.create_repo("band/secret", private=True)
    hub.repositories["model", "others/model"] = hub.repositories["model", REPO]
    nobody, stranger, reader = (HfApi(hub.endpoint, token=t) for t in (False, "hf_other", hub.reading_token))
    made = list(hub.repositories)
    for who, write, create in ((nobody, 401, 401), (stranger, 401, 401), (reader, 403, 403)):
        assert status(lambda who=who: who.create_commit(REPO, [add("a", "1")], commit_message="one")) == write
        assert status(lambda who=who: who.create_repo("band/new")) == create
    assert status(lambda: api.create_repo("others/new")) == 403
    assert status(lambda: api.create_commit("others/model", [add("a", "1")], commit_message="one")) == 403
    assert len(hub.history("model", REPO)) == 1
    assert list(hub.repositories) == made
    assert nobody.model_info(REPO).sha == reader.model_info(REPO).sha
    assert reader.model_info("band/secret").private
    for name in ("band/secret", "band/none"):
        with pytest.raises(RepositoryNotFoundError):
            nobody.model_info(name)
    assert status(lambda: stranger.model_info(REPO)) == status(stranger.whoami) == 401
    assert api.whoami()["name"] == "band"


def test_the_token_goes_to_the_hub_alone_and_is_in_no_address(hub, api, folder):
    api.upload_folder(repo_id=REPO, folder_path=folder)
    hf_hub_download(REPO, "model.safetensors", endpoint=hub.endpoint, token=hub.token)
    seen = dict(zip(hub.requests, hub.authorizations, strict=True))
    stored = [line for line in seen if "/storage/" in line]
    assert [line.split()[0] for line in stored] == ["PUT", "GET"]
    assert {line for line, header in seen.items() if header is None} == set(stored)
    assert not any(hub.token in line for line in seen)


# Read


def test_a_long_listing_comes_in_pages(hub, api):
    operations = [add(f"{folder}/{number}", "x") for folder in "ab" for number in range(4)]
    api.create_commit(REPO, operations, commit_message="many")
    hub.page_size, before = 3, len(hub.requests)
    paths = [entry.path for entry in api.list_repo_tree(REPO, recursive=True)]
    assert paths == [".gitattributes", *(f"{f}{n}" for f in "ab" for n in ("", "/0", "/1", "/2", "/3"))]
    assert len(hub.requests) - before == 4
    assert [entry.path for entry in api.list_repo_tree(REPO)] == [".gitattributes", "a", "b"]
    assert [entry.path for entry in api.list_repo_tree(REPO, "b")] == ["b/0", "b/1", "b/2", "b/3"]


@pytest.mark.usefixtures("waits")
@pytest.mark.parametrize("name", ["model.safetensors", "long.txt"])
def test_a_download_that_is_cut_off_goes_on_where_it_was(hub, api, folder, name, monkeypatch):
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    (folder / "long.txt").write_text("abcdefgh" * 5000)
    api.upload_folder(repo_id=REPO, folder_path=folder)
    ranges = []

    def recorded(request):
        answer = type(hub).answer(hub, request)
        if "Range" in request.headers:
            ranges.append((answer.status, int(request.headers["Range"][6:-1])))
        return answer

    monkeypatch.setattr(hub, "answer", recorded)
    hub.faults = Faults(["cut body"], only="GET /(storage|band/model/resolve)/")
    path = hf_hub_download(REPO, name, endpoint=hub.endpoint, token=False)
    assert Path(path).read_bytes() == (folder / name).read_bytes()
    half = (folder / name).stat().st_size // 2
    [(answered, start)] = ranges
    assert answered == 206
    assert half - 1000 < start <= half


def test_a_snapshot_is_what_a_branch_shows_and_a_commit_stays_readable(hub, api, folder):
    first = api.upload_folder(repo_id=REPO, folder_path=folder).oid
    api.create_commit(REPO, [CommitOperationDelete("logs/")], commit_message="less")
    for revision, count in (("main", 4), (first, 5)):
        root = snapshot_download(REPO, revision=revision, endpoint=hub.endpoint, token=False)
        assert files(Path(root)) == hub.tree("model", REPO, revision)
        assert len(files(Path(root))) == count
    with pytest.raises(RemoteEntryNotFoundError):
        hf_hub_download(REPO, "none", endpoint=hub.endpoint, token=False)
    with pytest.raises(RevisionNotFoundError):
        snapshot_download(REPO, revision="none", endpoint=hub.endpoint, token=False)


LOADING = """
import sys
from datasets import load_dataset
from huggingface_hub import ModelCard
import evaluate

ModelCard("---\\nlicense: mit\\n---\\n").push_to_hub("band/model")
tunes = load_dataset("band/tunes", split="train")
metric = evaluate.load("band/length")
print(tunes["abc"], metric.compute(predictions=["a", "bc"])["length"])
"""
METRIC = """
import datasets
import evaluate


class Length(evaluate.Metric):
    def _info(self):
        features = datasets.Features({"predictions": datasets.Value("string")})
        return evaluate.MetricInfo(description="", citation="", features=features)

    def _compute(self, predictions):
        return {"length": sum(map(len, predictions))}
"""


def test_a_fresh_process_loads_a_pushed_data_set_and_metric_and_pushes_a_card(hub, api, tmp_path):
    pq.write_table(pa.table({"abc": ["X:1", "X:2"]}), tmp_path / "tunes.parquet")
    card = "---\nlicense: mit\nconfigs:\n- config_name: default\n  data_files: data/*.parquet\n---\n"
    table = CommitOperationAdd("data/train.parquet", tmp_path / "tunes.parquet")
    api.create_repo("band/tunes", repo_type="dataset")
    api.create_commit("band/tunes", [add("README.md", card), table], commit_message="tunes", repo_type="dataset")
    api.create_repo("band/length", repo_type="space", space_sdk="gradio")
    api.create_commit("band/length", [add("length.py", METRIC)], commit_message="metric", repo_type="space")
    done = subprocess.run(
        [sys.executable, "-c", LOADING],
        env={**os.environ, **hub.environment(tmp_path / "home", hub.token)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "Column(['X:1', 'X:2']) 3\n", done.stderr
    assert b"license: mit" in hub.tree("model", REPO)["README.md"]


# Cards


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ("license: [", "YAMLException"),
        ("- license", '"metadata" must be an object'),
        ("license: CC-BY-NC 4.0", '"license" must be one of [apache-2.0,'),
        ("tags: music", '"tags" must be an array'),
        ("datasets: [band/my tunes]", '"datasets[0]" with value "band/my tunes" fails to match'),
        ("model-index: [{name: a}]", '"model-index[0].results" is required'),
        ("model-index: [{name: a, results: [{task: {}}]}]", '"model-index[0].results[0].task.type" is required'),
        ("sdk: flask", '"sdk" must be one of [gradio'),
    ],
)
def test_a_card_with_wrong_metadata_is_refused_by_its_name(hub, api, monkeypatch, metadata, said):
    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    card = f"---\n{metadata}\n---\n"
    answer = httpx2.post(f"{hub.endpoint}/api/validate-yaml", json={"content": card, "repoType": "model"})
    assert said in answer.json()["errors"][0]["message"]
    with pytest.raises(ValueError, match="Invalid metadata in README"):
        api.create_commit(REPO, [add("README.md", card)], commit_message="card")
    monkeypatch.setattr(HfApi, "_validate_yaml", lambda *_, **__: None)
    with pytest.raises(BadRequestError, match="Invalid metadata in README"):
        api.create_commit(REPO, [add("README.md", card)], commit_message="card")
    assert "README.md" not in hub.tree("model", REPO)


def test_a_right_card_is_valid_and_one_without_metadata_is_warned_of(hub, api, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    result = "{task: {type: text-generation}, dataset: {type: band/tunes, name: T}, metrics: [{type: bpc, value: 1.5}]}"
    index = f"model-index: [{{name: m, results: [{result}]}}]"
    ModelCard(f"---\nlicense: cc-by-nc-4.0\nlanguage: en\ndatasets: [band/tunes]\n{index}\n---\n").validate()
    with pytest.raises(ValueError, match="license"):
        ModelCard("---\nlicense: free\n---\n").validate()
    with pytest.warns(UserWarning, match="empty or missing yaml metadata in repo card"):
        api.create_commit(REPO, [add("README.md", "# A model")], commit_message="card")


# Faults


def push_until_done(api: HfApi, folder: Path) -> int:
    """Push as one who begins anew whenever something went wrong; return how often that was."""
    for attempt in range(50):
        try:
            api.upload_folder(repo_id=REPO, folder_path=folder)
            return attempt
        except (HfHubHTTPError, httpx2.TransportError, RuntimeError, json.JSONDecodeError):
            continue
    raise AssertionError("50 times in vain")


@pytest.mark.usefixtures("hub", "waits")
def test_under_faults_a_branch_is_old_or_new_never_between_and_the_same_seed_is_the_same_again(folder):
    done = []
    for _ in range(2):
        with hub_server.hub_server() as other:
            api = HfApi(other.endpoint, token=other.token)
            api.create_repo(REPO)
            other.faults = Faults(rate=0.4, seed=1)
            states = [{}]
            for number in range(6):
                for name in ("config.json", "logs/a.txt", "model.safetensors"):
                    (folder / name).write_text(f"{number}")
                push_until_done(api, folder)
                states.append(files(folder))
            shown = [without_attributes(tree) for tree in other.history("model", REPO)]
            assert [state for i, state in enumerate(shown) if i == 0 or state != shown[i - 1]] == states
            done.append(other.faults.done)
            close_session()
    assert done[0] == done[1]
    assert {kind for kind, _ in done[0]} == set(PASSING)


@pytest.mark.parametrize(("kind", "took_effect"), [("cut before", 0), ("cut after", 1), ("cut body", 1), ("502", 0)])
def test_a_commit_that_goes_wrong_has_taken_effect_or_not(hub, api, kind, took_effect):
    hub.faults = Faults([kind], only="/commit/")
    error = HfHubHTTPError if kind == "502" else httpx2.RemoteProtocolError
    with pytest.raises(error):
        api.create_commit(REPO, [add("a", "1"), add("b", "1")], commit_message="one")
    assert len(hub.history("model", REPO)) == 1 + took_effect
    api.create_commit(REPO, [add("a", "1"), add("b", "1")], commit_message="one")
    assert without_attributes(hub.tree("model", REPO)) == {"a": b"1", "b": b"1"}
    assert len(hub.history("model", REPO)) == 2


@pytest.mark.parametrize("kind", ["401", "403", "409", "412"])
def test_a_commit_is_refused_on_demand(hub, api, kind):
    hub.faults = Faults([kind], only="/commit/")
    assert status(lambda: api.create_commit(REPO, [add("a", "1")], commit_message="one")) == int(kind)
    assert len(hub.faults.done) == 1
    assert len(hub.history("model", REPO)) == 1


def test_a_slow_body_arrives_whole_and_a_download_that_finds_no_server_says_so(hub, api, folder, waits):
    api.upload_folder(repo_id=REPO, folder_path=folder)
    hub.faults = Faults(rate=1, kinds=["slow body"])
    path = hf_hub_download(REPO, "model.safetensors", endpoint=hub.endpoint, token=False)
    assert Path(path).read_bytes() == (folder / "model.safetensors").read_bytes()
    hub.faults = Faults(rate=1, kinds=["503"])
    with pytest.raises(LocalEntryNotFoundError):
        hf_hub_download(REPO, "config.json", endpoint=hub.endpoint, token=False)
    assert waits == [1, 2, 4, 8, 8]


@pytest.mark.parametrize(
    ("only", "retried"),
    [
        ("/validate-yaml", False),
        ("/repos/create", False),
        ("/preupload/", True),
        ("/batch", True),
        ("PUT /storage/", True),
        ("/verify", True),
        ("/commit/", False),
        ("/branch/", False),
        ("/refs", False),
        ("/revision/", False),
        ("/tree/", True),
    ],
)
def test_what_the_client_tries_again_by_itself(hub, api, folder, waits, only, retried):
    hub.faults = Faults(["429", "503"], only=only, retry_after=7)

    def everything() -> None:
        api.create_repo(REPO, exist_ok=True)
        api.create_branch(REPO, branch="b", exist_ok=True)
        api.list_repo_refs(REPO)
        api.upload_folder(repo_id=REPO, folder_path=folder, revision="b", delete_patterns="*.txt")
        api.model_info(REPO, revision="b")

    if retried:
        everything()
        assert waits == [8, 2]  # what is asked for and one second; then the second of 1, 2, 4, 8, 8 s
        assert [kind for kind, _ in hub.faults.done] == ["429", "503"]
    else:
        with warnings.catch_warnings(), pytest.raises(HfHubHTTPError, match="429"):
            everything()
        assert waits == []
