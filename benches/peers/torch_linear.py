"""torch's (cuBLAS) time for the linear layers of a 7B decode step, on the shapes of benches/kernels/step_bench.cu.

Each product reads another copy of the weights, so that none is found in the L2; a CUDA graph of all of them is replayed
and the median replay divided by their number.
"""

import statistics

import torch

SHAPES = {
    "mistral": {"qkv": (6144, 4096), "o": (4096, 4096), "gate_up": (28672, 4096), "down": (4096, 14336), "lm_head": (32000, 4096)},
    "qwen2": {"qkv": (4608, 3584), "o": (3584, 3584), "gate_up": (37888, 3584), "down": (3584, 18944), "lm_head": (152064, 3584)},
}


def graph_ms(enqueue, repeats=20):
    """Median milliseconds of one replay of what `enqueue` launches."""
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        enqueue()
    side.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        enqueue()
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(repeats + 1)]
    for _ in range(3):
        graph.replay()
    marks[0].record()
    for mark in marks[1:]:
        graph.replay()
        mark.record()
    torch.cuda.synchronize()
    return statistics.median(a.elapsed_time(b) for a, b in zip(marks, marks[1:]))


def main():
    pool = torch.empty(3 << 30, dtype=torch.float16, device="cuda").uniform_(-0.02, 0.02)
    for model, layers in SHAPES.items():
        for name, (n, k) in layers.items():
            copies = min(24, pool.numel() // (n * k))
            weights = [pool[i * n * k : (i + 1) * n * k].view(n, k) for i in range(copies)]
            for batch in (1, 4, 8, 16):
                x = torch.randn(batch, k, dtype=torch.float16, device="cuda")
                us = graph_ms(lambda: [torch.nn.functional.linear(x, w) for w in weights]) * 1e3 / copies
                print(f"torch {model:8} {name:8} B {batch:2}  {us:7.2f} us {2 * n * k / us / 1e3:6.0f} GB/s", flush=True)


if __name__ == "__main__":
    main()
