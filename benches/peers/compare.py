"""kvprof's benchmarks and its peers' on one card in one call, and the ratios between them.

    python3 benches/peers/compare.py attention [--bench PROGRAM]
    python3 benches/peers/compare.py step [--bench PROGRAM] [--caches none hqq quanto]
    python3 benches/peers/compare.py prefill [--program KVPROF] [--contexts 4096 32768]

`attention` runs the bench `decode_attention` and torch's flash and cuDNN kernels (attention.py) on the same shapes. Each scheme is
compared with the fastest FP16 kernel of its shape, torch's or ours, both by times in a CUDA graph. `step` runs the bench
`decode_step` and transformers (transformers_cache.py) on a Mistral-7B shape, batch 1, 32768 tokens cached, and compares tokens a second over whole runs
of 128 steps, which hold one requantization of transformers' caches and two quantized blocks of ours. `prefill` has the program and
transformers read prompts through FP16 and INT4 caches, on the same shape.

A ratio that the project's goals speak of stands beside its goal. PROGRAM is a built bench, KVPROF the built program; without them,
cargo builds and runs them.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
# Speedup over the fastest FP16 kernel where batch is at least 8 and at least 32768 tokens are cached.
LARGE_GOALS = {
    "int8-hqq": 1.75,
    "int4-hqq": 3.2,
    "int2-hqq,group=64": 5.0,
    "int2-hqq": 3.4,
}
# Per-token directions may lose a tenth of the same scheme's goal.
PER_TOKEN = {
    "int8-hqq-token": "int8-hqq",
    "int8-hqq-kivi": "int8-hqq",
    "int4-hqq-token": "int4-hqq",
    "int4-hqq-kivi": "int4-hqq",
    "int2-hqq-token": "int2-hqq,group=64",
    "int2-hqq-kivi": "int2-hqq",
}
HQQ_GOAL = 8.0
# At most so many times transformers' time for a prompt, and at most so much more of our own with INT4.
PREFILL_GOAL, INT4_PREFILL_GOAL = 1.3, 0.03
MISTRAL = {
    "model_type": "mistral",
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "sliding_window": None,
    "tie_word_embeddings": False,
}


def run_ours(bench, program, *arguments):
    """The rows that a bench wrote; what it prints is shown."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(pathlib.Path(folder) / "rows.json")
        command = [program] if program else ["cargo", "bench", "--features", "cuda", "--bench", bench, "--"]
        subprocess.run([*command, *arguments, "--json", path], check=True)
        with open(path, encoding="utf-8") as file:
            return json.load(file)


def goal_of(scheme, shape):
    heads, kv_heads, batch, tokens = shape
    if batch >= 8 and tokens >= 32768 and heads != kv_heads:
        return LARGE_GOALS.get(scheme) or 0.9 * LARGE_GOALS.get(PER_TOKEN.get(scheme), 0.0) or None
    if batch == 1 and tokens == 32768 and (heads, kv_heads, scheme) == (32, 8, "int4-hqq"):
        return 2.3
    return 1.0 if batch == 1 and tokens >= 4096 else None


def verdict(ratio, goal):
    return "" if goal is None else f"  goal {goal:.2f} {'met' if ratio >= goal else 'MISSED'}"


def attention(args):
    ours = run_ours("decode_attention", args.bench)
    # Torch starts after our program has given the memory back.
    import attention as peer

    print(f"\n{'Hq/Hkv':>7} {'B':>3} {'S':>7} {'scheme':20}{'us':>9}{'over best FP16':>16}")
    for shape in peer.SHAPES:
        row = peer.measure(shape)
        torch_us = {name: row[f"{name}_graph_us"] for name in peer.BACKENDS if f"{name}_graph_us" in row}
        mine = {r["kv_quant"]: r["graph_us"] for r in ours if (r["query_heads"], r["kv_heads"], r["batch"], r["tokens"]) == shape}
        head = f"{shape[0]:>4}/{shape[1]:<2} {shape[2]:>3} {shape[3]:>7}"
        for name, us in torch_us.items():
            print(f"{head} torch {name:14}{us:9.1f}")
        for name in peer.BACKENDS:
            if f"{name}_error" in row:
                print(f"{head} torch {name}: {row[f'{name}_error']}")
        best_of_torch = min(torch_us.values(), default=float("inf"))
        best = min(best_of_torch, mine["none"])
        dense_goal = 1.5 if shape[2] * shape[3] == 4096 else 0.95 if shape[2] * shape[3] >= 32768 else None
        for scheme, us in mine.items():
            if scheme == "none":
                ratio, goal, against = best_of_torch / us, dense_goal, " (torch's best)"
            else:
                ratio, goal, against = best / us, goal_of(scheme, shape), ""
            print(f"{head} {scheme:20}{us:9.1f}{ratio:16.2f}{verdict(ratio, goal)}{against}", flush=True)
        peer.torch.cuda.empty_cache()


