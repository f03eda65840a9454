"""A byte-level BPE tokenizer with GLM's own tokens and the layout of its chat template."""

# tokenizers and transformers are in vLLM's environment only.
# pyright: basic, reportMissingImports=false
from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

END_OF_TEXT, USER, OBSERVATION = "<|endoftext|>", "<|user|>", "<|observation|>"

# As in GLM's tokenizer, what begins a turn is a special token, and the tags inside a turn are not: they show in the text.
_SPECIAL = [END_OF_TEXT, "[gMASK]", "<sop>", "<|system|>", USER, "<|assistant|>", OBSERVATION]
_TAGS = [
    *("<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"),
    *("<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"),
]

# No token is longer than a word, so that a text has about as many tokens as under a large vocabulary.
_WORD = r" ?\p{L}+| ?\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s+"

_MOST_TOKENS = 2000


def build(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Learn a vocabulary from texts; every other text can be written in it too, byte by byte."""
    bpe = Tokenizer(models.BPE())
    words = pre_tokenizers.Split(Regex(_WORD), "isolated")
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=_MOST_TOKENS, initial_alphabet=alphabet, show_progress=False)
    )
    bpe.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in _SPECIAL])
    bpe.add_tokens([AddedToken(token, special=False, normalized=False) for token in _TAGS])
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        clean_up_tokenization_spaces=False,
        chat_template=Path(__file__).with_name("chat_template.jinja").read_text(),
    )
