"""kvprof's built-in model in PyTorch: a small Llama, its export in Hugging Face's layout, and quick scores of it with
simulated quantized caches. Used by tools/train_builtin.py; kvprof itself runs the exported file with its own decoder."""

import json
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F

# The last tokens of a sequence stay in full precision, as with kvprof's default --residual-length.
RESIDUAL = 128


class Config:
    def __init__(self, vocab, layers=4, hidden=256, heads=4, kv_heads=2, head_dim=64, mlp=688, context=2048):
        self.vocab, self.layers, self.hidden, self.heads, self.kv_heads = vocab, layers, hidden, heads, kv_heads
        self.head_dim, self.mlp, self.context = head_dim, mlp, context
        self.rope_theta, self.eps = 10000.0, 1e-5

    def hugging_face(self):
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_act": "silu",
            "hidden_size": self.hidden,
            "intermediate_size": self.mlp,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "vocab_size": self.vocab,
            "max_position_embeddings": self.context,
            "rms_norm_eps": self.eps,
            "rope_theta": self.rope_theta,
            "rope_scaling": None,
            "attention_bias": False,
            "mlp_bias": False,
            "tie_word_embeddings": True,
            "bos_token_id": 0,
            "eos_token_id": 0,
            "torch_dtype": "float16",
        }


class RmsNorm(nn.Module):
    def __init__(self, width, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x):
        return F.rms_norm(x, (x.shape[-1],), self.weight, self.eps)


def rotate(x, cos, sin):
    """RoPE over the halves of the head, as Llama's files expect it. x: [B, H, T, D]; cos, sin: [T, D/2]."""
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


class Layer(nn.Module):
    """One decoder layer; attribute names follow the tensor names of the Hugging Face layout."""

    def __init__(self, c):
        super().__init__()
        self.config = c
        linear = lambda rows, cols: nn.Linear(cols, rows, bias=False)
        self.input_layernorm = RmsNorm(c.hidden, c.eps)
        self.post_attention_layernorm = RmsNorm(c.hidden, c.eps)
        self.self_attn = nn.ModuleDict({
            "q_proj": linear(c.heads * c.head_dim, c.hidden),
            "k_proj": linear(c.kv_heads * c.head_dim, c.hidden),
            "v_proj": linear(c.kv_heads * c.head_dim, c.hidden),
            "o_proj": linear(c.hidden, c.heads * c.head_dim),
        })
        self.mlp = nn.ModuleDict({
            "gate_proj": linear(c.mlp, c.hidden),
            "up_proj": linear(c.mlp, c.hidden),
            "down_proj": linear(c.hidden, c.mlp),
        })

    def forward(self, x, cos, sin, cache=None):
        """x: [B, T, hidden]. `cache` maps k, v ([B, Hkv, T, D]) to what a quantized cache would give back."""
        c, (batch, length, _) = self.config, x.shape
        heads = lambda t: t.view(batch, length, -1, c.head_dim).transpose(1, 2)
        y, a = self.input_layernorm(x), self.self_attn
        q, k, v = heads(a["q_proj"](y)), heads(a["k_proj"](y)), heads(a["v_proj"](y))
        q, k = rotate(q, cos, sin).to(v.dtype), rotate(k, cos, sin).to(v.dtype)
        if cache is None:
            out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        else:
            out = attend_through(cache, q, k, v)
        x = x + a["o_proj"](out.transpose(1, 2).reshape(batch, length, -1))
        y, m = self.post_attention_layernorm(x), self.mlp
        return x + m["down_proj"](F.silu(m["gate_proj"](y)) * m["up_proj"](y))


def attend_through(cache, q, k, v):
    """Causal attention that reads keys and values older than RESIDUAL tokens from the quantized copy."""
    length, repeat = q.shape[2], q.shape[1] // k.shape[1]
    spread = lambda t: t.repeat_interleave(repeat, 1)
    k_old, v_old = cache(k, v)
    place = torch.arange(length, device=q.device)
    old = place[:, None] - place[None, :] >= RESIDUAL
    scores = torch.where(old, q @ spread(k_old).mT, q @ spread(k).mT) / q.shape[-1] ** 0.5
    weights = scores.masked_fill(place[None, :] > place[:, None], float("-inf")).softmax(-1)
    return (weights * old) @ spread(v_old) + (weights * ~old) @ spread(v)