def run_transformers(*arguments):
    """The rows that transformers_cache.py printed."""
    command = [sys.executable, str(HERE / "transformers_cache.py"), *arguments]
    lines = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    print()
    return [(line, json.loads(line)) for line in lines if line.startswith("{")]


def prefill(args):
    program = [args.program] if args.program else ["cargo", "run", "--release", "--features", "cuda", "--"]
    contexts = [str(context) for context in args.contexts]
    with tempfile.TemporaryDirectory() as folder:
        config = pathlib.Path(folder) / "config.json"
        config.write_text(json.dumps(MISTRAL), encoding="utf-8")
        options = ["--weights", "dummy", "--dtype", "f16", "--device", "cuda", "--kv-quant", "none", "int4-hqq", "--decode-tokens", "8"]
        options += ["--warmup-runs", "1", "--measure-runs", "3", "--energy-seconds", "0.1", "--output-dir", folder, "--json"]
        command = [*program, "run", "--model", str(config), *options, "--context-lengths", *contexts]
        results = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    ours = {
        ("int4-hqq" if result["kv_quant"]["enabled"] else "none", row["context_len"]): row["prefill_ms"]
        for result in results
        for row in result["measurements"]
    }
    for line, theirs in run_transformers("--prefill", "--contexts", *contexts, "--caches", "none", "hqq"):
        if "prefill_ms" not in theirs:
            print(line)
            continue
        name, context = "none" if theirs["cache"] == "none" else "int4-hqq", theirs["context"]
        mine, dense = ours[(name, context)], ours[("none", context)]
        ratio = mine / theirs["prefill_ms"]
        goal = "" if name != "none" or context < 32768 else f"  goal {PREFILL_GOAL} {'met' if ratio <= PREFILL_GOAL else 'MISSED'}"
        more = mine / dense - 1
        if name != "none":
            within = "met" if more < INT4_PREFILL_GOAL else "MISSED"
            goal = f"  {100 * more:+.1f} % to none" + (f", goal under {100 * INT4_PREFILL_GOAL:.0f} % {within}" if context >= 32768 else "")
        print(
            f"S {context:>6}: transformers {theirs['cache']:6} {theirs['prefill_ms']:8.1f} ms, kvprof {name:8} {mine:8.1f} ms:"
            f" {ratio:.2f} times{goal}"
        )


def step(args):
    ours = run_ours("decode_step", args.bench, "quick")
    for line, theirs in run_transformers("--contexts", "32768", "--caches", *args.caches):
        if "tokens_per_s" not in theirs:
            print(line)
            continue
        scheme = "none" if theirs["cache"] == "none" else "int4-hqq"
        rate = next(
            r["tokens_per_s"]
            for r in ours
            if (r["batch"], r["tokens"], r["kv_quant"], r["graph"]) == (1, theirs["context"], scheme, True)
        )
        ratio = rate / theirs["tokens_per_s"]
        goal = HQQ_GOAL if theirs["cache"] == "hqq" and theirs["context"] == 32768 else None
        print(
            f"S {theirs['context']:>6}: transformers {theirs['cache']:6} {theirs['tokens_per_s']:7.2f} tokens/s (median step"
            f" {theirs['median_ms']:.1f} ms, longest {theirs['longest_ms']:.1f}), kvprof {scheme:8} {rate:7.2f}: {ratio:.2f} times"
            f"{verdict(ratio, goal)}"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for name, function in (("attention", attention), ("step", step), ("prefill", prefill)):
        command = commands.add_parser(name)
        if name == "prefill":
            command.add_argument("--program", help="the built kvprof to run")
            command.add_argument("--contexts", type=int, nargs="+", default=[4096, 32768])
        else:
            command.add_argument("--bench", help="the built bench to run")
        if name == "step":
            command.add_argument("--caches", nargs="+", default=["none", "hqq"], choices=["none", "hqq", "quanto"])
        command.set_defaults(run=function)
    args = parser.parse_args()
    sys.path.insert(0, str(HERE))
    args.run(args)


if __name__ == "__main__":
    main()
