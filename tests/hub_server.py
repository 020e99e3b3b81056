"""A small Hub for tests, on loopback: the part of the protocol with which huggingface_hub pushes and reads.

Repositories are kept in memory; those in a folder (OWNER/NAME/) are served from it, and a changed file there makes a
new commit. Large files are on a second host (`localhost` instead of `127.0.0.1`), as on the real Hub: no token may go
there. `faults` makes the server misbehave; `requests`, `uploads` and `history` record what happened. There is no Xet:
`environment` turns it off.
"""

import hashlib
import json
import random
import re
import socket
import threading
from base64 import b64decode
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCard
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response
from werkzeug.exceptions import HTTPException
from werkzeug.routing import Map, Rule

LARGEST_REGULAR_FILE = 10 * 2**20  # bytes
LARGE_FILES = ("*.arrow", "*.bin", "*.npy", "*.parquet", "*.png", "*.pt", "*.safetensors", "*.wav", "*.zip")
LICENCES = ("apache-2.0", "mit", "cc-by-4.0", "cc-by-nc-4.0", "cc0-1.0", "other", "unknown")
DATE = "2026-01-01T00:00:00.000Z"
NOT_THE_HEAD = "A commit has happened since. Please refresh and try again."
REFUSALS = {  # what a fault answers
    "403": "Forbidden",
    "409": "Another operation is in progress",
    "412": NOT_THE_HEAD,
    "429": "Too Many Requests",
    "500": "Internal Error",
    "503": "<html><body>503 Service Unavailable</body></html>",  # from a gateway, which writes no JSON
}


@dataclass
class Faults:
    """What goes wrong with the requests in whose "METHOD /path" the expression `only` is found.

    First the faults of `plan`, then one of `kinds` with the probability `rate`; `done` lists those that happened. A
    request with "cut after" or "cut body" takes effect. 409 and 412 happen to commits only.
    """

    plan: Sequence[str] = ()
    rate: float = 0.0
    kinds: Sequence[str] = ()
    only: str = ""
    seed: int = 0
    retry_after: int = 0  # seconds that a 429 asks for
    done: list[tuple[str, str]] = field(default_factory=list)  # (kind, request)

    def __post_init__(self) -> None:
        self.planned, self.random = list(self.plan), random.Random(self.seed)

    def draw(self, line: str) -> str | None:
        """Return what goes wrong with a request."""
        if not re.search(self.only, line):
            return None
        drawn = self.random.choice(self.kinds) if self.random.random() < self.rate else None
        kind = self.planned.pop(0) if self.planned else drawn
        if kind in ("409", "412") and "/commit/" not in line:
            return None
        if kind is not None:
            self.done.append((kind, line))
        return kind


@dataclass(frozen=True)
class File:
    """A file of a repository, in git or beside it (`large`)."""

    content: bytes
    large: bool = False

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def oid(self) -> str:
        """The hash of git's object: of a large file, its pointer."""
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.content)}\n"
        held = pointer.encode() if self.large else self.content
        return hashlib.sha1(b"blob %d\0" % len(held) + held).hexdigest()

    def entry(self, path: str) -> dict[str, Any]:
        """Return the entry of the file in a listing."""
        lfs = {"lfs": {"oid": self.sha256, "size": len(self.content), "pointerSize": 134}} if self.large else {}
        return {"type": "file", "path": path, "oid": self.oid, "size": len(self.content), **lfs}


Tree = dict[str, File]  # path → file


class Repository:
    """The commits of a repository; `history` lists the commits of each branch, `large` the uploaded files."""

    def __init__(self, kind: str, name: str, tree: Tree, private: bool = False) -> None:
        self.kind, self.name, self.private = kind, name, private
        self.trees: dict[str, Tree] = {}  # commit → tree
        self.parents: dict[str, str | None] = {}
        self.branches: dict[str, str] = {}
        self.history: dict[str, list[str]] = {}
        self.large: dict[str, bytes] = {}  # SHA-256 → content
        self.commit("main", tree)

    def commit(self, branch: str, tree: Tree) -> str:
        """Add a commit to a branch and return its hash."""
        listing = sorted((path, file.oid) for path, file in tree.items())
        commit = hashlib.sha1(f"{self.kind} {self.name} {len(self.trees)} {listing}".encode()).hexdigest()
        self.trees[commit], self.parents[commit] = tree, self.branches.get(branch)
        self.point(branch, commit)
        return commit

    def point(self, branch: str, commit: str) -> None:
        self.branches[branch] = commit
        self.history.setdefault(branch, []).append(commit)

    def find(self, revision: str) -> str:
        """Return the commit of a branch or a hash. Raises RefusalError if there is none."""
        commit = self.branches.get(revision, revision)
        if commit not in self.trees:
            raise RefusalError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit

    def at(self, revision: str) -> Tree:
        return self.trees[self.find(revision)]


