"""Files, tokenizers, corpora and streams; sentence pairs and their batches."""

from unrolled.data.batches import (
    EvaluationBatches,
    PairBatch,
    PairCorpus,
    TokenBatch,
    TokenBatches,
    TokenLists,
    build_pair_corpus,
    evaluation_batches,
    padded_ids,
    token_lists,
)
from unrolled.data.bpe import BPETokenizer
from unrolled.data.characters import CharacterTokenizer
from unrolled.data.corpus import Corpus, corpus_in_memory
from unrolled.data.corpus_files import build_corpus
from unrolled.data.counts import TextCounts, characters_and_words
from unrolled.data.pairs import Pairs, read_pairs, suspected_swap
from unrolled.data.sentences import SentenceCodec, sample_keys, train_codec
from unrolled.data.streams import IGNORED, StreamBatch, Streams, evaluation_streams
from unrolled.data.text import digest, open_text
from unrolled.data.tokenizer import StreamDecoder, Tokenizer, UnknownSymbolError
from unrolled.data.tokenizer_files import TOKENIZERS, load_tokenizer, save_tokenizer, tokenizer_from_json, tokenizer_to_json
from unrolled.data.unigram import UnigramTokenizer
from unrolled.data.words import WordTokenizer

__all__ = [
    "IGNORED",
    "TOKENIZERS",
    "BPETokenizer",
    "CharacterTokenizer",
    "Corpus",
    "EvaluationBatches",
    "PairBatch",
    "PairCorpus",
    "Pairs",
    "SentenceCodec",
    "StreamBatch",
    "StreamDecoder",
    "Streams",
    "TextCounts",
    "TokenBatch",
    "TokenBatches",
    "TokenLists",
    "Tokenizer",
    "UnigramTokenizer",
    "UnknownSymbolError",
    "WordTokenizer",
    "build_corpus",
    "build_pair_corpus",
    "characters_and_words",
    "corpus_in_memory",
    "digest",
    "evaluation_batches",
    "evaluation_streams",
    "load_tokenizer",
    "open_text",
    "padded_ids",
    "read_pairs",
    "sample_keys",
    "save_tokenizer",
    "suspected_swap",
    "token_lists",
    "tokenizer_from_json",
    "tokenizer_to_json",
    "train_codec",
]
