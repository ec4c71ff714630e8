//! The decode step's own kernels give what the plain decoder with `eager` attention gives, for every preset, with and without
//! a CUDA graph.
//!
//! Without a GPU (or in a build without the feature `cuda`) each test says that it was skipped and passes; with
//! `KVPROF_REQUIRE_GPU=1` it fails instead. `KVPROF_SMOLLM2` names the GGUF file of SmolLM2 for the comparison of all
//! presets, which otherwise runs on the built-in model.
//!
//! # How far apart logits may be
//!
//! The engine and `eager` compute the same function in the model's float (FP16, say) and differ in where they round and in
//! the order of sums. How much that is depends on the model, the preset (what a run differs in before a key is quantized moves
//! some codes by one, which counts for more the fewer bits there are) and the tokens, so the scale is measured: *e* is the
//! largest distance, over the steps, of `eager` in FP16 from `eager` in float32 on the CPU, which rounds 2^13 times
//! finer and stands for the exact result; or that distance without quantization, if it is larger, since a quantized cache adds roundings
//! and takes none away, so that a smaller one is luck. Then
//!
//! - the engine's distance from the exact result is at most 2·e. It rounds at no more places than `eager` (scores and
//!   probabilities stay float32 there), so it is one more draw of the same error; 2 allows for chance in the maximum;
//! - so, by the triangle inequality, its distance from `eager` in FP16 is at most 3·e;
//! - e itself is at most 0.1 (0.5 in BF16, whose rounding is eight times as coarse), lest a broken `eager` excuse anything; with a
//!   quantized cache, at most what quantizing itself moves the exact logits by, if that is more. For there rounding shows as
//!   other codes: two caches that differ in them are two draws of the quantization error, and as most codes are equal, they
//!   are closer to each other than either is to the unquantized cache.
//!
//! A distance is ‖a − b‖ / ‖b‖ of one step's logits.

#![allow(clippy::unwrap_used, reason = "a test that panics fails, as it should")]

#[cfg(feature = "cuda")]
#[path = "support/gpu.rs"]
mod which;

#[cfg(feature = "cuda")]
mod on_gpu {
    use candle_core::{D, DType, Device, IndexOp, Tensor};
    use kvprof::cache::{self, KvCache};
    use kvprof::model::attention::{self, Attention};
    use kvprof::model::families::read_config;
    use kvprof::model::placement::{DeviceChoice, DtypeChoice};
    use kvprof::model::step::engine::StepEngine;
    use kvprof::model::step::{StepMode, Stepper};
    use kvprof::model::weights::Weights;
    use kvprof::model::{Decoder, LoadOptions, LogitsOf, Subject};
    use kvprof::quant::presets::PRESETS;
    use kvprof::quant::{QuantSpec, Scheme};
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use crate::which::gpu;

    /// Caches kept transformed: both sides, of which outputs are transformed back, and keys alone, in all layers but one.
    const TRANSFORMED: [&str; 2] = ["int4-quanto,hadamard=kv", "int8-hqq-token,keep-layers=1,hadamard=k"];

    const PROMPT: usize = 200;
    const STEPS: usize = 512;
    /// A block of the cache: chunks that end at its multiples quantize what single tokens would.
    const CHUNK: usize = 64;

    fn load(model: &str, device: &str, dtype: &str) -> Subject {
        let mut options = LoadOptions::new(model.to_string());
        options.device = device.parse::<DeviceChoice>().unwrap();
        options.dtype = dtype.parse::<DtypeChoice>().unwrap();
        Subject::load(&options).unwrap()
    }

    fn subject(dtype: &str) -> Subject {
        load("builtin", "cuda", dtype)
    }

    fn new_cache(decoder: &Decoder, spec: &QuantSpec, batch: usize, capacity: usize) -> Box<dyn KvCache> {
        let shape = decoder.config().cache_shape(batch, capacity, 64, decoder.dtype(), decoder.device());
        cache::new(spec.clone(), shape).unwrap()
    }