class RefusalError(Exception):
    """An error response."""

    def __init__(self, status: int, message: str, code: str = "", **body: Any) -> None:
        headers = {"X-Error-Message": message, "X-Error-Code": code} if code else {"X-Error-Message": message}
        self.response = answer({"error": message, **body}, status, headers)


def answer(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(json.dumps(body), status, headers, content_type="application/json")


Serve = Callable[..., Response]
RULES: list[Rule] = []
API = "/api/<any(model,dataset,space):kind>s/<owner>/<name>"
PATHS = ("/<owner>/<name>", "/<any(dataset,space):kind>s/<owner>/<name>")


def route(method: str, *paths: str, write: bool = False) -> Callable[[Serve], Serve]:
    """Let a method of Hub answer requests; with `write`, only those of who may write."""

    def register(serve: Serve) -> Serve:
        for path in paths:
            defaults = {"kind": "model"} if path.startswith("/<owner>") else {}
            RULES.append(Rule(path, methods=[method], endpoint=(serve, write), defaults=defaults))
        return serve

    return register


class Hub:
    """The server. The holder of `token` may write, the holder of `reading_token` only read."""

    def __init__(self, folder: Path | None) -> None:
        self.folder, self.endpoint, self.storage = folder, "", ""
        self.token, self.reading_token = "hf_" + "w" * 34, "hf_" + "r" * 34
        self.roles = {None: None, f"Bearer {self.token}": "write", f"Bearer {self.reading_token}": "read"}
        self.lock = threading.RLock()  # a request is answered as a whole
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.faults = Faults()
        self.requests: list[tuple[str, str | None]] = []  # "METHOD /path", Authorization
        self.uploads: Counter[str] = Counter()  # SHA-256 of a large file → bytes received
        self.sockets: set[socket.socket] = set()

    def environment(self, cache: Path) -> dict[str, str]:
        """Return the environment of a new process that uses this server without a login."""
        own = {"HF_HOME": str(cache), "HF_TOKEN": "", "HF_TOKEN_PATH": str(cache / "token")}
        return {"HF_ENDPOINT": self.endpoint, "HF_HUB_DISABLE_XET": "1", **own}

    def history(self, kind: str, name: str, branch: str = "main") -> list[dict[str, bytes]]:
        """Return the states (path → content) of a branch, oldest first."""
        return [self.tree(kind, name, commit) for commit in self.repositories[kind, name].history.get(branch, [])]

    def tree(self, kind: str, name: str, revision: str = "main") -> dict[str, bytes]:
        """Return the files of a revision (path → content)."""
        with self.lock:
            return {path: file.content for path, file in self.repositories[kind, name].at(revision).items()}

    # Requests

    def handle(self, request: Request) -> Response:
        """Answer a request, or misbehave."""
        request.get_data()  # a body that is not read would stay in the connection
        connection = request.environ["werkzeug.socket"]
        line = f"{request.method} {request.full_path}"
        with self.lock:
            self.sockets.add(connection)
            self.requests.append((line, request.headers.get("Authorization")))
            fault = self.faults.draw(line)
            if fault in REFUSALS:
                return self.refusal(fault)
            response = Response() if fault == "cut before" else self.answer(request)
        if fault == "cut body":
            return Response(cut_body(response.data, connection), response.status, response.headers)
        if fault is not None:
            connection.shutdown(socket.SHUT_RDWR)
        return response

    def refusal(self, fault: str) -> Response:
        if fault == "503":
            return Response(REFUSALS[fault], 503, content_type="text/html")
        response = RefusalError(int(fault), REFUSALS[fault]).response
        if fault == "429":
            response.headers["Retry-After"] = str(self.faults.retry_after)
        return response

    def answer(self, request: Request) -> Response:
        try:
            (serve, write), values = ROUTES.bind_to_environ(request.environ).match()
            if "owner" in values:
                values["repository"] = self.open(request, values.pop("kind"), values, write)
            return serve(self, request, **values)
        except RefusalError as refusal:
            return refusal.response
        except HTTPException as error:
            return RefusalError(error.code or 500, str(error), "EntryNotFound").response

    def role(self, request: Request) -> str | None:
        header = request.headers.get("Authorization")
        if header not in self.roles:
            raise RefusalError(401, "Invalid credentials in Authorization header")
        return self.roles[header]

    def open(self, request: Request, kind: str, values: dict[str, str], write: bool) -> Repository:
        """Return a repository, one of the folder as it is now. Raises RefusalError if there is none, or no right."""
        name = f"{values.pop('owner')}/{values.pop('name')}"
        root = self.folder / name if self.folder else None
        if root is not None and root.is_dir():
            files = (path for path in sorted(root.rglob("*")) if path.is_file())
            tree = {path.relative_to(root).as_posix(): File(path.read_bytes()) for path in files}
            known = self.repositories.setdefault((kind, name), Repository(kind, name, tree))
            if known.at("main") != tree:
                known.commit("main", tree)
        role = None if request.path.startswith("/storage/") else self.role(request)
        if (kind, name) not in self.repositories:
            raise RefusalError(404 if role else 401, "Repository not found", "RepoNotFound")
        if write and role != "write":
            raise RefusalError(403 if role else 401, "Authorization error.")
        return self.repositories[kind, name]

    # Login, cards, new repositories

    @route("GET", "/api/whoami-v2")
    def whoami(self, request: Request) -> Response:
        if self.role(request) is None:
            raise RefusalError(401, "Invalid username or password.")
        return answer({"type": "user", "name": "band", "orgs": [], "auth": {"type": "access_token"}})

    @route("POST", "/api/validate-yaml")
    def validate(self, request: Request) -> Response:
        errors = [{"message": line} for line in check_card(request.json["content"])]
        return answer({"errors": errors, "warnings": []}, 400 if errors else 200)

    @route("POST", "/api/repos/create")
    def create(self, request: Request) -> Response:
        asked = request.json
        if self.role(request) != "write":
            raise RefusalError(403 if self.role(request) else 401, "You don't have the rights to create a repository")
        kind, name = asked.get("type") or "model", f"{asked.get('organization') or 'band'}/{asked['name']}"
        url = f"{self.endpoint}/{'' if kind == 'model' else kind + 's/'}{name}"
        if (kind, name) in self.repositories:
            raise RefusalError(409, f"You already created this {kind} repo: {name}", url=url)
        tree = {".gitattributes": File("".join(f"{pattern} filter=lfs\n" for pattern in LARGE_FILES).encode())}
        self.repositories[kind, name] = Repository(kind, name, tree, asked.get("visibility") == "private")
        return answer({"url": url, "name": name})

    # Listings

    @route("GET", API, API + "/revision/<revision>")
    def information(self, _: Request, repository: Repository, revision: str = "main") -> Response:
        tree = repository.at(revision)
        siblings = [{"rfilename": path, "size": len(file.content), "blobId": file.oid} for path, file in tree.items()]
        card = yaml.safe_load(front_matter(tree.get("README.md", File(b"")).content.decode()) or "") or {}
        named = {"id": repository.name, "sha": repository.find(revision), "private": repository.private}
        dates = {"createdAt": DATE, "lastModified": DATE}
        return answer({**named, **dates, "cardData": card, "tags": [], "siblings": siblings})

    @route("GET", API + "/refs")
    def references(self, _: Request, repository: Repository) -> Response:
        branches = [
            {"name": name, "ref": f"refs/heads/{name}", "targetCommit": commit}
            for name, commit in repository.branches.items()
        ]
        return answer({"branches": branches, "tags": [], "converts": []})

    @route("GET", API + "/commits/<revision>")
    def commits(self, _: Request, repository: Repository, revision: str) -> Response:
        listed: list[dict[str, Any]] = []
        commit: str | None = repository.find(revision)
        while commit is not None:
            listed.append({"id": commit, "title": "", "message": "", "date": DATE, "authors": []})
            commit = repository.parents[commit]
        return answer(listed)

    @route("GET", API + "/tree/<revision>", API + "/tree/<revision>/<path:folder>")
    def listing(self, request: Request, repository: Repository, revision: str, folder: str = "") -> Response:
        prefix = f"{folder.strip('/')}/".lstrip("/")
        recursive = request.args.get("recursive", "").lower() == "true"
        inside = {path: entry for path, entry in entries(repository.at(revision)).items() if path.startswith(prefix)}
        return answer([entry for path, entry in inside.items() if recursive or "/" not in path[len(prefix) :]])

    @route("POST", API + "/paths-info/<revision>")
    def paths_info(self, request: Request, repository: Repository, revision: str) -> Response:
        known = entries(repository.at(revision))
        paths = request.json["paths"] if request.is_json else request.form.getlist("paths")
        return answer([known[path] for path in paths if path in known])

    # Push

    @route("POST", API + "/branch/<branch>", write=True)
    def create_branch(self, request: Request, repository: Repository, branch: str) -> Response:
        if branch in repository.branches:
            raise RefusalError(409, f"Reference already exists: refs/heads/{branch}")
        repository.point(branch, repository.find(request.json.get("startingPoint", "main")))
        return answer({})

    @route("POST", API + "/preupload/<revision>", write=True)
    def preupload(self, request: Request, repository: Repository, revision: str) -> Response:
        tree, files = repository.at(revision), []
        for file in request.json["files"]:
            path = file["path"]
            large = any(fnmatch(path, pattern) for pattern in LARGE_FILES) or b"\0" in b64decode(file["sample"])
            mode = "lfs" if large or file["size"] > LARGEST_REGULAR_FILE else "regular"
            files.append({"path": path, "uploadMode": mode, "shouldIgnore": False})
            if path in tree:
                files[-1]["oid"] = tree[path].sha256 if tree[path].large else tree[path].oid
        return answer({"files": files})

    @route("POST", *(path + ".git/info/lfs/objects/batch" for path in PATHS), write=True)
    def batch(self, request: Request, repository: Repository) -> Response:
        objects = request.json["objects"]
        for item in objects:
            if item["oid"] not in repository.large:
                item["actions"] = {"upload": {"href": self.address(repository, item["oid"])}}
        return answer({"transfer": "basic", "objects": objects})

    def address(self, repository: Repository, sha256: str) -> str:
        return f"{self.storage}/storage/{repository.kind}/{repository.name}/{sha256}"

    @route("PUT", "/storage/<kind>/<owner>/<name>/<sha256>")
    def upload(self, request: Request, repository: Repository, sha256: str) -> Response:
        self.uploads[sha256] += len(request.data)
        repository.large[sha256] = request.data
        return answer({})

    @route("POST", API + "/commit/<branch>", write=True)
    def commit(self, request: Request, repository: Repository, branch: str) -> Response:
        """Add a commit with all changes, or none."""
        header, *operations = (json.loads(line) for line in request.data.splitlines())
        head = repository.find(branch)
        if not head.startswith(header["value"].get("parentCommit", "")):
            raise RefusalError(412, NOT_THE_HEAD)
        tree = dict(repository.trees[head])
        for operation in operations:
            change(tree, operation["key"], operation["value"], repository.large)
        errors = check_card(tree.get("README.md", File(b"")).content.decode())
        if errors:
            raise RefusalError(400, "Invalid metadata in README.md", errors=[{"message": line} for line in errors])
        commit = repository.commit(branch, tree)
        url = f"{self.endpoint}/{repository.name}/commit/{commit}"
        return answer({"success": True, "commitOid": commit, "commitUrl": url, "hookOutput": ""})

    # Download

    @route("GET", *(path + "/resolve/<revision>/<path:path>" for path in PATHS))
    def resolve(self, request: Request, repository: Repository, revision: str, path: str) -> Response:
        commit = repository.find(revision)
        headers = {"X-Repo-Commit": commit}
        file = repository.trees[commit].get(path)
        if file is None:
            refusal = RefusalError(404, "Entry not found", "EntryNotFound").response
            refusal.headers.update(headers)
            return refusal
        if not file.large:
            return part(request, file.content, file.oid, headers)
        linked = {"X-Linked-ETag": f'"{file.sha256}"', "X-Linked-Size": str(len(file.content))}
        location = {"Location": self.address(repository, file.sha256)}
        return Response(b"", 302, headers | linked | location, content_type="text/plain")

    @route("GET", "/storage/<kind>/<owner>/<name>/<sha256>")
    def download(self, request: Request, repository: Repository, sha256: str) -> Response:
        return part(request, repository.large[sha256], sha256, {})


ROUTES = Map(RULES, redirect_defaults=False, merge_slashes=False)


def cut_body(content: bytes, connection: socket.socket) -> Iterator[bytes]:
    yield content[: len(content) // 2]
    connection.shutdown(socket.SHUT_RDWR)


def part(request: Request, content: bytes, etag: str, headers: dict[str, str]) -> Response:
    """Return a file, or the part of it that Range asks for."""
    response = Response(content, 200, headers, content_type="application/octet-stream")
    response.set_etag(etag)
    return response.make_conditional(request.environ, accept_ranges=True, complete_length=len(content))


def change(tree: Tree, key: str, value: dict[str, Any], large: dict[str, bytes]) -> None:
    """Apply one operation of a commit to a tree. Raises RefusalError if it cannot be applied."""
    path = value["path"]
    if key == "file":
        tree[path] = File(b64decode(value["content"]))
    elif key == "lfsFile":
        if value["oid"] not in large:
            raise RefusalError(400, f"an LFS pointer pointed to a file that does not exist: {path}")
        tree[path] = File(large[value["oid"]], large=True)
    elif path in tree:
        del tree[path]
    else:
        raise RefusalError(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")


def entries(tree: Tree) -> dict[str, dict[str, Any]]:
    """Return the entries of the files of a tree and of their folders, by path."""
    listed: dict[str, dict[str, Any]] = {}
    for path, file in sorted(tree.items()):
        for slash in re.finditer("/", path):
            folder = path[: slash.start()]
            listed.setdefault(folder, {"type": "directory", "path": folder, "oid": "0" * 40, "size": 0})
        listed[path] = file.entry(path)
    return listed


def front_matter(card: str) -> str | None:
    found = re.match(r"\s*---[ \t]*\n(.*?)\n---\s*(?:\n|$)", card, re.DOTALL)
    return found and found[1]


def check_card(card: str) -> list[str]:
    """Return the errors in the metadata of a README: the plainest of those that the Hub finds."""
    metadata = front_matter(card)
    if metadata is None:
        return []
    try:
        data = yaml.safe_load(metadata)
        ModelCard(card, ignore_metadata_errors=False)  # the results of a model
    except (yaml.YAMLError, ValueError, KeyError, TypeError) as error:
        return [" ".join(f"{type(error).__name__}: {error}".split())]
    wrong = {
        "license": data.get("license", "other") not in LICENCES,
        "short_description": len(data.get("short_description", "")) > 60,
        "datasets": any(not re.fullmatch(r"([\w-]+/)?[\w\-.]+", name) for name in data.get("datasets") or []),
    }
    return [f'"{field}" is not valid' for field, is_wrong in wrong.items() if is_wrong]


class QuickServer(HTTPServer):
    """Ends within 10 ms, not half a second."""

    def thread_target(self) -> None:
        assert self.server is not None
        self.server.serve_forever(poll_interval=0.01)


@contextmanager
def hub_server(folder: Path | None = None) -> Iterator[Hub]:
    """Run a Hub on a free port while the context lasts; with `folder`, its repositories can be read too."""
    hub = Hub(folder)
    server = QuickServer(host="127.0.0.1", port=0, threaded=True)
    server.expect_request(re.compile(".*")).respond_with_handler(hub.handle)
    server.start()
    hub.endpoint, hub.storage = (f"http://{host}:{server.port}" for host in ("127.0.0.1", "localhost"))
    try:
        yield hub
    finally:
        server.stop()
        for connection in hub.sockets:  # clients would keep them and continue to ask here
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
    server.check_handler_errors()
