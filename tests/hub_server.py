"""A stand-in for the Hugging Face hub on this machine, for the fixture `hub`."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

STORED_APART = (".safetensors", ".png", ".npz", ".tar")  # these have a sha256, others a git id


def hash_as_git(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Hub:
    """Repositories with commits, and what went wrong with their files.

    `cuts` holds by path, for each body in turn, after how many bytes it is cut; `damaged` by path what
    is served in place of what is listed. Repositories in `gated` say nothing, those in `guarded` list
    their files and refuse them.
    """

    def __init__(self):
        self.repositories = {}
        self.gated, self.guarded = set(), set()
        self.cuts = {}
        self.damaged = {}
        self.requests = []  # (method, path, headers)
        self.cdn = None

    def commit(self, repository, files, *, kind="models", tags=(), branch="main"):
        """Add a commit and let a branch point at it; returns the commit."""
        known = self.repositories.setdefault((kind, repository), {"commits": {}, "branches": {}})
        listing = {path: hash_as_git(content) for path, content in files.items()}
        sha = hashlib.sha1(json.dumps([listing, branch]).encode()).hexdigest()
        known["commits"][sha] = dict(files)
        known["branches"][branch] = sha
        known["tags"] = list(tags)
        return sha

    def fetched(self):
        """Paths of files that were asked for, in order of their names."""
        found = [p.split("/resolve/", 1)[1] for _, p, _ in self.requests if "/resolve/" in p]
        return sorted(path.split("/", 1)[1] for path in found)

    def start(self):
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self.server.daemon_threads = True
        self.server.hub = self
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        self.cdn = self.cdn or self.address
        self.thread = threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.02}
        )
        self.thread.start()

    def stop(self):
        if self.thread is not None:
            self.server.shutdown()
            self.server.server_close()
            self.thread.join()
            self.thread = None


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        hub = self.server.hub
        path = urlsplit(self.path).path
        hub.requests.append(("GET", unquote(path), dict(self.headers)))
        if path.startswith("/api/"):
            return self.answer_question(path.removeprefix("/api/").split("/"))
        if path.startswith("/cdn/"):
            kind, owner, name, sha, *rest = path.removeprefix("/cdn/").split("/")
            content = hub.repositories[kind, f"{owner}/{name}"]["commits"][sha][
                unquote("/".join(rest))
            ]
            return self.send_content(unquote("/".join(rest)), content)
        parts = path.lstrip("/").split("/")
        kind = "datasets" if parts[0] == "datasets" else "models"
        owner, name, _, sha, *rest = parts[kind == "datasets" :]
        if f"{owner}/{name}" in hub.guarded:
            return self.refuse(401, "GatedRepo")
        file = unquote("/".join(rest))
        content = hub.repositories[kind, f"{owner}/{name}"]["commits"][sha][file]
        if not file.endswith(STORED_APART):
            return self.send_content(file, content)
        self.send_response(302)
        self.send_header("Location", f"{hub.cdn}/cdn/{kind}/{owner}/{name}/{sha}/{'/'.join(rest)}")
        self.send_header("Content-Length", "0")
        return self.end_headers()

    def answer_question(self, parts):
        if parts[0] not in ("models", "datasets"):  # asked for by the library itself
            return self.refuse(404, "")
        hub, (kind, owner, name, *rest) = self.server.hub, parts
        known = hub.repositories.get((kind, f"{owner}/{name}"))
        if known is None:
            return self.refuse(404, "RepoNotFound")
        if f"{owner}/{name}" in hub.gated:
            return self.refuse(403, "GatedRepo")
        revision = unquote(rest[1]) if rest else "main"
        sha = known["branches"].get(revision, revision)
        if sha not in known["commits"]:
            return self.refuse(404, "RevisionNotFound")
        if not rest or rest[0] == "revision":
            return self.send_json({"id": f"{owner}/{name}", "sha": sha, "tags": known["tags"]})
        inside = unquote("/".join(rest[2:]))
        files = known["commits"][sha]
        listed = [p for p in files if not inside or p.startswith(f"{inside}/")]
        if not listed:
            return self.refuse(404, "EntryNotFound")
        return self.send_json([self.describe(path, files[path]) for path in listed])

    def describe(self, path, content):
        entry = {"type": "file", "path": path, "size": len(content), "oid": hash_as_git(content)}
        if path.endswith(STORED_APART):
            sha256 = hashlib.sha256(content).hexdigest()
            entry["lfs"] = {"oid": sha256, "size": len(content), "pointerSize": 130}
        return entry

    def refuse(self, status, code):
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def send_json(self, value):
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def send_content(self, path, content):
        hub, asked = self.server.hub, self.headers.get("Range")
        content = hub.damaged.get(path, content)
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        cuts = hub.cuts.get(path)
        self.wfile.write(content[start:][: cuts.pop(0) if cuts else None])
        self.close_connection = True
