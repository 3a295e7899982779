"""Requests as strangers send them: those that are nearly right, those that are right and odd, and those that are nothing."""

import json
from typing import Any

from hypothesis import strategies as st

JSON = dict[str, Any]

odd_texts = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        ["", "\x00", "\u2028", "🙂" * 3, "\r\n\r\ndata: x\n\n", "<|endoftext|>", "a" * 5000, "%s{0}", "\ufeff", "\x7f"]
    ),
)
texts = odd_texts.filter(bool)

image = st.builds(
    lambda url: {"type": "image_url", "image_url": {"url": url}},
    st.sampled_from(["data:image/png;base64,iVBORw0KGgo=", "https://example.org/a.png", "data:,", "file:///etc/passwd"]),
)
part = st.builds(lambda text: {"type": "text", "text": text}, odd_texts) | image
tool_call = st.builds(
    lambda id, name, arguments: {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}},
    texts, texts, st.sampled_from(["{}", '{"a": 1}', "", "[1]", "no JSON", '"text"', "null"]),
)  # fmt: skip
message = st.one_of(
    st.builds(lambda role, text: {"role": role, "content": text}, st.sampled_from(["system", "user", "assistant"]), odd_texts),
    st.builds(lambda parts: {"role": "user", "content": parts}, st.lists(part, max_size=3)),
    st.builds(
        lambda calls: {"role": "assistant", "content": None, "tool_calls": calls}, st.lists(tool_call, min_size=1, max_size=2)
    ),
    st.builds(lambda id, text: {"role": "tool", "tool_call_id": id, "content": text}, texts, odd_texts),
)
schema = st.sampled_from([{}, {"type": "object", "properties": {}}, {"type": "object", "$ref": "#"}, {"type": "nothing"}])
tool = st.builds(
    lambda name, parameters: {"type": "function", "function": {"name": name, "parameters": parameters}}, texts, schema
) | st.sampled_from(
    [{}, {"type": "function"}, {"type": "web_search"}, {"function": None}, {"type": "function", "function": []}]
)
options: st.SearchStrategy[JSON] = st.fixed_dictionaries(
    {},
    optional={
        "system": odd_texts,
        "max_tokens": st.integers(1, 1_000_000),
        "temperature": st.floats(0, 2),
        "top_p": st.floats(0, 1, exclude_min=True),
        "stop": texts | st.lists(texts, max_size=4),
        "seed": st.integers(0, 2**63 - 1),
        "tools": st.lists(tool, max_size=2),
        "tool_choice": st.sampled_from(
            ["auto", "none", "required", "", "other", {}, {"type": "function", "function": {"name": "f"}}]
        ),
        "token_budget": st.integers(1, 2**53),
        "on_interrupt": st.sampled_from(["continue", "restart", "fail"]),
        "timeouts": st.dictionaries(
            st.sampled_from(["queue_s", "first_token_s", "idle_s", "total_s"]),
            st.sampled_from([1e-9, 0.001, 1, 1e300]),
            max_size=2,
        ),
        "metadata": st.dictionaries(
            odd_texts.filter(lambda text: len(text) <= 64), odd_texts.filter(lambda t: len(t) <= 512), max_size=2
        ),
    },
)
models = st.sampled_from(["openai/any", "anthropic/claude-haiku-4-5", "anthropic/any", "ollama/any", "openai/a:b/c?d#e"])


@st.composite
def right_requests(draw: st.DrawFn) -> JSON:
    """Valid by docs/PROTOCOL.md, 2.1; what a provider makes of them is another matter."""
    talk = draw(
        st.builds(lambda text: {"prompt": text}, texts)
        | st.builds(lambda m: {"messages": m}, st.lists(message, min_size=1, max_size=4))
    )
    return {"model": draw(models), **talk, **draw(options)}


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | odd_texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(odd_texts, inner, max_size=3),
    max_leaves=6,
)


@st.composite
def wrong_requests(draw: st.DrawFn) -> bytes:
    """A right one with one thing changed at whatever depth, or no request at all."""
    if draw(st.booleans()):
        return draw(st.binary(max_size=40) | anything.map(lambda value: json.dumps(value).encode()))
    request = draw(right_requests())
    place: Any = request
    while True:
        names = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not names:
            break
        name = draw(st.sampled_from(names))
        if not isinstance(place[name], dict | list) or draw(st.booleans()):
            place[name] = draw(anything)
            break
        place = place[name]
    return json.dumps(request).encode()
