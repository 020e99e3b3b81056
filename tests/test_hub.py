"""Pushing a study: a branch shows the old files or the new, whatever happens, and users need only what was pushed."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from clean_environment import clean_environment
from hub_server import Faults, hub_server
from huggingface_hub import HfApi
from made_results import files_of, made_corpus, made_results

from cli import UserError
from model_cards import hub, push
from model_cards.releases import MAIN
from model_cards.results import Results
from model_cards.staging import Branch, stage

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # huggingface_hub's own
ROOT = Path(__file__).parent.parent
OURS = {"preprocessing", "modeling", "training", "analysis", "generation", "model_cards", "cli", "files"}
CODE = re.compile(r"```python\n(.*?)```", re.DOTALL)
# What models and pipeline may import: nothing that reads files, starts programs or uses the network.
HARMLESS = {
    *("__future__", "collections", "dataclasses", "fractions", "functools", "html", "itertools", "math", "re"),
    *("torch", "transformers", "typing", "unicodedata"),
}
FORBIDDEN = {"open", "exec", "eval", "compile", "__import__", "import_module", "breakpoint", "input", "load", "save"}


@pytest.fixture(scope="module")
def study(tmp_path_factory, build_from):
    corpus = made_corpus(tmp_path_factory.mktemp("made") / "corpus", build_from)
    return made_results(tmp_path_factory.mktemp("study") / "data", corpus)


@pytest.fixture(scope="module")
def staged(study):
    return stage(Results.open(study), "band", study / "hub")


@pytest.fixture(scope="module")
def server(staged):
    """A Hub with the study."""
    with pytest.MonkeyPatch.context() as patch, hub_server() as server:
        patch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        hub.push(staged, False, HfApi(endpoint=server.endpoint, token=server.token))
        yield server


@pytest.fixture
def empty_server():
    with hub_server() as server:
        yield server


@pytest.fixture
def api(monkeypatch):
    """Make the client of a server; nobody waits."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("time.sleep", lambda _: None)
    return lambda server, token=None: HfApi(endpoint=server.endpoint, token=token or server.token)


def without_attributes(tree):
    return {path: content for path, content in tree.items() if path != ".gitattributes"}


def files_on(server, branch):
    return without_attributes(server.tree(branch.kind, branch.repository, branch.revision))


def history(server, branch=MAIN):
    return [without_attributes(tree) for tree in server.history("model", "band/abc-gpt", branch)]


