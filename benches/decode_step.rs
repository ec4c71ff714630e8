//! Times a decode step of Mistral-7B's shape (random FP16 weights) on a GPU, quantized caches beside the unquantized one:
//! `cargo bench --features cuda --bench decode_step [-- quick] [--json FILE]`.
//!
//! Each row: milliseconds a step (median of the steps that quantize nothing), GB/s of the weights and cache bytes
//! that such a step must read, the ratio to the time of a copy of as many bytes on the same device, how many times faster than with
//! the unquantized cache, with its 95 % interval, and tokens a second over all steps, those that quantize a block
//! included: 128 steps hold two. The cache is filled with random keys and values, not by reading a prompt: the cost of a step does
//! not depend on them. `--json` writes the rows to a file too.

#[cfg(feature = "cuda")]
fn main() -> anyhow::Result<()> {
    on_gpu::main()
}

#[cfg(not(feature = "cuda"))]
fn main() {
    println!("nothing to time: this build has no CUDA");
}

#[cfg(feature = "cuda")]
mod on_gpu {
    use candle_core::{DType, Device, Tensor};
    use kvprof::base::stats;
    use kvprof::cache::{self, KvCache};
    use kvprof::device::{self, Mark};
    use kvprof::model::step::engine::StepEngine;
    use kvprof::model::{Decoder, LoadOptions, Subject, WeightsKind};

