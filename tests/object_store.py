"""A real S3 server (moto's, a process of its own) and a front before it that fails where a test says so.

Both are processes of their own: some calls of delta-rs hold Python's lock while they wait for an answer. Clients talk
to the front alone. It knows one pair of keys and refuses others as the real service does: with a text that
quotes the whole request, session token included.
"""

from __future__ import annotations

import http.client
import json
import random
import re
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

CONTROL = "/__front__"  # no bucket's name
START_SECONDS = 60
STALL_SECONDS = 120.0
LATE_SECONDS = 8.0
SLOW_PIECES = 8
SLOW_SECONDS = 0.05
ACCESS_KEY, SECRET_KEY = "AKIATESTKEY", "secret-CANARY-4f1c9e"

Kind = Literal[
    "error", "slow_down", "reset", "stall", "slow", "cut", "truncated", "landed", "late", "denied", "expired"
]
CODES = {
    "error": (500, "InternalError"),
    "landed": (500, "InternalError"),
    "late": (500, "InternalError"),
    "slow_down": (503, "SlowDown"),
    "denied": (403, "AccessDenied"),
    "expired": (400, "ExpiredToken"),
}


@dataclass
class Fault:
    """What befalls requests whose ``METHOD path`` the pattern finds.

    Attributes:
        kind: ``error`` and ``slow_down`` answer 500 and 503, ``denied`` 403, ``expired`` 400, and nothing is done;
            ``landed`` does it and answers 500; ``late`` answers 500 and does it seconds later; ``reset`` drops the
            connection; ``cut`` drops it in the middle of the request's body; ``stall`` never answers; ``slow`` answers
            bit by bit; ``truncated`` keeps half of what is put and answers 200, as no store should.
        pattern: searched for in the method and the path with its query.
        times: how many requests; None: all.
        share: the part of the requests that it befalls.
    """

    kind: Kind
    pattern: str
    times: int | None = None
    share: float = 1.0
    hits: int = 0

    def takes(self, request: str, chance: random.Random) -> bool:
        if self.times is not None and self.hits >= self.times:
            return False
        if re.search(self.pattern, request) is None or chance.random() >= self.share:
            return False
        self.hits += 1
        return True


