"""A stand-in for the Hub on loopback: accounts, repositories, LFS uploads, commits and downloads.

It implements the part of the Hub's API that `huggingface_hub` uses for this package and transformers, checks tokens, sizes and
SHA-256, that a commit refers to uploaded objects only, and can interrupt uploads.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import yaml

LFS_SUFFIXES = (".safetensors", ".parquet")
KINDS = {"models": "", "datasets": "datasets/"}


@dataclass
class Repository:
    private: bool
    files: dict[str, bytes] = field(default_factory=lambda: {".gitattributes": b"*.safetensors filter=lfs\n"})
    commits: list[str] = field(default_factory=lambda: ["initial commit"])

    @property
    def sha(self) -> str:
        return hashlib.sha1(repr(self.commits).encode()).hexdigest()


class RequestError(Exception):
    """Ends a request with a status, a message and perhaps one of the Hub's error codes."""

    def __init__(self, status: int, message: str, code: str = "") -> None:
        self.status, self.message, self.code = status, message, code


@dataclass
class Hub:
    """The state of the stand-in.

    Fields:
        accounts: token -> the answer of whoami.
        break_uploads: the number of uploads of objects that are still to be cut off.
        gate: uploads wait for it.
        refuse: status and message with which the next commit is refused.
        requests: method and path of every request.
    """

    url: str = ""
    accounts: dict[str, dict] = field(default_factory=dict)
    repositories: dict[str, Repository] = field(default_factory=dict)  # by kind and id, as in "models/me/clvp"
    objects: dict[str, bytes] = field(default_factory=dict)
    break_uploads: int = 0
    gate: threading.Event = field(default_factory=threading.Event)
    refuse: tuple[int, str] | None = None
    requests: list[str] = field(default_factory=list)

    def account(self, token: str, name: str, role: str = "write", organizations: dict[str, str] | None = None) -> None:
        orgs = [{"name": org, "roleInOrg": role, "type": "org"} for org, role in (organizations or {}).items()]
        auth = {"type": "access_token", "accessToken": {"displayName": "test", "role": role}}
        self.accounts[token] = {"type": "user", "name": name, "fullname": name, "orgs": orgs, "auth": auth}

    def namespaces(self, token: str, write: bool = False) -> set[str]:
        """The namespaces in which a token may read or write."""
        user = self.accounts.get(token)
        if user is None or (write and user["auth"]["accessToken"]["role"] != "write"):
            return set()
        return {user["name"], *(org["name"] for org in user["orgs"] if not write or org["roleInOrg"] != "read")}


