"""What an LLM makes of a prompt, as a fingerprint, so that another that reads otherwise is not taken for it."""

import hashlib
import json
from typing import Any


def prompt_fingerprint(tokenizer: Any) -> str:
    """SHA-256 of the vocabulary and the chat template of a tokenizer, as its LLM came with."""
    read = [tokenizer.chat_template, sorted(tokenizer.get_vocab().items())]
    return hashlib.sha256(json.dumps(read).encode()).hexdigest()


__all__ = ["prompt_fingerprint"]
