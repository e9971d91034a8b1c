"""A tokenizer made in code: a token for each byte, so that any text goes in and comes out."""

from __future__ import annotations

import json
from itertools import chain, islice, product
from pathlib import Path
from string import ascii_lowercase

from tokenizers import AddedToken, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_tokenizer(folder: Path, vocab: int) -> int:
    """Write ``tokenizer.json`` and its config; returns the id of the end of a turn, the last one.

    Of the ``vocab`` tokens (at least 259), 256 are bytes and three are special. The others are
    short words that no text is encoded to: a random model that samples them says something.
    """
    alphabet = sorted(ByteLevel.alphabet())
    words = (
        "".join(letters)
        for letters in chain(*(product(ascii_lowercase, repeat=n) for n in (2, 3, 4)))
    )
    tokens = alphabet + list(islice(words, vocab - len(alphabet) - len(SPECIAL)))
    tokenizer = Tokenizer(BPE({token: index for index, token in enumerate(tokens)}, []))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = ByteLevelDecoder()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": SPECIAL[-1],
        "pad_token": SPECIAL[0],
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2))
    return vocab - 1