def made_branch(folder, version, revision=MAIN):
    """A branch with the version in every file; some files belong to single versions."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    (folder / "README.md").write_text(f"---\nlicense: mit\n---\n\nversion {version}\n")
    (folder / "model.safetensors").write_bytes(version.to_bytes(4, "big") * 300)
    (folder / f"only-{version % 3}.json").write_text(str(version))
    (folder / "same.npy").write_bytes(b"\x00same" * 100)
    return Branch("band/abc-gpt", "model", revision, folder)


def test_every_branch_arrives_unchanged_and_a_second_push_changes_nothing(staged, server, api, capsys):
    for branch in staged:
        assert files_on(server, branch) == files_of(branch.folder)
        assert len(server.history(branch.kind, branch.repository, branch.revision)) == 2  # the first holds no file
    sent = sum(server.uploads.values())
    hub.push(staged, False, api(server))
    assert all(len(server.history(b.kind, b.repository, b.revision)) == 2 for b in staged)
    assert sum(server.uploads.values()) == sent
    assert capsys.readouterr().out.count("unchanged: ") == len(staged)


def test_a_new_branch_never_shows_another_size(tmp_path, api, empty_server):
    main, small = (made_branch(tmp_path / name, 1, name) for name in (MAIN, "15k"))
    hub.push([main, small], False, api(empty_server))
    assert history(empty_server, "15k") == [{}, files_of(small.folder)]


@pytest.mark.long
def test_200_pushes_under_random_faults_each_leave_the_old_files_or_the_new(tmp_path, api, capsys, empty_server):
    client, versions, failed = api(empty_server), [], []
    for version in range(200):
        branch = made_branch(tmp_path / "branch", version)
        versions.append(files_of(branch.folder))
        kinds = ("409", "412", "429", "500", "503", "cut before", "cut after", "cut body")
        empty_server.faults = Faults(rate=0.25, kinds=kinds, seed=version)
        try:
            hub.push([branch], False, client)
        except UserError as error:
            failed.append(str(error))
    empty_server.faults = Faults()
    states = history(empty_server)
    assert all(state in [{}, *versions] for state in states)
    order = [versions.index(state) for state in states if state]
    assert order == sorted(order)
    assert len(order) > 100
    hub.push([branch], False, client)
    assert files_on(empty_server, branch) == versions[-1]
    assert len(failed) < 100
    assert "\n" not in "".join(failed)
    assert empty_server.token not in "".join(capsys.readouterr())


def test_an_interrupted_push_continues_and_sends_no_large_file_twice(tmp_path, api, empty_server):
    branch, client = made_branch(tmp_path / "branch", 7), api(empty_server)
    empty_server.faults = Faults(rate=1, kinds=("cut before",), only="POST .*/commit/")
    with pytest.raises(UserError):
        hub.push([branch], False, client)
    assert files_on(empty_server, branch) == {}
    sent = dict(empty_server.uploads)
    assert sent
    empty_server.faults = Faults()
    hub.push([branch], False, client)
    assert files_on(empty_server, branch) == files_of(branch.folder)
    assert dict(empty_server.uploads) == sent


def test_a_commit_whose_answer_was_lost_is_not_made_twice(tmp_path, api, empty_server):
    empty_server.faults = Faults(plan=["cut after"], only="POST .*/commit/")
    hub.push([made_branch(tmp_path / "branch", 7)], False, api(empty_server))
    assert empty_server.faults.done
    assert len(history(empty_server)) == 2


def test_a_push_by_somebody_else_in_between_is_not_mixed_with_ours(tmp_path, api, monkeypatch, empty_server):
    client = api(empty_server)
    ours, theirs = (made_branch(tmp_path / name, version) for name, version in (("a", 1), ("b", 2)))
    commit = client.create_commit

    def overtaken(*arguments, **settings):
        monkeypatch.setattr(client, "create_commit", commit)
        hub.push_branch(theirs, False, api(empty_server))
        return commit(*arguments, **settings)

    monkeypatch.setattr(client, "create_commit", overtaken)
    hub.push_branch(ours, False, client)
    assert history(empty_server) == [{}, files_of(theirs.folder), files_of(ours.folder)]


def test_a_rate_limit_is_waited_for_as_long_as_it_asks(tmp_path, api, monkeypatch, empty_server):
    waited = []
    client = api(empty_server)
    monkeypatch.setattr(hub.time, "sleep", waited.append)
    empty_server.faults = Faults(plan=["429"], only="POST .*/commit/", retry_after=17)
    hub.push([made_branch(tmp_path / "branch", 1)], False, client)
    assert 17 in waited


def test_a_login_that_is_missing_wrong_or_read_only_changes_nothing_and_is_not_printed(
    tmp_path, api, monkeypatch, empty_server
):
    branch = made_branch(tmp_path / "branch", 1)
    for token in (empty_server.reading_token, "hf_" + "x" * 34):
        with pytest.raises(UserError) as error:
            hub.push([branch], False, api(empty_server, token))
        assert token not in str(error.value)
    with pytest.raises(UserError):
        hub.check_login(api(empty_server, "hf_" + "x" * 34))
    monkeypatch.setattr("huggingface_hub.utils._headers.get_token", lambda: None)
    with pytest.raises(UserError):
        hub.check_login(HfApi(endpoint=empty_server.endpoint))
    assert not empty_server.repositories


def test_new_repositories_are_private_on_request(tmp_path, api, empty_server):
    hub.push([made_branch(tmp_path / "branch", 1)], True, api(empty_server))
    assert empty_server.repositories["model", "band/abc-gpt"].private


def test_each_branch_is_reported_and_branches_of_other_sizes_are_left_alone(tmp_path, api, capsys, empty_server):
    small = made_branch(tmp_path / "30k", 1, "30k")
    hub.push([small], False, api(empty_server))
    for version, word in ((1, "pushed"), (1, "unchanged"), (2, "replaced")):
        capsys.readouterr()
        hub.push([made_branch(tmp_path / "branch", version)], False, api(empty_server))
        assert capsys.readouterr().out.splitlines() == [
            f"{word}: model band/abc-gpt, branch main",
            "left alone: model band/abc-gpt, branch 30k, which is not a size of this study",
        ]
    assert files_on(empty_server, small) == files_of(small.folder)


def test_no_token_is_written_anywhere(staged, server):
    assert {header for _, header in server.requests} <= {f"Bearer {server.token}", None}
    assert all(b"hf_" + b"w" * 34 not in data for branch in staged for data in files_of(branch.folder).values())


def test_the_command_prepares_pushes_and_continues_after_a_refusal(
    study, staged, api, monkeypatch, capsys, empty_server
):
    def run(*flags):
        monkeypatch.setattr("sys.argv", ["push.py", "--output_dir", str(study), "--namespace", "band", *flags])
        push.main()
        return capsys.readouterr().out

    monkeypatch.setattr("model_cards.push.HfApi", lambda: api(empty_server))
    monkeypatch.setattr("model_cards.push.stage", lambda *_: staged)
    assert run("--dry_run").count("would push ") == len(staged)
    assert not empty_server.repositories
    empty_server.faults = Faults(rate=1, kinds=("403",), only="POST /api/models/band/abc-lstm/commit/main")
    with pytest.raises(SystemExit):
        run()
    empty_server.faults = Faults()
    done = capsys.readouterr().out.count("pushed: ")
    printed = run()
    assert 0 < printed.count("unchanged: ") == done
    assert printed.count("pushed: ") == len(staged) - done


@pytest.mark.parametrize("flags", [["--namespace", "a/b"], ["--namespace", ""], ["--dry_run"]])
def test_a_namespace_that_is_missing_or_impossible_is_one_line(monkeypatch, capsys, flags):
    monkeypatch.setattr("sys.argv", ["push.py", *flags])
    with pytest.raises(SystemExit):
        push.main()
    error = capsys.readouterr().err
    assert "--namespace" in error
    assert error.count("\n") == 1


# Loading by users who have nothing of this project


@pytest.fixture(scope="module")
def clean_python(tmp_path_factory):
    return clean_environment(tmp_path_factory.mktemp("clean") / "venv", "torch", "transformers")


def run(python, code, server, cache, **more):
    environment = {"PATH": os.defpath, "HOME": str(cache), "OMP_NUM_THREADS": "1", **server.environment(cache), **more}
    return subprocess.run(
        [python, "-c", code], env=environment, cwd=cache, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )


def printed_code(server, kind, repository, revision=MAIN):
    return "\n".join(CODE.findall(server.tree(kind, repository, revision)["README.md"].decode()))


@pytest.mark.parametrize("architecture", ["gpt", "lstm"])
def test_the_code_of_a_card_runs_with_torch_and_transformers_only(server, clean_python, tmp_path, architecture):
    repository = f"band/abc-{architecture}"
    parts = [printed_code(server, "model", repository, revision) for revision in ("30k", MAIN)]
    ask = f"""