class Model(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab, config.hidden)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.norm = RmsNorm(config.hidden, config.eps)
        place = torch.arange(config.context)[:, None]
        angle = place * config.rope_theta ** (-torch.arange(0, config.head_dim, 2) / config.head_dim)
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)
        for name, p in self.named_parameters():
            if p.dim() == 2:
                deep = name.endswith(("o_proj.weight", "down_proj.weight"))
                nn.init.normal_(p, std=0.02 / (2 * config.layers) ** 0.5 if deep else 0.02 if "embed" in name else p.shape[1] ** -0.5)

    def forward(self, tokens, targets=None, cache=None):
        """tokens: [B, T] int64. Logits [B, T, V], or with `targets` the mean loss in nats."""
        length = tokens.shape[1]
        cos, sin = self.cos[:length], self.sin[:length]
        x = self.embed_tokens(tokens)
        for layer in self.layers:
            x = layer(x, cos, sin, cache)
        logits = F.linear(self.norm(x), self.embed_tokens.weight)
        if targets is None:
            return logits
        return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())


def export(model, folder):
    """Writes model.safetensors (FP16) and config.json; returns the bytes of the former."""
    from safetensors.torch import save_file

    folder = Path(folder)
    tensors = {f"model.{name}": p.detach().to("cpu", torch.float16).contiguous() for name, p in model.named_parameters()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    (folder / "config.json").write_text(json.dumps(model.config.hugging_face(), indent=2) + "\n")
    return (folder / "model.safetensors").stat().st_size


def rounded_to_fp16(model):
    """A float32 copy of the model with the exported file's weights."""
    copy = Model(model.config)
    copy.load_state_dict({n: p.detach().half().float() for n, p in model.state_dict().items()})
    return copy.to(next(model.parameters()).device).eval()


def simulated_cache(key, value):
    """key, value: (bits, group, "token" | "channel"), min-max fit. A cache function for Model.forward."""

    def quantize(x, bits, group, along):
        whole = x.shape[2] // group * group  # an unfinished group of tokens stays as it is
        y = x if along == "token" else x[:, :, :whole].mT
        groups = y.unflatten(-1, (-1, group))
        low, high = groups.aminmax(dim=-1, keepdim=True)
        scale = ((high - low) / (2**bits - 1)).clamp_min(1e-8)
        z = (((groups - low) / scale).round() * scale + low).flatten(-2)
        return z if along == "token" else torch.cat([z.mT, x[:, :, whole:]], 2)

    return lambda k, v: (quantize(k, *key), quantize(v, *value))


CACHES = {
    "int8 per token, g64": simulated_cache((8, 64, "token"), (8, 64, "token")),
    "int4 per token, g64": simulated_cache((4, 64, "token"), (4, 64, "token")),
    "int4 per channel, g64": simulated_cache((4, 64, "channel"), (4, 64, "channel")),
    "int2 per channel, g16": simulated_cache((2, 16, "channel"), (2, 16, "channel")),
    "int2 KIVI, g16": simulated_cache((2, 16, "channel"), (2, 16, "token")),
    "int2 per token, g16": simulated_cache((2, 16, "token"), (2, 16, "token")),
    "int2 per token, g64": simulated_cache((2, 64, "token"), (2, 64, "token")),
}


@torch.no_grad()
def nll(model, rows, cache=None):
    """Mean loss in nats of rows [N, T+1] behind the first eighth of the context."""
    burn_in = model.config.context // 8
    total = [
        F.cross_entropy(model(row[None, :-1], cache=cache)[0, burn_in:], row[burn_in + 1 :]).item() for row in rows
    ]
    return sum(total) / len(total)


@torch.no_grad()
def nll_short_context(model, rows, context=64):
    """The same tokens, each predicted from the last `context`/2 + 1 to `context` tokens only."""
    half, burn_in = context // 2, model.config.context // 8
    starts = range(burn_in, rows.shape[1] - 1 - half + 1, half)
    pieces = torch.stack([row[s - half : s + half + 1] for row in rows for s in starts])
    logits = model(pieces[:, :-1])[:, half:]
    return F.cross_entropy(logits.flatten(0, 1), pieces[:, half + 1 :].flatten()).item()


@torch.no_grad()
def needle_accuracy(model, prompts, answers, cache=None):
    """Share of prompts [N, T] after which greedy decoding gives answers [N, A]."""
    for _ in range(answers.shape[1]):
        prompts = torch.cat([prompts, model(prompts, cache=cache)[:, -1].argmax(-1, keepdim=True)], 1)
    return (prompts[:, -answers.shape[1] :] == answers).all(1).float().mean().item()
