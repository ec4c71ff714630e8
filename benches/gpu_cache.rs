//! Times the cache kernels on a 7B model's layer (8 KV heads, D 128, 32768 tokens), dense attention, and attention of several new tokens to
//! codes, on a GPU: `cargo bench --features cuda --bench gpu_cache`.
//!
//! Each row: microseconds (median, of numbers drawn from N(0, 1)), GB/s of the bytes that must move (read once, written once), and that as a share of what a copy
//! on the same device moves; for dense attention TFLOP/s of the visible pairs; for codes `fused`, what it runs, and `sdpa`, which dequantizes first. Buffers rotate, so that none is in a cache.

use candle_core::{DType, Device, Tensor};
use kvprof::base::stats;
use kvprof::cache::{self, CacheShape, KvCache, ops};
use kvprof::device::{self, Mark};
use kvprof::model::attention::{self, Attention};
use kvprof::quant::presets::PRESETS;
use kvprof::quant::{QuantSpec, Scheme};

const KV_HEADS: usize = 8;
const QUERY_HEADS: usize = 32;
const HEAD_DIM: usize = 128;
const TOKENS: usize = 32768;
const REPEATS: usize = 11;
/// Calls between two marks: the host's part of the first is then a small share.
const CALLS: usize = 4;
const ROTATION: usize = 3;
/// Tokens appended at once.
const CHUNK: usize = 4096;

fn main() -> anyhow::Result<()> {
    let device = match device::open(Some(0)) {
        Ok(device) => device,
        Err(error) => {
            println!("nothing to time: {error}");
            return Ok(());
        }
    };
    let copy = device::copy_gb_per_s(&device)?;
    println!("copy: {copy:.0} GB/s");
    println!(
        "{:16} {:>12} {:>7} {:>6}   {:>14} {:>7} {:>6}",
        "kv-quant", "quantize us", "GB/s", "%", "dequantize us", "GB/s", "%"
    );
    for preset in PRESETS.iter().filter(|preset| preset.scheme != Scheme::None) {
        let (quantize, dequantize, bytes) = quantization(&preset.name.parse()?, &device)?;
        let rate = |us: f64| bytes / us / 1e3;
        println!(
            "{:16} {:12.1} {:7.0} {:5.1}%   {:14.1} {:7.0} {:5.1}%",
            preset.name,
            quantize,
            rate(quantize),
            rate(quantize) / copy * 100.0,
            dequantize,
            rate(dequantize),
            rate(dequantize) / copy * 100.0
        );
    }
    println!("{:>8} {:>8} {:>10} {:>9}", "new", "cached", "us", "TFLOP/s");
    for (new, cached) in [(4096, 4096), (32768, 32768), (2048, 32768), (256, 32768), (64, 32768), (64, 4096)] {
        let (us, flop) = dense_attention(new, cached, &device)?;
        println!("{new:8} {cached:8} {us:10.1} {:9.1}", flop / us / 1e6);
    }
    println!("{:16} {:>5} {:>8} {:>9} {:>9} {:>6}  kernel", "kv-quant", "new", "float", "fused us", "sdpa us", "ratio");
    for spec in ["none", "int8-hqq", "int4-hqq", "int4-quanto", "int2-hqq-kivi", "int2-hqq-token", "fp8"] {
        for dtype in [DType::F16, DType::BF16] {
            for new in [2, 4, 8, 12, 16, 32, 64, 128, 512, 2048] {
                let ([fused, sdpa], kernel) = over_codes(&spec.parse()?, new, dtype, &device)?;
                let float = format!("{dtype:?}");
                println!("{spec:16} {new:5} {float:>8} {fused:9.1} {sdpa:9.1} {:6.2}  {kernel}", sdpa / fused);
            }
        }
    }
    Ok(())
}

fn layer(capacity: usize, max_chunk: usize, dtype: DType, device: &Device) -> CacheShape {
    CacheShape {
        windows: vec![None],
        batch: 1,
        kv_heads: KV_HEADS,
        head_dim: HEAD_DIM,
        capacity,
        max_chunk,
        dtype,
        device: device.clone(),
    }
}

fn normal(heads: usize, tokens: usize, dtype: DType, device: &Device) -> anyhow::Result<Tensor> {
    Ok(Tensor::randn(0f32, 1f32, (1, heads, tokens, HEAD_DIM), device)?.to_dtype(dtype)?)
}

/// Appends keys and values of `tokens` tokens, which are neither settled nor counted yet.
fn append(cache: &mut dyn KvCache, tokens: usize) -> anyhow::Result<()> {
    let (dtype, device) = (cache.shape().dtype, cache.shape().device.clone());
    let [k, v] = [0, 1].map(|_| normal(KV_HEADS, tokens, dtype, &device));
    Ok(cache.append(0, &k?, &v?)?)
}

