"""Serve the files named on standard input slowly, with ranges, until standard input ends; print host and port."""

from __future__ import annotations

import http.server
import json
import re
import sys
import threading
import time

PIECES = 20
PAUSE_S = 0.01


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers GET with a file or the rest of one."""

    bodies: dict[str, bytes]

    def do_GET(self) -> None:
        """Send the file in pieces."""
        body = self.bodies[self.path]
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(match[1]) if match else 0
        self.send_response(206 if match else 200)
        self.send_header("ETag", '"1"')
        if match:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        for at in range(start, len(body), len(body) // PIECES):
            self.wfile.write(body[at : at + len(body) // PIECES])
            time.sleep(PAUSE_S)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's name
        """Print nothing."""

    def handle(self) -> None:
        """Answer a request; the client may be killed meanwhile."""
        try:
            super().handle()
        except OSError:
            self.close_connection = True


def main() -> None:
    """Serve until standard input ends."""
    Handler.bodies = {path: bytes.fromhex(body) for path, body in json.loads(sys.stdin.readline()).items()}
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"127.0.0.1:{server.server_address[1]}", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
