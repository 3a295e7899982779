"""shared/models.py: which provider and lane serve a model id. What they refuse: test_shared_provider_limits.py."""

import pytest

from shared.errors import InvalidRequest
from shared.job import JobRequest
from shared.models import BUNDLED_MODEL, check_request, listed_models, resolve
from shared.settings import Settings

LOCAL = f"local/{BUNDLED_MODEL}"
IMAGE = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x/y.png"}}]}
TABLES = {"vllm": {"kind": "openai", "models": ["q1", "q2"]}, "claude": {"kind": "anthropic"}}
TOOLS = [{"type": "function", "function": {"name": "f"}}]


def settings(**fields: object) -> Settings:
    return Settings(**fields)  # type: ignore[arg-type]  # validated by pydantic


def request(**fields: object) -> JobRequest:
    prompt = {} if "messages" in fields else {"prompt": "Hi"}
    return JobRequest.model_validate({"model": LOCAL, **prompt, **fields})


def test_a_model_id_is_provider_and_name() -> None:
    model = resolve("openai/gpt-4o-mini", settings())
    assert (model.provider, model.name, model.lane) == ("openai", "gpt-4o-mini", "api")


def test_the_name_may_hold_slashes() -> None:
    """As compatible servers have it: `openai/meta-llama/Llama-3`."""
    assert resolve("openai/meta-llama/Llama-3", settings()).name == "meta-llama/Llama-3"


@pytest.mark.parametrize("model", ["openai/x", "anthropic/claude-sonnet-5-5", "ollama/llama3.2:1b"])
def test_other_peoples_servers_are_called_from_one_lane(model: str) -> None:
    assert resolve(model, settings()).lane == "api"


def test_a_named_providers_models_are_its_own() -> None:
    """Its kind says which API they are asked by, its name whom they are asked of."""
    model = resolve("vllm/meta-llama/Llama-3", settings(providers=TABLES))
    assert (model.provider, model.name, model.kind, model.lane) == ("vllm", "meta-llama/Llama-3", "openai", "api")
    assert [resolve(f"{kind}/m", settings()).kind for kind in ("openai", "anthropic", "ollama")] == [
        "openai",
        "anthropic",
        "ollama",
    ]
    assert resolve(LOCAL, settings()).kind == "local"


def test_an_unknown_provider_is_answered_with_those_that_there_are() -> None:
    with pytest.raises(InvalidRequest, match="there are openai/…, anthropic/…, ollama/…, local/…, vllm/…, claude/…") as caught:
        resolve("vlm/x", settings(providers=TABLES | {"openai": {}}))
    assert [problem.field for problem in caught.value.problems] == ["model"]


def test_what_a_named_provider_cannot_do_is_what_its_kind_cannot() -> None:
    asked = request(model="vllm/m", fallbacks=["claude/m"], seed=1, temperature=2)
    with pytest.raises(InvalidRequest) as caught:
        check_request(asked, settings(providers=TABLES))
    assert [problem.field for problem in caught.value.problems] == ["temperature", "seed"]
    assert check_request(request(model="vllm/m", seed=1, temperature=2), settings(providers=TABLES)).id == "vllm/m"


def test_named_providers_models_are_listed_after_those_of_the_kinds() -> None:
    listed = listed_models(settings(providers=TABLES, openai_models="a", anthropic_models="", ollama_models="d"))
    assert [model.id for model in listed] == [LOCAL, "openai/a", "ollama/d", "vllm/q1", "vllm/q2"]
    assert [model.id for model in listed_models(settings(providers=TABLES, lanes="local"))] == [LOCAL]


def test_local_models_run_in_their_own_lane() -> None:
    assert resolve(LOCAL, settings()).lane == "local"
    assert resolve("local/mine", settings(local_models={"mine": "/models/mine"})).lane == "local"


@pytest.mark.parametrize(
    ("model", "lanes", "words"),
    [
        ("nobody/x", "api,local", "no provider is called 'nobody'"),
        ("local/unknown", "api,local", "there is no local model 'unknown'"),
        ("openai/x", "local", "runs in the lane 'api', which this deployment does not run"),
        (LOCAL, "api", "runs in the lane 'local', which this deployment does not run"),
    ],
)
def test_what_no_lane_can_serve(model: str, lanes: str, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words) as caught:
        resolve(model, settings(lanes=lanes))
    assert [problem.field for problem in caught.value.problems] == ["model"]


def test_a_bad_fallback_is_named_by_its_place() -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_request(request(fallbacks=["openai/x", "nobody/x"]), settings())
    assert caught.value.problems[0].field == "fallbacks[1]"


@pytest.mark.parametrize(
    ("fields", "field"),
    [({"tools": TOOLS}, "tools"), ({"tool_choice": "auto"}, "tool_choice"), ({"messages": [IMAGE]}, "messages[0].content")],
)
@pytest.mark.parametrize("models", [{"model": LOCAL}, {"model": "openai/x", "fallbacks": [LOCAL]}])
def test_what_local_models_cannot_do(models: dict[str, object], fields: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_request(request(**models, **fields), settings())
    assert caught.value.problems[0].field == field


def test_what_others_can_do() -> None:
    for model in ("openai/x", "anthropic/x"):
        asked = request(model=model, messages=[IMAGE], tools=TOOLS, tool_choice="auto")
        assert check_request(asked, settings()).id == model


def test_what_openai_models_cannot_do_in_background_mode_alone() -> None:
    asked = request(model="anthropic/x", fallbacks=["openai/x"], stop=["END"])
    assert check_request(asked, settings()).id == "anthropic/x"
    with pytest.raises(InvalidRequest) as caught:
        check_request(asked, settings(openai_background=True))
    assert [problem.field for problem in caught.value.problems] == ["stop"]


def test_everything_that_a_model_cannot_do_is_named_at_once() -> None:
    asked = request(model="anthropic/a", fallbacks=["anthropic/b", LOCAL], seed=1, temperature=2, tools=TOOLS)
    with pytest.raises(InvalidRequest) as caught:
        check_request(asked, settings())
    assert [problem.field for problem in caught.value.problems] == ["temperature", "seed", "tools"]


@pytest.mark.parametrize(
    ("lanes", "ids"),
    [
        ("api,local", [LOCAL, "local/mine", "openai/a", "openai/b", "anthropic/c", "ollama/d"]),
        ("api", ["openai/a", "openai/b", "anthropic/c", "ollama/d"]),
        ("local", [LOCAL, "local/mine"]),
    ],
)
def test_the_list_holds_what_the_lanes_serve(lanes: str, ids: list[str]) -> None:
    configured = settings(
        lanes=lanes, local_models={"mine": "/m"}, openai_models="a,b", anthropic_models="c", ollama_models="d"
    )
    assert [model.id for model in listed_models(configured)] == ids
    assert all(resolve(model_id, configured) for model_id in ids)
