"""A small Hub for tests: the part of its protocol that reading data sets and models needs, served from a folder.

The folder holds repositories as OWNER/NAME/. A commit is the hash of a repository's files: changing one makes a new
commit, and the old one stays readable as it was. `HF_ENDPOINT=server.endpoint` in the environment of a new process
sends the Hub's client here. `requests` lists what was asked for; what the server does not know is a 404.
"""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

Tree = dict[str, bytes]  # path → content


class Repositories:
    """The repositories of a folder, with every commit that was ever looked at."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.commits: dict[tuple[str, str], Tree] = {}

    def resolve(self, name: str, revision: str) -> tuple[str, Tree] | None:
        """Return the commit and the files of a repository at `main` or at a commit, None if there is none."""
        if revision != "main":
            tree = self.commits.get((name, revision))
            return None if tree is None else (revision, tree)
        root = self.folder / name
        if not root.is_dir():
            return None
        tree = {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}
        sha = hashlib.sha1("".join(path + "\0" + oid(content) for path, content in tree.items()).encode()).hexdigest()
        self.commits[name, sha] = tree
        return sha, tree


def oid(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


def entry(path: str, content: bytes) -> dict[str, Any]:
    return {"type": "file", "path": path, "oid": oid(content), "size": len(content)}


def information(name: str, sha: str, tree: Tree) -> dict[str, Any]:
    """What the API says of a repository; cardData is the front matter of its README."""
    found = re.match(r"---\n(.*?)\n---", tree.get("README.md", b"").decode(), re.DOTALL)
    return {
        "id": name,
        "sha": sha,
        "private": False,
        "gated": False,
        "disabled": False,
        "tags": [],
        "downloads": 0,
        "likes": 0,
        "cardData": yaml.safe_load(found[1]) if found else {},
        "siblings": [{"rfilename": path} for path in tree],
    }


class Handler(BaseHTTPRequestHandler):
    """Answers one request; the routes stand in `do_GET` and `do_POST`."""

    protocol_version = "HTTP/1.1"
    repositories: Repositories
    requests: list[str]

    def log_message(self, format: str, *args: object) -> None:  # noqa: ARG002 - the base class's signature
        self.requests.append(f"{self.command} {self.path}")

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if found := re.fullmatch(r"/api/(?:datasets|models)/([^/]+/[^/]+)(?:/revision/([^/]+))?", path):
            self.answer(found[1], found[2] or "main", information)
        elif found := re.fullmatch(r"/api/(?:datasets|models)/([^/]+/[^/]+)/tree/([^/]+)/?(.*)", path):
            self.answer(found[1], found[2], lambda _, __, tree: self.listing(tree, found[3]))
        elif found := re.fullmatch(r"(?:/datasets)?/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self.send_part(found[1], found[2], found[3])
        else:
            self.refuse("EntryNotFound")

    do_HEAD = do_GET  # noqa: N815 - the base class's name

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        path = unquote(urlsplit(self.path).path)
        if found := re.fullmatch(r"/api/(?:datasets|models)/([^/]+/[^/]+)/paths-info/([^/]+)", path):
            json_body = self.headers.get("Content-Type", "").startswith("application/json")
            paths = json.loads(body)["paths"] if json_body else parse_qs(body).get("paths", [])
            self.answer(found[1], found[2], lambda _, __, tree: self.named(tree, paths))
        else:
            self.refuse("EntryNotFound")

    def answer(self, name: str, revision: str, make: Any) -> None:
        """Send what `make(name, sha, tree)` returns, as JSON."""
        found = self.repositories.resolve(name, revision)
        if found is None:
            self.refuse("RepoNotFound" if revision == "main" else "RevisionNotFound")
        else:
            self.send(200, json.dumps(make(name, *found)).encode(), {"Content-Type": "application/json"})

    def listing(self, tree: Tree, folder: str) -> list[dict[str, Any]]:
        prefix = f"{folder.rstrip('/')}/" if folder else ""
        below = {path: content for path, content in tree.items() if path.startswith(prefix)}
        if parse_qs(urlsplit(self.path).query).get("recursive", ["false"])[0].lower() == "true":
            return [entry(path, content) for path, content in below.items()]
        folders = {prefix + path[len(prefix) :].split("/")[0] for path in below if "/" in path[len(prefix) :]}
        files = [entry(path, content) for path, content in below.items() if "/" not in path[len(prefix) :]]
        return [{"type": "directory", "path": path, "oid": "0" * 40, "size": 0} for path in sorted(folders)] + files

    def named(self, tree: Tree, paths: list[str]) -> list[dict[str, Any]]:
        folders = [path for path in paths if any(name.startswith(f"{path}/") for name in tree)]
        return [entry(path, tree[path]) for path in paths if path in tree] + [
            {"type": "directory", "path": path, "oid": "0" * 40, "size": 0} for path in folders
        ]

    def send_part(self, name: str, revision: str, path: str) -> None:
        """Send a file or, where Range asks for it, a part of it."""
        found = self.repositories.resolve(name, revision)
        if found is None:
            return self.refuse("RepoNotFound")
        sha, tree = found
        if path not in tree:
            return self.refuse("EntryNotFound", {"X-Repo-Commit": sha})
        content = tree[path]
        headers = {"ETag": f'"{oid(content)}"', "X-Repo-Commit": sha, "Accept-Ranges": "bytes"}
        part = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if part is None:
            return self.send(200, content, headers)
        start, end = int(part[1]), min(int(part[2] or len(content)), len(content) - 1)
        headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
        return self.send(206, content[start : end + 1], headers)

    def refuse(self, code: str, headers: dict[str, str] | None = None) -> None:
        self.send(404, b"{}", {"X-Error-Code": code, **(headers or {})})

    def send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class HubServer:
    """A running server; `endpoint` is its address."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.requests: list[str] = []
        handler = type("BoundHandler", (Handler,), {"repositories": Repositories(folder), "requests": self.requests})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"

    def environment(self, cache: Path) -> dict[str, str]:
        """What sends a new process here: plain transfers, and a cache of its own."""
        return {"HF_ENDPOINT": self.endpoint, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(cache)}


@contextmanager
def hub_server(folder: Path) -> Iterator[HubServer]:
    """Serve a folder of repositories on a free port while the context lasts."""
    hub = HubServer(folder)
    thread = threading.Thread(target=hub.server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.server.shutdown()
        hub.server.server_close()
        thread.join()
