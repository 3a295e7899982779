"""A model of any shape with random weights. What a forward pass costs depends on the shape alone, so nothing is downloaded.

    LLAMA_1B ──build──▶ build/random-1b    weights in bfloat16; tokenizer and chat template are the bundled model's

Run as `python -m bench.random_model`; prints the folder, once it is there. It is made once: `build/` stays until `make clean`.
"""

import shutil
import tempfile
from pathlib import Path
from typing import Any, Final, NamedTuple

from bench.installing import BUILD
from shared.settings import load_settings
from worker.engine import runtime
from worker.engine.model_files import find_model

FOLDER: Final = BUILD / "random-1b"
_SEED: Final = 0


class Shape(NamedTuple):
    """Of a Llama."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    context: int


LLAMA_1B: Final = Shape(hidden=2048, layers=16, heads=32, kv_heads=8, intermediate=8192, context=4096)
"""Llama 3.2 1B's, with 49,152 ids: 1.07 billion weights, 2.1 GB."""


def build(shape: Shape, folder: Path, tokenizer_from: str) -> None:
    """Writes it: three quarters of a minute for a billion weights, all of them in memory.

    The folder appears by a rename, as a whole.
    """
    runtime.prepare(offline=True)
    import torch
    from transformers import AutoTokenizer, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_from, local_files_only=True)
    with torch.random.fork_rng(devices=()), torch.no_grad():
        torch.manual_seed(_SEED)
        model = LlamaForCausalLM(_config(shape, tokenizer)).to(torch.bfloat16)
        model.get_input_embeddings().weight[_without_text(tokenizer)] = 0
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f"{folder.name}.part-", dir=folder.parent))
    try:
        model.save_pretrained(part)
        tokenizer.save_pretrained(part)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _config(shape: Shape, tokenizer: Any) -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        intermediate_size=shape.intermediate,
        max_position_embeddings=shape.context,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _without_text(tokenizer: Any) -> list[int]:
    """Ids that end an answer, or that give no text until another comes. Their rows are zero, and so are their scores, which
    are never the highest: each answer is as long as was asked, and each token's text is seen at once."""
    texts = tokenizer.backend_tokenizer.decode_batch([[token] for token in range(len(tokenizer))], skip_special_tokens=True)
    return [token for token, text in enumerate(texts) if not text or "\ufffd" in text]


def main() -> None:
    if not FOLDER.is_dir():
        build(LLAMA_1B, FOLDER, find_model("", load_settings().cache_dir).path)
    print(FOLDER, flush=True)


if __name__ == "__main__":
    main()
