"""A stub of the Hub: a small server on 127.0.0.1 that keeps repositories in memory and can be made to fail."""

import base64
import hashlib
import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

LFS_THRESHOLD = 10 * 1024 * 1024
TOKEN = "hf_" + "w" * 34
KIND = r"/api/(?P<kind>models|spaces|datasets)/(?P<id>[\w.-]+/[\w.-]+)"


class Repository:
    """Commits (newest last) as dicts of path to bytes, with tags and pull requests as names of commits."""

    def __init__(self, kind, private, sdk=None):
        self.kind, self.private, self.sdk = kind, private, sdk
        self.commits, self.lfs_paths, self.tags, self.pull_requests, self.messages = {}, set(), {}, {}, []
        self.main = self.commit(None, {".gitattributes": b"*.safetensors filter=lfs\n"}, "initial commit")

    def commit(self, parent, files, message):
        name = hashlib.sha1(f"{parent}{len(self.commits)}{sorted(files)}".encode()).hexdigest()
        self.commits[name] = files
        self.messages.append(message)
        return name

    def resolve(self, revision):
        if revision in ("main", "HEAD"):
            return self.main
        found = self.tags.get(revision) or self.pull_requests.get(revision) or revision
        return found if found in self.commits else None


class StubHub(ThreadingHTTPServer):
    """`requests` logs (method, path, bytes received); `faults` lists what `fail` was told."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.repositories, self.objects, self.requests, self.faults = {}, {}, [], []
        self.lock = threading.RLock()

    def fail(self, method, pattern, how, times=1, said="made to fail"):
        """Let the next `times` requests that match fail: a status, "cut" after half of what they send, or "lost": done,
        and the answer cut.
        """
        self.faults.append([method, pattern, how, times, said])

    def moved(self, method="PUT"):
        """Paths of the logged requests of one method."""
        return [path for kind, path, _ in self.requests if kind == method]

    def files(self, repo_id, revision="main"):
        """Path to bytes of a repository."""
        repository = self.repositories[repo_id]
        return repository.commits[repository.resolve(revision)]


@contextmanager
def stub_hub():
    """A running server."""
    server = StubHub()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


class Refusal(Exception):
    """An answer that ends the work on a request: its text, its status and the Hub's code for it."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.handle_request()

    do_HEAD = do_POST = do_PUT = do_GET

    def handle_request(self):
        length = int(self.headers.get("Content-Length") or 0)
        path = unquote(urlsplit(self.path).path)
        self.query = parse_qs(urlsplit(self.path).query)
        with self.server.lock:
            fault = next(
                (f for f in self.server.faults if f[3] and f[0] == self.command and re.search(f[1], path)), None
            )
            if fault:
                fault[3] -= 1
        if fault and fault[2] == "cut":
            self.rfile.read(length // 2)
            self.close_connection = True
            self.connection.close()
            return
        self.body = self.rfile.read(length)
        with self.server.lock:
            self.server.requests.append((self.command, path, length))
            if fault and fault[2] == "lost":
                self.answer = lambda *unused, **named: self.connection.close()
                self.close_connection = True
                self.route(path)
            elif fault:
                code = {"X-Error-Code": "RepoNotFound"} if fault[2] == 404 else {}
                self.answer({"error": fault[4]}, fault[2], {"Retry-After": "0", **code})
            elif self.headers.get("Authorization", f"Bearer {TOKEN}") != f"Bearer {TOKEN}":
                self.answer({"error": "Invalid credentials in Authorization header"}, 401)
            else:
                try:
                    self.route(path)
                except Refusal as refusal:
                    text, status, code = refusal.args
                    self.answer({"error": text}, status, {"X-Error-Code": code} if code else None)

    def route(self, path):
        for method, pattern, action in (
            ("POST", r"/api/validate-yaml", self.validate),
            ("POST", r"/api/repos/create", self.create),
            ("PUT", r"/lfs/(?P<oid>\w+)", self.put_object),
            ("POST", r"/lfs-verify", self.verify),
            ("POST", r"/(spaces/)?(?P<id>[\w.-]+/[\w.-]+)\.git/info/lfs/objects/batch", self.batch),
            ("POST", KIND + r"/preupload/(?P<revision>.+)", self.preupload),
            ("POST", KIND + r"/commit/(?P<revision>.+)", self.commit),
            ("POST", KIND + r"/tag/(?P<revision>.+)", self.tag),
            ("GET", KIND + r"/refs", self.refs),
            ("GET", KIND + r"/tree/(?P<revision>[^/]+)(/(?P<under>.*))?", self.tree),
            ("GET", KIND + r"(/revision/(?P<revision>.+))?", self.info),
            ("GET", r"/(spaces/)?(?P<id>[\w.-]+/[\w.-]+)/resolve/(?P<revision>[^/]+)/(?P<name>.+)", self.resolve),
        ):
            found = re.fullmatch(pattern, path)
            if found and (method == self.command or (method == "GET" and self.command == "HEAD")):
                action(**{key: value for key, value in found.groupdict().items() if key != "kind"})
                return
        raise Refusal(f"no such address: {path}", 404, None)

    def answer(self, value=None, status=200, headers=None, content=None):
        content = json.dumps(value).encode() if content is None else content
        self.send_response(status)
        for name, text in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, text)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def repository(self, repo_id, write=False):
        """The repository; refused where it is not there, or not for who asks."""
        if write and "Authorization" not in self.headers:
            raise Refusal("Invalid username or password.", 401, None)
        found = self.server.repositories.get(repo_id)
        if found is None or (found.private and "Authorization" not in self.headers):
            raise Refusal("Repository not found", 404, "RepoNotFound")
        return found

    def commit_of(self, repository, revision):
        found = repository.resolve(revision)
        if found is None:
            raise Refusal("Invalid rev id", 404, "RevisionNotFound")
        return found

    def validate(self):
        block = re.match(r"---\n(.*?)\n---", json.loads(self.body)["content"], re.DOTALL)
        try:
            data = yaml.safe_load(block[1]) if block else {}
            wrong = None if isinstance(data.get("license", ""), str) else '"license" must be a string'
        except yaml.YAMLError as error:
            wrong = str(error)
        self.answer({"errors": [{"message": wrong}] if wrong else [], "warnings": []}, 400 if wrong else 200)

    def create(self):
        if "Authorization" not in self.headers:
            raise Refusal("Invalid username or password.", 401, None)
        asked = json.loads(self.body)
        repo_id, kind = f"{asked['organization']}/{asked['name']}", asked.get("type", "model")
        url = {"url": f"{self.server.url}/{'spaces/' * (kind == 'space')}{repo_id}", "name": repo_id}
        if repo_id in self.server.repositories:
            self.answer({"error": "You already created this repo", **url}, 409)
            return
        private = asked.get("private") or asked.get("visibility") == "private"
        self.server.repositories[repo_id] = Repository(kind, bool(private), asked.get("sdk"))
        self.answer(url)

    def info(self, id, revision=None):
        repository = self.repository(id)
        commit = self.commit_of(repository, revision or "main")
        files = repository.commits[commit]
        config = json.loads(files.get("config.json", b"{}"))
        found = {"id": id, "modelId": id, "sha": commit, "private": repository.private, "config": config, "tags": []}
        found["siblings"] = [
            {"rfilename": name} | self.metadata(repository, name, data) for name, data in files.items()
        ]
        self.answer(found)

    def metadata(self, repository, name, data):
        blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        found = {"size": len(data), "blobId": blob}
        if name in repository.lfs_paths:
            found["lfs"] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "pointerSize": 134}
        return found

    def tree(self, id, revision, under=None):
        repository = self.repository(id)
        files = repository.commits[self.commit_of(repository, revision)]
        if under:
            raise Refusal("Entry not found", 404, "EntryNotFound")
        self.answer([{"type": "file", "path": name, "size": len(data), "oid": "0"} for name, data in files.items()])

    def refs(self, id):
        repository = self.repository(id)
        tags = [{"name": t, "ref": f"refs/tags/{t}", "targetCommit": c} for t, c in repository.tags.items()]
        main = {"name": "main", "ref": "refs/heads/main", "targetCommit": repository.main}
        self.answer({"branches": [main], "tags": tags, "converts": []})

    def tag(self, id, revision):
        repository, name = self.repository(id, write=True), json.loads(self.body)["tag"]
        if name in repository.tags:
            raise Refusal("Tag already exists", 409, None)
        repository.tags[name] = self.commit_of(repository, revision)
        self.answer({})

    def preupload(self, id, revision):
        repository = self.repository(id, write=True)
        held, files = repository.commits[repository.main], []
        for asked in json.loads(self.body)["files"]:
            large = asked["size"] > LFS_THRESHOLD or asked["path"].endswith((".safetensors", ".png"))
            found = {"path": asked["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
            if asked["path"] in held:
                known = self.metadata(repository, asked["path"], held[asked["path"]])
                found["oid"] = known["lfs"]["sha256"] if "lfs" in known else known["blobId"]
            files.append(found)
        self.answer({"files": files})

    def batch(self, id):
        objects = []
        for asked in json.loads(self.body)["objects"]:
            if asked["oid"] not in self.server.objects:
                href = {name: {"href": f"{self.server.url}/{path}"} for name, path in
                        (("upload", f"lfs/{asked['oid']}"), ("verify", "lfs-verify"))}  # fmt: skip
                asked["actions"] = href
            objects.append(asked)
        self.answer({"transfer": "basic", "objects": objects})

    def put_object(self, oid):
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise Refusal("digest differs", 400, None)
        self.server.objects[oid] = self.body
        self.answer({})

    def verify(self):
        known = json.loads(self.body)["oid"] in self.server.objects
        self.answer({}, 200 if known else 404)

    def commit(self, id, revision):
        repository = self.repository(id, write=True)
        header, *lines = (json.loads(line) for line in self.body.splitlines())
        parent = header["value"].get("parentCommit", repository.main)
        if parent != repository.main:
            raise Refusal("A commit has happened since. Please refresh and try again.", 412, None)
        files = dict(repository.commits[repository.main])
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.objects[value["oid"]]
                repository.lfs_paths.add(value["path"])
            else:
                files.pop(value["path"])
        made = repository.commit(parent, files, header["value"]["summary"])
        found = {"commitOid": made, "commitUrl": f"{self.server.url}/{id}/commit/{made}", "success": True}
        if "create_pr" in self.query:
            number = len(repository.pull_requests) + 1
            repository.pull_requests[f"refs/pr/{number}"] = made
            found["pullRequestUrl"] = f"{self.server.url}/{id}/discussions/{number}"
        else:
            repository.main = made
        self.answer(found)

    def resolve(self, id, revision, name):
        repository = self.repository(id)
        commit = self.commit_of(repository, revision)
        head = {"X-Repo-Commit": commit}
        if name not in repository.commits[commit]:
            raise Refusal("Entry not found", 404, "EntryNotFound")
        data = repository.commits[commit][name]
        known = self.metadata(repository, name, data)
        head["ETag"] = f'"{known["lfs"]["sha256"] if "lfs" in known else known["blobId"]}"'
        self.answer(headers=head, content=data)
