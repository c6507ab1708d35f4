"""A little Hugging Face hub on this machine: repositories in memory, commits, branches, private ones, tokens."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import threading
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

TOKEN = "hf_atokenofthistest"


@dataclass
class Repo:
    """Commits, oldest first, as id -> files; branches and tags by name."""

    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        """A new commit on a branch with these files changed."""
        before = self.commits.get(self.refs.get(branch, ""), {})
        name = hashlib.sha1(f"{len(self.commits)}".encode()).hexdigest()
        self.commits[name] = before | files
        self.refs[branch] = name
        return name


@dataclass
class Hub:
    """The server's state.

    Attributes:
        repos: by `owner/name`.
        unknown: requests that it had no answer for.
        served: files that were fetched.
        failing: every answer is this status, where set.
    """

    address: str = ""
    repos: dict[str, Repo] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    served: list[str] = field(default_factory=list)
    failing: int | None = None


def blob(content: bytes) -> str:
    """The id that git gives a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """The few calls that huggingface_hub makes to send and fetch a folder."""

    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Silent."""

    def answer(self, value: Any = None, status: int = 200, body: bytes | None = None, **headers: str) -> None:
        text = json.dumps(value).encode() if body is None else body
        self.send_response(status)
        for name, content in headers.items():
            self.send_header(name.replace("_", "-"), content)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    def fail(self, status: int, code: str = "") -> None:
        self.answer({"error": code or str(status)}, status, **({"X_Error_Code": code} if code else {}))

    def known(self, name: str) -> Repo | None:
        """The repository, where the caller may see it."""
        repo = self.hub.repos.get(name)
        if repo is None or (repo.private and self.headers.get("Authorization") != f"Bearer {TOKEN}"):
            self.fail(401 if repo is None else 404, "RepoNotFound")
            return None
        return repo

    def do_POST(self) -> None:
        """Making a repository, checking a card, announcing files, committing them."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urllib.parse.unquote(urllib.parse.urlparse(self.path).path)
        parts = path.strip("/").split("/")
        if self.hub.failing:
            self.fail(self.hub.failing)
        elif path == "/api/validate-yaml":
            self.answer({"errors": [], "warnings": []})
        elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.fail(401)
        elif path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            private = asked.get("private") is True or asked.get("visibility") == "private"
            if name in self.hub.repos:
                self.answer({"url": f"{self.hub.address}/{name}", "error": "exists"}, 409)
                return
            repo = self.hub.repos[name] = Repo(private)
            repo.commit({".gitattributes": b""})
            self.answer({"url": f"{self.hub.address}/{name}"})
        elif parts[:2] == ["api", "models"] and parts[4:5] == ["preupload"]:
            files = [{"path": one["path"], "uploadMode": "regular", "shouldIgnore": False}
                     for one in json.loads(body)["files"]]  # fmt: skip
            self.answer({"files": files})
        elif parts[:2] == ["api", "models"] and parts[4:5] == ["commit"]:
            name, branch = "/".join(parts[2:4]), "/".join(parts[5:])
            if branch not in self.hub.repos[name].refs:
                self.fail(404, "RevisionNotFound")
                return
            lines = [json.loads(line) for line in body.splitlines()]
            files = {one["value"]["path"]: base64.b64decode(one["value"]["content"])
                     for one in lines if one["key"] == "file"}  # fmt: skip
            done = self.hub.repos[name].commit(files, branch)
            self.answer({"commitUrl": f"{self.hub.address}/{name}/commit/{done}", "commitOid": done,
                         "pullRequestUrl": None})  # fmt: skip
        else:
            self.hub.unknown.append(f"POST {self.path}")
            self.fail(404)

    def do_GET(self) -> None:
        """What a repository is, its files, and one of them."""
        path = urllib.parse.unquote(urllib.parse.urlparse(self.path).path)
        parts = path.strip("/").split("/")
        if self.hub.failing:
            self.fail(self.hub.failing)
        elif parts[:2] == ["api", "models"]:
            repo = self.known("/".join(parts[2:4]))
            if repo is not None:
                revision = parts[5] if len(parts) > 5 else "main"
                self.describe("/".join(parts[2:4]), repo, revision, tree=parts[4:5] == ["tree"])
        elif parts[2:3] == ["resolve"]:
            repo = self.known("/".join(parts[:2]))
            if repo is not None:
                self.file(repo, parts[3], "/".join(parts[4:]))
        else:
            self.hub.unknown.append(f"{self.command} {self.path}")
            self.fail(404)

    do_HEAD = do_GET

    def describe(self, name: str, repo: Repo, revision: str, *, tree: bool) -> None:
        commit = repo.refs.get(revision, revision)
        if commit not in repo.commits:
            self.fail(404, "RevisionNotFound")
            return
        files = repo.commits[commit]
        if tree:
            self.answer([{"type": "file", "path": path, "size": len(content), "oid": blob(content)}
                         for path, content in files.items()])  # fmt: skip
            return
        self.answer({"id": name, "modelId": name, "sha": commit, "private": repo.private, "tags": [],
                     "siblings": [{"rfilename": path} for path in files]})  # fmt: skip

    def file(self, repo: Repo, revision: str, path: str) -> None:
        commit = repo.refs.get(revision, revision)
        content = repo.commits.get(commit, {}).get(path)
        if content is None:
            self.fail(404, "EntryNotFound")
            return
        if self.command == "GET":
            self.hub.served.append(path)
        self.answer(body=content, X_Repo_Commit=commit, ETag=f'"{blob(content)}"', Content_Type="application/x-binary")


@contextlib.contextmanager
def fake_hub(cache: Path, token: str | None = TOKEN) -> Iterator[Hub]:
    """Within the block huggingface_hub speaks with this hub alone and keeps its files in `cache`."""
    import huggingface_hub.constants as constants

    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Its", (Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "ENDPOINT", hub.address)
        patch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.address + "/{repo_id}/resolve/{revision}/{filename}"
        )
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        patch.setattr(constants, "HF_HUB_CACHE", str(cache))
        patch.setattr(constants, "HF_TOKEN_PATH", str(cache / "no-token"))
        for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            patch.delenv(name, raising=False)
        patch.setenv("NO_PROXY", "127.0.0.1")
        if token is None:
            patch.delenv("HF_TOKEN", raising=False)
        else:
            patch.setenv("HF_TOKEN", token)
        try:
            yield hub
        finally:
            server.shutdown()
            server.server_close()