    /// The same random prompt for every sequence but for a shift.
    fn prompt_tokens(decoder: &Decoder, batch: usize) -> Vec<Vec<u32>> {
        let vocab = decoder.config().vocab as u32;
        let token = |b: usize, i: usize| (i as u32 * 7919 + b as u32 * 104_729 + 17) % vocab;
        (0..batch).map(|b| (0..PROMPT).map(|i| token(b, i)).collect()).collect()
    }

    /// Reads `tokens`, one row a sequence, in chunks that end at multiples of [`CHUNK`]; the logits `[B, T, V]` on the CPU of
    /// the positions from `from` on.
    fn read(
        decoder: &Decoder,
        cache: &mut dyn KvCache,
        attention: &dyn Attention,
        tokens: &[Vec<u32>],
        from: usize,
    ) -> Tensor {
        let length = tokens[0].len();
        let all = Tensor::from_vec(tokens.concat(), (tokens.len(), length), decoder.device()).unwrap();
        let mut logits = Vec::new();
        for at in (0..length).step_by(CHUNK) {
            let count = CHUNK.min(length - at);
            let chunk = all.narrow(1, at, count).unwrap();
            let part = decoder.forward(&chunk, cache, attention, LogitsOf::All).unwrap();
            let skipped = from.saturating_sub(at);
            if skipped < count {
                let wanted = part.narrow(1, skipped, count - skipped).unwrap();
                logits.push(wanted.to_device(&Device::Cpu).unwrap());
            }
        }
        Tensor::cat(&logits, 1).unwrap()
    }

    /// The prompt's last logits `[B, V]`, and what it left in the cache.
    fn prompt(decoder: &Decoder, cache: &mut dyn KvCache, attention: &dyn Attention) -> Tensor {
        let tokens = prompt_tokens(decoder, cache.shape().batch);
        let last = read(decoder, cache, attention, &tokens, PROMPT - 1);
        last.i((.., 0)).unwrap().to_device(decoder.device()).unwrap()
    }

    /// Decodes greedily with the engine: all tokens that were read, one row a sequence, and the logits `[B, steps, V]` that
    /// followed those after the prompt, on the CPU.
    fn serve(decoder: &Decoder, spec: &QuantSpec, batch: usize, steps: usize, graph: bool) -> (Vec<Vec<u32>>, Tensor) {
        let eager = attention::new("eager").unwrap();
        let mut cache = new_cache(decoder, spec, batch, PROMPT + steps + 1);
        let first = prompt(decoder, cache.as_mut(), eager.as_ref());
        let mut engine = StepEngine::new(decoder, cache.as_ref(), graph).unwrap();
        engine.begin(&first, cache.as_ref()).unwrap();
        let mut tokens = prompt_tokens(decoder, batch);
        let mut next = first.argmax(D::Minus1).unwrap().to_vec1::<u32>().unwrap();
        let mut logits = Vec::with_capacity(steps);
        for step in 0..steps {
            tokens.iter_mut().zip(&next).for_each(|(row, &token)| row.push(token));
            engine.step(cache.as_mut()).unwrap();
            let at = PROMPT + step + 1;
            next = engine.chosen(at..at + 1).unwrap().remove(0);
            // Equally large logits do occur: the engine chooses any of those.
            let largest = engine.logits().max(D::Minus1).unwrap().to_vec1::<f32>().unwrap();
            let chosen = Tensor::new(next.as_slice(), decoder.device()).unwrap().unsqueeze(1).unwrap();
            let of_chosen = engine.logits().gather(&chosen, 1).unwrap().flatten_all().unwrap();
            assert_eq!(of_chosen.to_vec1::<f32>().unwrap(), largest, "{}: it chooses the likeliest", spec.name);
            logits.push(engine.logits().to_device(&Device::Cpu).unwrap());
        }
        cache.check_finite().unwrap();
        (tokens, Tensor::stack(&logits, 1).unwrap())
    }

    /// What `decoder` with `eager` says to the tokens after the prompt.
    fn expected(decoder: &Decoder, spec: &QuantSpec, tokens: &[Vec<u32>]) -> Tensor {
        let eager = attention::new("eager").unwrap();
        let mut cache = new_cache(decoder, spec, tokens.len(), tokens[0].len());
        read(decoder, cache.as_mut(), eager.as_ref(), tokens, PROMPT)
    }

