"""A small Hub for tests: it speaks the part of the protocol with which huggingface_hub pushes and reads, on loopback.

Repositories are kept in memory; those of a folder (OWNER/NAME/) are served from it, and changing a file there makes a
new commit. Large files lie on a second host (`localhost` instead of `127.0.0.1`), as on the real Hub: no token may go
there. `faults` makes the server misbehave; `requests`, `authorizations`, `uploads` and `history` tell what happened.
What the server does not know is a 404. There is no Xet: `environment` turns it off.
"""

import codecs
import hashlib
import json
import random
import re
import socket
import sys
import threading
from base64 import b64decode
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatch
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import sleep
from typing import Any
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

import yaml

LARGEST_REGULAR_FILE = 10 * 2**20  # bytes
LARGE_FILES = (  # what a new repository keeps beside git; the real list is a little longer
    "*.7z *.arrow *.bin *.bz2 *.ckpt *.ftz *.gz *.h5 *.joblib *.model *.msgpack *.npy *.npz *.onnx *.ot *.parquet *.pb "
    "*.pickle *.pkl *.pt *.pth *.rar *.safetensors *.tar *.tflite *.tgz *.wasm *.xz *.zip *.zst *tfevents*"
)
LARGE_DATA = " *.lz4 *.mds *.pcm *.sam *.raw *.aac *.flac *.mp3 *.ogg *.wav *.bmp *.gif *.png *.tiff *.jpg *.webp"
NOT_KNOWN = "Invalid username or password."
NOT_VALID = "Invalid credentials in Authorization header"
NOT_THE_HEAD = "A commit has happened since. Please refresh and try again."


# What goes wrong

REFUSALS = {
    "401": NOT_VALID,
    "403": "Forbidden",
    "409": "Another operation is in progress",
    "412": NOT_THE_HEAD,
    "429": "Too Many Requests",
    "500": "Internal Error - We're working hard to fix this as soon as possible!",
    "502": "<html><body>502 Bad Gateway</body></html>",
    "503": "<html><body>503 Service Unavailable</body></html>",
}
PASSING = ("429", "500", "502", "503", "cut before", "cut after", "cut body", "slow body")


@dataclass
class Faults:
    """What goes wrong with the requests in whose "METHOD /path" the expression `only` is found.

    First what `plan` lists (None: nothing), then one of `kinds` with the probability `rate`; `done` lists what did.
    After "cut after" and "cut body" the request has taken effect. 409 and 412 befall commits alone. A client that asks
    for one thing after another meets the same faults every time.
    """

    plan: Sequence[str | None] = ()
    rate: float = 0.0
    kinds: Sequence[str] = PASSING
    only: str = ""
    seed: int = 0
    retry_after: int = 0  # seconds, what a 429 asks for
    done: list[tuple[str, str]] = field(default_factory=list)  # (kind, request)

    def __post_init__(self) -> None:
        self.planned, self.random = list(self.plan), random.Random(self.seed)

    def draw(self, line: str) -> str | None:
        """Return what goes wrong with a request."""
        if not re.search(self.only, line):
            return None
        if self.planned:
            kind = self.planned.pop(0)
        else:
            kind = self.random.choice(self.kinds) if self.random.random() < self.rate else None
        if (kind in ("409", "412") and "/commit/" not in line) or (kind == "cut body" and line.startswith("HEAD")):
            return None
        if kind is not None:
            self.done.append((kind, line))
        return kind


# What a repository is


@dataclass(frozen=True)
class File:
    """A file of a repository, in git or beside it (`large`)."""

    content: bytes
    large: bool = False

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @cached_property
    def pointer(self) -> bytes:
        """What git holds of a large file."""
        return f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {self.size}\n".encode()

    @cached_property
    def oid(self) -> str:
        held = self.pointer if self.large else self.content
        return hashlib.sha1(b"blob %d\0" % len(held) + held).hexdigest()

    @property
    def size(self) -> int:
        return len(self.content)

    @property
    def etag(self) -> str:
        return self.sha256 if self.large else self.oid


