"""The kinds of tokenizers there are, and the JSON file of each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from unrolled.core.errors import RunError, nearest
from unrolled.core.files import write_json
from unrolled.data.bpe import BPETokenizer
from unrolled.data.characters import CharacterTokenizer
from unrolled.data.tokenizer import Tokenizer
from unrolled.data.unigram import UnigramTokenizer
from unrolled.data.words import WordTokenizer

FORMAT = 1

TOKENIZERS: Mapping[str, type[Tokenizer]] = MappingProxyType(
    {
        "characters": CharacterTokenizer,
        "words": WordTokenizer,
        "bpe": BPETokenizer,
        "unigram": UnigramTokenizer,
    }
)


def tokenizer_to_json(tokenizer: Tokenizer) -> dict[str, Any]:
    """A tokenizer of any kind as the object that its file holds.

    Args:
        tokenizer: any of `TOKENIZERS`.

    Returns:
        What `tokenizer_from_json` takes.
    """
    return {"format": FORMAT, "kind": tokenizer.kind, **tokenizer.to_json()}


def tokenizer_from_json(content: Any) -> Tokenizer:
    """The tokenizer that `tokenizer_to_json` described.

    Args:
        content: the object of a file.

    Returns:
        The tokenizer.

    Raises:
        RunError: the object is damaged, of an unknown kind or from a newer version.
    """
    if not isinstance(content, dict) or not isinstance(content.get("format"), int):
        raise RunError("it has no `format` number")
    if content["format"] > FORMAT:
        raise RunError(f"it has format {content['format']}, this version of unrolled knows up to {FORMAT}, so a newer one wrote it")
    kind = str(content.get("kind"))
    if kind not in TOKENIZERS:
        raise RunError(f"it has the unknown kind `{kind}`, {nearest(kind, TOKENIZERS).rstrip('?')}")
    return TOKENIZERS[kind].from_json(content)


def save_tokenizer(tokenizer: Tokenizer, path: Path) -> None:
    """Write a tokenizer as one JSON file.

    Args:
        tokenizer: any of `TOKENIZERS`.
        path: where the file shall stand.
    """
    write_json(path, tokenizer_to_json(tokenizer))


def load_tokenizer(path: Path) -> Tokenizer:
    """Read what `save_tokenizer` wrote.

    Args:
        path: the file.

    Returns:
        The tokenizer.

    Raises:
        RunError: the file is missing, damaged, of an unknown kind or from a newer version.
    """
    try:
        return tokenizer_from_json(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise RunError(
            f"`{path}` must be a tokenizer file, but reading it failed ({error.strerror or error}); try a whole run folder"
        ) from error
    except RunError as error:
        raise RunError(
            f"`{path}` must be a tokenizer file, but {error}; try the version that wrote it, or a whole copy of the run"
        ) from None
    except ValueError as error:
        raise RunError(f"`{path}` must be a tokenizer file, but it is damaged ({error}); try a whole copy of the run") from error
