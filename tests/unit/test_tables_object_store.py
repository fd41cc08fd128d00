"""The conditional puts of :class:`ObjectPlace`, against obstore's store in memory and an S3 that refuses."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import obstore
import pytest
from obstore.store import MemoryStore

from batchscore.errors import SettingsError
from batchscore.tables import Conflict
from batchscore.tables.places import Held, ObjectPlace
from batchscore.tables.pointer import POINTER


@pytest.fixture
def place(monkeypatch):
    store = MemoryStore()
    monkeypatch.setattr("obstore.store.from_url", lambda _: store)
    return ObjectPlace("memory://")


def test_the_first_pointer_is_put_where_there_is_none(place):
    assert place.read() is None
    place.swap(b"one", None)
    assert place.read().data == b"one"
    with pytest.raises(Conflict):
        place.swap(b"two", None)
    assert place.read().data == b"one"


def test_what_was_read_decides(place):
    place.swap(b"one", None)
    held = place.read()
    place.swap(b"two", held)
    with pytest.raises(Conflict):
        place.swap(b"three", held)
    assert place.read().data == b"two"


def test_many_threads_lose_no_update(place):
    place.swap(b"0", None)
    landed = []

    def add():
        while True:
            held = place.read()
            try:
                place.swap(str(int(held.data) + 1).encode(), held)
            except Conflict:
                continue
            landed.append(1)
            return

    threads = [threading.Thread(target=add) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (place.read().data, len(landed)) == (b"16", 16)


class Refusing(BaseHTTPRequestHandler):
    """An S3 that refuses everybody and keeps what it was asked."""

    def _refuse(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append((self.command, self.path, dict(self.headers)))
        self.send_response(403)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_PUT = _refuse  # noqa: N815  # the names that http.server calls

    def log_message(self, *_):
        pass


@pytest.fixture
def refusing(monkeypatch):
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        server.asked = []
        threading.Thread(target=server.serve_forever).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        for name, value in {
            "ALLOW_HTTP": "true",
            "ACCESS_KEY_ID": "me",
            "SECRET_ACCESS_KEY": "s",
            "REGION": "eu",
        }.items():
            monkeypatch.setenv(f"AWS_{name}", value)
        yield server.asked
        server.shutdown()


def test_s3_is_asked_with_the_environments_credentials_and_on_condition(refusing):
    place = ObjectPlace("s3://bucket/some/table")
    with pytest.raises(SettingsError, match="s3://bucket/some/table could not be read"):
        place.read()
    with pytest.raises(OSError, match="403"):
        place.swap(b"one", None)
    with pytest.raises(OSError, match="403"):
        place.swap(b"two", Held(b"one", {"e_tag": '"abc"'}))
    assert {path for _, path, _ in refusing} == {f"/bucket/some/table/{POINTER}"}
    assert all("Credential=me/" in headers["authorization"] for _, _, headers in refusing)
    conditions = [
        {name: value for name, value in headers.items() if name in ("if-match", "if-none-match")}
        for command, _, headers in refusing
        if command == "PUT"
    ]
    assert conditions == [{"if-none-match": "*"}, {"if-match": '"abc"'}]


def test_the_token_goes_with_the_put(place, monkeypatch):
    place.swap(b"one", None)
    modes = []
    put = obstore.put
    monkeypatch.setattr(place, "_put", lambda *args, **options: modes.append(options["mode"]) or put(*args, **options))
    place.swap(b"two", place.read())
    assert modes == [{"e_tag": '"0"'}]
