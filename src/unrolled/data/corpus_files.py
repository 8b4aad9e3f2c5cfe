"""The cache of encoded corpora: a flat file of ids, its index, and a JSON file that is written last and makes them valid."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unrolled.core.errors import DataError, RunError
from unrolled.core.files import write_atomically, write_json
from unrolled.data.corpus import Corpus, CorpusIndex, Document, encode_documents, smallest_dtype
from unrolled.data.text import digest, open_text
from unrolled.data.tokenizer import Tokenizer

FORMAT = 1
PARTS = ("tokens", "documents.npy", "marks.npy")
"""The files beside the JSON, by the end of their names."""


def build_corpus(
    paths: Sequence[str | Path], tokenizer: Tokenizer, cache_dir: Path, *, progress: Callable[[int], object] | None = None
) -> Corpus:
    """The corpus of text files, one document each, encoded now or found in the cache.

    The cache is keyed by the content of the files and the tokenizer; a damaged entry is made anew. Two processes may build the same
    entry at once: each file is put in place whole, with the same content.

    Args:
        paths: the files in order.
        tokenizer: makes the ids.
        cache_dir: a folder that may be deleted at any time.
        progress: told how many more characters were encoded, about once a mebibyte; not called when the cache is used.

    Returns:
        The corpus, mapped from the cache.

    Raises:
        DataError: there is no file, a file cannot be used, or it holds a symbol outside the vocabulary.
        RunError: the cache cannot be written.
    """
    if not paths:
        raise DataError("a corpus must be made from at least one text file, got none; try naming one")
    content = digest(paths)
    stem = cache_dir / f"{content}-{tokenizer.digest()}"
    name = f"`{paths[0]}`" + (f" and {len(paths) - 1} more" if len(paths) > 1 else "")
    corpus = _open(stem, tokenizer, name, content)
    if corpus is None:
        _build([Document(f"`{path}`", _watched(open_text(path), progress)) for path in paths], tokenizer, stem)
        corpus = _open(stem, tokenizer, name, content)
    if corpus is None:
        raise RunError(
            f"`{cache_dir}` must keep what is written there, but `{stem.name}` came back different; try another folder for the cache"
        )
    return corpus


def _watched(chunks: Iterator[str], progress: Callable[[int], object] | None) -> Iterator[str]:
    for chunk in chunks:
        yield chunk
        if progress is not None:
            progress(len(chunk))


def _build(documents: list[Document], tokenizer: Tokenizer, stem: Path) -> None:
    index: list[CorpusIndex] = []

    def encode(new: Path) -> None:
        with open(new, "wb") as file:
            index.append(encode_documents(documents, tokenizer, lambda ids: file.write(ids.tobytes())))

    write_atomically(_beside(stem, "tokens"), encode)
    for part, array in zip(PARTS[1:], index[0], strict=True):
        write_atomically(_beside(stem, part), lambda new, array=array: _save_array(new, array))  # type: ignore[misc]
    tokens, characters, words, _ = index[0].marks[-1].tolist()
    checks = {part: _digest(_beside(stem, part)) for part in PARTS}
    sizes = {"tokens": tokens, "characters": characters, "words": words, "documents": len(index[0].documents)}
    write_json(_beside(stem, "json"), {"format": FORMAT, "dtype": smallest_dtype(tokenizer.size).str, **sizes, "digests": checks})


def _open(stem: Path, tokenizer: Tokenizer, name: str, content: str) -> Corpus | None:
    try:
        header: dict[str, Any] = json.loads(_beside(stem, "json").read_text(encoding="utf-8"))
        if header["format"] != FORMAT or any(_digest(_beside(stem, part)) != header["digests"][part] for part in PARTS):
            return None
        stored = np.memmap(_beside(stem, "tokens"), dtype=np.dtype(header["dtype"]), mode="r")
        index = CorpusIndex(*(np.load(_beside(stem, part), allow_pickle=False) for part in PARTS[1:]))
        whole = len(stored) == header["tokens"] and stored.dtype == smallest_dtype(tokenizer.size)
        return Corpus(name, tokenizer, stored, index, content, 0, len(stored)) if whole else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # missing or damaged: to be built


def _beside(stem: Path, end: str) -> Path:
    return stem.with_name(f"{stem.name}.{end}")


def _save_array(path: Path, array: np.ndarray) -> None:
    with open(path, "wb") as file:
        np.save(file, array, allow_pickle=False)


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
