//! Perplexity, divergence and needles on the built-in model.

use super::Bench;
use kvprof::base::hex::hex;
use kvprof::bench::settings::{NeedleKind, Protocol};
use kvprof::schema::Kld;
use sha2::{Digest, Sha256};

fn builtin() -> Bench {
    let mut bench = Bench::builtin();
    bench.settings.ppl_window = Some(512);
    bench.settings.ppl_tokens = 600;
    bench
}

#[test]
fn an_unquantized_cache_does_not_diverge_from_itself_at_all() {
    let kld = builtin().run("kld", "none").unwrap().kld.unwrap();
    assert_eq!((kld.mean, kld.max, kld.rms_delta_p, kld.top1_agreement), (0.0, Some(0.0), Some(0.0), Some(1.0)));
    assert_eq!(kld.tokens, 600);
    assert_eq!(kld.intervals.unwrap().mean, (0.0, 0.0));
}

#[test]
fn a_divergence_says_where_in_their_windows_its_tokens_lie() {
    let mut bench = builtin();
    for quant in ["none", "int4-hqq"] {
        let kld = bench.run("kld", quant).unwrap().kld.unwrap();
        // Places 256 to 511 of two windows and 88 tokens of a third, in eighths of 32.
        let bins: Vec<_> = kld.by_position.iter().map(|bin| (bin.from, bin.tokens)).collect();
        let tokens = [96, 96, 88, 64, 64, 64, 64, 64];
        let expected: Vec<_> = tokens.iter().enumerate().map(|(i, tokens)| (256 + 32 * i, *tokens)).collect();
        assert_eq!(bins, expected, "{quant}");
    }
}

#[test]
fn fewer_bits_diverge_more_and_the_difference_is_significant() {
    let mut bench = builtin();
    bench.settings.ppl_tokens = 4096;
    let of = |bench: &mut Bench, quant| bench.run("kld", quant).unwrap().kld.unwrap();
    let (int8, int4, int2) = (of(&mut bench, "int8-hqq"), of(&mut bench, "int4-hqq"), of(&mut bench, "int2-hqq"));
    assert!(int8.quantized_read_fraction.unwrap() > 0.2);
    // Few tokens carry most of a mean; the median is told apart by some thousands of them.
    let interval = |kld: &Kld| kld.intervals.clone().unwrap().median;
    assert!(interval(&int8).0 > 0.0 && interval(&int8).1 < interval(&int4).0, "{int8:?} {int4:?}");
    assert!(interval(&int4).1 < interval(&int2).0, "{int4:?} {int2:?}");
    assert!(int8.mean < int4.mean && int4.mean < int2.mean);
    for kld in [int8, int4, int2] {
        assert_eq!(kld.by_position.iter().map(|b| b.tokens).sum::<usize>(), kld.tokens);
        let whole = [kld.median, kld.p90, kld.p99, kld.p999, kld.max];
        let bins = kld.by_position.iter().map(|b| [b.median, b.p90, b.p99, b.p999, b.max]);
        for spread in bins.chain([whole]) {
            assert!(spread[0].is_some() && spread.is_sorted(), "{spread:?}");
        }
        assert_eq!(kld.by_position.iter().filter_map(|b| b.max).reduce(f64::max), kld.max);
    }
}

#[test]
fn perplexity_beside_the_reference_is_the_perplexity_alone() {
    let mut together = builtin();
    together.run("kld", "int4-hqq").unwrap();
    let from_kld = together.run("ppl", "int4-hqq").unwrap();
    let alone = builtin().run("ppl", "int4-hqq").unwrap();
    let (a, b) = (from_kld.perplexity_quantized.unwrap(), alone.perplexity_quantized.unwrap());
    assert!((a.value - b.value).abs() < 1e-4 * b.value, "{} {}", a.value, b.value);
    assert!((a.ln_ratio.unwrap() - b.ln_ratio.unwrap()).abs() < 1e-4);
    assert_eq!((a.tokens, a.quantized_read_fraction), (b.tokens, b.quantized_read_fraction));
    assert!(a.ln_ratio_standard_error.unwrap() > 0.0);
    let of_sections = a.by_section.iter().sum::<f64>() / 128.0;
    assert!(a.by_section.len() == 128 && (of_sections / a.nll.unwrap() - 1.0).abs() < 0.02, "{of_sections} {a:?}");
}

#[test]
fn windows_side_by_side_score_as_one_after_the_other() {
    let mut bench = builtin();
    bench.settings.ppl_window = Some(320);
    bench.settings.ppl_tokens = 3 * 160 + 40;
    let single = bench.run("ppl", "int4-kivi").unwrap().perplexity_quantized.unwrap();
    let mut bench = builtin();
    bench.settings =
        kvprof::bench::Settings { ppl_window: Some(320), ppl_tokens: 520, ppl_batch: Some(3), ..bench.settings };
    let batched = bench.run("ppl", "int4-kivi").unwrap().perplexity_quantized.unwrap();
    assert_eq!((single.tokens, batched.tokens), (520, 520));
    assert!((single.value - batched.value).abs() < 1e-4 * single.value, "{} {}", single.value, batched.value);
    assert_eq!(single.quantized_read_fraction, batched.quantized_read_fraction);
}

#[test]
fn the_two_phase_protocol_scores_the_second_half_of_overlapping_windows() {
    let mut bench = builtin();
    bench.settings.ppl_protocol = Protocol::TwoPhase;
    let kept = bench.run("ppl", "int2-hqq").unwrap();
    let (reference, quantized) = (kept.perplexity.unwrap(), kept.perplexity_quantized.unwrap());
    assert_eq!((quantized.protocol.as_deref(), quantized.burn_in), (Some("two-phase"), Some(257)));
    assert_eq!((reference.tokens, quantized.tokens), (600, 600));
    assert!(quantized.quantized_read_fraction.unwrap() > 0.05);
    let streaming = builtin().run("ppl", "none").unwrap().perplexity.unwrap();
    assert!((reference.value / streaming.value).ln().abs() < 0.3, "{} {}", reference.value, streaming.value);
    assert!(quantized.ln_ratio.unwrap() > 0.0);
}