@dataclass
class Front:
    """The address that clients use, and what is to befall them: a test's end of it."""

    endpoint: str
    backend: tuple[str, int]
    access_key: str
    secret_key: str
    faults: list[Fault] = field(default_factory=list)

    @contextmanager
    def failing(self, kind: Kind, pattern: str, times: int | None = None, share: float = 1.0) -> Iterator[Fault]:
        """While it is entered, requests that the pattern finds fail."""
        fault = Fault(kind, pattern, times, share)
        self.faults.append(fault)
        self._tell()
        try:
            yield fault
        finally:
            self._tell()  # brings the hits
            self.faults.remove(fault)
            self._tell()

    def clear(self) -> None:
        self.faults.clear()
        self._tell()

    def _tell(self) -> None:
        """Hands the faults over and takes the hits that they have had."""
        host, _, port = self.endpoint.partition("://")[2].partition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=30)
        connection.request("POST", CONTROL, json.dumps([asdict(fault) for fault in self.faults]))
        for fault, hits in zip(self.faults, json.loads(connection.getresponse().read()), strict=True):
            fault.hits = hits
        connection.close()

    def environment(self) -> dict[str, str]:
        """What a user of the store exports."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": "eu-central-1",
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def make_bucket(self, name: str) -> None:
        connection = http.client.HTTPConnection(*self.backend, timeout=30)
        connection.request("PUT", f"/{name}")
        assert connection.getresponse().status == 200
        connection.close()

    def keys(self, bucket: str, prefix: str = "") -> list[str]:
        """Keys of all objects, as the server itself lists them."""
        connection = http.client.HTTPConnection(*self.backend, timeout=30)
        connection.request("GET", f"/{bucket}?list-type=2&prefix={prefix}&max-keys=1000")
        text = connection.getresponse().read().decode()
        connection.close()
        return re.findall(r"<Key>([^<]*)</Key>", text)


class _State:
    """What the front's own process knows."""

    def __init__(self, backend: tuple[str, int], access_key: str) -> None:
        self.backend, self.access_key = backend, access_key
        self.faults: list[Fault] = []
        self._lock = threading.Lock()
        self._chance = random.Random(7)  # no secret

    def fault_of(self, request: str) -> Fault | None:
        with self._lock:
            return next((fault for fault in self.faults if fault.takes(request, self._chance)), None)

    def take(self, given: list[dict[str, Any]]) -> list[int]:
        """Faults that are known already keep their hits, which are returned."""
        with self._lock:
            known = {(fault.kind, fault.pattern): fault.hits for fault in self.faults}
            self.faults = [Fault(**facts) for facts in given]
            for fault in self.faults:
                fault.hits = known.get((fault.kind, fault.pattern), 0)
            return [fault.hits for fault in self.faults]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Any

    def log_message(self, *args: object) -> None:
        """Nothing: pytest shows what a test prints."""

    def serve(self) -> None:
        front: _State = self.server.state
        if self.path == CONTROL:
            self._write_json(front.take(json.loads(self._body())))
            return
        fault = front.fault_of(f"{self.command} {self.path}")
        kind = fault.kind if fault is not None else None
        if kind == "cut":
            self.rfile.read(int(self.headers.get("Content-Length") or 2) // 2)
        if kind in {"cut", "reset"}:
            self._drop()
            return
        body = self._body()
        if kind == "stall":
            time.sleep(STALL_SECONDS)
            self._drop()
        elif f"Credential={front.access_key}/" not in (self.headers.get("Authorization") or ""):
            self._refuse()
        elif kind in {"error", "slow_down", "denied", "expired", "late"}:
            if kind == "late":
                request = (self.command, self.path, body, self._headers())
                threading.Timer(LATE_SECONDS, self._ask, request).start()
            self._answer_error(*CODES[kind])
        else:
            self._forward(body, kind)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = serve  # noqa: N815  # the library's names

    def _body(self) -> bytes:
        if "chunked" not in (self.headers.get("Transfer-Encoding") or ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(parts)

    def _forward(self, body: bytes, kind: str | None) -> None:
        if kind == "truncated":
            body = body[: len(body) // 2]
        headers = self._headers(with_checksums=kind != "truncated")
        answer, content = self._ask(self.command, self.path, body, headers)
        if kind == "landed":
            self._answer_error(*CODES["landed"])
            return
        self.send_response(answer.status)
        length = answer.headers.get("Content-Length") if self.command == "HEAD" else str(len(content))
        for name, value in answer.headers.items():
            if name.lower() not in {"connection", "transfer-encoding", "content-length", "date", "server"}:
                self.send_header(name, value)
        self.send_header("Content-Length", length or "0")
        self.end_headers()
        self._write(content if self.command != "HEAD" else b"", slow=kind == "slow")

    def _headers(self, *, with_checksums: bool = True) -> dict[str, str]:
        """Those of the request that are not of the connection."""
        left_out = {"connection", "transfer-encoding", "expect", "content-length"}
        if not with_checksums:
            left_out |= {"content-md5", "x-amz-content-sha256", "x-amz-trailer", "x-amz-decoded-content-length"}
            left_out |= {name.lower() for name in self.headers if name.lower().startswith("x-amz-checksum")}
        return {name: value for name, value in self.headers.items() if name.lower() not in left_out}

    def _ask(
        self, method: str, path: str, body: bytes, headers: dict[str, str]
    ) -> tuple[http.client.HTTPResponse, bytes]:
        connection = http.client.HTTPConnection(*self.server.state.backend, timeout=60)
        try:
            connection.request(method, path, body, {**headers, "Content-Length": str(len(body))})
            answer = connection.getresponse()
            return answer, answer.read()
        finally:
            connection.close()

    def _write(self, content: bytes, *, slow: bool) -> None:
        step = max(1, len(content) // SLOW_PIECES) if slow else max(1, len(content))
        for start in range(0, len(content), step):
            self.wfile.write(content[start : start + step])
            self.wfile.flush()
            if slow:
                time.sleep(SLOW_SECONDS)

    def _write_json(self, answer: object) -> None:
        content = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _answer_error(self, status: int, code: str, message: str = "as the test wants it", more: str = "") -> None:
        text = f'<?xml version="1.0"?>\n<Error><Code>{code}</Code><Message>{message}</Message>{more}</Error>'
        content = b"" if self.command == "HEAD" else text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _refuse(self) -> None:
        """As the real service: the canonical request holds the session token."""
        quoted = "\n".join(f"{name.lower()}:{value}" for name, value in self.headers.items())
        more = f"<AWSAccessKeyId>x</AWSAccessKeyId><CanonicalRequest>{quoted}</CanonicalRequest>"
        self._answer_error(403, "SignatureDoesNotMatch", "The request signature does not match", more)

    def _drop(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    state: _State

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away while it was answered is part of the tests."""


@contextmanager
def serving(folder: Path) -> Iterator[Front]:
    """Both servers on loopback, for as long as it is entered."""
    root = Path(__file__).resolve().parent.parent
    with (folder / "front.log").open("wb") as log:
        front = subprocess.Popen(
            [sys.executable, "-m", "tests.object_store"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=root,
        )
    with front:
        assert front.stdout is not None
        assert front.stdin is not None
        started = json.loads(front.stdout.readline() or "null")
        assert started is not None, (folder / "front.log").read_text()
        yield Front(started["endpoint"], ("127.0.0.1", started["port"]), ACCESS_KEY, SECRET_KEY)
        front.stdin.close()  # tells it to end
        try:
            front.wait(20)
        finally:
            front.kill()


def main() -> None:
    """The front's own process, with the server as its child; both end with its standard input."""
    port = _free_port()
    backend = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    try:
        _wait(port, backend)
        with _Server(("127.0.0.1", 0), _Handler) as server:
            server.state = _State(("127.0.0.1", port), ACCESS_KEY)
            threading.Thread(target=server.serve_forever, daemon=True).start()
            endpoint = f"http://127.0.0.1:{server.server_address[1]}"
            print(json.dumps({"endpoint": endpoint, "port": port}), flush=True)  # noqa: T201  # tells the test where
            sys.stdin.read()
            server.shutdown()
    finally:
        backend.kill()
        backend.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait(port: int, backend: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and backend.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    raise RuntimeError("moto's server did not start: is moto[s3] installed?")


if __name__ == "__main__":
    main()
