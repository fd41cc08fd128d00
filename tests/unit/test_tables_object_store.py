"""The conditional puts of :class:`ObjectPlace`, against obstore's store in memory."""

from __future__ import annotations

import threading

import obstore
import pytest
from obstore.store import LocalStore, MemoryStore

from batchscore.errors import UnavailableError
from batchscore.tables import Conflict
from batchscore.tables.places import ObjectPlace
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


def test_a_store_that_does_not_answer_is_unavailable(monkeypatch, tmp_path):
    monkeypatch.setattr("obstore.store.from_url", lambda _: LocalStore(tmp_path))
    (tmp_path / POINTER).mkdir(parents=True)
    with pytest.raises(UnavailableError, match="could not be read"):
        ObjectPlace("file://").read()


def test_the_token_goes_with_the_put(place, monkeypatch):
    place.swap(b"one", None)
    modes = []
    put = obstore.put
    monkeypatch.setattr(place, "_put", lambda *args, **options: modes.append(options["mode"]) or put(*args, **options))
    place.swap(b"two", place.read())
    assert modes == [{"e_tag": '"0"'}]
