"""The local model: continuous batching first, one thread a job where batching cannot serve.

In reading order. Pure, without torch:

    sampling.py      how the next token of a job is chosen, as asked for and as the model's own defaults have it
    prompt.py        a request's messages → the model's ids; what fits
    detokenizer.py   ids → text, whole characters only
    stops.py         stop strings, also across tokens
    answer.py        the two above together: ids → `Token` deltas
    feed.py          one job's ids on their way from an engine's thread to the event loop

With torch, imported by nothing but `worker/providers/local.py`, and only when a model is loaded:

    runtime.py       the process around the models: threads, noise, offline
    model_files.py   where a model's files are; the bundled one converted once
    packed_linear.py matrix products that are fast for a handful of rows on a CPU
    loading.py       files → a model ready to run
    sampler.py       scores → the next id
    tenant_cache.py  which pages of the batch's cache are shared, and with whom
    batching.py      engine 1: all jobs in each forward pass
    streamer.py      engine 2: `generate()` in a thread a job
"""
