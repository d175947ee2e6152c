"""A real local HTTP server that misbehaves on purpose, for tests of whatever downloads."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import re
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

BODY = bytes(range(256)) * 1200  # larger than one chunk
HALF = len(BODY) // 2
SHA = hashlib.sha256(BODY).hexdigest()


@dataclass(frozen=True)
class Reply:
    """One answer; the defaults are those of a good server that can resume where it has an ETag."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    etag: str | None = None
    ranges: bool = True
    """Whether Range and If-Range are honoured."""
    heeds_if_range: bool = True
    declares_length: bool = True
    cut_at: int | None = None
    """Close the connection after so many bytes of the whole body."""
    hang_at: int | None = None
    """Fall silent after so many bytes of the whole body, until the server's `release` is called or it is closed."""
    drip: bool = False
    """Send single bytes, a hundredth of a second apart."""
    endless: bool = False
    """Repeat the body, without a declared length, for as long as somebody listens."""
    raw: tuple[bytes, bytes, float] | None = None
    """Instead of all that: bytes to begin with, then others again and again, so many seconds apart."""


@dataclass(frozen=True)
class Asked:
    path: str
    headers: Mapping[str, str]


class MisbehavingServer:
    """Serves scripted replies on 127.0.0.1 and remembers what it was asked; a context manager."""

    def __init__(self, port: int = 0) -> None:
        self.asked: list[Asked] = []
        self._replies: dict[str, list[Reply]] = {}
        self._served: defaultdict[str, int] = defaultdict(int)
        self._news = threading.Condition()
        self._released = threading.Event()
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self._server.daemon_threads = False  # so that closing the server waits for them
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._server.server_address[1]}"

    def url(self, path: str) -> str:
        return f"http://{self.address}{path}"

    def reply(self, path: str, *replies: Reply) -> str:
        """Answer requests for `path` with `replies` in turn, the last one for ever; return the URL."""
        self._replies[path] = list(replies)
        self._served[path] = 0
        return self.url(path)

    def serve_folder(self, prefix: str, folder: Path) -> None:
        """Serve every file of `folder`, by its name under `prefix`."""
        for file in folder.iterdir():
            self.reply(prefix + file.name, Reply(file.read_bytes()))

    def headers_of(self, path: str) -> list[Mapping[str, str]]:
        """Return the headers of each request for `path`, in order."""
        return [asked.headers for asked in self.asked if asked.path == path]

    def wait_until_asked(self, path: str) -> None:
        with self._news:
            assert self._news.wait_for(lambda: bool(self.headers_of(path)), timeout=60)

    def release(self) -> None:
        """Let hanging replies go on."""
        self._released.set()

    def __enter__(self) -> MisbehavingServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _next(self, asked: Asked) -> Reply:
        with self._news:
            self.asked.append(asked)
            self._news.notify_all()
            replies = self._replies.get(asked.path, [Reply(status=404)])
            turn = self._served[asked.path]
            self._served[asked.path] += 1
            return replies[min(turn, len(replies) - 1)]

    def _handler(server) -> type[http.server.BaseHTTPRequestHandler]:  # noqa: N805 - `self` is the handler's
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                reply = server._next(Asked(self.path, dict(self.headers.items())))
                self.close_connection = True
                with contextlib.suppress(ConnectionError):  # the client may have had enough
                    if reply.raw:
                        server._repeat(self.wfile.write, *reply.raw)
                        return
                    start = self._send_head(reply)
                    for piece in server._pieces(reply, start):
                        self.wfile.write(piece)

            do_CONNECT = do_GET  # noqa: N815 - the base class asks for this name

            def _send_head(self, reply: Reply) -> int:
                start = self._start(reply)
                self.send_response(206 if start else reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                if reply.etag is not None:
                    self.send_header("ETag", reply.etag)
                if start:
                    self.send_header("Content-Range", f"bytes {start}-{len(reply.body) - 1}/{len(reply.body)}")
                if reply.declares_length and not reply.endless:
                    self.send_header("Content-Length", str(len(reply.body) - start))
                self.send_header("Connection", "close")
                self.end_headers()
                return start

            def _start(self, reply: Reply) -> int:
                match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
                condition = self.headers.get("If-Range")
                if match is None or not reply.ranges or reply.status != 200:
                    return 0
                if reply.heeds_if_range and condition not in (None, reply.etag, reply.headers.get("Last-Modified")):
                    return 0
                return int(match[1])

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
                """Say nothing."""

        return Handler

    def _repeat(self, write: Callable[[bytes], object], head: bytes, again: bytes, pause: float) -> None:
        write(head)
        end = time.monotonic() + 60  # a client that never gives up fails its test, and does not hang it
        while not self._released.wait(pause) and time.monotonic() < end:
            write(again)

    def _pieces(self, reply: Reply, start: int) -> Iterator[bytes]:
        end = len(reply.body) if reply.cut_at is None else max(reply.cut_at, start)
        pause = end if reply.hang_at is None else max(reply.hang_at, start)
        if reply.endless:
            while not self._released.is_set():
                yield reply.body
        elif reply.drip:
            for index in range(start, end):
                yield reply.body[index : index + 1]
                self._released.wait(0.01)
        else:
            yield reply.body[start:pause]
            if reply.hang_at is not None:
                self._released.wait()
                yield reply.body[pause:end]
