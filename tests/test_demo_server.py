"""The demo's server accepts only what the page sends, and each visitor gets the right tunes; abcjs is the known one."""

import asyncio
import contextlib
import importlib.util
import json
import re
import socket
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest
from demo_stand_in import serve
from pytest_httpserver import HTTPServer

from cli import UserError
from model_cards import vendor

pytestmark = pytest.mark.skipif(importlib.util.find_spec("gradio") is None, reason="gradio is not installed")


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    with serve(tmp_path_factory.mktemp("demo")) as demo:
        yield demo


@pytest.fixture(scope="module")
def address(demo):
    return demo.address


GOOD = ["GPT 15k", "LSTM 15k", "G", "6/8", 0.9, 1, False]


def send(address, path, body=None, **headers):
    """Return the status of a request, a POST if it has a body, and the answer."""
    request = urllib.request.Request(address + path, body, {"Content-Type": "application/json", **headers})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def call(address, data, **more):
    """Return the last event of a call of the API's one function, and its data: the status and two tunes."""
    status, answer = send(address, "gradio_api/call/write", json.dumps({"data": data, **more}).encode())
    assert status == 200, answer
    _, events = send(address, f"gradio_api/call/write/{json.loads(answer)['event_id']}")
    *_, (kind, found) = re.findall(r"event: (\w+)\ndata: (.*)\n", events)
    return kind, json.loads(found)


def file_data(path):
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


@pytest.fixture
def stranger():
    """A server on this machine that must get no request."""
    server = HTTPServer(host="127.0.0.1", port=0)
    server.expect_request(re.compile(".*")).respond_with_data("secret" * 1000)
    server.start()
    yield server.url_for("/x")
    server.stop()
    assert server.log == []


def test_fifty_simultaneous_visitors_each_get_their_own_tunes(demo):
    requests = [("GPT 15k", "LSTM 120k", "G", "6/8", 0.5 + seed / 1000, seed, False) for seed in range(100, 150)]
    with ThreadPoolExecutor(50) as visitors:
        answers = list(visitors.map(lambda data: call(demo.address, data), requests))
    for (first, second, *rest), (kind, (_, *tunes)) in zip(requests, answers, strict=True):
        assert kind == "complete"
        assert [tune["abc"] for tune in tunes] == [demo.studio.write(name, *rest).abc for name in (first, second)]


@pytest.mark.parametrize("first", [None, 3, "GPT 9000B", "G" * 10_000])
def test_an_error_of_the_studio_is_a_message(address, first):
    kind, (status, *_) = call(address, [first, *GOOD[1:]])
    assert kind == "complete"
    assert status["error"]


@pytest.mark.parametrize(
    "path", ["call/write", "call/v2/write", "run/write", "run/predict", "api/predict", "queue/join"]
)
def test_no_value_makes_the_server_fetch_or_keep_a_file(demo, stranger, path):
    address, folder = demo.address, demo.folder
    values = [
        file_data(stranger),
        file_data(stranger) | {"url": stranger, "orig_name": "x", "is_stream": False},
        [[{"deep": [file_data(stranger)]}]],
        file_data(f"file://{folder}/app.py"),
        file_data("/etc/passwd"),
        {"path": stranger, "meta": None},
        {"__type__": "update", "value": file_data(stranger)},
    ]
    for value in values:
        for place in (0, 2, 5):
            data = [*GOOD[:place], value, *GOOD[place + 1 :]]
            body = {"data": data, "session_hash": "s", "fn_index": 1, "event_data": value, "simple_format": True}
            status, answer = send(address, f"gradio_api/{path}", json.dumps(body).encode())
            assert status in (404, 422), answer
            assert "secret" not in answer
    assert not [path for path in (folder / "kept").rglob("*") if path.is_file()]


