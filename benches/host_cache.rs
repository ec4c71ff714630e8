//! Times the host's cache and attention on a small model's shape (9 query heads, 3 KV heads, D 64): `cargo bench --bench host_cache`.
//!
//! For each quantization and backend: appending, attending to and settling chunks of 64 tokens up to 2048 (mean over the chunks,
//! so about 1024 cached tokens), then one decode step at 2048 (median). All in milliseconds a layer.

use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use kvprof::base::stats;
use kvprof::cache::{self, CacheShape};
use kvprof::model::attention;
use kvprof::quant::QuantSpec;

const CHUNK: usize = 64;
const CHUNKS: usize = 32;
const DECODE_STEPS: usize = 10;
const SCALE: f64 = 0.125;

fn main() -> anyhow::Result<()> {
    println!("{:16} {:8} {:>9} {:>9} {:>9} {:>9}", "kv-quant", "backend", "append", "attend", "settle", "decode");
    for name in ["none", "int8-hqq", "int4-hqq", "int2-hqq", "int4-kivi", "int2-hqq-token", "fp8"] {
        for backend in attention::NAMES {
            let [append, attend, settle, decode] = time(name.parse()?, backend)?;
            println!("{name:16} {backend:8} {append:9.3} {attend:9.3} {settle:9.3} {decode:9.3}");
        }
    }
    Ok(())
}

/// Milliseconds to append, attend, settle and decode.
fn time(spec: QuantSpec, backend: &str) -> anyhow::Result<[f64; 4]> {
    let shape = CacheShape {
        windows: vec![None],
        batch: 1,
        kv_heads: 3,
        head_dim: 64,
        capacity: (CHUNKS + 1) * CHUNK,
        max_chunk: CHUNK,
        dtype: DType::F32,
        device: Device::Cpu,
    };
    let mut cache = cache::new(spec, shape)?;
    let attention = attention::new(backend)?;
    let ms = |start: Instant| start.elapsed().as_secs_f64() * 1e3;
    let [mut append, mut attend, mut settle, mut decode] = [const { Vec::new() }; 4];
    for _ in 0..CHUNKS {
        let (q, kv) = tokens(CHUNK)?;
        let start = Instant::now();
        cache.append(0, &kv, &kv)?;
        append.push(ms(start));
        let start = Instant::now();
        attention.attend(&q, &cache.view(0), SCALE)?;
        attend.push(ms(start));
        let start = Instant::now();
        cache.settle(0)?;
        settle.push(ms(start));
        cache.advance(CHUNK);
    }
    let (q, kv) = tokens(1)?;
    cache.append(0, &kv, &kv)?;
    for _ in 0..DECODE_STEPS {
        let start = Instant::now();
        attention.attend(&q, &cache.view(0), SCALE)?;
        decode.push(ms(start));
    }
    // A chunk settles a block or none: a median of the chunks would show one of the two.
    let [append, attend, settle] = [append, attend, settle].map(|times| stats::mean(&times).unwrap_or(f64::NAN));
    Ok([append, attend, settle, stats::median(&decode).unwrap_or(f64::NAN)])
}

/// Random queries `[1, 9, T, 64]` and keys or values `[1, 3, T, 64]`.
fn tokens(count: usize) -> anyhow::Result<(Tensor, Tensor)> {
    let q = Tensor::randn(0f32, 1.0, (1, 9, count, 64), &Device::Cpu)?;
    let kv = Tensor::randn(0f32, 1.0, (1, 3, count, 64), &Device::Cpu)?;
    Ok((q, kv))
}