@contextmanager
def hub_stand_in() -> Iterator[Hub]:
    hub = Hub()
    hub.gate.set()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("BoundHandler", (Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self._route(self.command.replace("HEAD", "GET"))

    do_HEAD = do_POST = do_PUT = do_GET

    def _route(self, method: str) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        routes = ((handler, re.fullmatch(pattern, path)) for m, pattern, handler in ROUTES if m == method)
        handler, match = next(((handler, match) for handler, match in routes if match), (None, None))
        try:
            if handler is None:
                raise RequestError(404, f"no such page: {method} {path}")
            handler(self, **match.groupdict())
        except RequestError as error:
            headers = {"X-Error-Message": error.message} | ({"X-Error-Code": error.code} if error.code else {})
            self._json({"error": error.message}, error.status, headers)

    @property
    def token(self) -> str:
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ")

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _json(self, value: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._bytes(json.dumps(value).encode(), status, {"Content-Type": "application/json"} | (headers or {}))

    def _bytes(self, data: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(data))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _repository(self, kind: str, name: str, write: bool = False) -> Repository:
        """The repository, if it exists and the token may read it, or write to it."""
        repository = self.hub.repositories.get(f"{kind}/{name}")
        is_visible = repository and (not repository.private or name.split("/")[0] in self.hub.namespaces(self.token))
        if not is_visible:
            raise RequestError(404, "Repository not found", "RepoNotFound")
        if write:
            self._check_write(name)
        return repository

    def _check_write(self, name: str) -> None:
        if name.split("/")[0] not in self.hub.namespaces(self.token, write=True):
            status = 403 if self.token in self.hub.accounts else 401
            raise RequestError(status, f"You don't have the rights to write to {name}")

    def whoami(self) -> None:
        if self.token not in self.hub.accounts:
            raise RequestError(401, "Invalid username or password.")
        self._json(self.hub.accounts[self.token])

    def validate(self) -> None:
        try:
            metadata = yaml.safe_load(json.loads(self._body())["content"].split("---")[1])
            languages = metadata.get("language") or []
            errors = [] if metadata["license"].islower() else ["license must be lower case"]
            for language in [languages] if isinstance(languages, str) else languages:
                if len(language) != 2:  # here no language has another code
                    errors.append(f'language "{language}" is not valid.\nIt must be an ISO 639 code')
        except (IndexError, KeyError, TypeError, yaml.YAMLError):
            errors = ["bad metadata"]
        self._json({"errors": [{"message": error} for error in errors], "warnings": []}, 400 if errors else 200)

    def create(self) -> None:
        body = json.loads(self._body())
        name = f"{body['organization'] or self.hub.accounts[self.token]['name']}/{body['name']}"
        kind = f"{body.get('type', 'model')}s"
        self._check_write(name)
        exists = f"{kind}/{name}" in self.hub.repositories
        if not exists:
            is_private = body.get("visibility") == "private" or body.get("private") is True
            self.hub.repositories[f"{kind}/{name}"] = Repository(is_private)
        self._json({"url": f"{self.hub.url}/{KINDS[kind]}{name}"}, 409 if exists else 200)

    def info(self, kind: str, name: str, revision: str = "main") -> None:
        repository = self._repository(kind, name)
        siblings = [{"rfilename": path} for path in repository.files]
        answer = {"id": name, "sha": repository.sha, "private": repository.private, "siblings": siblings, "tags": []}
        self._json(answer)

    def tree(self, kind: str, name: str, revision: str) -> None:
        entries = []
        for path, data in self._repository(kind, name).files.items():
            entries.append({"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()})
            if path.endswith(LFS_SUFFIXES):
                digest = hashlib.sha256(data).hexdigest()
                entries[-1]["lfs"] = {"size": len(data), "oid": digest, "pointerSize": 130}
        self._json(entries)

    def auth_check(self, kind: str, name: str, write: str | None) -> None:
        self._repository(kind, name, write=b"write" in self._body() or write is not None)
        self._json({})

    def preupload(self, kind: str, name: str, revision: str) -> None:
        paths = [file["path"] for file in json.loads(self._body())["files"]]
        self._repository(kind, name, write=True)
        modes = {path: "lfs" if path.endswith(LFS_SUFFIXES) else "regular" for path in paths}
        self._json({"files": [{"path": p, "uploadMode": mode, "shouldIgnore": False} for p, mode in modes.items()]})

    def lfs_batch(self, name: str) -> None:
        objects = json.loads(self._body())["objects"]
        self._check_write(name.removeprefix("datasets/"))
        for item in objects:
            if item["oid"] not in self.hub.objects:
                item["actions"] = {"upload": {"href": f"{self.hub.url}/lfs-objects/{item['oid']}"}}
        self._json({"transfer": "basic", "objects": objects})

    def upload(self, oid: str) -> None:
        length = int(self.headers["Content-Length"])
        self.hub.gate.wait(60)
        if self.hub.break_uploads > 0:
            self.hub.break_uploads -= 1
            self.rfile.read(length // 2)
            self.close_connection = True
            self.connection.close()
            return
        data = self.rfile.read(length)
        if hashlib.sha256(data).hexdigest() != oid:
            raise RequestError(400, "the digest of the object is not its name")
        self.hub.objects[oid] = data
        self._bytes(b"")

    def commit(self, kind: str, name: str, revision: str) -> None:
        lines = [json.loads(line) for line in self._body().splitlines()]
        repository = self._repository(kind, name, write=True)
        if self.hub.refuse is not None:
            refused, self.hub.refuse = self.hub.refuse, None
            raise RequestError(*refused)
        files, title = dict(repository.files), ""
        for line in lines:
            match line["key"], line["value"]:
                case "header", value:
                    title = value["summary"]
                case "file", value:
                    files[value["path"]] = base64.b64decode(value["content"], validate=True)
                case "lfsFile", value:
                    files[value["path"]] = self.hub.objects.get(value["oid"], b"")
                    if len(files[value["path"]]) != value["size"]:
                        raise RequestError(400, f"{value['path']}: the object was not uploaded")
                case "deletedFile", value:
                    del files[value["path"]]
                case operation, _:
                    raise RequestError(400, f"unknown operation {operation}")
        repository.files, repository.commits = files, [*repository.commits, title]
        url = f"{self.hub.url}/{KINDS[kind]}{name}/commit/{repository.sha}"
        self._json({"success": True, "commitOid": repository.sha, "commitUrl": url})

    def resolve(self, prefix: str | None, name: str, revision: str, path: str) -> None:
        repository = self._repository("datasets" if prefix else "models", name)
        headers, data = {"X-Repo-Commit": repository.sha}, repository.files.get(path)
        if data is None:
            self._bytes(b"", 404, headers | {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"})
        else:
            digest = hashlib.sha256(data).hexdigest()
            self._bytes(data, 200, headers | {"ETag": f'"{digest}"', "Accept-Ranges": "none"})


NAME = r"(?P<name>[^/]+/[^/]+)"
REPOSITORY = rf"/api/(?P<kind>models|datasets)/{NAME}"
ROUTES = (
    ("GET", "/api/whoami-v2", Handler.whoami),
    ("POST", "/api/validate-yaml", Handler.validate),
    ("POST", "/api/repos/create", Handler.create),
    ("GET", rf"{REPOSITORY}(?:/revision/(?P<revision>[^/]+))?", Handler.info),
    ("GET", rf"{REPOSITORY}/tree/(?P<revision>[^/]+)/?", Handler.tree),
    *((method, rf"{REPOSITORY}/auth-check(?P<write>/write)?", Handler.auth_check) for method in ("GET", "POST")),
    ("POST", rf"{REPOSITORY}/preupload/(?P<revision>[^/]+)", Handler.preupload),
    ("POST", r"/(?P<name>(?:datasets/)?[^/]+/[^/]+)\.git/info/lfs/objects/batch", Handler.lfs_batch),
    ("PUT", r"/lfs-objects/(?P<oid>[0-9a-f]{64})", Handler.upload),
    ("POST", rf"{REPOSITORY}/commit/(?P<revision>[^/]+)", Handler.commit),
    ("GET", rf"/(?P<prefix>datasets/)?{NAME}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", Handler.resolve),
)