    /// The largest ‖a − b‖ / ‖b‖ of a step; both are `[B, steps, V]`.
    fn distance(a: &Tensor, b: &Tensor) -> f32 {
        let norms = |x: &Tensor| x.sqr().unwrap().sum(D::Minus1).unwrap().sum(0).unwrap().sqrt().unwrap();
        let steps = (norms(&(a - b).unwrap()) / norms(b)).unwrap().to_vec1::<f32>().unwrap();
        assert!(steps.iter().all(|d| d.is_finite()), "{steps:?}");
        steps.into_iter().fold(0.0, f32::max)
    }

    /// Weights drawn from N(0, 0.05²), or around 1 for a norm, as FP16 has them: the same on every device.
    struct SeededWeights {
        /// Times the gain of the second layer's keys.
        key_gain: f32,
    }

    impl Weights for SeededWeights {
        /// They are made, not stored; this one tells that they are named as in most checkpoints.
        fn contains(&self, name: &str) -> bool {
            name == "model.embed_tokens.weight"
        }

        fn load(&self, name: &str, shape: &[usize], dtype: DType, device: &Device) -> kvprof::Result<Tensor> {
            let mut rng =
                StdRng::seed_from_u64(name.bytes().fold(7, |seed, byte| seed * 31 % 1_000_003 + u64::from(byte)));
            let center = if shape.len() == 1 { 1.0 } else { 0.0 };
            let gain = if name.ends_with("layers.1.self_attn.k_norm.weight") { self.key_gain } else { 1.0 };
            let normal = |rng: &mut StdRng| (0..12).map(|_| rng.random::<f32>() - 0.5).sum::<f32>();
            let values: Vec<f32> =
                (0..shape.iter().product()).map(|_| gain * (center + 0.05 * normal(&mut rng))).collect();
            Ok(Tensor::from_vec(values, shape, &Device::Cpu)?
                .to_dtype(DType::F16)?
                .to_device(device)?
                .to_dtype(dtype)?)
        }

        fn fault(&self, name: &str, message: &str) -> kvprof::Error {
            kvprof::Error::usage(format!("{name}: {message}"))
        }
    }