Tree = dict[str, File]  # path → file


@dataclass(frozen=True)
class Commit:
    """A state of a repository."""

    id: str
    parent: str | None
    tree: Tree
    title: str
    message: str
    date: str

    @property
    def card(self) -> str:
        return self.tree.get("README.md", File(b"")).content.decode()


class Repository:
    """The commits of a repository, its branches and tags, and the large files that were uploaded to it."""

    def __init__(self, kind: str, name: str, tree: Tree, private: bool = False) -> None:
        self.kind, self.name, self.private = kind, name, private
        self.address = name if kind == "model" else f"{kind}s/{name}"
        self.commits: dict[str, Commit] = {}
        self.branches: dict[str, str] = {}
        self.tags: dict[str, str] = {}
        self.large: dict[str, bytes] = {}  # SHA-256 → content
        self.shown: dict[str, list[str]] = {}  # every commit at which a branch ever stood
        self.commit("main", tree, "initial commit")

    def commit(self, branch: str, tree: Tree, title: str, message: str = "") -> Commit:
        """Let a branch show a new tree."""
        parent = self.branches.get(branch)
        listing = "".join(f"\0{path}\0{file.oid}" for path, file in sorted(tree.items()))
        identity = f"{self.address}\0{parent}\0{len(self.commits)}\0{title}{listing}"
        date = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        commit = Commit(hashlib.sha1(identity.encode()).hexdigest(), parent, tree, title, message, date)
        self.commits[commit.id] = commit
        self.point(branch, commit.id)
        return commit

    def point(self, branch: str, commit: str) -> None:
        self.branches[branch] = commit
        self.shown.setdefault(branch, []).append(commit)

    def at(self, revision: str) -> Commit:
        """Return the commit of a branch, a tag or a hash. Raises RefusalError if there is none."""
        commit = self.branches.get(revision) or self.tags.get(revision) or revision
        if commit not in self.commits:
            raise RefusalError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return self.commits[commit]


# What is asked and answered


