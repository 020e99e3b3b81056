"""Sharing a study: what is pushed is whole, its cards' code runs as printed, and nothing but that is needed."""

import ast
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from clean_environment import clean_environment
from conftest import made_tunes
from hub_server import Faults, hub_server
from huggingface_hub import HfApi, ModelCard
from made_results import made_results
from small_runs import with_config

from cli import UserError, read_arguments
from files import read_json
from model_cards import hub
from model_cards.releases import MAIN, releases
from model_cards.results import Results
from model_cards.run import main as run_door
from model_cards.staging import Branch, stage, stage_dataset
from preprocessing.blocks import Block
from preprocessing.corpus import Corpus
from training.record import read_record, write_record

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # huggingface_hub's own
OURS = {"preprocessing", "modeling", "training", "analysis", "generation", "model_cards", "cli", "files"}
CODE = re.compile(r"```python\n(.*?)```", re.DOTALL)
# Of what models and pipeline may import: nothing that reads files, starts programs or uses the network.
HARMLESS = {
    *(
        "__future__",
        "collections",
        "dataclasses",
        "fractions",
        "functools",
        "html",
        "itertools",
        "math",
        "re",
        "typing",
    ),
    *("torch", "transformers", "unicodedata"),
}
FORBIDDEN = {"open", "exec", "eval", "compile", "__import__", "import_module", "breakpoint", "input", "load", "save"}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, build_from):
    """Random tunes that have every character of the cards' examples."""
    text = made_tunes(200).replace("K:Am", "K:Dmix").replace("M:4/4", "M:6/8", 100)
    return build_from(tmp_path_factory.mktemp("made") / "corpus", [Block("made", "made.abc", text.encode())])


@pytest.fixture(scope="module")
def study(tmp_path_factory, corpus):
    return made_results(tmp_path_factory.mktemp("study") / "data", corpus)


@pytest.fixture(scope="module")
def staged(study):
    return stage(study, Results.open(study), "band", study / "hub")


@pytest.fixture(scope="module")
def server(staged):
    """A Hub that the study was pushed to."""
    with pytest.MonkeyPatch.context() as patch, hub_server() as server:
        patch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        hub.push(staged, False, HfApi(endpoint=server.endpoint, token=server.token))
        yield server


@pytest.fixture
def api(monkeypatch):
    """Make the client of a server; nobody waits."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("time.sleep", lambda _: None)
    return lambda server, token=None: HfApi(endpoint=server.endpoint, token=token or server.token)


def files_of(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def shown(server, branch):
    tree = server.tree(branch.kind, branch.repository, branch.revision)
    return {path: content for path, content in tree.items() if path != ".gitattributes"}


def made_branch(folder, version, revision=MAIN):
    """A branch whose version says so in every file; some files are of single versions alone."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    (folder / "README.md").write_text(f"---\nlicense: mit\n---\n\nversion {version}\n")
    (folder / "model.safetensors").write_bytes(version.to_bytes(4, "big") * 300)
    (folder / f"only-{version % 3}.json").write_text(str(version))
    (folder / "same.npy").write_bytes(b"\x00same" * 100)
    return Branch("band/abc-gpt", "model", revision, folder)


# What is pushed


def test_every_branch_arrives_as_it_is_and_a_second_push_changes_nothing(staged, server, api, capsys):
    for branch in staged:
        assert shown(server, branch) == files_of(branch.folder)
        assert len(server.history(branch.kind, branch.repository, branch.revision)) == 2  # the first holds no file
    sent = sum(server.uploads.values())
    hub.push(staged, False, api(server))
    assert all(len(server.history(b.kind, b.repository, b.revision)) == 2 for b in staged)
    assert sum(server.uploads.values()) == sent
    assert capsys.readouterr().out.count("unchanged: ") == len(staged)


def test_sizes_are_branches_and_main_is_the_best_model_or_the_lowest_loss(study, staged):
    shared = {(release.architecture, release.revision): release for release in releases(study)}
    assert set(shared) == {(a, r) for a in ("gpt", "lstm") for r in ("15k", "30k", MAIN)}
    assert shared["gpt", MAIN].folder == study / "best_model"
    lowest = min(shared["lstm", size].record.validation_loss for size in ("15k", "30k"))
    assert shared["lstm", MAIN].record.validation_loss == lowest
    assert {shared[key].record.config.seed for key in shared if key[1] != MAIN} == {0}
    names = [(branch.kind, branch.repository, branch.revision) for branch in staged]
    assert names.index(("model", "band/abc-gpt", "30k")) < names.index(("model", "band/abc-gpt", MAIN))