    /// A small Qwen3, which normalizes queries and keys, on the device.
    fn small_qwen3(key_gain: f32, dtype: DType, device: &Device) -> Decoder {
        let json = r#"{"model_type": "qwen3", "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 3,
            "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 64, "vocab_size": 512,
            "max_position_embeddings": 1024, "rms_norm_eps": 1e-6, "rope_theta": 1000000, "hidden_act": "silu",
            "tie_word_embeddings": false, "attention_bias": false, "use_sliding_window": false}"#;
        let (config, names) = read_config(std::path::Path::new("small qwen3"), json).unwrap();
        Decoder::load(config, &names, &SeededWeights { key_gain }, dtype, device, &mut |_, _| ()).unwrap()
    }

    /// One model twice: in the float of the test on the GPU, and as the exact one.
    struct Pair {
        gpu: Decoder,
        exact: Decoder,
    }

    impl Pair {
        fn load(model: &str, dtype: &str) -> Self {
            Pair { gpu: load(model, "cuda", dtype).decoder, exact: load(model, "cpu", "f32").decoder }
        }

        /// Asserts the bounds that the head of this file derives, `least` being the scale without quantization (0 where it was not measured);
        /// returns the scale.
        fn check(&self, spec: &QuantSpec, batch: usize, steps: usize, graph: bool, least: f32) -> f32 {
            let dtype = self.gpu.dtype();
            let (tokens, served) = serve(&self.gpu, spec, batch, steps, graph);
            let exact = expected(&self.exact, spec, &tokens);
            let eager = expected(&self.gpu, spec, &tokens);
            let scale = distance(&eager, &exact).max(least);
            let (to_exact, to_eager) = (distance(&served, &exact), distance(&served, &eager));
            let what = format!("{:16} {dtype:?} B {batch:2} graph {graph:5}", spec.name);
            println!(
                "{what}: eager to exact {scale:.2e}, engine to exact {to_exact:.2e} ({:.2} of it), to eager {to_eager:.2e} ({:.2})",
                to_exact / scale,
                to_eager / scale
            );
            let rounding = if dtype == DType::BF16 { 0.5 } else { 0.1 };
            if scale > rounding {
                let moved = distance(&exact, &expected(&self.exact, &"none".parse().unwrap(), &tokens));
                println!("{what}: quantizing moves the exact logits by {moved:.2e}");
                assert!(scale <= moved, "{what}: eager is {scale} from exact, which quantizing moved by {moved}");
            }
            assert!(to_exact <= 2.0 * scale, "{what}: {to_exact} from exact, eager {scale}");
            assert!(to_eager <= 3.0 * scale, "{what}: {to_eager} from eager, which is {scale} from exact");
            scale
        }
    }

    #[test]
    fn every_preset_gives_the_logits_of_eager_over_512_greedy_tokens() {
        let Some(_) = gpu("every_preset_gives_the_logits_of_eager_over_512_greedy_tokens") else { return };
        let model = std::env::var("KVPROF_SMOLLM2").unwrap_or_else(|_| "builtin".into());
        let pair = Pair::load(&model, "f16");
        let mut least = 0.0;
        for preset in &PRESETS {
            let scale = pair.check(&preset.name.parse().unwrap(), 1, STEPS, true, least);
            if preset.scheme == Scheme::None {
                least = scale;
            }
        }
        for name in TRANSFORMED {
            pair.check(&name.parse().unwrap(), 1, STEPS, true, least);
        }
    }

    #[test]
    fn batches_bf16_and_single_launches_give_the_logits_of_eager() {
        let Some(_) = gpu("batches_bf16_and_single_launches_give_the_logits_of_eager") else { return };
        for dtype in ["f16", "bf16"] {
            let pair = Pair::load("builtin", dtype);
            for batch in [2, 3, 5, 16] {
                for name in ["none", "int4-hqq-kivi", "int8-hqq,keep-layers=0+2"] {
                    pair.check(&name.parse().unwrap(), batch, 80, batch % 2 == 0, 0.0);
                }
            }
        }
    }

    #[test]
    fn normalized_queries_and_keys_give_the_logits_of_eager() {
        let Some(device) = gpu("normalized_queries_and_keys_give_the_logits_of_eager") else { return };
        for dtype in [DType::F16, DType::BF16] {
            let pair =
                Pair { gpu: small_qwen3(1.0, dtype, &device), exact: small_qwen3(1.0, DType::F32, &Device::Cpu) };
            for (batch, graph) in [(1, true), (3, false)] {
                for name in ["none", "int4-hqq", "int4-quanto,hadamard=kv"] {
                    pair.check(&name.parse().unwrap(), batch, 80, graph, 0.0);
                }
            }
        }
    }

    #[test]
    fn a_key_that_its_norm_lifts_past_the_float_is_reported() {
        let Some(device) = gpu("a_key_that_its_norm_lifts_past_the_float_is_reported") else { return };
        let spec = "none".parse().unwrap();
        let sound = small_qwen3(1.0, DType::F16, &device);
        let mut cache = new_cache(&sound, &spec, 1, PROMPT + 2);
        let first = prompt(&sound, cache.as_mut(), attention::new("eager").unwrap().as_ref());
        cache.check_finite().unwrap();
        let lifted = small_qwen3(60000.0, DType::F16, &device);
        let mut engine = StepEngine::new(&lifted, cache.as_ref(), false).unwrap();
        engine.begin(&first, cache.as_ref()).unwrap();
        engine.step(cache.as_mut()).unwrap();
        let error = cache.check_finite().unwrap_err().to_string();
        assert!(error.contains("layer 1") && error.contains(&format!("position {PROMPT}")), "{error}");
    }

    #[test]
    fn a_graph_and_single_launches_give_the_same_bits() {
        let Some(_) = gpu("a_graph_and_single_launches_give_the_same_bits") else { return };
        let subject = subject("f16");
        for name in PRESETS.iter().map(|preset| preset.name).chain(TRANSFORMED) {
            let spec: QuantSpec = name.parse().unwrap();
            let run = |graph: bool| {
                let (tokens, logits) = serve(&subject.decoder, &spec, 2, 150, graph);
                (tokens, logits.flatten_all().unwrap().to_vec1::<f32>().unwrap())
            };
            assert!(run(true) == run(false), "{name}: other bits");
        }
    }

    #[test]
    fn a_cache_that_was_reset_is_served_again() {
        let Some(_) = gpu("a_cache_that_was_reset_is_served_again") else { return };
        let subject = subject("f16");
        let decoder = &subject.decoder;
        let fused = attention::new("fused").unwrap();
        let mut cache = new_cache(decoder, &"int2-hqq".parse().unwrap(), 1, PROMPT + 101);
        let mut engine = StepEngine::new(decoder, cache.as_ref(), true).unwrap();
        let mut run = || {
            cache.reset();
            let logits = prompt(decoder, cache.as_mut(), fused.as_ref());
            assert!(engine.step(cache.as_mut()).is_err(), "the engine has not seen the new prompt");
            let of_two = Tensor::cat(&[&logits, &logits], 0).unwrap();
            assert!(engine.begin(&of_two, cache.as_ref()).is_err(), "logits of two sequences");
            let few = logits.narrow(1, 0, 2).unwrap();
            assert!(engine.begin(&few, cache.as_ref()).is_err(), "logits of another vocabulary");
            engine.begin(&logits, cache.as_ref()).unwrap();
            (0..100).for_each(|_| engine.step(cache.as_mut()).unwrap());
            assert!(engine.chosen(PROMPT + 101..PROMPT + 103).is_err(), "tokens not chosen yet");
            let tokens = engine.chosen(PROMPT + 1..PROMPT + 101).unwrap();
            engine.step(cache.as_mut()).unwrap();
            assert!(engine.step(cache.as_mut()).is_err(), "the cache is full");
            tokens
        };
        assert_eq!(run(), run());
    }

    #[test]
    fn a_model_the_kernels_do_not_serve_takes_the_plain_decoder_and_says_why() {
        let Some(device) = gpu("a_model_the_kernels_do_not_serve_takes_the_plain_decoder_and_says_why") else { return };
        let subject = subject("f16");
        let decoder = &subject.decoder;
        let cache = new_cache(decoder, &"int4-hqq,v-bits=8".parse().unwrap(), 1, 300);
        let fused = attention::new("fused").unwrap();
        let describe = |cache: &dyn KvCache, attention: &dyn Attention, mode| {
            Stepper::new(decoder, attention, cache, mode).unwrap().describe(cache)
        };
        let fallback = |spec: &str| {
            let mut cache = new_cache(decoder, &spec.parse().unwrap(), 1, 300);
            prompt(decoder, cache.as_mut(), fused.as_ref());
            let stepper = Stepper::new(decoder, fused.as_ref(), cache.as_ref(), StepMode::Graph).unwrap();
            stepper.fallback(cache.as_ref()).unwrap_or_default()
        };
        let said = describe(cache.as_ref(), fused.as_ref(), StepMode::Graph);
        assert!(said.contains("plain decoder") && said.contains("mixture"), "{said}");
        assert!(fallback("int4-hqq,v-bits=8").contains("mixture"));
        assert_eq!(fallback("int4-hqq"), "");
        let cache = new_cache(decoder, &"int4-hqq".parse().unwrap(), 1, 300);
        let eager = attention::new("eager").unwrap();
        assert!(describe(cache.as_ref(), eager.as_ref(), StepMode::Graph).contains("not as `eager`"));
        assert!(describe(cache.as_ref(), fused.as_ref(), StepMode::Graph).contains("one CUDA graph"));
        assert!(describe(cache.as_ref(), fused.as_ref(), StepMode::Launches).contains("one by one"));
        assert!(describe(cache.as_ref(), fused.as_ref(), StepMode::Plain).contains("plain decoder (asked for)"));
        let _ = device;
    }
}

#[cfg(not(feature = "cuda"))]
#[test]
fn steps_on_a_gpu() {
    assert!(
        std::env::var_os("KVPROF_REQUIRE_GPU").is_none_or(|v| v != "1"),
        "a GPU is required, and this build has no CUDA"
    );
    println!("skipped: this build has no CUDA");
}
