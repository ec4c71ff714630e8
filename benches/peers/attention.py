"""Decode attention of torch (flash and cuDNN backends) in FP16: the rows that kvprof's kernels are compared with.

    python3 benches/peers/attention.py [--json out.json]

For each shape, one new token attends to S cached ones: q [B, Hq, 1, D], k and v [B, Hkv, S, D], D = 128. Buffers rotate
so that no run finds its keys in the L2. Two times are printed in microseconds: `call` is the median over single calls
between CUDA events; `graph` is a captured sequence of calls, replayed, over their number, which leaves out what the host
needs to launch. GB/s are those of K and V over the smaller one.
"""

import argparse
import json
import statistics

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

# (query heads, KV heads, batch, cached tokens)
SHAPES = [
    (32, 8, 1, 4096),
    (32, 8, 1, 32768),
    (32, 8, 1, 131072),
    (32, 8, 8, 32768),
    (32, 8, 32, 4096),
    (28, 4, 1, 32768),
    (28, 4, 8, 32768),
    (32, 32, 8, 32768),
    (32, 8, 32, 32768),
    (28, 4, 32, 32768),
]
HEAD_DIM = 128
BACKENDS = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}
# Bytes of K and V that the rotated buffers hold together: several times the 50 to 60 MB of L2.
ROTATED_BYTES = 400e6


def attend(q, k, v):
    return F.scaled_dot_product_attention(q, k, v, enable_gqa=q.shape[1] != k.shape[1])


def timed(run, repeats):
    """Milliseconds of each of `repeats` runs, between events."""
    times = []
    for _ in range(repeats):
        start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        run()
        stop.record()
        stop.synchronize()
        times.append(start.elapsed_time(stop))
    return times


def call_us(calls, repeats=30):
    for call in calls[:4]:
        call()
    times = [timed(calls[i % len(calls)], 1)[0] for i in range(repeats)]
    return 1e3 * statistics.median(times)


def graph_us(calls, repeats=6):
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        calls[0]()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    rounds = max(1, 16 // len(calls))
    with torch.cuda.graph(graph):
        for _ in range(rounds):
            for call in calls:
                call()
    timed(graph.replay, 1)
    return 1e3 * statistics.median(timed(graph.replay, repeats)) / (rounds * len(calls))


def copy_gb_per_s(size=2 << 30):
    a, b = (torch.ones(size, dtype=torch.uint8, device="cuda") for _ in range(2))
    timed(lambda: b.copy_(a), 3)
    return 2 * size / statistics.median(timed(lambda: b.copy_(a), 9)) / 1e6


def measure(shape):
    heads, kv_heads, batch, tokens = shape
    kv_bytes = 2 * batch * kv_heads * tokens * HEAD_DIM * 2
    count = max(2, int(ROTATED_BYTES // kv_bytes) + 1)

    def random(*size):
        return torch.randn(*size, dtype=torch.float16, device="cuda")

    q = random(batch, heads, 1, HEAD_DIM)
    caches = [[random(batch, kv_heads, tokens, HEAD_DIM) for _ in range(2)] for _ in range(count)]
    calls = [lambda k=k, v=v: attend(q, k, v) for k, v in caches]
    row = {"query_heads": heads, "kv_heads": kv_heads, "batch": batch, "tokens": tokens}
    for name, backend in BACKENDS.items():
        try:
            with sdpa_kernel(backend):
                row[f"{name}_call_us"] = call_us(calls)
                row[f"{name}_graph_us"] = graph_us(calls)
        except RuntimeError as error:
            row[f"{name}_error"] = str(error).splitlines()[0]
    times = [t for key, t in row.items() if key.endswith("_us")]
    row["best_gb_per_s"] = kv_bytes / min(times) / 1e3 if times else None
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", help="write the rows to this file too")
    args = parser.parse_args()

    torch.manual_seed(0)
    result = {
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(),
        "copy_gb_per_s": copy_gb_per_s(),
        "rows": [],
    }
    print(f"torch {result['torch']}, {result['device']}, copy {result['copy_gb_per_s']:.0f} GB/s")
    columns = [f"{name}_{kind}_us" for name in BACKENDS for kind in ("call", "graph")]
    print(f"{'Hq/Hkv':>7} {'B':>3} {'S':>7}" + "".join(f"{c:>16}" for c in columns) + f"{'GB/s':>8}")
    for shape in SHAPES:
        row = measure(shape)
        result["rows"].append(row)
        cells = "".join(f"{row[c]:16.1f}" if c in row else f"{'-':>16}" for c in columns)
        print(f"{shape[0]:>4}/{shape[1]:<2} {shape[2]:>3} {shape[3]:>7}{cells}{row['best_gb_per_s'] or 0:8.0f}", flush=True)
        for name in BACKENDS:
            if f"{name}_error" in row:
                print(f"        {name}: {row[f'{name}_error']}")
        torch.cuda.empty_cache()
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump(result, file, indent=2)


if __name__ == "__main__":
    main()