import importlib.util
assert not [name for name in {sorted(OURS | {"datasets", "evaluate", "accelerate"})} if importlib.util.find_spec(name)]
sizes = []
for part in {parts!r}:
    exec(part)
    sizes.append((model.num_parameters(), len(tokenizer("X:1\\nK:C\\n").input_ids)))
print("sizes", sizes)
plain = AutoTokenizer.from_pretrained({repository!r})
assert plain("abc").input_ids == tokenizer("abc").input_ids
try:
    AutoModelForCausalLM.from_pretrained({repository!r}, revision="15k")
    print("no remote code")
except ValueError as error:
    assert "trust_remote_code" in str(error)
"""
    result = run(clean_python, ask, server, tmp_path)
    assert result.returncode == 0, result.stderr
    counts = [server.tree("model", repository, revision)["record.json"] for revision in ("30k", MAIN)]
    expected = [(int(re.search(rb'"n_params": (\d+)', record)[1]), 9) for record in counts]
    assert f"sizes {expected}" in result.stdout
    assert ("no remote code" in result.stdout) == (architecture == "gpt")
    assert result.stdout.count("\nX:1\n") + result.stdout.startswith("X:1\n") >= 6


def test_the_code_of_the_documentation_runs_as_printed(server, clean_python, tmp_path):
    page = (ROOT / "docs" / "hub_and_demo.md").read_text(encoding="utf-8")
    [code] = [block for block in CODE.findall(page) if "NAME/" in block]
    code = code.replace("NAME/", "band/").replace('revision="120k"', 'revision="15k"')
    result = run(clean_python, code + "\nprint(len(tunes(n=2, max_characters=60)))", server, tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "2"


def test_the_data_and_the_metrics_load_by_their_names_on_the_hub(server, tmp_path):
    metrics = ("abc_validity", "originality", "tune_statistics")
    code = [printed_code(server, "dataset", "band/abc-tunes")]
    code += [printed_code(server, "space", f"band/{name}") for name in metrics]
    code += ["import sys", "assert tunes['train'].num_rows > 100", f"assert not set(sys.modules) & {OURS}"]
    result = run(sys.executable, "\n".join(code), server, tmp_path, PYTHONPATH="", HF_MODULES_CACHE=str(tmp_path / "m"))
    assert result.returncode == 0, result.stderr


def test_code_that_users_load_touches_no_file_no_process_and_no_network(staged):
    for branch in (branch for branch in staged if branch.kind == "model"):
        modules = sorted(branch.folder.glob("*.py"))
        own = {path.stem for path in modules}
        lstm = {"configuration_abc_lstm", "modeling_abc_lstm"} if "lstm" in branch.repository else set()
        assert {"abc_pipeline", "decoding", "notation", "quality"} <= own
        assert {name for name in own if name.endswith("abc_lstm")} == lstm
        for path in modules:
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    assert {alias.name.split(".")[0] for alias in node.names} <= HARMLESS, path
                elif isinstance(node, ast.ImportFrom):
                    root = (node.module or "").split(".")[0]
                    assert root in (own if node.level else HARMLESS), (path, root)
                elif isinstance(node, ast.Call):
                    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                    assert name not in FORBIDDEN or (isinstance(node.func, ast.Attribute) and name == "compile"), path
        assert not [path for path in branch.folder.rglob("*") if path.suffix in (".bin", ".pt", ".pkl", ".ckpt", ".h5")]
