//! Times fused decode attention on a GPU, one new token, FP16, D 128, with a dense window of 128 beside the packed tokens:
//! `cargo bench --features cuda --bench decode_attention [-- --json FILE]`.
//!
//! For each shape and scheme: microseconds of a launch (median of replays of a CUDA graph that visits buffers in turn, so that none
//! is in a cache, over its launches), the same where each launch may start while the one before it ends, as in the decode
//! step (kernels/include/kvprof/overlap.cuh), and of the first of the two GB/s of the bytes moved, that as a share of what a copy on
//! the same device moves in the same run, and how many times faster than the dense FP16 kernel of the same shape, with its
//! 95 % interval. benches/peers/compare.py runs this and torch's kernels on the same shapes in the same way, and prints the
//! ratios to the fastest FP16 kernel of all.

#[cfg(feature = "cuda")]
fn main() -> anyhow::Result<()> {
    gpu::run()
}

#[cfg(not(feature = "cuda"))]
fn main() {
    println!("nothing to time: this build has no CUDA");
}

#[cfg(feature = "cuda")]
mod gpu {
    use candle_core::{DType, Device, Tensor};
    use kvprof::base::stats;
    use kvprof::cache::{self, CacheShape, LayerView, PackedView};
    use kvprof::device::kernels::tensor_address;
    use kvprof::device::ranges::Part;
    use kvprof::device::sequence::{Kernels, Sequence};
    use kvprof::device::{self, DeviceLimits, Mark};
    use kvprof::model::attention::decode::{DecodeKernel, DecodeShape, Scratch};
    use kvprof::quant::{QuantSpec, TileGeometry};

    const HEAD_DIM: usize = 128;
    const WINDOW: usize = 128;
    /// Bytes that the rotated buffers of a shape hold together at least: several times any second-level cache.
    const ROTATED_BYTES: usize = 400 << 20;
    /// Launches of a graph, at least, and replays. Each has a recent window of its own, as the layers of a model have: together they are
    /// in a second-level cache where those of a model would be.
    const LAUNCHES: usize = 32;
    const REPLAYS: usize = 7;

    /// Query heads, KV heads, batch, cached tokens.
    const SHAPES: [[usize; 4]; 10] = [
        [32, 8, 1, 4096],
        [32, 8, 1, 32768],
        [32, 8, 1, 131072],
        [32, 8, 8, 32768],
        [32, 8, 32, 4096],
        [28, 4, 1, 32768],
        [28, 4, 8, 32768],
        [32, 32, 8, 32768],
        [32, 8, 32, 32768],
        [28, 4, 32, 32768],
    ];

    /// `none` first: the others are compared with it.
    const SCHEMES: [&str; 14] = [
        "none",
        "fp8",
        "int8-hqq",
        "int8-hqq-kivi",
        "int8-hqq-token",
        "int4-hqq",
        "int4-hqq-kivi",
        "int4-hqq-token",
        "int4-kivi",
        "int2-hqq,group=64",
        "int2-hqq",
        "int2-hqq-kivi",
        "int2-hqq-token",
        "int2-kivi",
    ];