/// Microseconds of the device for one call of `work`, which gets the number of the call: the median of several runs of calls.
fn time(device: &Device, mut work: impl FnMut(usize) -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let mut times = Vec::with_capacity(REPEATS);
    for repeat in 0..REPEATS + 2 {
        let start = Mark::set(device)?;
        for call in 0..CALLS {
            work(repeat * CALLS + call)?;
        }
        let ms = start.ms_until(&Mark::set(device)?)?;
        if repeat >= 2 {
            times.push(ms * 1e3 / CALLS as f64);
        }
    }
    stats::median(&times).ok_or_else(|| anyhow::anyhow!("nothing was timed"))
}

/// Microseconds to quantize and to dequantize all tokens of a layer, and the bytes either moves.
fn quantization(spec: &QuantSpec, device: &Device) -> anyhow::Result<(f64, f64, f64)> {
    let spec = spec.clone().with_residual(0);
    let caches = (0..ROTATION)
        .map(|_| {
            let mut cache = cache::new(spec.clone(), layer(TOKENS, TOKENS, DType::BF16, device))?;
            append(&mut *cache, TOKENS)?;
            Ok(cache)
        })
        .collect::<anyhow::Result<Vec<Box<dyn KvCache>>>>()?;
    let views: Vec<_> = caches.iter().map(|cache| cache.view(0)).collect();
    let packed = |i: usize| views[i % ROTATION].packed.as_ref().ok_or_else(|| anyhow::anyhow!("nothing is packed"));
    let geometry = packed(0)?.geometry;
    let quantize = time(device, |i| {
        Ok(ops::quantize_blocks(packed(i)?.tiles, views[i % ROTATION].window, &spec, geometry, 0..TOKENS)?)
    })?;
    drop(views);
    let mut caches = caches;
    for cache in &mut caches {
        cache.settle(0)?;
    }
    let dequantize = time(device, |i| {
        ops::dense(&caches[i % ROTATION].view(0), 0..TOKENS)?;
        Ok(())
    })?;
    let dense = 2 * KV_HEADS * TOKENS * HEAD_DIM * 2;
    let tiles = KV_HEADS * TOKENS / geometry.tokens * geometry.bytes();
    Ok((quantize, dequantize, (dense + tiles) as f64))
}

/// Microseconds and floating-point operations of attention of the last `new` of `cached` tokens.
fn dense_attention(new: usize, cached: usize, device: &Device) -> anyhow::Result<(f64, f64)> {
    let mut cache = cache::new(QuantSpec::none(), layer(cached, cached, DType::BF16, device))?;
    append(&mut *cache, cached)?;
    let q = normal(QUERY_HEADS, new, DType::BF16, device)?;
    let backend = attention::new("sdpa")?;
    let us = time(device, |_| {
        backend.attend(&q, &cache.view(0), 0.088)?;
        Ok(())
    })?;
    let pairs = new * (cached - new) + new * (new + 1) / 2;
    Ok((us, (4 * HEAD_DIM * QUERY_HEADS * pairs) as f64))
}

/// Microseconds of `fused` and `sdpa` for attention of the last `new` of 32768 tokens, a window of 128 and more beside the codes, and what
/// `fused` ran.
fn over_codes(spec: &QuantSpec, new: usize, dtype: DType, device: &Device) -> anyhow::Result<([f64; 2], String)> {
    let caches = (0..ROTATION)
        .map(|_| {
            let mut cache = cache::new(spec.clone(), layer(TOKENS, CHUNK, dtype, device))?;
            for from in (0..TOKENS - new).step_by(CHUNK) {
                let chunk = CHUNK.min(TOKENS - new - from);
                append(&mut *cache, chunk)?;
                cache.settle(0)?;
                cache.advance(chunk);
            }
            append(&mut *cache, new)?;
            Ok(cache)
        })
        .collect::<anyhow::Result<Vec<Box<dyn KvCache>>>>()?;
    let q = normal(QUERY_HEADS, new, dtype, device)?;
    let [fused, sdpa] = ["fused", "sdpa"].map(attention::new);
    let (fused, sdpa) = (fused?, sdpa?);
    let us = |backend: &dyn Attention| {
        time(device, |i| {
            backend.attend(&q, &caches[i % ROTATION].view(0), 0.088)?;
            Ok(())
        })
    };
    Ok(([us(&*fused)?, us(&*sdpa)?], fused.kernel(QUERY_HEADS, new, &caches[0].view(0))))
}
