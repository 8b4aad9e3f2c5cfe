"""Files, tokenizers, corpora and streams."""

from unrolled.data.bpe import BPETokenizer
from unrolled.data.characters import CharacterTokenizer
from unrolled.data.corpus import Corpus, corpus_in_memory
from unrolled.data.corpus_files import build_corpus
from unrolled.data.counts import TextCounts, characters_and_words
from unrolled.data.streams import IGNORED, StreamBatch, Streams, evaluation_streams
from unrolled.data.text import digest, open_text
from unrolled.data.tokenizer import StreamDecoder, Tokenizer, UnknownSymbolError
from unrolled.data.tokenizer_files import TOKENIZERS, load_tokenizer, save_tokenizer
from unrolled.data.words import WordTokenizer

__all__ = [
    "IGNORED",
    "TOKENIZERS",
    "BPETokenizer",
    "CharacterTokenizer",
    "Corpus",
    "StreamBatch",
    "StreamDecoder",
    "Streams",
    "TextCounts",
    "Tokenizer",
    "UnknownSymbolError",
    "WordTokenizer",
    "build_corpus",
    "characters_and_words",
    "corpus_in_memory",
    "digest",
    "evaluation_streams",
    "load_tokenizer",
    "open_text",
    "save_tokenizer",
]