def test_other_fields_of_a_call_are_not_passed_on(address, stranger):
    more = {"event_data": file_data(stranger), "batched": True, "simple_format": True, "event_id": "x"}
    assert call(address, GOOD, **more)[0] == "complete"
    good = {"data": GOOD, "session_hash": "s", "fn_index": 1}
    for wrong in (
        {"session_hash": file_data(stranger)},
        {"fn_index": "1"},
        {"trigger_id": [1]},
        {"session_hash": "s" * 99},
    ):
        assert send(address, "gradio_api/queue/join", json.dumps(good | wrong).encode())[0] == 422


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (json.dumps({"data": GOOD[:-1]}), 422),
        (json.dumps({"data": [*GOOD, 1]}), 422),
        (json.dumps({"data": dict(enumerate(GOOD))}), 422),
        (json.dumps({}), 422),
        (json.dumps([GOOD]), 422),
        ("[" * 10_000, 400),
        ("", 400),
        ("\x00", 400),
        ("1" * 5000, 400),
        (" " * 2**15 + json.dumps({"data": GOOD}), 413),
    ],
)
def test_any_other_body_is_refused_with_a_message(address, body, status):
    for path in ("call/write", "queue/join"):
        found, answer = send(address, f"gradio_api/{path}", body.encode())
        assert found == status, answer
        assert json.loads(answer)["detail"]


@pytest.mark.parametrize("path", ["call/write", "cancel"])
def test_a_body_without_an_end_is_cut_off(address, path):
    target = urlsplit(address)
    for head, chunk in (
        ("Transfer-Encoding: chunked", b"4000\r\n" + b" " * 0x4000 + b"\r\n"),
        (f"Content-Length: {10**15}", b" " * 0x4000),
    ):
        with socket.create_connection((target.hostname, target.port), timeout=20) as connection:
            connection.sendall(f"POST /gradio_api/{path} HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n".encode())
            answer, sent = b"", 0
            with contextlib.suppress(ConnectionError):
                for _ in range(50):
                    connection.sendall(chunk)
            with contextlib.suppress(ConnectionError):
                answer = connection.recv(1000)
            assert not answer or answer.startswith(b"HTTP/1.1 413"), answer
            with contextlib.suppress(ConnectionError):
                for _ in range(500):
                    sent += connection.send(chunk)
            assert sent < 500 * len(chunk)


def test_a_body_that_never_arrives_is_refused_after_its_time(monkeypatch):
    from model_cards.space import request_filter

    monkeypatch.setattr(request_filter, "SECONDS", 0.05)
    sent = []

    async def never():
        await asyncio.sleep(60)

    async def keep(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/gradio_api/queue/join", "headers": []}
    asyncio.run(request_filter.RequestFilter(None, values=7)(scope, never, keep))
    assert sent[0]["status"] == 408


def test_only_the_files_of_the_page_are_served(demo):
    address, folder = demo.address, demo.folder
    assert send(address, f"gradio_api/file={folder}/vendor/abcjs/abcjs-basic-min.js")[0] == 200
    for path in ("/etc/passwd", f"{folder}/study.json", f"{folder}/app.py", f"{folder}/vendor/../app.py", "study.json"):
        assert send(address, f"gradio_api/file={path}")[0] in (403, 404)
    for path in ("gradio_api/file=https://example.org/", "gradio_api/file=HTTP://example.org/", "proxy=http://e.org/"):
        assert send(address, path)[0] == 404
    assert send(address, "gradio_api/deep_link?session_hash=s")[0] == 404
    for path in (
        "upload",
        "gradio_api/upload",
        "gradio_api//upload",
        "gradio_api/upload/",
        "gradio_api/login",
        "login",
    ):
        assert send(address, path, b"--x--")[0] in (404, 405)
    for path in ("component_server", "process_recording", "stream/1", "vibe-code", "run-history/connect", "reload"):
        assert send(address, f"gradio_api/{path}", b"{}")[0] == 404


# abcjs


def test_abcjs_comes_with_its_licence(demo):
    assert "Permission is hereby granted, free of charge" in (demo.folder / "vendor/abcjs/LICENSE.md").read_text()


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (None, "npm is missing"),
        ("echo 'npm error 404 Not Found' >&2; exit 1", "npm error 404 Not Found"),
        ('echo other > "${5#*=}"/abcjs-6.7.2.tgz', "sha512"),
    ],
)
def test_abcjs_that_is_missing_or_is_another_package_is_refused_in_one_line(tmp_path, monkeypatch, script, reason):
    monkeypatch.setattr(vendor, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", "/usr/bin:/bin" if script else "/nowhere")
    if script:
        (tmp_path / "npm").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "npm").chmod(0o755)
    with pytest.raises(UserError, match=reason) as raised:
        vendor.vendor_abcjs(tmp_path / "folder")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "cache").exists()
    assert not (tmp_path / "folder").exists()
