//! The decode step's own kernels give what the plain decoder with `eager` attention gives, for every preset, with and without
//! a CUDA graph.
//!
//! Without a GPU (or in a build without the feature `cuda`) each test says that it was skipped and passes; with
//! `KVPROF_REQUIRE_GPU=1` it fails instead. `KVPROF_STEP_MODEL` names a model to test in place of the built-in one
//! (SmolLM2, say).

#[cfg(feature = "cuda")]
mod on_gpu {
    use candle_core::{D, DType, Device, Tensor};
    use kvprof::cache::{self, KvCache};
    use kvprof::model::attention::{self, Attention};
    use kvprof::model::placement::{DeviceChoice, DtypeChoice};
    use kvprof::model::step::engine::StepEngine;
    use kvprof::model::step::{StepMode, Stepper};
    use kvprof::model::{Decoder, LoadOptions, LogitsOf, Subject};
    use kvprof::quant::QuantSpec;
    use kvprof::quant::presets::PRESETS;

    const PROMPT: usize = 200;
    const STEPS: usize = 512;

    /// The GPU, or `None` with a line that says why the test is skipped.
    fn gpu(test: &str) -> Option<Device> {
        match kvprof::device::open(Some(0)) {
            Ok(device) => Some(device),
            Err(error) if std::env::var_os("KVPROF_REQUIRE_GPU").is_some_and(|v| v == "1") => {
                panic!("{test} needs a GPU: {error}")
            }
            Err(error) => {
                println!("skipped {test}, which needs an NVIDIA GPU: {error}");
                None
            }
        }
    }

    fn subject(dtype: &str) -> Subject {
        let model = std::env::var("KVPROF_STEP_MODEL").unwrap_or_else(|_| "builtin".into());
        let mut options = LoadOptions::new(model);
        options.device = "cuda".parse::<DeviceChoice>().unwrap();
        options.dtype = dtype.parse::<DtypeChoice>().unwrap();
        Subject::load(&options).unwrap()
    }

    fn new_cache(decoder: &Decoder, spec: &QuantSpec, batch: usize, capacity: usize) -> Box<dyn KvCache> {
        let shape = decoder.config().cache_shape(batch, capacity, 64, decoder.dtype(), decoder.device());
        cache::new(spec.clone(), shape).unwrap()
    }

    /// The same random prompt for every sequence but for a shift, fed in chunks of 64; the last logits `[B, V]`.
    fn prompt(decoder: &Decoder, cache: &mut dyn KvCache, attention: &dyn Attention) -> Tensor {
        let (batch, vocab) = (cache.shape().batch, decoder.config().vocab as u32);
        let token = |b: usize, i: usize| (i as u32 * 7919 + b as u32 * 104_729 + 17) % vocab;
        let tokens: Vec<u32> = (0..batch).flat_map(|b| (0..PROMPT).map(move |i| token(b, i))).collect();
        let tokens = Tensor::from_vec(tokens, (batch, PROMPT), decoder.device()).unwrap();
        let mut logits = None;
        for at in (0..PROMPT).step_by(64) {
            let chunk = tokens.narrow(1, at, 64.min(PROMPT - at)).unwrap();
            logits = Some(decoder.forward(&chunk, cache, attention, LogitsOf::Last).unwrap());
        }
        logits.unwrap()
    }

    /// ‖a − b‖ / ‖b‖, taken on the device.
    fn distance(a: &Tensor, b: &Tensor) -> Tensor {
        let norm = |x: &Tensor| x.sqr().unwrap().sum_all().unwrap().sqrt().unwrap();
        (norm(&(a - b).unwrap()) / norm(b)).unwrap()
    }

    /// What the largest distance of the logits of two runs may be. Both round at the same places and differ by the order of
    /// summation; what a run differs in before a key is quantized moves some codes by one, which counts for more the fewer
    /// bits there are.
    fn bound(spec: &QuantSpec, dtype: DType) -> f32 {
        let rounding = if dtype == DType::BF16 { 8.0 } else { 1.0 };
        let coarse = if spec.name.starts_with("int2") {
            5e-2
        } else if spec.name.starts_with("int4") {
            2e-2
        } else {
            5e-3
        };
        coarse * rounding
    }

