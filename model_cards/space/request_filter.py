"""What the demo's server takes from visitors: one function's texts and numbers, in small bodies, and nothing else.

Gradio would take more. A value that describes a file (`{"path": "http://…", "meta": {"_type": "gradio.FileData"}}`)
makes it fetch that address and keep the file, also where a component expects a text, and before any of our code runs.
Other routes store uploads or fetch other sites' files. So this stands before Gradio and hands on what the page needs.
"""

import asyncio
import json
import re
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

READ = re.compile(r"/(gradio_api/)?(upload|deep_link|proxy=|(file=|file/)https?:)", re.IGNORECASE)  # never to be read
CALLED = re.compile(r"/gradio_api/(queue/join|call/write)/?")
ENDED = re.compile(r"/gradio_api/(cancel|reset)/?")
MOST_BYTES = 2**14  # of a body; a wish takes 300
SECONDS = 10.0  # that a body may take to arrive
HANDED_ON = {"session_hash": str, "fn_index": int, "trigger_id": int}  # beside the data
LONGEST_NAME = 64  # of a session, in characters


class RefusedError(Exception):
    """A request that is not handed on: its status, and a line for whoever sent it."""

    def __init__(self, status: int, line: str) -> None:
        super().__init__(line)
        self.status = status


class RequestFilter:
    """Stands before an app whose one function takes `values` texts, numbers and truth values, nothing composed."""

    def __init__(self, app: ASGIApp, values: int) -> None:
        self.app, self.values = app, values

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":  # no web socket is needed
                await self.app(scope, receive, send)
            return
        try:
            receive = await self._checked(scope, receive)
        except RefusedError as refused:
            answer = JSONResponse({"detail": str(refused)}, refused.status, {"connection": "close"})
            await answer(scope, receive, send)
            return
        await self.app(scope, receive, send)

    async def _checked(self, scope: Scope, receive: Receive) -> Receive:
        """Return what the app receives of a request. Raises RefusedError."""
        path = scope["path"]
        if scope["method"] in ("GET", "HEAD", "OPTIONS"):
            if READ.match(path):
                raise RefusedError(404, "Not found")
            return receive
        called = CALLED.fullmatch(path)
        if scope["method"] != "POST" or not (called or ENDED.fullmatch(path)):
            raise RefusedError(404, "Not found")
        body = await read_body(scope, receive)
        waiting: list[Message] = [{"type": "http.request", "body": self.wish(body) if called else body}]

        async def replay() -> Message:
            return waiting.pop() if waiting else await receive()

        return replay

    def wish(self, body: bytes) -> bytes:
        """Return the body of a call with what is handed on of it. Raises RefusedError for what is no wish."""
        try:
            given: Any = json.loads(body)
        except (ValueError, RecursionError):
            raise RefusedError(400, "the body is no JSON") from None
        data = given.get("data") if isinstance(given, dict) else None
        if not isinstance(data, list) or len(data) != self.values:
            raise RefusedError(422, f"data: give a list of {self.values} values")
        if not all(value is None or isinstance(value, str | int | float) for value in data):
            raise RefusedError(422, "data: give texts, numbers, true or false alone")
        handed_on: dict[str, Any] = {"data": data}
        for name, kind in HANDED_ON.items():
            value = given.get(name)
            if value is not None and (type(value) is not kind or len(str(value)) > LONGEST_NAME):
                raise RefusedError(422, f"{name}: not one of this page")
            handed_on[name] = value
        return json.dumps(handed_on).encode()


async def read_body(scope: Scope, receive: Receive) -> bytes:
    """Return the body of a request. Raises RefusedError as soon as it is, or says that it is, too large, or is late."""
    told = dict(scope["headers"]).get(b"content-length", b"0")
    if not told.isdigit() or len(told) > 9 or int(told) > MOST_BYTES:
        raise RefusedError(413, f"a body of more than {MOST_BYTES:,} bytes")
    body, more = b"", True
    try:
        async with asyncio.timeout(SECONDS):
            while more:
                message = await receive()
                body += message.get("body", b"")
                more = message.get("more_body", False)  # a visitor who left sends no more
                if len(body) > MOST_BYTES:
                    raise RefusedError(413, f"a body of more than {MOST_BYTES:,} bytes")
    except TimeoutError:
        raise RefusedError(408, f"the body takes longer than {SECONDS:g} s") from None
    return body