def test_staging_the_same_study_again_gives_the_same_bytes(study, staged):
    before = [files_of(branch.folder) for branch in staged]
    assert [files_of(branch.folder) for branch in stage(study, Results.open(study), "band", study / "hub")] == before


def test_a_new_branch_never_shows_another_size(tmp_path, api):
    with hub_server() as server:
        main, small = (made_branch(tmp_path / name, 1, name) for name in (MAIN, "15k"))
        hub.push([main, small], False, api(server))
        first, last = server.history("model", "band/abc-gpt", "15k")
        assert set(first) <= {".gitattributes"}
        assert {**last} == {**first, **files_of(small.folder)}


@pytest.mark.long
def test_200_pushes_under_random_faults_leave_each_time_the_old_files_or_the_new(tmp_path, api, capsys):
    with hub_server() as server:
        client, versions, failed = api(server), [], []
        for version in range(200):
            branch = made_branch(tmp_path / "branch", version)
            versions.append(files_of(branch.folder))
            kinds = ("409", "412", "429", "500", "503", "cut before", "cut after", "cut body")
            server.faults = Faults(rate=0.25, kinds=kinds, seed=version)
            try:
                hub.push([branch], False, client)
            except UserError as error:
                failed.append(str(error))
        server.faults = Faults()
        states = server.history("model", "band/abc-gpt")
        found = [{path: state[path] for path in state if path != ".gitattributes"} for state in states]
        assert all(state in [{}, *versions] for state in found)
        places = [versions.index(state) for state in found if state]
        assert places == sorted(places)
        assert len(places) > 100
        hub.push([branch], False, client)
        assert shown(server, branch) == versions[-1]
    assert len(failed) < 100
    assert "\n" not in "".join(failed)
    assert server.token not in "".join(capsys.readouterr())


def test_a_push_that_was_cut_off_goes_on_and_sends_no_large_file_twice(tmp_path, api):
    with hub_server() as server:
        branch, client = made_branch(tmp_path / "branch", 7), api(server)
        server.faults = Faults(rate=1, kinds=("cut before",), only="POST .*/commit/")
        with pytest.raises(UserError, match="run the same command again"):
            hub.push([branch], False, client)
        assert set(shown(server, branch)) == set()
        sent = dict(server.uploads)
        assert sent
        server.faults = Faults()
        hub.push([branch], False, client)
        assert shown(server, branch) == files_of(branch.folder)
        assert dict(server.uploads) == sent


def test_a_commit_whose_answer_was_lost_is_not_made_twice(tmp_path, api):
    with hub_server() as server:
        branch = made_branch(tmp_path / "branch", 7)
        server.faults = Faults(plan=["cut after"], only="POST .*/commit/")
        hub.push([branch], False, api(server))
        assert server.faults.done
        assert len(server.history("model", "band/abc-gpt")) == 2


def test_a_push_that_comes_between_is_not_mixed_with_ours(tmp_path, api, monkeypatch):
    with hub_server() as server:
        client = api(server)
        ours, theirs = (made_branch(tmp_path / name, version) for name, version in (("a", 1), ("b", 2)))
        commit = client.create_commit

        def overtaken(*arguments, **settings):
            monkeypatch.setattr(client, "create_commit", commit)
            hub.push_branch(theirs, False, api(server))
            return commit(*arguments, **settings)

        monkeypatch.setattr(client, "create_commit", overtaken)
        hub.push_branch(ours, False, client)
        states = [
            {p: c for p, c in s.items() if p != ".gitattributes"} for s in server.history("model", "band/abc-gpt")
        ]
        assert states == [{}, files_of(theirs.folder), files_of(ours.folder)]


def test_a_limit_of_requests_is_waited_for_as_long_as_it_asks(tmp_path, api, monkeypatch):
    waited = []
    with hub_server() as server:
        client = api(server)
        monkeypatch.setattr(hub.time, "sleep", waited.append)
        server.faults = Faults(plan=["429"], only="POST .*/commit/", retry_after=17)
        hub.push([made_branch(tmp_path / "branch", 1)], False, client)
    assert 17 in waited