@dataclass(frozen=True)
class Request:
    """What a client asks for."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: Any
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Answer:
    """What the server says: bytes, or what becomes JSON."""

    body: Any = field(default_factory=dict)
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


class RefusalError(Exception):
    """An answer that ends a request."""

    def __init__(self, status: int, message: str, code: str | None = None, **body: Any) -> None:
        headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        self.answer = Answer({"error": message, **body}, status, headers)


Serve = Callable[..., Answer]
ROUTES: list[tuple[str, str, str, Serve]] = []
API = "/api/(?P<kind>model|dataset|space)s/(?P<name>[^/]+/[^/]+)"
ADDRESS = "/(?:(?P<kind>dataset|space)s/)?(?P<name>[^/]+/[^/]+)"
STORED = "/storage/(?P<kind>model|dataset|space)/(?P<name>[^/]+/[^/]+)/(?P<sha256>[0-9a-f]{64})"


def route(method: str, pattern: str, rights: str) -> Callable[[Serve], Serve]:
    """Let a method of Hub answer what `pattern` matches, with its groups as arguments.

    Kind and name become the repository, which the client must have the `rights` to "read" or "write" ("": no matter).
    """

    def register(serve: Serve) -> Serve:
        ROUTES.append((method, pattern, rights, serve))
        return serve

    return register


class Hub:
    """What the server knows and does. Who has `token` may write, who has `reading_token` only read."""

    def __init__(self, folder: Path | None, user: str, organisations: Sequence[str]) -> None:
        self.folder, self.owners = folder, [user, *organisations]
        self.endpoint = self.storage = ""
        self.token, self.reading_token = "hf_" + "w" * 34, "hf_" + "r" * 34
        self.roles = {None: None, f"Bearer {self.token}": "write", f"Bearer {self.reading_token}": "read"}
        self.lock = threading.RLock()  # of all that follows: a request is answered as a whole
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.faults = Faults()
        self.page_size = 1000  # entries of a listing
        self.requests: list[str] = []
        self.authorizations: list[str | None] = []  # the header of each request
        self.uploads: Counter[str] = Counter()  # SHA-256 of a large file → bytes sent, again and again or once
        self.errors: list[BaseException] = []  # of the server itself
        self.connections: list[socket.socket] = []

    # What tests ask

    def environment(self, cache: Path, token: str = "") -> dict[str, str]:
        """What sends a new process here: plain transfers, and a cache and a token of its own."""
        own = {"HF_HOME": str(cache), "HF_TOKEN": token, "HF_TOKEN_PATH": str(cache / "token")}
        return {"HF_ENDPOINT": self.endpoint, "HF_HUB_DISABLE_XET": "1", **own}

    def history(self, kind: str, name: str, branch: str = "main") -> list[dict[str, bytes]]:
        """Return every state (path → content) that a branch ever showed, oldest first."""
        return [self.tree(kind, name, commit) for commit in self.repositories[kind, name].shown.get(branch, [])]

    def tree(self, kind: str, name: str, revision: str = "main") -> dict[str, bytes]:
        """Return what a revision shows now (path → content)."""
        with self.lock:
            return {path: file.content for path, file in self.repositories[kind, name].at(revision).tree.items()}

    # Who may what

    def role(self, request: Request) -> str | None:
        header = request.headers.get("Authorization")
        if header not in self.roles:
            raise RefusalError(401, NOT_VALID)
        return self.roles[header]

    def find(self, kind: str, name: str) -> Repository | None:
        """Return a repository; one of the folder as it is there now."""
        root = self.folder / name if self.folder else None
        if root is not None and root.is_dir():
            files = (path for path in sorted(root.rglob("*")) if path.is_file())
            tree = {path.relative_to(root).as_posix(): File(path.read_bytes()) for path in files}
            known = self.repositories.setdefault((kind, name), Repository(kind, name, tree))
            if known.at("main").tree != tree:
                known.commit("main", tree, "Files have changed")
        return self.repositories.get((kind, name))

    def open(self, request: Request, kind: str, name: str, rights: str) -> Repository:
        """Return a repository. Raises RefusalError if there is none, or the client has no right to it."""
        repository = self.find(kind, name)
        if repository is not None and not rights:
            return repository
        role, owned = self.role(request), name.split("/")[0] in self.owners
        hidden = repository is None or (repository.private and not (role and owned))
        if role is None and (hidden or rights == "write"):  # who is not known does not learn what there is
            raise RefusalError(401, NOT_KNOWN, "RepoNotFound")
        if repository is None or hidden:
            raise RefusalError(404, "Repository not found", "RepoNotFound")
        if rights == "write" and not owned:
            raise RefusalError(403, "Forbidden: pass `create_pr=1` as a query parameter to create a Pull Request.")
        if rights == "write" and role != "write":
            raise RefusalError(403, "Authorization error.")
        return repository

    def answer(self, request: Request) -> Answer:
        for method, pattern, rights, serve in ROUTES:
            found = re.fullmatch(pattern, request.path)
            if found and method == request.method.replace("HEAD", "GET"):
                groups = {key: unquote(value) for key, value in found.groupdict().items() if value is not None}
                try:
                    if "name" in groups:
                        opened = self.open(request, groups.pop("kind", "model"), groups.pop("name"), rights)
                        return serve(self, request, opened, **groups)
                    return serve(self, request)
                except RefusalError as refusal:
                    return refusal.answer
        return RefusalError(404, "Not Found", "EntryNotFound").answer

    # Who am I, is this card right, make a repository

    @route("GET", "/api/whoami-v2", "")
    def whoami(self, request: Request) -> Answer:
        role = self.role(request)
        if role is None:
            raise RefusalError(401, NOT_KNOWN)
        user, *organisations = self.owners
        token = {"type": "access_token", "accessToken": {"displayName": "tests", "role": role}}
        return Answer({"type": "user", "name": user, "orgs": [{"name": name} for name in organisations], "auth": token})

    @route("POST", "/api/validate-yaml", "")
    def validate(self, request: Request) -> Answer:
        errors, warnings = check_card(request.json()["content"], request.json()["repoType"])
        said = {"errors": errors, "warnings": warnings}
        body = {key: [{"message": line} for line in lines] for key, lines in said.items()}
        return Answer(body, 400 if errors else 200)

    @route("POST", "/api/repos/create", "")
    def create(self, request: Request) -> Answer:
        role, asked = self.role(request), request.json()
        kind, owner = asked.get("type") or "model", asked.get("organization") or self.owners[0]
        if role is None:
            raise RefusalError(401, NOT_KNOWN)
        if owner not in self.owners or role != "write":
            raise RefusalError(403, f'You don\'t have the rights to create a {kind} under the namespace "{owner}"')
        patterns = LARGE_FILES + (LARGE_DATA if kind == "dataset" else "")
        attributes = "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in patterns.split())
        tree = {".gitattributes": File(attributes.encode())}
        if kind == "space":
            tree["README.md"] = File(f"---\ntitle: {asked['name']}\nsdk: {asked['sdk']}\n---\n".encode())
        made = Repository(kind, f"{owner}/{asked['name']}", tree, asked.get("visibility") == "private")
        url = f"{self.endpoint}/{made.address}"
        if self.find(kind, made.name):
            raise RefusalError(409, f"You already created this {kind} repo: {made.name}", url=url)
        self.repositories[kind, made.name] = made
        return Answer({"url": url, "name": made.name})

    # What is there

    @route("GET", API, "read")
    @route("GET", API + "/revision/(?P<revision>[^/]+)", "read")
    def information(self, request: Request, repository: Repository, revision: str = "main") -> Answer:
        commit, first = repository.at(revision), next(iter(repository.commits.values()))
        data = yaml.safe_load(front_matter(commit.card) or "") or {}
        siblings: list[dict[str, Any]] = []
        for path, file in commit.tree.items():
            siblings.append({"rfilename": path})
            if "blobs" in request.query:
                siblings[-1] |= {"size": file.size, "blobId": file.oid, "lfs": pointer(file, "sha256")}
        known = {key: data[key] for key in ("library_name", "pipeline_tag", "model-index", "sdk") if key in data}
        body = {
            **{"id": repository.name, "author": repository.name.split("/")[0], "sha": commit.id},
            **{"private": repository.private, "gated": False, "disabled": False, "downloads": 0, "likes": 0},
            **{"createdAt": first.date, "lastModified": commit.date, "tags": data.get("tags") or []},
            **{"cardData": data, "siblings": siblings, **known},
        }
        return Answer(body)

    @route("GET", API + "/refs", "read")
    def references(self, _: Request, repository: Repository) -> Answer:
        def listed(names: dict[str, str], place: str) -> list[dict[str, str]]:
            return [{"name": k, "ref": f"refs/{place}/{k}", "targetCommit": v} for k, v in names.items()]

        branches, tags = listed(repository.branches, "heads"), listed(repository.tags, "tags")
        return Answer({"branches": branches, "tags": tags, "converts": []})

    @route("GET", API + "/commits/(?P<revision>[^/]+)", "read")
    def commits(self, request: Request, repository: Repository, revision: str) -> Answer:
        listed: list[dict[str, Any]] = []
        commit: Commit | None = repository.at(revision)
        while commit is not None:
            listed.append({"id": commit.id, "title": commit.title, "message": commit.message, "date": commit.date})
            listed[-1]["authors"] = [{"user": self.owners[0] if commit.parent else "system"}]
            commit = repository.commits[commit.parent] if commit.parent else None
        return self.page(request, listed)

    @route("GET", API + "/tree/(?P<revision>[^/]+)(?:/(?P<folder>.*))?", "read")
    def listing(self, request: Request, repository: Repository, revision: str, folder: str = "") -> Answer:
        prefix = f"{folder.strip('/')}/".lstrip("/")
        inside = {k: v for k, v in entries(repository.at(revision).tree).items() if k.startswith(prefix)}
        if prefix and not inside:
            raise RefusalError(404, f"{folder} does not exist on {revision}", "EntryNotFound")
        recursive = request.query.get("recursive", ["false"])[0].lower() == "true"
        return self.page(request, [v for k, v in inside.items() if recursive or "/" not in k[len(prefix) :]])

    @route("POST", API + "/paths-info/(?P<revision>[^/]+)", "read")
    def named(self, request: Request, repository: Repository, revision: str) -> Answer:
        known = entries(repository.at(revision).tree)
        as_json = request.headers.get("Content-Type", "").startswith("application/json")
        paths = request.json()["paths"] if as_json else parse_qs(request.body.decode()).get("paths", [])
        return Answer([known[path] for path in paths if path in known])

    def page(self, request: Request, items: list[dict[str, Any]]) -> Answer:
        """Return as many items as fit, and where the next ones are."""
        start = int(request.query.get("cursor", ["0"])[0])
        end = start + self.page_size
        query = urlencode({**request.query, "cursor": [end]}, doseq=True)
        link = {"Link": f'<{self.endpoint}{request.path}?{query}>; rel="next"'}
        return Answer(items[start:end], headers=link if end < len(items) else {})

    # Branches and tags

    @route("POST", API + "/branch/(?P<branch>[^/]+)", "write")
    def create_branch(self, request: Request, repository: Repository, branch: str) -> Answer:
        if branch.startswith("refs/"):
            raise RefusalError(400, f"Invalid reference for a branch: {branch}")
        if branch in repository.branches:
            raise RefusalError(409, f"Reference already exists: refs/heads/{branch}")
        repository.point(branch, repository.at(request.json().get("startingPoint", "main")).id)
        return Answer()

    @route("DELETE", API + "/branch/(?P<branch>[^/]+)", "write")
    def delete_branch(self, _: Request, repository: Repository, branch: str) -> Answer:
        if branch == "main":
            raise RefusalError(403, "Cannot delete refs/heads/main")
        if repository.branches.pop(branch, None) is None:
            raise RefusalError(404, f"Invalid rev id: {branch}", "RevisionNotFound")
        return Answer()

    @route("POST", API + "/tag/(?P<revision>[^/]+)", "write")
    def create_tag(self, request: Request, repository: Repository, revision: str) -> Answer:
        tag = request.json()["tag"]
        if tag in repository.tags:
            raise RefusalError(409, f"Tag reference exists already: refs/tags/{tag}")
        repository.tags[tag] = repository.at(revision).id
        return Answer()

    # Push: what is large, its upload, the commit

    @route("POST", API + "/preupload/(?P<revision>[^/]+)", "write")
    def preupload(self, request: Request, repository: Repository, revision: str) -> Answer:
        tree, asked = repository.at(revision).tree, request.json()
        attributes = tree.get(".gitattributes", File(b"")).content.decode().splitlines()
        large = [line.split()[0] for line in attributes if "filter=lfs" in line]
        ignored = asked.get("gitIgnore", tree.get(".gitignore", File(b"")).content.decode()).split()
        files = []
        for file in asked["files"]:
            path = file["path"]
            binary = is_binary(b64decode(file["sample"]))
            mode = "lfs" if binary or matches(path, large) or file["size"] > LARGEST_REGULAR_FILE else "regular"
            files.append({"path": path, "uploadMode": mode, "shouldIgnore": matches(path, ignored)})
            files[-1] |= {"oid": tree[path].etag} if path in tree else {}
        return Answer({"files": files})

    @route("POST", ADDRESS + r"\.git/info/lfs/objects/batch", "write")
    def batch(self, request: Request, repository: Repository) -> Answer:
        objects = request.json()["objects"]
        for item in objects:
            if item["oid"] not in repository.large:
                address = f"{self.storage}/storage/{repository.kind}/{repository.name}/{item['oid']}"
                verify = f"{self.endpoint}/{repository.address}.git/info/lfs/verify"
                item["actions"] = {"upload": {"href": address}, "verify": {"href": verify}}
        return Answer({"transfer": "basic", "objects": objects})

    @route("PUT", STORED, "")
    def upload(self, request: Request, repository: Repository, sha256: str) -> Answer:
        self.uploads[sha256] += len(request.body)
        if hashlib.sha256(request.body).hexdigest() != sha256:
            raise RefusalError(400, "BadDigest")
        repository.large[sha256] = request.body
        return Answer()

    @route("POST", ADDRESS + r"\.git/info/lfs/verify", "write")
    def verify(self, request: Request, repository: Repository) -> Answer:
        asked = request.json()
        if len(repository.large.get(asked["oid"], b"")) != asked["size"]:
            raise RefusalError(422, "The uploaded file is not the one announced")
        return Answer()

    @route("POST", API + "/commit/(?P<branch>[^/]+)", "write")
    def commit(self, request: Request, repository: Repository, branch: str) -> Answer:
        """Let a branch show a new tree: with all of what is asked, or not at all."""
        if branch not in repository.branches:
            raise RefusalError(404, f"Invalid rev id: {branch}", "RevisionNotFound")
        header, *operations = (json.loads(line) for line in request.body.splitlines())
        about, head = header["value"], repository.at(branch)
        if not head.id.startswith(about.get("parentCommit", "")):
            raise RefusalError(412, NOT_THE_HEAD)
        tree = dict(head.tree)
        for operation in operations:
            change(tree, operation["key"], operation["value"], repository.large)
        errors, _ = check_card(tree.get("README.md", File(b"")).content.decode(), repository.kind)
        if errors:
            raise RefusalError(400, "Invalid metadata in README.md", errors=[{"message": line} for line in errors])
        commit = repository.commit(branch, tree, about["summary"], about["description"])
        url = f"{self.endpoint}/{repository.address}/commit/{commit.id}"
        return Answer({"success": True, "commitOid": commit.id, "commitUrl": url, "hookOutput": ""})

    # Download

    @route("GET", ADDRESS + "/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "read")
    def resolve(self, request: Request, repository: Repository, revision: str, path: str) -> Answer:
        commit = repository.at(revision)
        headers = {"X-Repo-Commit": commit.id}
        if path not in commit.tree:
            refusal = RefusalError(404, "Entry not found", "EntryNotFound").answer
            return Answer(refusal.body, refusal.status, refusal.headers | headers)
        file = commit.tree[path]
        if not file.large:
            return part(request, file, headers)
        location = f"{self.storage}/storage/{repository.kind}/{repository.name}/{file.sha256}"
        linked = {"X-Linked-ETag": f'"{file.sha256}"', "X-Linked-Size": str(file.size), "Location": location}
        return Answer(b"", 302, headers | linked)

    @route("GET", STORED, "")
    def download(self, request: Request, repository: Repository, sha256: str) -> Answer:
        return part(request, File(repository.large[sha256], large=True), {})


def part(request: Request, file: File, headers: dict[str, str]) -> Answer:
    """Return a file or, where Range asks for it, a part of it."""
    headers = {**headers, "ETag": f'"{file.etag}"', "Accept-Ranges": "bytes"}
    asked = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", ""))
    if asked is None:
        return Answer(file.content, headers=headers)
    start, end = int(asked[1]), min(int(asked[2] or file.size), file.size - 1)
    if start > end:
        return Answer(b"", 416, {"Content-Range": f"bytes */{file.size}"})
    return Answer(file.content[start : end + 1], 206, headers | {"Content-Range": f"bytes {start}-{end}/{file.size}"})


def change(tree: Tree, key: str, value: dict[str, Any], large: dict[str, bytes]) -> None:
    """Do one operation of a commit to a tree. Raises RefusalError if it cannot be done."""
    path = value["path"]
    if key == "file":
        tree[path] = File(b64decode(value["content"]))
    elif key == "lfsFile":
        if value["oid"] not in large:
            why = "Your push was rejected because an LFS pointer pointed to a file that does not exist."
            raise RefusalError(400, f"{why} Offending file: - {path}")
        tree[path] = File(large[value["oid"]], large=True)
    else:
        gone = [k for k in tree if k == path or (key == "deletedFolder" and k.startswith(f"{path.rstrip('/')}/"))]
        if not gone:
            raise RefusalError(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")
        for name in gone:
            del tree[name]


def is_binary(sample: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(sample)  # its last character may be cut off
    except UnicodeDecodeError:
        return True
    return b"\0" in sample


def matches(path: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch(path if "/" in pattern else path.rsplit("/")[-1], pattern) for pattern in patterns)


def pointer(file: File, key: str) -> dict[str, Any] | None:
    """What is said of a large file; listings name its hash differently."""
    return {key: file.sha256, "size": file.size, "pointerSize": len(file.pointer)} if file.large else None


def entries(tree: Tree) -> dict[str, dict[str, Any]]:
    """Return what listings say of the files of a tree and of their folders, by path."""
    listed: dict[str, dict[str, Any]] = {}
    for path, file in sorted(tree.items()):
        for slash in re.finditer("/", path):
            folder = path[: slash.start()]
            oid = hashlib.sha1(folder.encode()).hexdigest()
            listed.setdefault(folder, {"type": "directory", "path": folder, "oid": oid, "size": 0})
        listed[path] = {"type": "file", "path": path, "oid": file.oid, "size": file.size}
        listed[path] |= {"lfs": pointer(file, "oid")} if file.large else {}
    return listed


# Cards: the plainest of what the Hub finds wrong in their metadata, in its words as far as they are known

LICENCES = (
    "apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m "
    "afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 "
    "cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 "
    "cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 "
    "cdla-permissive-1.0 cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl "
    "gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 isc h-research intel-research lppl-1.3c ms-pl apple-ascl apple-amlr "
    "mpl-2.0 odc-by odbl openmdw-1.0 openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl lgpl-lr "
    "deepfloyd-if-license fair-noncommercial-research-license llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 "
    "grok2-community gemma unknown other"
)
NAME = re.compile(r"(?:[\w-]+\/)?[\w\-.]+")
COLOURS = ("red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray")
DATASET = {"type": NAME, "name": str}
RESULT = {"task": {"type": str}, "dataset": DATASET, "metrics": [{"type": str, "value": object}]}
FIELDS: dict[str, Any] = {
    "license": [tuple(LICENCES.split())],
    "language": [re.compile("[a-z]{2,3}(?:-[A-Za-z]+)*|code|multilingual")],
    "datasets": [NAME],
    "base_model": [NAME],
    "tags": [str],
    "library_name": str,
    "pipeline_tag": str,
    "model-index": [{"name": str, "results": [RESULT]}],
    "configs": [{"config_name": str, "data_files": object}],
    "sdk": ("gradio", "streamlit", "docker", "static"),
    "colorFrom": COLOURS,
    "colorTo": COLOURS,
    "short_description": re.compile(".{0,60}"),
}
ONE_OR_MORE = ("license", "language", "datasets", "base_model")


def front_matter(card: str) -> str | None:
    found = re.match(r"\s*---[ \t]*\r?\n(.*?)\r?\n---\s*(?:\n|$)", card, re.DOTALL)
    return found and found[1]


def check_card(card: str, kind: str) -> tuple[list[str], list[str]]:
    """Return the errors and the warnings about the metadata of a README."""
    metadata = front_matter(card)
    if metadata is None:
        return [], ["empty or missing yaml metadata in repo card"]
    try:
        data = yaml.safe_load(metadata)
    except yaml.YAMLError as error:
        return [" ".join(f"YAMLException: {error}".split())], []
    if not isinstance(data, dict):
        return ['"metadata" must be an object'], []
    errors: list[str] = []
    for name, shape in FIELDS.items():
        if name in data:
            one = name in ONE_OR_MORE and not isinstance(data[name], list)
            errors += mismatches(data[name], shape[0] if one else shape, name)
    missing = kind == "space" and "sdk" not in data
    return errors, ["Missing configuration in README: sdk"] if missing else []


def mismatches(value: Any, shape: Any, path: str) -> Iterator[str]:
    """Say where a value has not the shape that it must have."""
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            yield f'"{path}" must be an object'
            return
        for name, inner in shape.items():
            if name in value:
                yield from mismatches(value[name], inner, f"{path}.{name}")
            else:
                yield f'"{path}.{name}" is required'
    elif isinstance(shape, list):
        if not isinstance(value, list):
            yield f'"{path}" must be an array'
            return
        for number, item in enumerate(value):
            yield from mismatches(item, shape[0], f"{path}[{number}]")
    elif isinstance(shape, tuple):
        if value not in shape:
            yield f'"{path}" must be one of [{", ".join(shape)}]'
    elif isinstance(shape, re.Pattern):
        if not isinstance(value, str) or not shape.fullmatch(value):
            yield f'"{path}" with value "{value}" fails to match the required pattern: /^{shape.pattern}$/'
    elif not isinstance(value, shape):
        yield f'"{path}" must be a string'


# HTTP


class Handler(BaseHTTPRequestHandler):
    """Reads a request, answers it, and does what `faults` wants."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body leave together
    disable_nagle_algorithm = True
    hub: Hub

    def setup(self) -> None:
        super().setup()
        self.hub.connections.append(self.connection)

    def log_message(self, *_: Any) -> None:
        """Say nothing: `requests` tells."""

    def serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        address, line = urlsplit(self.path), f"{self.command} {self.path}"
        request = Request(self.command, address.path, parse_qs(address.query), self.headers, body)
        with self.hub.lock:
            self.hub.requests.append(line)
            self.hub.authorizations.append(self.headers.get("Authorization"))
            fault = self.hub.faults.draw(line)
            if fault == "cut before":
                return self.cut()
            answer = self.refusal(fault) if fault in REFUSALS else self.hub.answer(request)
        return self.cut() if fault == "cut after" else self.send(answer, fault)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = serve  # noqa: N815 - the base class's names

    def refusal(self, fault: str) -> Answer:
        if fault in ("502", "503"):  # these come from a gateway, which speaks no JSON
            return Answer(REFUSALS[fault].encode(), int(fault), {"Content-Type": "text/html"})
        answer = RefusalError(int(fault), REFUSALS[fault]).answer
        if fault == "429":
            answer.headers["Retry-After"] = str(self.hub.faults.retry_after)
        return answer

    def send(self, answer: Answer, fault: str | None) -> None:
        is_bytes = isinstance(answer.body, bytes)
        body = answer.body if is_bytes else json.dumps(answer.body).encode()
        kind = {"Content-Type": "application/octet-stream" if is_bytes else "application/json"}
        self.send_response(answer.status)
        for name, value in {**kind, **answer.headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault == "cut body":
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            self.cut()
        elif fault == "slow body":
            step = len(body) // 8 + 1
            for start in range(0, len(body), step):
                self.wfile.write(body[start : start + step])
                self.wfile.flush()
                sleep(0.003)
        else:
            self.wfile.write(body)

    def cut(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)


class Server(ThreadingHTTPServer):
    """Keeps what fails in the server itself; a client that goes away is no failure."""

    hub: Hub
    request_queue_size = 128  # connections that wait

    def handle_error(self, *_: Any) -> None:
        error = sys.exception()
        if error is not None and not isinstance(error, ConnectionError):
            self.hub.errors.append(error)


@contextmanager
def hub_server(
    folder: Path | None = None, user: str = "band", organisations: Sequence[str] = ("orchestra",)
) -> Iterator[Hub]:
    """Run a Hub on a free port while the context lasts; with `folder`, its repositories can be read too."""
    hub = Hub(folder, user, organisations)
    server = Server(("127.0.0.1", 0), type("BoundHandler", (Handler,), {"hub": hub}))
    server.hub = hub
    hub.endpoint, hub.storage = (f"http://{host}:{server.server_port}" for host in ("127.0.0.1", "localhost"))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        for connection in hub.connections:  # clients keep them, and would go on asking here
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
    if hub.errors:
        raise hub.errors[0]
