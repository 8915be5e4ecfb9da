"""Chat templates for LLMs that know nothing of audio."""

from typing import Any

# Turns content lists into strings, so that a template made for text alone can follow. An LLM that may think first,
# such as Qwen3, is to answer at once unless a call says otherwise.
_FLATTEN = """\
{%- set enable_thinking = enable_thinking | default(false) -%}
{%- set flat = namespace(messages=[]) -%}
{%- for message in messages -%}
{%- set content = namespace(text='') -%}
{%- if message.content is string -%}
{%- set content.text = message.content -%}
{%- else -%}
{%- for item in message.content -%}
{%- set content.text = content.text + (AUDIO_TOKEN if item.type == 'audio' else item.text) -%}
{%- endfor -%}
{%- endif -%}
{%- set flat.messages = flat.messages + [dict(message, content=content.text)] -%}
{%- endfor -%}
{%- set messages = flat.messages -%}
"""
_PLAIN = """\
{{- PREFIX -}}
{%- for message in messages -%}{{- message.content -}}{%- endfor -%}
{{- SUFFIX -}}
"""


def audio_chat_template(tokenizer: Any, audio_token: str, is_encoder_decoder: bool) -> str:
    """The tokenizer's own chat template, taught where audio goes; or for a plain LLM, text between its special tokens.

    A plain encoder-decoder reads its prompt with the end token, as in pre-training; a causal LLM without one.
    """
    flatten = _FLATTEN.replace("AUDIO_TOKEN", repr(audio_token))
    if tokenizer.chat_template:
        return flatten + tokenizer.chat_template
    before, after = _special_tokens_around(tokenizer)
    plain = _PLAIN.replace("PREFIX", repr(before)).replace("SUFFIX", repr(after if is_encoder_decoder else ""))
    return flatten + plain


def _special_tokens_around(tokenizer: Any) -> tuple[str, str]:
    """What the tokenizer itself writes before and after a text, as strings."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a")["input_ids"]
    start = next((place for place in range(len(full)) if full[place : place + len(bare)] == bare), 0)
    before, after = full[:start], full[start + len(bare) :]
    tokens = tokenizer.convert_ids_to_tokens
    return "".join(tokens(before)), "".join(tokens(after))