def test_a_login_that_is_missing_wrong_or_without_the_right_is_one_line(tmp_path, api, monkeypatch):
    branch = made_branch(tmp_path / "branch", 1)
    with hub_server() as server:
        for token, words in ((server.reading_token, "may not write"), ("hf_" + "x" * 34, "does not take the login")):
            with pytest.raises(UserError, match=words) as error:
                hub.push([branch], False, api(server, token))
            assert token not in str(error.value)
        with pytest.raises(UserError, match="does not take the login"):
            hub.check_login(api(server, "hf_" + "x" * 34))
        monkeypatch.setattr("huggingface_hub.utils._headers.get_token", lambda: None)
        with pytest.raises(UserError, match="no login"):
            hub.check_login(HfApi(endpoint=server.endpoint))
        assert not server.repositories


def test_new_repositories_are_private_if_that_is_asked(tmp_path, api, capsys):
    with hub_server() as server:
        hub.push([made_branch(tmp_path / "branch", 1)], True, api(server))
        assert "secret HF_TOKEN" in capsys.readouterr().out
        assert server.repositories["model", "band/abc-gpt"].private


def test_files_of_another_study_are_replaced_and_that_is_said(tmp_path, api, capsys):
    with hub_server() as server:
        for version, word in ((1, "pushed"), (1, "unchanged"), (2, "replaced")):
            hub.push([made_branch(tmp_path / "branch", version)], False, api(server))
            assert capsys.readouterr().out.startswith(f"{word}: model band/abc-gpt, branch main")


def test_only_the_corpus_s_own_files_are_pushed_and_only_whole(corpus, tmp_path):
    folder = tmp_path / "corpus"
    shutil.copytree(corpus.folder, folder)
    (folder / ".env").write_text("SECRET=1")
    stage_dataset(Corpus.open(folder), "band/abc-tunes", tmp_path / "staged")
    assert not (tmp_path / "staged" / ".env").exists()
    assert (tmp_path / "staged" / "data" / "train.parquet").is_file()
    shutil.copyfile(folder / "data" / "test.parquet", folder / "data" / "train.parquet")
    with pytest.raises(UserError, match=r"train\.parquet is damaged or of another build"):
        stage_dataset(Corpus.open(folder), "band/abc-tunes", tmp_path / "again")


def test_where_a_study_lies_is_not_told(study, staged):
    for branch in staged:
        for name, content in files_of(branch.folder).items():
            assert str(study).encode() not in content, (branch, name)


def test_a_branch_of_a_size_that_is_gone_is_named_and_left_alone(tmp_path, api, capsys):
    with hub_server() as server:
        both = [made_branch(tmp_path / name, 1, name) for name in ("30k", MAIN)]
        hub.push(both, False, api(server))
        hub.push(both[1:], False, api(server))
        assert "left alone: model band/abc-gpt, branch 30k" in capsys.readouterr().out
        assert shown(server, both[0]) == files_of(both[0].folder)


def test_no_token_is_written_anywhere(staged, server):
    assert set(server.authorizations) <= {f"Bearer {server.token}", None}
    for branch in staged:
        assert all(b"hf_" + b"w" * 34 not in content for content in files_of(branch.folder).values())


def test_weights_that_are_not_the_records_are_refused(tmp_path, corpus):
    root = made_results(tmp_path / "data", corpus)
    release = releases(root)[0]
    write_record(release.folder, replace(read_record(release.folder), validation_loss=1.0))
    with pytest.raises(UserError, match=r"the record says 1\.0000"):
        stage(root, Results.open(root), "band", root / "hub")


