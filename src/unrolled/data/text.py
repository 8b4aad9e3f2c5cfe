"""Text files as a stream of strings of about a mebibyte each, plain or gzip, with one clear sentence for every file that is not text."""

from __future__ import annotations

import codecs
import difflib
import gzip
import hashlib
import io
import itertools
import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from unrolled.core.errors import ConfigurationError, DataError

UTF8 = "utf-8"
CHUNK_BYTES = 1 << 20
GZIP_MAGIC = b"\x1f\x8b"
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
BYTE_ORDER_MARK = "\ufeff"


def open_text(path: str | Path, encoding: str = UTF8) -> Iterator[str]:
    r"""The text of a file in chunks of about a mebibyte; `\r\n` becomes `\n`, a byte order mark is dropped.

    What can be seen without reading (missing, a directory, empty) is refused at the call, the rest when it is reached.

    Args:
        path: a plain or gzip-compressed text file.
        encoding: of its characters, by a name that Python knows; one in which a line ends with the byte 10.

    Returns:
        An iterator of non-empty strings.

    Raises:
        DataError: the file is missing, a directory, empty, binary, in another encoding, a broken gzip, or cannot be read.
        ConfigurationError: there is no such encoding, or it is one of wide characters.
    """
    _check_encoding(encoding)
    check_text_file(path)
    return _join_line_ends(_decode(Path(path), encoding))


def text_lines(path: str | Path, encoding: str = UTF8) -> Iterator[str]:
    r"""The lines of a text file, without what ends them; only `\n` and `\r\n` end a line.

    Args:
        path: a plain or gzip-compressed text file.
        encoding: as for `open_text`.

    Yields:
        One line after the other, the last one also where nothing ends it.
    """
    held = ""
    for chunk in open_text(path, encoding):
        *whole, held = (held + chunk).split("\n")
        yield from whole
    if held:
        yield held


def digest(paths: Iterable[str | Path]) -> str:
    """A hash of the bytes of files, as they lie on the disk and in the order given; their names do not count.

    Args:
        paths: files of any kind.

    Returns:
        The hash in hexadecimal.

    Raises:
        DataError: a file is missing, a directory, empty or cannot be read.
    """
    together = hashlib.blake2b(digest_size=16)
    for path in paths:
        check_text_file(path)
        try:
            with open(path, "rb") as file:
                together.update(hashlib.file_digest(file, "blake2b").digest())
        except OSError as error:
            raise _unreadable(path, error) from error
    return together.hexdigest()