    pub fn run() -> anyhow::Result<()> {
        let device = match device::open(Some(0)) {
            Ok(device) => device,
            Err(error) => {
                println!("nothing to time: {error}");
                return Ok(());
            }
        };
        let arguments: Vec<String> = std::env::args().collect();
        let json = arguments.iter().position(|argument| argument == "--json").and_then(|at| arguments.get(at + 1));
        let mut rows = Vec::new();
        let copy = device::copy_gb_per_s(&device)?;
        println!("copy: {copy:.0} GB/s");
        let tiles = SCHEMES.iter().map(|name| sample_tiles(name, &device)).collect::<anyhow::Result<Vec<_>>>()?;
        for [heads, kv_heads, batch, tokens] in SHAPES {
            println!("\nHq/Hkv {heads}/{kv_heads}, B {batch}, S {tokens}");
            println!(
                "{:18} {:>9} {:>9} {:>6} {:>6} {:>7} {:>13}  {:24} {:>6}",
                "kv-quant", "us", "overlap", "GB/s", "%", "x none", "95 %", "kernel", "splits"
            );
            let mut dense = None;
            for (name, tiles) in SCHEMES.iter().zip(&tiles) {
                let shape = DecodeShape {
                    batch,
                    heads,
                    kv_heads,
                    tokens: 1,
                    head_dim: HEAD_DIM,
                    dtype: DType::F16,
                    capacity: tokens,
                };
                let row = time(name, tiles.as_ref(), &shape, &device)?;
                let dense: &Vec<f64> = dense.get_or_insert_with(|| row.times_us.clone());
                let faster = stats::ratio_of_medians(&row.times_us, dense);
                let interval = faster.and_then(|f| f.interval).unwrap_or((f64::NAN, f64::NAN));
                let rate = row.bytes / row.us / 1e3;
                println!(
                    "{name:18} {:9.1} {:9.1} {rate:6.0} {:5.1}% {:7.2} [{:5.2}, {:4.2}]  {:24} {:6}",
                    row.us,
                    row.overlapped_us,
                    rate / copy * 100.0,
                    1.0 + faster.map_or(f64::NAN, |f| f.value),
                    1.0 + interval.0,
                    1.0 + interval.1,
                    row.kernel,
                    row.splits
                );
                rows.push(serde_json::json!({
                    "query_heads": heads, "kv_heads": kv_heads, "batch": batch, "tokens": tokens, "kv_quant": name,
                    "graph_us": row.us, "overlapped_us": row.overlapped_us, "gb_per_s": rate, "kernel": row.kernel,
                }));
            }
            device::release_unused_memory(&device)?;
        }
        if let Some(path) = json {
            std::fs::write(path, serde_json::to_string_pretty(&rows)?)?;
        }
        Ok(())
    }

    struct Row {
        /// Median of `times_us`.
        us: f64,
        /// Of each replay, for one launch.
        times_us: Vec<f64>,
        overlapped_us: f64,
        bytes: f64,
        kernel: String,
        splits: usize,
    }

    /// Tiles of one head, quantized from random numbers, `[1, 1, tiles, bytes]`; `None` for the unquantized cache.
    fn sample_tiles(name: &str, device: &Device) -> anyhow::Result<Option<Tensor>> {
        let spec = name.parse::<QuantSpec>()?.with_residual(0);
        let tokens = 1024;
        let shape = CacheShape {
            windows: vec![None],
            batch: 1,
            kv_heads: 1,
            head_dim: HEAD_DIM,
            capacity: tokens,
            max_chunk: 64,
            dtype: DType::F16,
            device: device.clone(),
        };
        let mut cache = cache::new(spec, shape)?;
        for _ in (0..tokens).step_by(64) {
            let random = || Tensor::randn(0f32, 1f32, (1, 1, 64, HEAD_DIM), device)?.to_dtype(DType::F16);
            cache.append(0, &random()?, &random()?)?;
            cache.settle(0)?;
            cache.advance(64);
        }
        let tiles = cache.view(0).packed.map(|packed| packed.tiles.copy());
        Ok(tiles.transpose()?)
    }

