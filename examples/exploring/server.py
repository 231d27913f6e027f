"""Web server of the page: plain HTTP on this machine only, one computation at a time."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from exploring.request import RefusedError

PAGE = Path(__file__).with_name("page.html")
LARGEST = 30_000_000  # bytes of a request
HOST = "127.0.0.1"

Answer = dict[str, Any]
Uploads = Mapping[str, Callable[[bytes], Answer]]
"""Functions that answer a file, by the path of the request."""
Questions = Mapping[str, Callable[[Mapping[str, Any]], Answer]]
"""Functions that answer a JSON object, by the path of the request."""


class Server(ThreadingHTTPServer):
    """Server of the page and of the answers to it.

    Arguments:
        port: Port, or 0 for any free one.
        facts: What the page is told when it is loaded.
        questions: Functions that answer JSON objects.
        uploads: Functions that answer files.
    """

    daemon_threads = True

    def __init__(self, port: int, facts: Answer, questions: Questions, uploads: Uploads) -> None:
        super().__init__((HOST, port), _Handler)
        self.facts, self.questions, self.uploads = facts, questions, uploads
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.server_address[1]}/"


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if not self._is_from_here():
            return
        if self.path == "/":
            self._send(HTTPStatus.OK, "text/html; charset=utf-8", PAGE.read_bytes())
        elif self.path == "/api/facts":
            self._send_json(HTTPStatus.OK, self.server.facts)
        else:
            self._send_json(HTTPStatus.NOT_FOUND, {"error": f"there is no {self.path}"})

    def do_POST(self) -> None:
        if not self._is_from_here():
            return
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) > LARGEST:
            self.close_connection = True  # the body stays unread
            given = f"{int(length) / 1e6:.0f} MB are" if length.isdigit() else "a request without a length is"
            self._send_json(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, {
                "error": f"{given} not accepted: choose a file of at most {LARGEST / 1e6:.0f} MB"})  # fmt: skip
            return
        body = self.rfile.read(int(length))
        name = self.path.removeprefix("/api/")
        if name not in self.server.uploads and name not in self.server.questions:
            self._send_json(HTTPStatus.NOT_FOUND, {"error": f"there is no {self.path}"})
            return
        try:
            with self.server.lock:
                began = time.perf_counter()
                answer = self._answer(name, body)
                answer["seconds"] = round(time.perf_counter() - began, 3)
        except RefusedError as error:
            self._send_json(HTTPStatus.BAD_REQUEST, {"error": str(error)})
        else:
            self._send_json(HTTPStatus.OK, answer)

    def _answer(self, name: str, body: bytes) -> Answer:
        if name in self.server.uploads:
            return self.server.uploads[name](body)
        question = self.server.questions[name]
        try:
            given = json.loads(body)
        except ValueError as error:
            raise RefusedError("the request is not JSON") from error
        if not isinstance(given, dict):
            raise RefusedError("the request is not a JSON object")
        return question(given)

    def _is_from_here(self) -> bool:
        """Refuse requests under another name than this machine's own, which a web site might cause."""
        name = self.headers.get("Host", "").rpartition(":")[0]
        if name in (HOST, "localhost"):
            return True
        self.close_connection = True
        self._send_json(HTTPStatus.FORBIDDEN, {"error": f"open {self.server.url} instead"})
        return False

    def _send_json(self, status: HTTPStatus, content: Answer) -> None:
        self._send(status, "application/json", json.dumps(content).encode())

    def _send(self, status: HTTPStatus, kind: str, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing: the terminal is for messages to the user."""
