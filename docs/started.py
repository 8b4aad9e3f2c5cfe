"""`unrolled` for the examples of the documentation, without starting torch anew for every command: a process that has it forks one for each.

`python started.py serve SOCKET` is that process; `python started.py call SOCKET WORD …` is one command: what it is given, what it prints and
how it ends are those of `unrolled WORD …`.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

LONGEST = 1 << 18
"""Bytes of the words and the environment of a command."""


def serve(path: str) -> None:
    """Fork a process for each command that comes, without end."""
    import unrolled.tasks.loading  # noqa: F401
    from unrolled.cli import main

    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(f"{path}.new")
    listener.listen()
    os.rename(f"{path}.new", path)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:  # which ends with the process that started this one
        connection, _ = listener.accept()
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            listener.close()
            _take(connection)
            code = 0
            try:
                main()
            except SystemExit as end:
                if isinstance(end.code, str):
                    print(end.code, file=sys.stderr)
                code = end.code if isinstance(end.code, int) else int(bool(end.code))
            sys.stdout.flush()
            sys.stderr.flush()
            connection.send(bytes([code % 256]))
            os._exit(code % 256)
        connection.close()


def _take(connection: socket.socket) -> None:
    """Become the command: its words, folder, environment and files."""
    message, files, _, _ = socket.recv_fds(connection, LONGEST, 3)
    given = json.loads(message)
    for place, file in enumerate(files):
        os.dup2(file, place)
        os.close(file)
    os.chdir(given["folder"])
    os.environ.clear()
    os.environ.update(given["environment"])
    sys.argv = ["unrolled", *given["words"]]


def call(path: str, words: list[str]) -> int:
    """Have a command run; the answer is how it ended."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LONGEST)
    connection.connect(path)
    message = {"words": words, "folder": os.getcwd(), "environment": dict(os.environ)}
    socket.send_fds(connection, [json.dumps(message).encode()], [0, 1, 2])
    return (connection.recv(1) or b"\x01")[0]


@contextlib.contextmanager
def started(folder: Path) -> Iterator[Path]:
    """A folder with an `unrolled` of this kind, to stand first on the path, for as long as this lasts."""
    path, command = folder / "socket", folder / "unrolled"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -IS "{__file__}" call "{path}" "$@"\n')
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    with subprocess.Popen([sys.executable, __file__, "serve", str(path)], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as server:
        while not path.exists():
            if server.poll() is not None:
                raise RuntimeError("the process that starts commands has ended; what it said stands above")
            time.sleep(0.05)
        try:
            yield folder
        finally:
            server.kill()


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    sys.exit(call(sys.argv[2], sys.argv[3:]))