def test_the_door_prepares_and_pushes_and_goes_on_after_a_refusal(study, staged, api, monkeypatch, capsys):
    def door(*flags):
        monkeypatch.setattr("sys.argv", ["run.py", "--output_root", str(study), "--namespace", "band", *flags])
        run_door()
        return capsys.readouterr().out

    with hub_server() as server:
        monkeypatch.setattr("model_cards.run.HfApi", lambda: api(server))
        monkeypatch.setattr("model_cards.run.stage", lambda *_: staged)
        assert door("--dry_run").count("would push ") == len(staged)
        assert not server.repositories
        server.faults = Faults(rate=1, kinds=("403",), only="POST /api/models/band/abc-lstm/commit/main")
        with pytest.raises(UserError, match="may not write"):
            door()
        server.faults = Faults()
        done = capsys.readouterr().out.count("pushed: ")
        said = door()
        assert 0 < said.count("unchanged: ") == done
        assert said.count("pushed: ") == len(staged) - done


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--namespace", "a/b"], "--namespace a/b"),
        (["--namespace", ""], "--namespace"),
        (["--namespace", "band", "--demo"], "--demo"),
        (["--dry_run"], "--namespace too"),
        (["--private"], "--namespace"),
    ],
)
def test_a_place_that_cannot_be_is_one_line(monkeypatch, capsys, flags, words):
    monkeypatch.setattr("sys.argv", ["run.py", *flags])
    with pytest.raises(SystemExit):
        run_door()
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("flags", "name"),
    [(["--namespace", "band", "--dry_run"], "hub"), (["--demo"], "demo"), (["--publish", "{root}/shared"], "shared")],
)
@pytest.mark.parametrize("kind", ["link", "file"])
def test_an_output_that_cannot_be_a_folder_is_refused_before_any_work(flags, name, kind, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("model_cards.run.Results", None)
    monkeypatch.setattr("model_cards.demo.describe_study", None)
    root = tmp_path / "data"
    root.mkdir()
    (root / name).symlink_to("unmounted/disk") if kind == "link" else (root / name).touch()
    given = [flag.format(root=root) for flag in flags]
    monkeypatch.setattr("sys.argv", ["run.py", "--output_root", str(root), *given])
    with pytest.raises(SystemExit):
        run_door()
    assert capsys.readouterr().err.startswith(f"error: {root / name} is a {kind}")
    assert [path.name for path in root.iterdir()] == [name]


@pytest.mark.usefixtures("staged")  # it has computed the losses
def test_a_staging_folder_that_is_a_link_is_followed_and_stays_one(study, tmp_path, monkeypatch):
    monkeypatch.setattr("model_cards.staging.render", lambda *_: ({}, []))
    (tmp_path / "disk").mkdir()
    (tmp_path / "hub").symlink_to("disk")
    shutil.copyfile(study / "hub" / "losses.json", tmp_path / "disk" / "losses.json")
    branches = stage(study, Results.open(study), "band", tmp_path / "hub")
    (tmp_path / "elsewhere").mkdir()
    main = branches[-1].folder
    shutil.move(main, tmp_path / "elsewhere" / "main")
    main.symlink_to(tmp_path / "elsewhere" / "main")
    stage(study, Results.open(study), "band", tmp_path / "hub")
    assert (tmp_path / "hub").is_symlink()
    assert main.is_symlink()
    assert not [path for path in tmp_path.rglob(".*") if path.suffix in (".partial", ".before")]


def test_main_holds_the_records_of_all_runs(staged):
    for branch in models(staged):
        path = branch.folder / "results" / "runs.jsonl"
        assert path.is_file() == (branch.revision == MAIN)
        if path.is_file():
            assert len(path.read_text().splitlines()) == 9  # two sizes, two seeds, two architectures, and the best


# The cards


def models(staged):
    return [branch for branch in staged if branch.kind == "model"]


def test_cards_have_valid_metadata_with_scores_and_intervals_of_the_record(staged):
    for branch in models(staged):
        card, record = ModelCard.load(branch.folder / "README.md"), read_json(branch.folder / "record.json")
        assert card.data.license == "other"  # made tunes: nobody has said what their licence is
        assert card.data.datasets == ["band/abc-tunes"]
        assert (card.data.library_name, card.data.pipeline_tag) == ("transformers", "text-generation")
        values = {result.metric_name: result for result in card.data.eval_results}
        bits = values["test bits per character"]
        assert bits.metric_value == pytest.approx(record["test_bits_per_character"])
        low, high = bits.metric_args["interval_95"]
        assert low < bits.metric_value < high
        assert sum(result.metric_type == "abc_validity" for result in values.values()) == 3
        for picture in re.findall(r"!\[.*?\]\((.*?)\)", card.text):
            assert (branch.folder / picture).is_file(), picture


def test_a_number_of_the_record_that_changes_changes_in_the_card(study, staged):
    from model_cards.card import Place, model_card

    results = Results.open(study)
    branch = models(staged)[0]
    record = read_record(branch.folder)
    place = Place(branch.repository, branch.revision, "band/abc-tunes")
    before = model_card(results, record, [], place)
    told = (
        *("n_params", "n_params_non_embedding", "tokens", "test_loss", "test_loss_standard_error"),
        *("test_bits_per_character", "validation_loss", "validation_bits_per_character", "seconds", "flops"),
        *("tokens_per_second", "epochs"),
    )
    for name in told:
        assert model_card(results, replace(record, **{name: getattr(record, name) * 3 + 1}), [], place) != before, name
    bare = replace(results, quality={**results.quality, "cells": []})  # a seed chooses among its tunes
    before = model_card(bare, record, [], place)
    for name in ("seed", "learning_rate", "weight_decay", "batch_size", "context"):
        changed = with_config(record, **{name: getattr(record.config, name) * 3 + 1})
        assert model_card(bare, changed, [], place) != before, name


def test_every_number_of_a_pushed_card_is_what_its_record_gives(staged):
    """A card that was edited by hand, or is of another record, is found."""
    for branch in models(staged):
        text = (branch.folder / "README.md").read_text(encoding="utf-8")
        record = read_record(branch.folder)
        assert f"test: {record.test_bits_per_character:.4f} bits per character" in text
        assert f"{record.n_params:,} parameters" in text
        assert f"{record.flops:.3g} FLOPs" in text


def test_the_command_of_a_card_plans_that_run_alone(staged):
    from training.run import StudyArguments

    branch = models(staged)[0]
    text = (branch.folder / "README.md").read_text(encoding="utf-8")
    flags = re.search(r"```sh\naccelerate launch training/run\.py (.*)\n```", text)[1].split()
    config = read_record(branch.folder).config
    [(read,)] = read_arguments(StudyArguments, argv=flags)
    assert (read.gpt_sizes, read.lstm_sizes, read.seeds) == ([config.size], [], [config.seed])
    assert (read.tokens, read.data_fraction) == ([config.tokens], [config.data_fraction])
    assert read.lr_rules == {config.architecture: (config.learning_rate, 0.0)}
    for name in ("schedule", "sequences", "warmup_tokens", "batch_size", "context", "weight_decay", "precision"):
        assert getattr(read, name) == getattr(config, name)


def test_the_data_s_card_names_the_repository_and_non_commercial_sources(staged):
    [branch] = [branch for branch in staged if branch.kind == "dataset"]
    card = (branch.folder / "README.md").read_text(encoding="utf-8")
    assert 'load_dataset("band/abc-tunes")' in card
    assert yaml.safe_load(card.split("---")[1])["license"] == "other"


# Loading, by people who have nothing of ours


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
def test_the_code_of_a_model_s_card_runs_with_torch_and_transformers_alone(
    server, clean_python, tmp_path, architecture
):
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


def test_the_readme_s_code_for_the_hub_runs_as_printed(server, clean_python, tmp_path):
    readme = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    [code] = [block for block in CODE.findall(readme) if "NAME/" in block]
    code = code.replace("NAME/", "band/").replace('revision="120k"', 'revision="15k"')
    result = run(clean_python, code + "\nprint(len(tunes(n=2, max_characters=60)))", server, tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "2"


def test_the_data_and_the_metrics_load_by_their_names_on_the_hub(server, tmp_path):
    code = [printed_code(server, "dataset", "band/abc-tunes")]
    code += [
        printed_code(server, "space", f"band/{name}") for name in ("abc_validity", "originality", "tune_statistics")
    ]
    code += ["import sys", "assert tunes['train'].num_rows > 100"]
    code += [f"assert not set(sys.modules) & {OURS}"]
    result = run(sys.executable, "\n".join(code), server, tmp_path, PYTHONPATH="", HF_MODULES_CACHE=str(tmp_path / "m"))
    assert result.returncode == 0, result.stderr


def test_what_is_run_from_the_hub_touches_no_file_no_process_and_no_network(staged):
    for branch in models(staged):
        modules = sorted(branch.folder.glob("*.py"))
        own = {path.stem for path in modules}
        lstm = {"configuration_abc_lstm", "modeling_abc_lstm"} if "lstm" in branch.repository else set()
        assert own == {"abc_pipeline", "bars", "decoding", "notation", "quality", "text_fields"} | lstm
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
