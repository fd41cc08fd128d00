"""An engine in a process of its own, in the model's environment: Arrow batches over a socket.

Each message is a length (8 bytes), a tag (1 byte) and its body. The child ends when the other end of the socket is
gone, even while the model is at work, so that neither a killed task nor a killed driver leaves it behind.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import pickle
import queue
import socket
import struct
import sys
import threading
import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

    from batchscore.contracts import ModelFiles

HEADER = struct.Struct("<Qc")
LOAD, SCORE, RESULT, ERROR = b"L", b"S", b"R", b"E"
TRACE_LINES = 6


def send(connection: socket.socket, tag: bytes, body: bytes | memoryview) -> None:
    """Sends one message."""
    connection.sendall(HEADER.pack(len(body), tag))
    connection.sendall(body)


def receive(connection: socket.socket) -> tuple[bytes, bytearray]:
    """The next message: its tag and its body.

    Raises:
        EOFError: the other end is gone.
    """
    size, tag = HEADER.unpack(_exactly(connection, HEADER.size))
    return tag, _exactly(connection, size)


def _exactly(connection: socket.socket, size: int) -> bytearray:
    data = bytearray(size)
    view = memoryview(data)
    while view:
        count = connection.recv_into(view)
        if count == 0:
            raise EOFError
        view = view[count:]
    return data


def encoded(batch: pa.RecordBatch) -> pa.Buffer:
    """A batch as an Arrow IPC stream."""
    import pyarrow as pa  # noqa: PLC0415  # the child's own

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue()


def decoded(body: bytearray) -> pa.RecordBatch:
    """The batch of :func:`encoded`."""
    import pyarrow as pa  # noqa: PLC0415  # the child's own

    with pa.ipc.open_stream(pa.py_buffer(body)) as reader:
        return reader.read_next_batch()


def serve(descriptor: int) -> None:
    """Loads the model that the first message names and scores the batches that follow; never returns."""
    connection = socket.socket(fileno=descriptor)
    inbox: queue.SimpleQueue[tuple[bytes, bytearray]] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(connection, inbox), daemon=True).start()
    engine = None
    while True:
        tag, body = inbox.get()
        try:
            if tag == LOAD:
                module, files, threads = pickle.loads(body)  # noqa: S301  # from our own parent
                engine = _load(module, files, threads)
                send(connection, RESULT, b"")
            elif engine is not None:
                send(connection, RESULT, memoryview(encoded(engine.score(decoded(body)))))  # type: ignore[attr-defined]
        except Exception as error:  # noqa: BLE001  # a model is code and raises anything; the parent decides
            send(connection, ERROR, json.dumps(_facts(error)).encode())


def _load(module: str, files: ModelFiles, threads: int) -> object:
    os.environ["OMP_NUM_THREADS"] = str(threads)
    return importlib.import_module(module).load(files, threads)


def _facts(error: Exception) -> dict[str, object]:
    from batchscore.errors import BatchscoreError, ModelRaisedError  # noqa: PLC0415  # the package's own

    if isinstance(error, BatchscoreError):
        return error.as_dict()
    trace = io.StringIO()
    traceback.print_exception(error, limit=-TRACE_LINES, file=trace)
    return {
        "error": ModelRaisedError.__name__,
        "problem": "the model's process raised",
        "found": f"{type(error).__name__}: {error}",
        "detail": trace.getvalue().splitlines()[-2 * TRACE_LINES :],
    }


def _read(connection: socket.socket, inbox: queue.SimpleQueue[tuple[bytes, bytearray]]) -> None:
    try:
        while True:
            inbox.put(receive(connection))
    except (EOFError, OSError):
        sys.stderr.flush()
        os._exit(0)
