"""Speed of Hugging Face transformers with and without its quantized caches, on a Mistral-7B shape of random weights.

    python3 transformers_cache.py [--contexts 4096 32768] [--batch 1] [--steps 128] [--caches none hqq quanto] [--prefill]

Needs torch and transformers; `hqq` and `optimum-quanto` for their caches (a cache whose package is missing is said so
and left out). Keys and values of the context are drawn at random and handed to the cache in one update per layer, which is
what a prompt would do, quantizing it; then greedy steps are timed one by one with CUDA events. Prints one JSON line for each
cache and context: tokens a second over all timed steps, and the median and the longest step.

A quantized cache requantizes all it holds when 128 new tokens have gathered, so a multiple of 128 steps holds that cost in its true
share; the median leaves it out.

With `--prefill` whole prompts are read instead, last-token logits only, three times after one that is not timed: the median in
milliseconds.
"""

import argparse
import gc
import json
import statistics
import time

import torch
import transformers
from transformers import MistralConfig, MistralForCausalLM
from transformers.cache_utils import DynamicCache, QuantizedCache

WARM_UP = 2
WARM_UP_PROMPTS, PROMPTS = 1, 3


def build_model():
    config = MistralConfig(
        vocab_size=32000,
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        max_position_embeddings=131072,
        sliding_window=None,
    )
    config._attn_implementation = "sdpa"
    torch.set_default_dtype(torch.float16)
    with torch.device("cuda"):
        model = MistralForCausalLM(config).eval()
    torch.set_default_dtype(torch.float32)
    return model


def build_cache(name, config):
    """The caches with the settings that kvprof's presets of the same name imitate: 4 bits, groups of 64, 128 recent tokens."""
    if name == "none":
        return DynamicCache(config=config)
    axis = {"hqq": 1, "quanto": 0}[name]  # the axis numbers that mean "per token" in each package
    return QuantizedCache(name, config, nbits=4, axis_key=axis, axis_value=axis, q_group_size=64, residual_length=128)


def fill(cache, config, batch, context):
    shape = (batch, config.num_key_value_heads, context, config.hidden_size // config.num_attention_heads)
    for layer in range(config.num_hidden_layers):
        keys = torch.randn(shape, dtype=torch.float16, device="cuda")
        values = torch.randn(shape, dtype=torch.float16, device="cuda")
        cache.update(keys, values, layer, {})


@torch.inference_mode()
def measure_prefill(model, name, batch, context, _steps):
    tokens = torch.randint(model.config.vocab_size, (batch, context), device="cuda")
    times = []
    for _ in range(WARM_UP_PROMPTS + PROMPTS):
        cache = build_cache(name, model.config)
        start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        model(tokens, past_key_values=cache, use_cache=True, logits_to_keep=1)
        stop.record()
        stop.synchronize()
        times.append(start.elapsed_time(stop))
        del cache
    times = times[WARM_UP_PROMPTS:]
    return {
        "cache": name,
        "batch": batch,
        "context": context,
        "prefill_ms": round(statistics.median(times), 1),
        "peak_gb": round(torch.cuda.max_memory_allocated() / 1e9, 2),
    }


@torch.inference_mode()
def measure(model, name, batch, context, steps):
    cache = build_cache(name, model.config)
    started = time.perf_counter()
    fill(cache, model.config, batch, context)
    torch.cuda.synchronize()
    filled_s = time.perf_counter() - started
    token = torch.zeros((batch, 1), dtype=torch.long, device="cuda")
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(steps + 1)]
    for step in range(WARM_UP + steps):
        if step == WARM_UP:
            marks[0].record()
        logits = model(token, past_key_values=cache, use_cache=True).logits
        token = logits[:, -1:].argmax(-1)
        if step >= WARM_UP:
            marks[step - WARM_UP + 1].record()
    torch.cuda.synchronize()
    times = [a.elapsed_time(b) for a, b in zip(marks, marks[1:])]
    mean = marks[0].elapsed_time(marks[-1]) / steps
    return {
        "cache": name,
        "batch": batch,
        "context": context,
        "steps": steps,
        "median_ms": round(statistics.median(times), 3),
        "longest_ms": round(max(times), 3),
        "mean_ms": round(mean, 3),
        "tokens_per_s": round(1e3 * batch / mean, 2),
        "fill_s": round(filled_s, 2),
        "peak_gb": round(torch.cuda.max_memory_allocated() / 1e9, 2),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contexts", type=int, nargs="+", default=[4096, 32768])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--steps", type=int, default=128)
    parser.add_argument("--caches", nargs="+", default=["none", "hqq", "quanto"], choices=["none", "hqq", "quanto"])
    parser.add_argument("--prefill", action="store_true", help="time prompts instead of steps")
    args = parser.parse_args()
    model = build_model()
    print(json.dumps({"torch": torch.__version__, "transformers": transformers.__version__, "card": torch.cuda.get_device_name()}))
    for name in args.caches:
        for context in args.contexts:
            torch.cuda.reset_peak_memory_stats()
            try:
                row = (measure_prefill if args.prefill else measure)(model, name, args.batch, context, args.steps)
            except ImportError as error:
                row = {"cache": name, "left_out": str(error)}
            except torch.cuda.OutOfMemoryError as error:
                row = {"cache": name, "batch": args.batch, "context": context, "out_of_memory": str(error).splitlines()[0]}
            print(json.dumps(row), flush=True)
            gc.collect()
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