#[test]
fn the_burn_in_reaches_the_first_codes_and_each_score_says_so() {
    let mut bench = builtin();
    for (quant, burn_in) in [("int4-hqq,residual=64", 256), ("int4-hqq,residual=320", 385)] {
        let kept = bench.run("ppl", quant).unwrap();
        let kld = bench.run("kld", quant).unwrap().kld.unwrap();
        let recorded = [kept.perplexity.unwrap().burn_in, kept.perplexity_quantized.unwrap().burn_in, kld.burn_in];
        assert_eq!(recorded, [Some(burn_in); 3], "{quant}");
    }
    bench.settings.ppl_window = Some(384);
    let error = bench.run("ppl", "int4-hqq,residual=320").unwrap_err().to_string();
    assert!(error.contains("a burn-in of 385") && error.contains("a window of 384"), "{error}");
}

#[test]
fn a_score_that_never_read_a_code_is_refused() {
    let mut bench = builtin();
    (bench.settings.ppl_window, bench.settings.ppl_burn_in) = (Some(320), Some(64));
    for benchmark in ["ppl", "kld"] {
        let error = bench.run(benchmark, "int4-hqq,residual=512").unwrap_err().to_string();
        assert!(error.contains("no key was read from codes") && error.contains("--residual-length"), "{error}");
    }
    bench.settings.context_lengths = vec![256];
    bench.settings.needle_depths = vec![0.5];
    let error = bench.run("needle", "int4-hqq,residual=512").unwrap_err().to_string();
    assert!(error.contains("no key was read from codes"), "{error}");
}

#[test]
fn the_last_token_of_a_window_predicts_nothing_whatever_it_reads() {
    let mut bench = builtin();
    (bench.settings.ppl_window, bench.settings.ppl_burn_in) = (Some(193), Some(100));
    let error = bench.run("ppl", "int2-quanto").unwrap_err().to_string();
    assert!(error.contains("no key was read from codes"), "{error}");
    bench.settings.ppl_window = Some(194);
    let score = bench.run("ppl", "int2-quanto").unwrap().perplexity_quantized.unwrap();
    assert!(score.ln_ratio.unwrap() != 0.0, "{score:?}");
}

#[test]
fn a_context_that_read_no_codes_has_no_needles_where_a_longer_one_has() {
    let mut bench = builtin();
    bench.settings.context_lengths = vec![128, 384];
    bench.settings.needle_depths = vec![0.5];
    let kept = bench.run("needle", "int4-hqq").unwrap();
    let (needle, trials) = (kept.needle_in_haystack.unwrap(), kept.needle_in_haystack_trials.unwrap());
    assert_eq!((needle.total_trials, trials.len(), trials[0].context_length), (1, 1, 384));
    assert_eq!(needle.per_context.keys().collect::<Vec<_>>(), ["384"]);
    assert!(needle.skipped_contexts["128"].contains("no key was read from codes"), "{:?}", needle.skipped_contexts);
    // The share is that of the context that has a score.
    assert_eq!(needle.quantized_read_fraction, needle.per_context["384"].quantized_read_fraction);
    assert!(needle.quantized_read_fraction.unwrap() > 0.0);
    let unquantized = bench.run("needle", "none").unwrap().needle_in_haystack.unwrap();
    assert_eq!((unquantized.total_trials, unquantized.skipped_contexts.len()), (2, 0));
}

#[test]
fn every_kind_of_needle_is_hidden_in_filler_and_in_a_book() {
    let mut bench = builtin();
    let folder = tempfile::tempdir().unwrap();
    let book = folder.path().join("book.txt");
    let sentence = |i: usize| format!("Chapter {i} tells how the old miller walked to the river and came back late. ");
    std::fs::write(&book, (0..200).map(sentence).collect::<String>()).unwrap();
    bench.settings.context_lengths = vec![384, 512];
    bench.settings.needle_depths = vec![0.25, 0.75];
    for kind in [NeedleKind::Number, NeedleKind::Words, NeedleKind::MultiKey] {
        for haystack in ["filler", book.to_str().unwrap()] {
            bench.settings.needle_kind = kind;
            bench.settings.needle_haystack = haystack.into();
            let kept = bench.run("needle", "int8-hqq").unwrap();
            let (needle, trials) = (kept.needle_in_haystack.unwrap(), kept.needle_in_haystack_trials.unwrap());
            assert_eq!((needle.total_trials, trials.len(), needle.per_context.len()), (4, 4, 2));
            assert_eq!(needle.kind.as_deref(), Some(kind.name()));
            for trial in &trials {
                // Whole sentences fill a context to within the longest of them.
                let filled = trial.input_tokens + kvprof::bench::needle::ANSWER_TOKENS;
                assert!(filled <= trial.context_length + 4 && filled + 80 > trial.context_length, "{trial:?}");
            }
            assert!(needle.quantized_read_fraction.unwrap() > 0.0);
            let expected = (haystack != "filler").then(|| hex(&Sha256::digest(std::fs::read(&book).unwrap())));
            assert_eq!(needle.data.map(|data| data.sha256), expected, "{haystack}");
        }
    }
    bench.settings.context_lengths = vec![2048];
    std::fs::write(&book, sentence(1)).unwrap();
    let error = bench.run("needle", "int8-hqq").unwrap_err().to_string();
    assert!(error.contains("--needle-haystack"), "{error}");
}
