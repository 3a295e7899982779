"""A model's files → a model that is ready to run."""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import structlog
import torch
import transformers

from shared.errors import ConfigurationError
from worker.engine.detokenizer import Decode
from worker.engine.model_files import ModelFiles
from worker.engine.sampling import SamplingDefaults

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class LoadedModel:
    """One model in memory, shared by both engines: it keeps no state of a job."""

    id: str
    """As callers name it: `local/…`."""
    model: Any
    tokenizer: Any
    decode: Decode
    context: int
    """Ids that prompt and answer may have together."""
    eos_ids: frozenset[int]
    defaults: SamplingDefaults
    needs_streamer: str
    """The setting of the model's own configuration that only the second engine applies; empty where there is none."""


def load_model(model_id: str, files: ModelFiles, device: str) -> LoadedModel:
    """Loads it; seconds of CPU, so never on the event loop.

    Raises:
        ConfigurationError: the files are missing, broken, or no language model; or there is no such device.
    """
    target = pick_device(device)
    try:
        tokenizer = _tokenizer_class(files).from_pretrained(files.path, local_files_only=files.local_only)
        model = _model_class(files).from_pretrained(
            files.path, local_files_only=files.local_only, dtype=torch.float32 if target.type == "cpu" else "auto"
        )
    except (OSError, ValueError, ImportError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ConfigurationError(f"{model_id} cannot be loaded from {files.path}: {reason}") from error
    model = model.to(target).eval().requires_grad_(False)
    log.info("model loaded", model=model_id, device=str(target), dtype=str(model.dtype))
    return LoadedModel(
        id=model_id,
        model=model,
        tokenizer=tokenizer,
        decode=_decoder(tokenizer),
        context=_context(model.config),
        eos_ids=_eos_ids(model.generation_config, tokenizer),
        defaults=_sampling_defaults(model.generation_config),
        needs_streamer=_beyond_batching(model.generation_config),
    )


def pick_device(wanted: str) -> Any:
    """`auto`: the first CUDA device, else the CPU.

    Raises:
        ConfigurationError: there is no such device here.
    """
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was built with CUDA
        reason = str(error).partition("\n")[0]
        raise ConfigurationError(f"LASTEVENT_LOCAL_DEVICE is {wanted!r}, which is not here: {reason}") from None
    return device


def _tokenizer_class(files: ModelFiles) -> Any:
    """transformers' plain class where the folder names that one: the registry of all tokenizers takes a second more."""
    config = os.path.join(files.path, "tokenizer_config.json")
    if os.path.isfile(config):
        with open(config, encoding="utf-8") as file:
            name = json.load(file).get("tokenizer_class")
        if name == "TokenizersBackend" and hasattr(transformers, name):
            return getattr(transformers, name)
    return transformers.AutoTokenizer


def _model_class(files: ModelFiles) -> Any:
    """The model's own class where its folder names one: importing the registry of all models takes half a second more."""
    config = os.path.join(files.path, "config.json")
    if os.path.isfile(config):
        names = transformers.PretrainedConfig.from_json_file(config).architectures or []
        if len(names) == 1 and names[0].endswith("ForCausalLM") and hasattr(transformers, names[0]):
            return getattr(transformers, names[0])
    return transformers.AutoModelForCausalLM


def _decoder(tokenizer: Any) -> Decode:
    """Straight to the Rust tokenizer where there is one: transformers' wrapper takes ten times as long for a few ids."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        decode: Callable[[Sequence[int]], str] = partial(backend.decode, skip_special_tokens=True)
        return decode
    return partial(tokenizer.decode, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def _context(config: Any) -> int:
    text = config.get_text_config()
    return int(getattr(text, "max_position_embeddings", None) or getattr(text, "n_positions", None) or 2048)


def _eos_ids(generation_config: Any, tokenizer: Any) -> frozenset[int]:
    named = generation_config.eos_token_id
    ids = named if isinstance(named, list) else [named]
    return frozenset(int(token) for token in [*ids, tokenizer.eos_token_id] if token is not None)


def _sampling_defaults(generation_config: Any) -> SamplingDefaults:
    """Greedy unless the model's own configuration asks to sample."""
    if not generation_config.do_sample:
        return SamplingDefaults()
    return SamplingDefaults(
        temperature=_or(generation_config.temperature, 1.0),
        top_p=_or(generation_config.top_p, 1.0),
        top_k=_or(generation_config.top_k, 0),
    )


_PENALTIES: Final[dict[str, Any]] = {
    "repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "bad_words_ids": None, "suppress_tokens": None,
    "begin_suppress_tokens": None, "min_length": 0, "min_new_tokens": None, "sequence_bias": None, "forced_eos_token_id": None,
    "min_p": None, "typical_p": 1.0, "epsilon_cutoff": 0.0, "eta_cutoff": 0.0, "exponential_decay_length_penalty": None,
}  # fmt: skip
"""What a generation_config may ask for beyond temperature, top_p and top_k, and the value that asks for nothing."""


def _beyond_batching(generation_config: Any) -> str:
    for name, nothing in _PENALTIES.items():
        if getattr(generation_config, name, None) not in (None, nothing):
            return name
    return ""


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value