    fn time(name: &str, sample: Option<&Tensor>, shape: &DecodeShape, device: &Device) -> anyhow::Result<Row> {
        let spec: QuantSpec = name.parse()?;
        let geometry = TileGeometry::new(&spec, HEAD_DIM, DType::F16);
        let (heads, tokens) = (shape.batch * shape.kv_heads, shape.capacity);
        let dense_tokens = if geometry.is_some() { WINDOW } else { tokens };
        let window_bytes = 2 * heads * dense_tokens * HEAD_DIM * 2;
        let tile_bytes = geometry.map_or(0, |g| heads * tokens / g.tokens * g.bytes());
        let count = (ROTATED_BYTES / (window_bytes + tile_bytes) + 1).max(2);

        let launches = count.max(LAUNCHES);
        let window = || {
            let shape = (2, shape.batch, shape.kv_heads, dense_tokens, HEAD_DIM);
            let one = Tensor::randn(0f32, 1f32, (shape.3, shape.4), device)?.to_dtype(DType::F16)?;
            one.broadcast_as(shape)?.contiguous()
        };
        let windows: Vec<_> =
            (0..if sample.is_some() { launches } else { count }).map(|_| window()).collect::<Result<_, _>>()?;
        let tiles = || {
            let (Some(sample), Some(g)) = (sample, geometry) else { return Ok(None) };
            let repeats = tokens / g.tokens / sample.dim(2)?;
            sample.repeat((shape.batch, shape.kv_heads, repeats, 1)).map(Some)
        };
        let tiles: Vec<_> = (0..count).map(|_| tiles()).collect::<candle_core::Result<_>>()?;
        let q = Tensor::randn(0f32, 1f32, (shape.batch, shape.heads, 1, HEAD_DIM), device)?.to_dtype(DType::F16)?;
        let out = q.zeros_like()?;

        let Device::Cuda(cuda) = device else { anyhow::bail!("no GPU") };
        let choice =
            DecodeKernel::choose(geometry.as_ref(), shape, DeviceLimits::of(cuda)?).map_err(anyhow::Error::msg)?;
        let scratch = Scratch::new(&choice, shape, device)?;
        let stream = cuda.cuda_stream();
        let kernel = Kernels::load(stream.context(), choice.image)?.get(&choice.kernel, choice.shared_bytes as u32)?;
        let (mut in_turn, mut overlapped) = (Sequence::default(), Sequence::default());
        for (window, tiles) in windows.iter().cycle().zip(tiles.iter().cycle()).take(launches) {
            let packed = match (tiles, geometry) {
                (Some(tiles), Some(geometry)) => {
                    Some(PackedView { tiles, spec: &spec, geometry, positions: 0..tokens })
                }
                _ => None,
            };
            let start = if packed.is_some() { tokens } else { 0 };
            let view =
                LayerView { window, window_positions: start..start + dense_tokens, packed, sliding_window: None };
            let params =
                choice.params(&view, shape, [tensor_address(&q)?, tensor_address(&out)?, 0], &scratch, 0.088)?;
            let grid = choice.grid.map(|n| n as u32);
            for (sequence, overlap) in [(&mut in_turn, false), (&mut overlapped, true)] {
                // SAFETY: the buffers have the shapes that `params` and the grid were made for, and live until the graph has
                // run; the kernel waits for the one before it before it reads queries or writes.
                sequence.push(Part::Attention, unsafe { kernel.launch(grid, choice.threads, params, overlap) });
            }
        }
        let replay_us = |sequence: &Sequence| -> anyhow::Result<Vec<f64>> {
            let graph = sequence.capture(&stream)?;
            let mut times = Vec::with_capacity(REPLAYS);
            for replay in 0..=REPLAYS {
                let start = Mark::set(device)?;
                graph.replay()?;
                let ms = start.ms_until(&Mark::set(device)?)?;
                if replay > 0 {
                    times.push(ms * 1e3 / launches as f64);
                }
            }
            Ok(times)
        };
        let (times, overlapped) = (replay_us(&in_turn)?, replay_us(&overlapped)?);
        let median = |times: &[f64]| stats::median(times).ok_or_else(|| anyhow::anyhow!("nothing was timed"));
        let (us, overlapped_us) = (median(&times)?, median(&overlapped)?);
        Ok(Row {
            us,
            times_us: times,
            overlapped_us,
            bytes: (window_bytes + tile_bytes) as f64,
            kernel: choice.kernel.clone(),
            splits: choice.splits(),
        })
    }
}
