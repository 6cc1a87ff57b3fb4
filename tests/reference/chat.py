"""Chat templates as published models have them, rendered by the library. Writes `chat/cases.json`.

Each template has `tokens` (the special tokens that it knows), `parts` (whether a message's content is a list of pictures and texts) and
`cases`: the conversation, whether it has a picture, the text, the answers in characters, and ids with a label for each (x or .).
"""

import json
from pathlib import Path

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast
from transformers.utils.chat_template_utils import render_jinja_template

from data import IMAGE_TAG

LLAVA = (
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': '}}{% endif %}"
    "{# Render all images first #}{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\\n' }}{% endfor %}"
    "{# Render all text next #}{% if message['role'] != 'assistant' %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] + ' '}}{% endfor %}"
    "{% else %}{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{% generation %}{{ content['text'] + ' '}}{% endgeneration %}{% endfor %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
VICUNA = """\
{% if messages[0]['role'] == 'system' %}
    {% set loop_messages = messages[1:] %}
    {% set system_message = messages[0]['content'].strip() + ' ' %}
{% else %}
    {% set loop_messages = messages %}
    {% set system_message = "A chat between a curious user and an artificial intelligence assistant. " %}
{% endif %}
{{ bos_token + system_message }}
{%- for message in loop_messages %}
    {% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
    {% endif %}
    {% if message['role'] == 'user' %}
{{- 'USER: ' + message['content'].strip() + ' ' }}
    {%- elif message['role'] == 'assistant' %}
{{- 'ASSISTANT: ' + message['content'].strip() + eos_token }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ 'ASSISTANT:' }}{%- endif %}
"""
QWEN = """\
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
{%- else %}
    {%- if messages[0]['role'] == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {{- '<|im_start|>' + message.role }}
        {%- for tool_call in message.tool_calls %}
            {{- tool_call.arguments | tojson }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}{{ '[INST] ' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for item in message['content'] %}"
    "{% if item['type'] == 'image' %}{{ '<image>\\n' }}{% elif item['type'] == 'text' %}{{ item['text'] }}{% endif %}{% endfor %}{% endif %}"
    "{{ ' [/INST]' }}{% elif message['role'] == 'assistant' %}"
    "{{ ' ' ~ (message['content'] if message['content'] is string else message['content'][0]['text'] | trim) ~ eos_token }}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
# What templates use beside texts and loops.
DIALECT = """\
{% macro line(message) -%}
    {{ '%s|%d' | format(message.role, message.content | length) }} {{ message.content | replace('\\n', '/') }}
{%- endmacro %}
{% set ns = namespace(count=0, last='') %}
{% for message in messages %}
{% if message.content == 'skip' %}{% continue %}{% endif %}
{% set ns.count = ns.count + 1 %}
{% if message.role == 'assistant' %}
#{{ ns.count }} {% generation %}
{{- message['content'].split(' ')[-1].title() | trim }} {{ {'n': loop.index, 'é': [true, none, "<&'\\"/>"]} | tojson }}
{{ message.items() | list | length }}{{ '!' if message.content.endswith('.') or not loop.last else '' }}{{ eos_token }}
{% endgeneration %}
{% else %}
{{ line(message) }}
    {%+ if loop.first and 'x' not in message.content %}  first{% endif %}

{% endif %}
{% endfor %}
{{ messages | map(attribute='role') | unique | join(',') -}}
"""

TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
TEMPLATES = {
    "llava": (LLAVA, TOKENS, True),
    "vicuna": (VICUNA, TOKENS, False),
    "qwen": (QWEN, {"eos_token": "<|im_end|>"}, False),
    "mistral": (MISTRAL, TOKENS, True),
    "dialect": (DIALECT, TOKENS, False),
}
CONVERSATIONS = [
    (True, ["<image>\nWhat is in the picture?", "A red square."]),
    (True, ["Where is it?\n<image>", " On the left. ", "And the colour?", "Blue"]),
    (False, ["Name a fruit.", "An apple.", "Another?", "A pear, a café crème.", "日本?", "Oui \U0001f600."]),
    (False, ["{{ 7 * 7 }} <b>&amp;</b>", "'quoted' \"twice\"\n\n  and indented\n"]),
    (False, ["Still open?", "Yes.", "And now"]),
]


def write_chat(folder: Path, tokenizer: Path) -> None:
    folder.mkdir(parents=True)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_file(str(tokenizer)), bos_token="<s>", eos_token="</s>")
    templates = {}
    for name, (source, tokens, parts) in TEMPLATES.items():
        cases = [make_case(tokenizer, source, tokens, parts, has_image, turns) for has_image, turns in CONVERSATIONS]
        templates[name] = {"template": source, "tokens": tokens, "parts": parts, "cases": cases}
    lines = [f"{json.dumps(name)}: {dump(template)}" for name, template in templates.items()]
    (folder / "cases.json").write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def dump(template: dict) -> str:
    """One line a case."""
    head = {key: value for key, value in template.items() if key != "cases"}
    cases = ",\n".join(json.dumps(case, ensure_ascii=False) for case in template["cases"])
    return json.dumps(head, ensure_ascii=False)[:-1] + ', "cases": [\n' + cases + "\n]}"


def make_case(tokenizer: PreTrainedTokenizerFast, source: str, tokens: dict, parts: bool, has_image: bool, turns: list[str]) -> dict:
    messages = [message(i, value, parts, has_image) for i, value in enumerate(turns)]
    text, answers = render(source, messages, tokens)
    # As the processors do: a text that begins with the beginning of a sequence does not get another one.
    encoding = tokenizer(text, add_special_tokens=not text.startswith("<s>"), return_offsets_mapping=True)
    targets = [any(start < end <= stop for start, stop in answers) and end > begin for begin, end in encoding["offset_mapping"]]
    labels = "".join("x" if target else "." for target in targets)
    return {"image": has_image, "turns": turns, "text": text, "answers": answers, "ids": encoding["input_ids"], "labels": labels}


def message(index: int, value: str, parts: bool, has_image: bool) -> dict:
    role = ("user", "assistant")[index % 2]
    if has_image and IMAGE_TAG in value:
        text = value.replace(IMAGE_TAG, "").strip()
        if parts:
            return {"role": role, "content": [{"type": "image"}, {"type": "text", "text": text}]}
        return {"role": role, "content": f"{IMAGE_TAG}\n{text}".strip()}
    return {"role": role, "content": [{"type": "text", "text": value}] if parts else value}


def render(source: str, messages: list[dict], tokens: dict) -> tuple[str, list[list[int]]]:
    """The text, and the answers in it: what the template marks as generated, or what a turn adds to its opening."""
    one = lambda messages, opened: render_jinja_template([messages], chat_template=source, add_generation_prompt=opened, **tokens)[0][0]
    if "{% generation %}" in source:
        texts, indices = render_jinja_template([messages], chat_template=source, return_assistant_tokens_mask=True, **tokens)
        return texts[0], [list(pair) for pair in indices[0]]
    text, answers = one(messages, False), []
    for i in range(1, len(messages), 2):
        before, after = one(messages[:i], True), one(messages[: i + 1], False)
        assert text.startswith(after) and after.startswith(before)
        stop = after.rfind(tokens["eos_token"])
        answers.append([len(before), len(after) if stop < len(before) else stop + len(tokens["eos_token"])])
    return text, answers
