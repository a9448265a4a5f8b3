"""A web server on this machine with several files, and archives of every kind."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml

from condvae.data.fetching import cards
from condvae.transport.download import Patience


class Site:
    """Files by path, and what went wrong with them: cuts, statuses, redirects."""

    def __init__(self, port):
        self.host = f"http://127.0.0.1:{port}"
        self.files = {}
        self.cuts = []  # after how many bytes each answer in turn is cut
        self.statuses = []  # of each answer in turn
        self.redirects = {}
        self.requests = []  # (path, range) of each request

    def paths(self):
        return [path for path, _ in self.requests]


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        site, path = self.server.site, self.path.lstrip("/")
        asked = self.headers.get("Range")
        site.requests.append((path, asked))
        if site.statuses and (status := site.statuses.pop(0)) != 200:
            return self.send_error(status)
        if path in site.redirects:
            self.send_response(302)
            self.send_header("Location", site.redirects[path])
            self.send_header("Content-Length", "0")
            return self.end_headers()
        if path not in site.files:
            return self.send_error(404)
        content = site.files[path]
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start:][: site.cuts.pop(0) if site.cuts else None])
        self.close_connection = True
        return None


@pytest.fixture
def site(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.site = Site(server.server_port)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server.site
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def patience():
    return Patience(attempts=2, connect_seconds=2.0, silence_seconds=2.0, pause_seconds=0.01)


@pytest.fixture
def write_cards(tmp_path, monkeypatch):
    """Registers data sets in place of the real ones."""

    def write(**entries):
        package = tmp_path / "package"
        package.mkdir(exist_ok=True)
        (package / "cards.yaml").write_text(yaml.safe_dump(entries))
        monkeypatch.setattr(cards, "files", lambda _: package)

    return write


def make_tar(members, *, compressed=True):
    """Bytes of a tar; `members` are (name, content), or TarInfo for what has no content."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                tar.addfile(info, io.BytesIO(member[1]))
    return gzip.compress(buffer.getvalue()) if compressed else buffer.getvalue()


def make_zip(members):
    """Bytes of a zip; `members` are (name or ZipInfo, content)."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.fixture(name="make_tar")
def tar_maker():
    return make_tar


@pytest.fixture(name="make_zip")
def zip_maker():
    return make_zip