    /// Runs the engine greedily and the plain decoder on the same tokens; the largest distance of their logits.
    fn compare(decoder: &Decoder, spec: &QuantSpec, batch: usize, steps: usize, graph: bool) -> f32 {
        let eager = attention::new("eager").unwrap();
        let capacity = PROMPT + steps + 1;
        let mut served = new_cache(decoder, spec, batch, capacity);
        let mut plain = new_cache(decoder, spec, batch, capacity);
        let first = prompt(decoder, served.as_mut(), eager.as_ref());
        prompt(decoder, plain.as_mut(), eager.as_ref());
        let mut engine = StepEngine::new(decoder, served.as_ref(), graph).unwrap();
        let mut tokens = first.argmax(D::Minus1).unwrap();
        engine.begin(&tokens, served.as_ref()).unwrap();
        let mut distances = Vec::with_capacity(steps);
        for step in 0..steps {
            engine.step(served.as_mut()).unwrap();
            let input = tokens.unsqueeze(1).unwrap();
            let expected = decoder.forward(&input, plain.as_mut(), eager.as_ref(), LogitsOf::Last).unwrap();
            distances.push(distance(engine.logits(), &expected));
            tokens = engine.logits().argmax(D::Minus1).unwrap();
            let chosen = engine.chosen(PROMPT + step + 1..PROMPT + step + 2).unwrap();
            assert_eq!(
                chosen[0],
                tokens.to_vec1::<u32>().unwrap(),
                "{}: the engine's choice is the likeliest",
                spec.name
            );
        }
        served.check_finite().unwrap();
        assert_eq!(served.len(), plain.len());
        assert_eq!(served.view(0).window_positions, plain.view(0).window_positions, "{}: flushed alike", spec.name);
        let all: Vec<f32> = Tensor::stack(&distances, 0).unwrap().to_vec1().unwrap();
        assert!(all.iter().all(|d| d.is_finite()), "{}: {all:?}", spec.name);
        all.into_iter().fold(0.0, f32::max)
    }

    fn check(decoder: &Decoder, spec: &QuantSpec, batch: usize, steps: usize, graph: bool) {
        let (found, bound) = (compare(decoder, spec, batch, steps, graph), bound(spec, decoder.dtype()));
        println!(
            "{:16} {:?} B {batch:2} graph {graph:5}: largest distance {found:.2e} of {bound:.0e}",
            spec.name,
            decoder.dtype()
        );
        assert!(found <= bound, "{}: logits are {found} apart, more than {bound}", spec.name);
    }

    #[test]
    fn every_preset_gives_the_logits_of_eager_over_512_greedy_tokens() {
        let Some(_) = gpu("every_preset_gives_the_logits_of_eager_over_512_greedy_tokens") else { return };
        let subject = subject("f16");
        for preset in &PRESETS {
            check(&subject.decoder, &preset.name.parse().unwrap(), 1, STEPS, true);
        }
    }

    #[test]
    fn batches_bf16_and_single_launches_give_the_logits_of_eager() {
        let Some(_) = gpu("batches_bf16_and_single_launches_give_the_logits_of_eager") else { return };
        for dtype in ["f16", "bf16"] {
            let subject = subject(dtype);
            for batch in [2, 3, 5, 16] {
                for name in ["none", "int4-hqq-kivi", "int8-hqq,keep-layers=0+2"] {
                    check(&subject.decoder, &name.parse().unwrap(), batch, 80, batch % 2 == 0);
                }
            }
        }
    }

    #[test]
    fn a_graph_and_single_launches_give_the_same_bits() {
        let Some(_) = gpu("a_graph_and_single_launches_give_the_same_bits") else { return };
        let subject = subject("f16");
        let decoder = &subject.decoder;
        let fused = attention::new("fused").unwrap();
        let spec: QuantSpec = "int4-hqq".parse().unwrap();
        let run = |graph: bool| -> (Vec<Vec<u32>>, Vec<f32>) {
            let mut cache = new_cache(decoder, &spec, 2, PROMPT + 151);
            let logits = prompt(decoder, cache.as_mut(), fused.as_ref());
            let mut engine = StepEngine::new(decoder, cache.as_ref(), graph).unwrap();
            engine.begin(&logits.argmax(D::Minus1).unwrap(), cache.as_ref()).unwrap();
            (0..150).for_each(|_| engine.step(cache.as_mut()).unwrap());
            let last = engine.logits().flatten_all().unwrap().to_vec1().unwrap();
            (engine.chosen(PROMPT + 1..PROMPT + 151).unwrap(), last)
        };
        assert_eq!(run(true), run(false));
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
            engine.begin(&logits.argmax(D::Minus1).unwrap(), cache.as_ref()).unwrap();
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
        let said = describe(cache.as_ref(), fused.as_ref(), StepMode::Graph);
        assert!(said.contains("plain decoder") && said.contains("mixture"), "{said}");
        let cache = new_cache(decoder, &"int4-hqq".parse().unwrap(), 1, 300);
        let eager = attention::new("eager").unwrap();
        assert!(describe(cache.as_ref(), eager.as_ref(), StepMode::Graph).contains("not as `eager`"));
        assert!(describe(cache.as_ref(), fused.as_ref(), StepMode::Graph).contains("one CUDA graph"));
        assert!(describe(cache.as_ref(), fused.as_ref(), StepMode::Launches).contains("one by one"));
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