def check_text_file(path: str | Path) -> None:
    """Refuse what can be seen not to be a text file without reading it.

    Args:
        path: what the user gave.

    Raises:
        DataError: it is missing, a directory, another thing that is not a file, or empty.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise DataError(f"`{path}` must be a text file, got a directory; try the files in it, such as `{path}/*.txt`")
        if not path.exists():
            raise DataError(f"`{path}` must be a text file, but there is none of that name; {_near_files(path)}")
        if not path.is_file():
            raise DataError(
                f"`{path}` must be a regular file (it is read more than once), got a device or pipe; try saving the text to a file first"
            )
        if path.stat().st_size == 0:
            raise DataError(f"`{path}` must hold text, got an empty file; try another file")
    except OSError as error:
        raise _unreadable(path, error) from error


def _near_files(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f"there is no folder `{folder}` either; try the full path"
    near = difflib.get_close_matches(path.name, os.listdir(folder), n=1, cutoff=0.5)
    return f"did you mean `{folder / near[0]}`?" if near else "try the full path"


def _unreadable(path: str | Path, error: OSError) -> DataError:
    return DataError(f"`{path}` must be readable, but reading it failed ({error.strerror or error}); try checking its permissions")


def _open_bytes(path: Path) -> io.BufferedIOBase:
    # The first bytes decide, not the name: no UTF-8 text begins with the gzip magic.
    with open(path, "rb") as file:
        compressed = file.read(2) == GZIP_MAGIC
    if path.suffix == ".gz" and not compressed:
        raise DataError(f"`{path}` must be gzip data by its name, got something else; try renaming it without `.gz` if it is plain text")
    return gzip.open(path, "rb") if compressed else open(path, "rb")


def _blocks(path: Path) -> Iterator[bytes]:
    try:
        with _open_bytes(path) as file:
            while block := file.read(CHUNK_BYTES):
                yield block
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"`{path}` must be a whole gzip file, but it is broken or cut short ({error}); try fetching it again") from error
    except OSError as error:
        raise _unreadable(path, error) from error


def _check_encoding(encoding: str) -> None:
    try:
        wide = b"\n".decode(encoding) != "\n"
    except (LookupError, UnicodeDecodeError) as error:
        if isinstance(error, LookupError):
            raise ConfigurationError(
                f"`encoding` must be the name of a text encoding, got `{encoding}`; try `utf-8`, `latin-1` or `cp1252`"
            ) from None
        wide = True
    if wide:
        advice = f"try `iconv -f {encoding} -t UTF-8` on the file"
        raise ConfigurationError(f"`encoding` must be one in which a line ends with the byte 10, got `{encoding}`; {advice}")


def _decode(path: Path, encoding: str) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder(encoding)()
    place, started = _Place(path, 0, 1), False
    for block in itertools.chain(_blocks(path), [b""]):  # the empty block makes the decoder refuse a character that the end cuts
        held = decoder.getstate()[0]
        try:
            text = decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            raise _wrong_encoding(place.after(b"", -len(held)), held + block, error.start, encoding) from None
        if b"\0" in block:
            raise _binary(place, block)
        place = place.after(block, len(block))
        if text and not started:
            text, started = text.removeprefix(BYTE_ORDER_MARK), True
        if text:
            yield text
    if place.offset <= len(BYTE_ORDER_MARK.encode()) and not _holds_text(path, encoding):
        raise DataError(f"`{path}` must hold text, got a file without a character; try another file")


class _Place(NamedTuple):
    path: Path
    offset: int
    line: int

    def after(self, block: bytes, length: int) -> _Place:
        return _Place(self.path, self.offset + length, self.line + block.count(b"\n"))

    def __str__(self) -> str:
        return f"at byte {self.offset}, line {self.line}"


def _holds_text(path: Path, encoding: str) -> bool:
    with _open_bytes(path) as file:
        return bool(file.read(len(BYTE_ORDER_MARK.encode()) + 1).decode(encoding).removeprefix(BYTE_ORDER_MARK))


def _binary(start: _Place, block: bytes) -> DataError:
    before = block[: block.index(b"\0")]
    found = f"got a NUL byte (a binary file) {start.after(before, len(before))}"
    return DataError(f"`{start.path}` must be a text file, {found}; try exporting it as plain UTF-8 text")


def _wrong_encoding(start: _Place, block: bytes, wrong: int, encoding: str) -> DataError:
    name = "UTF-8" if encoding == UTF8 else f"`{encoding}`"
    if start.offset == 0 and block.startswith(UTF16_MARKS):
        return DataError(f"`{start.path}` must be {name}, got UTF-16 (its byte order mark {start}); try `iconv -f UTF-16 -t UTF-8`")
    if b"\0" in block[: wrong + 4096]:  # text in another encoding has no NUL bytes
        return _binary(start, block)
    found = f"got byte 0x{block[wrong]:02x} {start.after(block[:wrong], wrong)}"
    advice = (
        "`iconv -f LATIN1 -t UTF-8`, or with its real encoding (`data.encoding=latin-1`, where the task has that option)"
        if encoding == UTF8
        else "the real encoding of the file"
    )
    return DataError(f"`{start.path}` must be {name}, {found}; try {advice}")


def _join_line_ends(chunks: Iterator[str]) -> Iterator[str]:
    held = ""
    for chunk in chunks:
        text = held + chunk
        held = "\r" if text.endswith("\r") else ""  # its `\n` may begin the next chunk
        text = text[: len(text) - len(held)].replace("\r\n", "\n")
        if text:
            yield text
    if held:
        yield held