    const CONFIG: &str = r#"{"architectures": ["MistralForCausalLM"], "model_type": "mistral", "hidden_act": "silu",
        "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 8, "vocab_size": 32000, "max_position_embeddings": 131072, "rms_norm_eps": 1e-05,
        "rope_theta": 1000000.0, "sliding_window": null, "tie_word_embeddings": false, "torch_dtype": "float16"}"#;
    const STEPS: usize = 128;
    const WARM_UP: usize = 6;
    const CHUNK: usize = 1024;

    pub fn main() -> anyhow::Result<()> {
        let device = match device::open(Some(0)) {
            Ok(device) => device,
            Err(error) => {
                println!("nothing to time: {error}");
                return Ok(());
            }
        };
        let arguments: Vec<String> = std::env::args().collect();
        let quick = arguments.iter().any(|argument| argument == "quick");
        let json = arguments.iter().position(|argument| argument == "--json").and_then(|at| arguments.get(at + 1));
        let mut rows = Vec::new();
        let copy = device::copy_gb_per_s(&device)?;
        let folder = tempfile::tempdir()?;
        let config = folder.path().join("config.json");
        std::fs::write(&config, CONFIG)?;
        let mut options = LoadOptions::new(config.to_string_lossy());
        (options.weights, options.device, options.dtype) = (WeightsKind::Dummy, "cuda".parse()?, "f16".parse()?);
        let subject = Subject::load(&options)?;
        println!("copy {copy:.0} GB/s, weights {:.2} GB", subject.weight_bytes() as f64 / 1e9);
        println!(
            "{:>2} {:>6} {:16} {:8} {:>9} {:>6} {:>11} {:>7} {:>13} {:>10}",
            "B", "S", "kv-quant", "launch", "ms/step", "GB/s", "over copy", "x none", "95 %", "tokens/s"
        );
        let all = ["none", "int8-hqq", "int4-hqq", "int4-kivi", "int2-hqq-kivi"];
        let specs = if quick { &all[..3] } else { &all[..] };
        let shapes = [(1, 4096), (1, 32768), (16, 32768), (4, 4096), (4, 32768), (16, 4096)];
        for &(batch, context) in if quick { &shapes[..3] } else { &shapes[..] } {
            let mut unquantized = None;
            for spec in specs {
                for graph in [true, false] {
                    if !graph && (*spec != "none" || batch > 1) {
                        continue;
                    }
                    match time(&subject.decoder, spec, batch, context, graph) {
                        Ok(step) => {
                            let unquantized = unquantized.get_or_insert_with(|| step.times_ms.clone());
                            step.print(batch, context, spec, graph, copy, unquantized);
                            rows.push(serde_json::json!({
                                "batch": batch, "tokens": context, "kv_quant": spec, "graph": graph, "ms": step.ms,
                                "tokens_per_s": step.tokens_per_s, "over_copy": copy * step.ms * 1e6 / step.bytes,
                            }));
                        }
                        Err(kvprof::Error::OutOfMemory(_)) => println!("{batch:2} {context:6} {spec:16} does not fit"),
                        Err(error) => return Err(error.into()),
                    }
                    device::release_unused_memory(&device)?;
                }
            }
        }
        if let Some(path) = json {
            std::fs::write(path, serde_json::to_string_pretty(&rows)?)?;
        }
        Ok(())
    }

    struct Step {
        /// Median of `times_ms`.
        ms: f64,
        /// Of each step that quantized nothing.
        times_ms: Vec<f64>,
        bytes: f64,
        tokens_per_s: f64,
    }

    impl Step {
        fn print(&self, batch: usize, context: usize, spec: &str, graph: bool, copy: f64, unquantized: &[f64]) {
            let rate = self.bytes / self.ms / 1e6;
            let faster = stats::ratio_of_medians(&self.times_ms, unquantized);
            let interval = faster.and_then(|f| f.interval).unwrap_or((f64::NAN, f64::NAN));
            println!(
                "{batch:2} {context:6} {spec:16} {:8} {:9.3} {rate:6.0} {:11.3} {:7.2} [{:5.2}, {:4.2}] {:10.1}",
                if graph { "graph" } else { "single" },
                self.ms,
                copy / rate,
                1.0 + faster.map_or(f64::NAN, |f| f.value),
                1.0 + interval.0,
                1.0 + interval.1,
                self.tokens_per_s
            );
        }
    }

    fn time(decoder: &Decoder, spec: &str, batch: usize, context: usize, graph: bool) -> kvprof::Result<Step> {
        let capacity = context + WARM_UP + STEPS;
        let shape = decoder.config().cache_shape(batch, capacity, CHUNK, DType::F16, decoder.device());
        let mut cache = cache::new(spec.parse()?, shape)?;
        fill(cache.as_mut(), context)?;
        let mut engine = StepEngine::new(decoder, cache.as_ref(), graph)?;
        engine.begin(&Tensor::zeros((batch, decoder.config().vocab), DType::F32, decoder.device())?, cache.as_ref())?;
        for _ in 0..WARM_UP {
            engine.step(cache.as_mut())?;
        }
        let bytes = (decoder.step_weight_bytes() + cache.read_bytes()) as f64;
        let mut marks = vec![Mark::set(decoder.device())?];
        let mut flushes = Vec::with_capacity(STEPS);
        for _ in 0..STEPS {
            flushes.push(cache.tokens_until_flush() == Some(1));
            engine.step(cache.as_mut())?;
            marks.push(Mark::set(decoder.device())?);
        }
        let times = marks.windows(2).map(|pair| pair[0].ms_until(&pair[1])).collect::<kvprof::Result<Vec<_>>>()?;
        cache.check_finite()?;
        let plain: Vec<f64> = times.into_iter().zip(flushes).filter(|(_, flush)| !flush).map(|(ms, _)| ms).collect();
        let ms = stats::median(&plain).ok_or_else(|| kvprof::Error::Invalid("no step was timed".into()))?;
        let all = marks[0].ms_until(&marks[STEPS])?;
        Ok(Step { ms, times_ms: plain, bytes, tokens_per_s: (batch * STEPS) as f64 / all * 1e3 })
    }

    /// Appends `tokens` random keys and values, the same ones again for every chunk.
    fn fill(cache: &mut dyn KvCache, tokens: usize) -> kvprof::Result<()> {
        let (layers, batch, heads, dim) = {
            let shape = cache.shape();
            (shape.layers(), shape.batch, shape.kv_heads, shape.head_dim)
        };
        let device: Device = cache.shape().device.clone();
        let random = || Tensor::randn(0f32, 1f32, (batch, heads, CHUNK, dim), &device)?.to_dtype(DType::F16);
        let (k, v) = (random()?, random()?);
        while cache.len() < tokens {
            let count = CHUNK.min(tokens - cache.len());
            for layer in 0..layers {
                cache.append(layer, &k.narrow(2, 0, count)?, &v.narrow(2, 0, count)?)?;
                cache.settle(layer)?;
            }
            cache.advance(count);
        }
        Ok(())
    }
}
