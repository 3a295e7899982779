"""Files → a model that is ready to run."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from shared.errors import ConfigurationError
from tests.support import local_model
from worker.engine.loading import _beyond_batching, _eos_ids, _sampling_defaults, load_model, pick_device
from worker.engine.model_files import ModelFiles
from worker.engine.packed_linear import PackedLinear
from worker.engine.sampling import SamplingDefaults


@pytest.mark.model
def test_the_bundled_model_came_whole_through_its_conversion() -> None:
    loaded = local_model.loaded_model()
    assert loaded.context == 8192
    assert loaded.eos_ids == {loaded.tokenizer.convert_tokens_to_ids("<|im_end|>")}
    assert loaded.defaults == SamplingDefaults()
    assert loaded.needs_streamer == ""
    assert loaded.model.dtype == torch.float32
    prompt = loaded.tokenizer.decode(local_model.prompt_of("Hi"))
    assert prompt.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")


@pytest.mark.model
def test_decoding_leaves_special_tokens_out_and_prettifies_nothing() -> None:
    loaded = local_model.loaded_model()
    ids = loaded.tokenizer("Well , don 't <|im_end|> !")["input_ids"]
    assert loaded.decode(ids) == "Well , don 't  !"


@pytest.mark.model
def test_on_a_cpu_its_products_are_packed() -> None:
    assert isinstance(local_model.loaded_model().model.lm_head, PackedLinear)


@pytest.mark.parametrize("wanted", ["cuda:99", "nonsense"])
def test_a_device_that_is_not_here_is_one_clear_line(wanted: str) -> None:
    with pytest.raises(ConfigurationError, match=f"LASTEVENT_LOCAL_DEVICE is '{wanted}', which is not here: ") as caught:
        pick_device(wanted)
    assert "\n" not in str(caught.value)


def test_auto_is_the_cpu_where_there_is_no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto").type == "cpu"


@pytest.mark.parametrize("content", ["{}", '{"model_type": "no-such-model"}', "not json"])
def test_broken_files_are_one_clear_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ConfigurationError, match="local/any cannot be loaded from") as caught:
        load_model("local/any", ModelFiles(str(tmp_path), local_only=True), "cpu")
    assert "\n" not in str(caught.value)


def generation_config(**values: object) -> SimpleNamespace:
    unset = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None, "eos_token_id": None}
    return SimpleNamespace(**{**unset, **values})


@pytest.mark.parametrize(
    ("values", "defaults"),
    [
        ({"temperature": 0.7}, SamplingDefaults()),
        ({"do_sample": True}, SamplingDefaults(temperature=1.0)),
        ({"do_sample": True, "temperature": 0.6, "top_p": 0.9, "top_k": 20}, SamplingDefaults(0.6, 0.9, 20)),
    ],
)
def test_a_model_samples_only_where_its_configuration_says_so(values: dict[str, object], defaults: SamplingDefaults) -> None:
    assert _sampling_defaults(generation_config(**values)) == defaults


@pytest.mark.parametrize(("named", "ids"), [(None, {9}), (5, {5, 9}), ([5, 6], {5, 6, 9})])
def test_all_end_tokens_count(named: object, ids: set[int]) -> None:
    assert _eos_ids(generation_config(eos_token_id=named), SimpleNamespace(eos_token_id=9)) == ids


def test_what_batching_cannot_apply_is_named() -> None:
    assert _beyond_batching(generation_config()) == ""
    assert _beyond_batching(generation_config(repetition_penalty=1.0, min_length=0)) == ""
    assert _beyond_batching(generation_config(repetition_penalty=1.1)) == "repetition_penalty"
