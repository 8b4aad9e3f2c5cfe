"""Pretrained word vectors from a text file (word2vec, GloVe, fastText), turned once into an array that is mapped, not loaded.

A line is a word and its numbers, with blanks between them; word2vec and fastText write a first line with the number of words and of
dimensions, GloVe does not.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TextIO

import numpy as np
from jaxtyping import Bool, Float32

from unrolled.core.errors import DataError, RunError
from unrolled.core.files import write_atomically, write_json
from unrolled.data.rows import place_of
from unrolled.data.text import UTF8, digest, text_lines

FORMAT = 1
LARGEST = float(np.finfo(np.float32).max)
BLOCK_ROWS = 1024
"""How many lines are turned into numbers together."""


class VectorRows(NamedTuple):
    """The vectors of a vocabulary."""

    matrix: Float32[np.ndarray, "words dim"]
    """A row a word, zeros where there is none."""
    found: Bool[np.ndarray, " words"]
    """Which words have a vector."""
    lowered: int
    """How many of them have that of their lower-cased form."""

    def coverage(self) -> str:
        """What was found, for a message.

        Returns:
            Such as ``8,123 of 10,000 words have a pretrained vector (412 by their lower-cased form)``.
        """
        found = f"{int(self.found.sum()):,} of {len(self.found):,} words have a pretrained vector"
        return found + (f" ({self.lowered:,} by their lower-cased form)" if self.lowered else "")


@dataclass(frozen=True)
class WordVectors:
    """Vectors on the disk."""

    matrix: Float32[np.ndarray, "words dim"]
    """Mapped from the cache: rows are read when they are taken."""
    words_file: Path
    """The words, one a line, in the order of the rows."""
    duplicates: int
    """How many lines of the text were left out because their word had stood before."""

    def __len__(self) -> int:
        return len(self.matrix)

    @property
    def dim(self) -> int:
        """How many numbers a vector has."""
        return self.matrix.shape[1]

    def rows(self, vocabulary: Sequence[str]) -> VectorRows:
        """The vectors of some words; a word that is not there takes that of its lower-cased form, if there is one.

        Args:
            vocabulary: the words.

        Returns:
            A row a word, and which were found.
        """
        wanted = {form for word in vocabulary for form in (word, word.lower())}
        places = {word: row for row, word in enumerate(text_lines(self.words_file)) if word in wanted} if wanted else {}
        taken = np.array([places.get(word, places.get(word.lower(), -1)) for word in vocabulary], dtype=np.int64)
        found, matrix = taken >= 0, np.zeros((len(vocabulary), self.dim), dtype=np.float32)
        matrix[found] = self.matrix[taken[found]]
        lowered = sum(word not in places for word, is_there in zip(vocabulary, found, strict=True) if is_there)
        return VectorRows(matrix, found, lowered)


def open_vectors(
    path: str | Path, cache_dir: Path, *, encoding: str = UTF8, progress: Callable[[int], object] | None = None
) -> WordVectors:
    """The vectors of a text file, read and written as an array now, or found in the cache.

    The cache is keyed by the content of the file. A word that stands twice keeps its first vector.

    Args:
        path: the text file, plain or gzip.
        cache_dir: a folder that may be deleted at any time.
        encoding: of the text.
        progress: told how many more vectors were read, now and then; not called when the cache is used.

    Returns:
        The vectors, mapped from the cache.

    Raises:
        DataError: the file cannot be used, or a line is not a word and as many numbers as the others have.
        RunError: the cache cannot be written.
    """
    stem = cache_dir / f"{digest([path])}-{encoding}"
    vectors = _open(stem)
    if vectors is None:
        _build(str(path), encoding, stem, progress)
        vectors = _open(stem)
    if vectors is None:
        raise RunError(
            f"`{cache_dir}` must keep what is written there, but `{stem.name}` came back different; try another folder for the cache"
        )
    return vectors


def _open(stem: Path) -> WordVectors | None:
    try:
        header: dict[str, Any] = json.loads(_beside(stem, "json").read_text(encoding=UTF8))
        sizes = {part: _beside(stem, part).stat().st_size for part in ("npy", "words")}
        if header["format"] != FORMAT or header["sizes"] != sizes:
            return None
        matrix = np.load(_beside(stem, "npy"), mmap_mode="r", allow_pickle=False)
        whole = matrix.dtype == np.float32 and matrix.shape == (header["words"], header["dim"])
        return WordVectors(matrix, _beside(stem, "words"), int(header["duplicates"])) if whole else None
    except (OSError, ValueError, KeyError, TypeError):
        return None  # missing or damaged: to be built


def _build(path: str, encoding: str, stem: Path, progress: Callable[[int], object] | None) -> None:
    built: list[tuple[int, int, int]] = []

    def write_both(words: Path) -> None:
        def write(matrix: Path) -> None:
            with open(matrix, "wb") as numbers, open(words, "w", encoding=UTF8, newline="\n") as text:
                built.append(_convert(path, encoding, numbers, text, progress))

        write_atomically(_beside(stem, "npy"), write)

    write_atomically(_beside(stem, "words"), write_both)
    rows, dim, duplicates = built[-1]
    sizes = {part: _beside(stem, part).stat().st_size for part in ("npy", "words")}
    write_json(_beside(stem, "json"), {"format": FORMAT, "words": rows, "dim": dim, "duplicates": duplicates, "sizes": sizes})


def _beside(stem: Path, end: str) -> Path:
    return stem.with_name(f"{stem.name}.{end}")


# --- From text to an array ----------------------------------------------------------------------------------------------


class _Line(NamedTuple):
    number: int
    word: str
    numbers: str


def _convert(path: str, encoding: str, array: BinaryIO, text: TextIO, progress: Callable[[int], object] | None) -> tuple[int, int, int]:
    """Write the array and the words; how many rows, of which size, and how many lines were left out."""
    seen: set[str] = set()
    lines = 0
    dim, promised, rest = _head(path, encoding)
    _write_header(array, 0, dim)
    for block in _blocks(_parted(rest, dim, path)):
        values = _values(block, dim, path)
        fresh = [row for row, line in enumerate(block) if line.word not in seen and not seen.add(line.word)]  # type: ignore[func-returns-value]
        array.write(values[fresh].tobytes())
        text.writelines(block[row].word + "\n" for row in fresh)
        lines += len(block)
        if progress is not None:
            progress(len(block))
    if promised is not None and promised != lines:
        raise DataError(
            f"`{path}` must hold as many vectors as its first line says, {promised:,}, got {lines:,}; try fetching it again, "
            "or mending the first line"
        )
    _write_header(array, len(seen), dim)
    return len(seen), dim, lines - len(seen)


def _head(path: str, encoding: str) -> tuple[int, int | None, Iterator[tuple[int, str]]]:
    """The size of a vector, how many the first line promises, and the lines with vectors."""
    lines = ((number, line.replace("\t", " ").rstrip(" \r")) for number, line in enumerate(text_lines(path, encoding), 1))
    lines = ((number, line) for number, line in lines if line)
    first = next(lines, None)
    if first is None:
        raise DataError(f"`{path}` must hold vectors, got only empty lines; try another file")
    fields = first[1].split(" ")
    if len(fields) == 2 and all(field.isdecimal() for field in fields):
        if int(fields[1]) < 1:
            raise DataError(f"a vector must have at least one number, got {fields[1]} in {place_of(path, 1)}; try another file")
        return int(fields[1]), int(fields[0]), lines
    if len(fields) < 2:
        raise DataError(f"every line must be a word and its numbers, got `{first[1][:40]}` in {place_of(path, first[0])}; try another file")

    def all_lines() -> Iterator[tuple[int, str]]:
        yield first
        yield from lines

    return len(fields) - 1, None, all_lines()


def _parted(lines: Iterable[tuple[int, str]], dim: int, path: str) -> Iterator[_Line]:
    for number, line in lines:
        if line.count(" ") == dim:
            word, _, numbers = line.partition(" ")
        else:
            # A few words of GloVe have blanks in them; what looks like one number too many is no part of a word.
            parts = [part for part in line.split(" ") if part]
            if len(parts) <= dim or any(_is_number(part) for part in parts[1:-dim]):
                found = f"got {len(parts) - 1} in {place_of(path, number)}"
                raise DataError(f"every vector must have {dim} numbers, as the first has, {found}; try mending that line")
            word, numbers = " ".join(parts[:-dim]), " ".join(parts[-dim:])
        if not word:
            raise DataError(f"every line must begin with a word, got a blank in {place_of(path, number)}; try mending that line")
        yield _Line(number, word, numbers)


def _blocks(lines: Iterator[_Line]) -> Iterator[list[_Line]]:
    block: list[_Line] = []
    for line in lines:
        block.append(line)
        if len(block) == BLOCK_ROWS:
            yield block
            block = []
    if block:
        yield block


def _values(block: list[_Line], dim: int, path: str) -> Float32[np.ndarray, "rows dim"]:
    values = _numbers(" ".join(line.numbers for line in block))
    if values is not None and len(values) == len(block) * dim and np.isfinite(values).all():
        return values.reshape(len(block), dim)
    for line in block:  # the slow way, to name the line
        for field in line.numbers.split(" "):
            if not _is_number(field) or not abs(float(field)) <= LARGEST:
                found = f"got `{field}` for `{line.word}` in {place_of(path, line.number)}"
                raise DataError(f"a vector must be made of finite numbers, {found}; try mending that line")
    return np.array([line.numbers.split(" ") for line in block], dtype=np.float32)


def _numbers(text: str) -> Float32[np.ndarray, " numbers"] | None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # what is no number ends the reading with a warning only
        try:
            return np.fromstring(text, dtype=np.float32, sep=" ")
        except (ValueError, DeprecationWarning):
            return None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _write_header(file: BinaryIO, rows: int, dim: int) -> None:
    """The head of an `.npy` file; numpy leaves room in it for a larger number of rows, so it can be written again."""
    before = file.tell()
    file.seek(0)
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (rows, dim)})
    if before:
        file.seek(before)
