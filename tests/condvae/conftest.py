"""A web server on this machine whose misbehaviour tests can choose."""

from __future__ import annotations

import hashlib
import threading
import time
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from condvae.transport.download import Patience


class Remote:
    """One file on a server, how it is served, and what was asked.

    `cuts` holds for each answer in turn after how many bytes of body the connection is cut; `statuses`
    the status of each answer in turn. What is beyond their ends is served as it should be.
    """

    def __init__(self, content):
        self.content = content
        self.etag = None
        self.date = None
        self.ranges = True
        self.honours_if_range = True
        self.states_length = True
        self.encoding = None
        self.drip = None
        self.cuts = []
        self.statuses = []
        self.retry_after = None
        self.location = None
        self.requests = []
        self.served = 0
        self.port = None
        self.stopping = threading.Event()

    @property
    def host(self):
        return f"http://127.0.0.1:{self.port}"

    @property
    def address(self):
        return f"{self.host}/model.th"

    @property
    def sha256(self):
        return hashlib.sha256(self.content).hexdigest()

    @property
    def validator(self):
        if self.etag is not None:
            return self.etag
        return None if self.date is None else formatdate(self.date, usegmt=True)

    def asked_ranges(self):
        return [request.get("Range") for request in self.requests]

    def span(self, headers):
        """First byte to send, or None for the whole file."""
        asked = headers.get("Range")
        if asked is None or not self.ranges:
            return None
        condition = headers.get("If-Range")
        if condition is not None and self.honours_if_range and condition != self.validator:
            return None
        return int(asked.removeprefix("bytes=").removesuffix("-"))


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        remote = self.server.remote
        remote.requests.append(dict(self.headers))
        if self.path != "/model.th" and remote.location is None:
            return self.send_error(404)
        if remote.statuses and (status := remote.statuses.pop(0)) != 200:
            self.send_response(status)
            if remote.retry_after is not None:
                self.send_header("Retry-After", remote.retry_after)
            self.send_header("Content-Length", "0")
            return self.end_headers()
        if self.path == "/model.th" and remote.location is not None:
            self.send_response(302)
            self.send_header("Location", remote.location)
            self.send_header("Content-Length", "0")
            return self.end_headers()
        start = remote.span(self.headers)
        if start is not None and start >= len(remote.content):
            return self.send_error(416)
        return self.send_body(remote, start)

    def send_body(self, remote, start):
        body = remote.content[start or 0 :]
        self.send_response(200 if start is None else 206)
        if start is not None:
            end, total = len(remote.content) - 1, len(remote.content)
            self.send_header("Content-Range", f"bytes {start}-{end}/{total}")
        if remote.etag is not None:
            self.send_header("ETag", remote.etag)
        if remote.date is not None:
            self.send_header("Last-Modified", formatdate(remote.date, usegmt=True))
        if remote.encoding is not None:
            self.send_header("Content-Encoding", remote.encoding)
        if remote.states_length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if remote.drip is not None:
            return self.send_slowly(remote, body)
        cut = remote.cuts.pop(0) if remote.cuts else None
        # Before the client has the last byte: it may look at the count as soon as it does.
        remote.served += len(body[:cut])
        self.wfile.write(body[:cut])
        self.close_connection = True
        return None

    def send_slowly(self, remote, body):
        for byte in body:
            if remote.stopping.is_set():
                return
            try:
                self.wfile.write(bytes([byte]))
            except OSError:  # the client has gone
                return
            time.sleep(remote.drip)


@pytest.fixture
def remote(monkeypatch):
    """A running server with 300,000 bytes, an ETag and ranges."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    remote = Remote(
        b"".join(hashlib.sha256(bytes([i])).digest() for i in range(250)) * 37 + b"abcd"
    )
    remote.etag = '"version one"'
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.remote, remote.port = remote, server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield remote
    remote.stopping.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def patience():
    """Gives up within a second or two."""
    return Patience(
        attempts=3,
        connect_seconds=2.0,
        silence_seconds=2.0,
        least_bytes_per_second=1000.0,
        window_seconds=0.2,
        pause_seconds=0.01,
    )
