"""C++ source to functions that can be called: the system's compiler, a cache by content, ctypes."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

COMPILERS = ("c++", "g++", "clang++")
"""Looked for in this order, after the environment variable `CXX`."""

FLAGS = ("-std=c++17", "-O3", "-shared", "-fPIC", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-Wno-psabi", "-w")
"""No flag that changes what NaN, infinity or the order of a sum mean."""

CHOICES = (("-march=native", "-fopenmp"), ("-mcpu=native", "-fopenmp"), ("-march=native",), ("-mcpu=native",), ())
"""What not every compiler and machine takes: the first of these that compiles is used. Without OpenMP a kernel runs on one thread."""


UNFINISHED = "building-"
"""How the folders begin in which a library is built."""

LONGEST = 3600
"""Seconds after which nobody builds in such a folder any more."""

SPACE = 1 << 20
"""Bytes without which nothing can be built."""


class NoCompiler(Exception):
    """There is no C++ compiler, or it could not build the source; the message says which, and the caller takes the plain loop."""


class Compiler:
    """A C++ compiler and the folder of what it has built."""

    def __init__(self, command: Sequence[str], folder: Path) -> None:
        """Use a compiler.

        Args:
            command: how it is called, options included.
            folder: where built libraries are kept; made when needed.
        """
        self.command, self.folder = tuple(command), folder

    @functools.cached_property
    def identity(self) -> str:
        """What decides, beside the source, what is built: the compiler and its version, the flags, the processor."""
        version = self._call("--version").stdout
        return "\n".join([*self.command, version, *FLAGS, *map(repr, CHOICES), processor()])

    def load(self, source: str) -> ctypes.CDLL:
        """The library built of `source`, from the cache where it is there already.

        Args:
            source: C++.

        Returns:
            The library, loaded.

        Raises:
            NoCompiler: it cannot be built, or be written anywhere.
        """
        name = hashlib.sha256(f"{self.identity}\n{source}".encode()).hexdigest()[:32]
        path = self.folder / f"{name}.so"
        if _is_whole(path):
            try:
                return ctypes.CDLL(str(path))
            except OSError:
                path.unlink(missing_ok=True)  # damaged from outside: what is put there below is whole
        try:
            return self._build(source, path)
        except OSError as error:
            # Full, or not to be written to after all: this process alone then has it.
            try:
                return self._build(source, Path(_own_folder()) / path.name)
            except OSError:
                raise NoCompiler(f"a kernel cannot be written to {self.folder} ({error})") from None

    def _build(self, source: str, path: Path) -> ctypes.CDLL:
        """Compile beside the place it goes to, then move: other processes see nothing or all of it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path.parent)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=UNFINISHED) as room:
            text, built = Path(room) / "kernel.cpp", Path(room) / "kernel.so"
            text.write_text(source, encoding="utf-8")
            for choice in CHOICES:
                result = self._call(*FLAGS, *choice, str(text), "-o", str(built))
                if result.returncode == 0:
                    with text.open("a", encoding="utf-8") as end:
                        end.write(_ending(built))
                    os.replace(text, path.with_suffix(".cpp"))
                    os.replace(built, path)
                    return ctypes.CDLL(str(path))
                if self._takes(choice, Path(room)):
                    break  # it is the source that does not compile; without these flags it might, and be slow
            if shutil.disk_usage(room).free < SPACE:
                raise OSError("no space left")
        raise NoCompiler(f"`{' '.join(self.command)}` could not build a kernel: {_complaint(result.stderr)}")

    def _takes(self, choice: Sequence[str], room: Path) -> bool:
        """Whether the compiler knows some flags."""
        text = room / "nothing.cpp"
        text.write_text("", encoding="utf-8")
        return self._call(*FLAGS, *choice, str(text), "-o", str(room / "nothing.so")).returncode == 0

    def _call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run([*self.command, *arguments], capture_output=True, text=True, check=False)
        except OSError as error:
            raise NoCompiler(f"the C++ compiler `{' '.join(self.command)}` cannot be called: {error}") from None


@functools.cache
def system_compiler() -> Compiler:
    """The compiler of this system: the environment variable `CXX`, or the first of `COMPILERS` that is there.

    Returns:
        One object a process.

    Raises:
        NoCompiler: there is none.
    """
    command = os.environ.get("CXX", "").split() or [found for found in map(shutil.which, COMPILERS) if found][:1]
    if not command:
        raise NoCompiler(f"no C++ compiler was found (`CXX` is not set, and none of {', '.join(COMPILERS)} is on the path)")
    return Compiler(command, cache_folder())


def cache_folder() -> Path:
    """Where built kernels are kept: in the user's cache, or in a temporary folder where that cannot be written.

    Returns:
        A folder that is there and can be written to.
    """
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "unrolled" / "kernels"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # the latter: nobody's home
        return Path(_own_folder())
    return folder if os.access(folder, os.W_OK) else Path(_own_folder())


@functools.cache
def _own_folder() -> str:
    """A folder of this process, which goes with it."""
    folder = tempfile.mkdtemp(prefix="unrolled-kernels-")
    atexit.register(_remove, folder, os.getpid())
    return folder


def _remove(folder: str, owner: int) -> None:
    if os.getpid() == owner:  # not by a process that it forked
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(folder: Path) -> None:
    """Remove what was left by processes that were killed while they compiled."""
    for room in folder.glob(f"{UNFINISHED}*"):
        with contextlib.suppress(OSError):
            if time.time() - room.stat().st_mtime > LONGEST:
                shutil.rmtree(room, ignore_errors=True)


def _ending(library: Path) -> str:
    """What the source ends with that lies beside a library: to load half a library would end the process."""
    return f"\n// {library.stat().st_size} bytes\n"


def _is_whole(library: Path) -> bool:
    try:
        return library.with_suffix(".cpp").read_text(encoding="utf-8").endswith(_ending(library))
    except (OSError, UnicodeDecodeError):
        return False


def _complaint(text: str) -> str:
    """The first errors of what a compiler says."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return "; ".join([line for line in lines if "error" in line.lower()][:3] or lines[:3])[:600]


def processor() -> str:
    """What instructions there are: a kernel built for one processor may not run on another that shares the cache.

    Returns:
        A text that is equal for equal processors.
    """
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    told = [line for line in lines if line.split(":")[0].strip() in ("model name", "flags", "Features", "CPU part")]
    # Elsewhere than on Linux; there it would start a process that knows less.
    return "\n".join([platform.machine(), *(sorted(set(told)) or [platform.processor()])])
