//! Scores that were measured on different things do not stand side by side as if they were comparable.

use std::path::{Path, PathBuf};

use kvprof::report::{quality_summary, summary};
use kvprof::schema::{DataSource, Perplexity, RunResult};

use crate::results::{self, Cache};
use crate::{kvprof, stderr};

/// `result` with a change to both of its perplexities.
fn rescored(mut result: RunResult, change: impl Fn(&mut Perplexity)) -> RunResult {
    let b = &mut result.benchmarks;
    b.perplexity.iter_mut().chain(b.perplexity_quantized.iter_mut()).for_each(change);
    result
}

fn window(result: RunResult, tokens: usize) -> RunResult {
    rescored(result, |p| p.window = Some(tokens))
}

/// Another text of the same name.
fn another_text(p: &mut Perplexity) {
    p.data = Some(DataSource { name: "wikitext2".into(), revision: None, sha256: "ab".repeat(32) });
}

/// The first table at the end of a run.
fn first_table(results: &[&RunResult]) -> String {
    summary::table(results).unwrap().to_string()
}

/// That of divergence and question sets.
fn quality_table(results: &[&RunResult]) -> String {
    quality_summary::table(results).unwrap().to_string()
}

fn int(bits: u8) -> RunResult {
    let name = if bits == 8 { "int8-hqq" } else { "int4-hqq" };
    results::run("m", &Cache::new(name, bits, 0.004))
}

/// A report on `files`, in `folder/out`; they lie in `folder/raw`.
fn report(folder: &Path, files: &[RunResult]) -> PathBuf {
    let (raw, out) = (folder.join("raw"), folder.join("out"));
    std::fs::create_dir_all(&raw).unwrap();
    files.iter().for_each(|file| drop(results::write(&raw, file)));
    let output = kvprof().arg("report").arg(&raw).arg("-o").arg(&out).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    out
}

/// A row of a table by its columns' names.
type Row = std::collections::HashMap<String, String>;

fn rows(csv: impl std::io::Read) -> Vec<Row> {
    csv::Reader::from_reader(csv).deserialize().map(Result::unwrap).collect()
}

fn table(out: &Path, name: &str) -> Vec<Row> {
    rows(std::fs::File::open(out.join(format!("tables/{name}.csv"))).unwrap())
}

fn column<'a>(rows: &'a [Row], name: &str) -> Vec<Option<&'a str>> {
    rows.iter().map(|row| row.get(name).map(String::as_str)).collect()
}

#[test]
fn caches_scored_in_other_windows_are_rows_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let out = report(folder.path(), &[window(int(8), 1024), window(int(4), 512)]);
    let delta = table(&out, "delta_ppl");
    let int4 = delta.iter().find(|row| row["ppl_over"] == "windows of 512").unwrap();
    let int8 = delta.iter().find(|row| row["ppl_over"] == "windows of 1024").unwrap();
    assert!(int4["int8-hqq"].is_empty() && int8["int4-hqq"].is_empty(), "{delta:?}");
    assert!(!int4["int4-hqq"].is_empty() && !int8["int8-hqq"].is_empty(), "{delta:?}");
    let quality = table(&out, "quality");
    assert_eq!(column(&quality, "ppl_over"), [Some("windows of 1024"), Some("windows of 512")]);
    assert_eq!(column(&quality, "mmlu_over"), [None, None], "MMLU was asked alike");
}

#[test]
fn what_all_rows_have_in_common_is_said_once() {
    let folder = tempfile::tempdir().unwrap();
    let out = report(folder.path(), &[window(int(8), 1024), window(int(4), 1024)]);
    assert_eq!(column(&table(&out, "delta_ppl"), "ppl_over"), [None]);
    assert_eq!(column(&table(&out, "quality"), "ppl_over"), [None, None]);
    let latex = std::fs::read_to_string(out.join("tables/quality.tex")).unwrap();
    assert!(latex.contains("PPL: wikitext2, SHA-256 00000000, 4096 tokens, windows of 1024."), "{latex}");
    assert!(latex.contains("MMLU: 200 questions."), "{latex}");
}

#[test]
fn other_texts_of_one_name_and_other_questions_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let mut other = rescored(int(4), another_text);
    other.benchmarks.mmlu.as_mut().unwrap().shots = Some(0);
    let out = report(folder.path(), &[int(8), other]);
    let quality = table(&out, "quality");
    assert_eq!(column(&quality, "ppl_over"), [Some("SHA-256 00000000"), Some("SHA-256 abababab")]);
    assert_eq!(column(&quality, "mmlu_over"), [Some("unknown shots"), Some("0 shots")]);
    let aggregate = rows(&kvprof().arg("aggregate").arg(folder.path().join("raw")).output().unwrap().stdout[..]);
    let row = aggregate.iter().find(|row| row["kv_quant"] == "int4-hqq").unwrap();
    assert_eq!((row["ppl_data_sha256"].as_str(), row["ppl_tokens"].as_str()), ("ab".repeat(32).as_str(), "4096"));
    assert_eq!((row["mmlu_questions"].as_str(), row["needle_trials"].as_str()), ("200", "36"));
}

#[test]
fn the_unquantized_run_is_no_reference_for_another_text() {
    let rise = |change: fn(&mut Perplexity)| {
        let folder = tempfile::tempdir().unwrap();
        let mut lone = rescored(int(4), change);
        let through = lone.benchmarks.perplexity_quantized.as_mut().unwrap();
        (through.reference_value, through.ln_ratio, through.delta) = (None, None, None);
        lone.benchmarks.perplexity = None;
        let out = report(folder.path(), &[results::run("m", &Cache::new("none", 16, 0.0)), lone]);
        let quality = table(&out, "quality");
        quality[1].get("ppl_rise").cloned().unwrap_or_default()
    };
    assert_ne!(rise(|_| ()), "");
    assert_eq!(rise(another_text), "");
}

#[test]
fn the_tables_at_the_end_of_a_run_say_what_was_scored() {
    assert!(!first_table(&[&window(int(8), 1024), &window(int(4), 1024)]).contains("PPL over"));
    let text = first_table(&[&window(int(8), 1024), &window(int(4), 512)]);
    assert!(text.contains("PPL over") && text.contains("windows of 512"), "{text}");
    let mut short = int(4);
    short.config.ppl_tokens = 8192;
    let text = first_table(&[&short]);
    assert!(text.contains("4096 of 8192 tokens"), "{text}");
    short.config.flags.insert("mmlu-questions".into(), 300.into());
    let text = quality_table(&[&short]);
    assert!(text.contains("4096 of 8192 tokens") && text.contains("200 of 300 questions"), "{text}");
    short.config.flags.insert("mmlu-questions".into(), 0.into());
    let text = quality_table(&[&short]);
    assert!(!text.contains("MMLU over"), "all there are were asked for: {text}");
    let mut fewer = int(4);
    fewer.benchmarks.kld.as_mut().unwrap().tokens = 512;
    let text = quality_table(&[&int(8), &fewer]);
    assert!(text.contains("KL over") && text.contains("512 tokens") && !text.contains("MMLU over"), "{text}");
}

#[test]
fn compare_names_what_was_not_scored_alike_and_leaves_it_out() {
    let folder = tempfile::tempdir().unwrap();
    let side = |name: &str, result: &RunResult| {
        let sub = folder.path().join(name);
        std::fs::create_dir_all(&sub).unwrap();
        results::write(&sub, result)
    };
    let (base, new) = (side("a", &window(int(4), 1024)), side("b", &window(int(4), 512)));
    let output = kvprof().arg("compare").arg(base).arg("--against").arg(new).args(["-f", "json"]).output().unwrap();
    let rows: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert!(rows.iter().all(|row| row["metric"] != "ppl") && rows.iter().any(|row| row["metric"] == "mmlu"));
    let said = stderr(&output);
    assert!(said.contains("not compared: m int4-hqq: ppl (windows of 512 against windows of 1024)"), "{said}");
}

/// Stopped after 12 of 200 questions of MMLU.
fn stopped(mut result: RunResult) -> RunResult {
    let mmlu = result.benchmarks.mmlu.as_mut().unwrap();
    (mmlu.questions, mmlu.planned, mmlu.correct, mmlu.accuracy) = (12, Some(200), 6, 0.5);
    result
}

#[test]
fn a_question_set_that_was_stopped_is_marked_in_every_table() {
    let folder = tempfile::tempdir().unwrap();
    let out = report(folder.path(), &[stopped(int(8)), int(4)]);
    let told = "12 of 200 questions (stopped)";
    assert_eq!(column(&table(&out, "quality"), "mmlu_over"), [Some(told), Some("200 questions")]);
    let aggregate = rows(&kvprof().arg("aggregate").arg(folder.path().join("raw")).output().unwrap().stdout[..]);
    for row in aggregate {
        let expected = if row["kv_quant"] == "int8-hqq" { ("12", "200", "True") } else { ("200", "", "False") };
        assert_eq!((&*row["mmlu_questions"], &*row["mmlu_planned"], &*row["mmlu_stopped"]), expected);
    }
    // Also where all rows were stopped alike.
    let text = quality_table(&[&stopped(int(8)), &stopped(int(4))]);
    assert_eq!(text.matches(told).count(), 2, "{text}");
    let page = std::fs::read_to_string(out.join("report.html")).unwrap();
    assert!(page.contains("stopped before 200"), "advice says what it rests on");
}

#[test]
fn a_stopped_question_set_does_not_displace_a_whole_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut later = stopped(int(4));
    later.timestamp = "2026-11-02T12:00:00".into();
    later.experiment_id = "later".into();
    let out = report(folder.path(), &[int(4), later]);
    assert_eq!(column(&table(&out, "quality"), "mmlu"), [Some("0.3")]);
}

#[test]
fn needles_of_another_seed_are_no_repetition_and_columns_tell_their_places() {
    let folder = tempfile::tempdir().unwrap();
    let mut later = int(4);
    (later.timestamp, later.experiment_id) = ("2026-11-02T12:00:00".into(), "later".into());
    for trial in later.benchmarks.needle_in_haystack_trials.as_mut().unwrap() {
        trial.needle = Some("4711".into());
    }
    let quality = table(&report(folder.path(), &[int(4), later.clone()]), "quality");
    let over: Vec<&str> = column(&quality, "needle_over").into_iter().flatten().collect();
    assert!(over.len() == 2 && over.iter().all(|over| over.starts_with("needles ")) && over[0] != over[1], "{over:?}");
    let aggregate = rows(&kvprof().arg("aggregate").arg(folder.path().join("raw")).output().unwrap().stdout[..]);
    assert!(aggregate.iter().all(|row| row["needle_contexts"] == "1024 2048 4096"), "{aggregate:?}");
    assert!(aggregate.iter().all(|row| row["needle_depths"] == "0.1 0.5 0.9"), "{aggregate:?}");
}

/// With needles hidden in `haystack`, a text of its own unless it is filler.
fn hidden_in(mut result: RunResult, haystack: &str) -> RunResult {
    let needle = result.benchmarks.needle_in_haystack.as_mut().unwrap();
    needle.haystack = Some(haystack.into());
    let text = || DataSource { name: haystack.into(), revision: None, sha256: "ab".repeat(32) };
    needle.data = (haystack != "filler").then(text);
    result
}

/// With the needles of the longest context alone.
fn at_one_context(mut result: RunResult) -> RunResult {
    let b = &mut result.benchmarks;
    b.needle_in_haystack_trials.as_mut().unwrap().retain(|t| t.context_length == 4096);
    let needle = b.needle_in_haystack.as_mut().unwrap();
    needle.per_context.retain(|context, _| context == "4096");
    let score = &needle.per_context["4096"];
    (needle.total_trials, needle.successes) = (score.trials, score.successes);
    result
}

#[test]
fn needles_say_in_which_text_and_where_they_were_hidden_and_no_digest_that_tells_nothing() {
    let over = |files: [RunResult; 2]| {
        let folder = tempfile::tempdir().unwrap();
        let quality = table(&report(folder.path(), &files), "quality");
        column(&quality, "needle_over").into_iter().map(|over| over.map(String::from)).collect::<Vec<_>>()
    };
    let told = |words: &str| Some(words.to_string());
    assert_eq!(
        over([hidden_in(int(8), "filler"), hidden_in(int(4), "book.txt")]),
        [told("in filler"), told("in book.txt, SHA-256 abababab")]
    );
    assert_eq!(
        over([int(8), at_one_context(int(4))]),
        [told("at 1024 and 2048 and 4096 tokens, 36 trials"), told("at 4096 tokens, 12 trials")],
        "the needles are the same"
    );
    assert_eq!(
        over([hidden_in(int(8), "book.txt"), hidden_in(int(4), "copy.txt")]),
        [None, None],
        "one text under two names"
    );
    let deeper = |mut result: RunResult| {
        let trials = result.benchmarks.needle_in_haystack_trials.iter_mut().flatten();
        trials.filter(|t| t.depth_percent == 0.1).for_each(|t| t.depth_percent = 0.101);
        result
    };
    assert_eq!(over([int(8), deeper(int(4))]), [told("10, 50, 90 % deep"), told("10.1, 50, 90 % deep")]);
}

#[test]
fn questions_that_another_seed_drew_are_no_repetition() {
    let folder = tempfile::tempdir().unwrap();
    let drawn = |seed: u64| {
        let mut result = int(4);
        result.benchmarks.mmlu.as_mut().unwrap().seed = Some(seed);
        result
    };
    let mut later = drawn(7);
    (later.timestamp, later.experiment_id) = ("2026-11-02T12:00:00".into(), "later".into());
    let quality = table(&report(folder.path(), &[drawn(42), later]), "quality");
    assert_eq!(column(&quality, "mmlu_over"), [Some("drawn with seed 7"), Some("drawn with seed 42")]);
    let aggregate = rows(&kvprof().arg("aggregate").arg(folder.path().join("raw")).output().unwrap().stdout[..]);
    let seeds: std::collections::BTreeSet<&str> = aggregate.iter().map(|row| &*row["mmlu_seed"]).collect();
    assert_eq!(seeds.into_iter().collect::<Vec<_>>(), ["42", "7"]);
}

#[test]
fn one_text_under_two_names_is_one_text() {
    let folder = tempfile::tempdir().unwrap();
    let renamed = |mut result: RunResult| {
        result = rescored(result, |p| {
            p.dataset = "copy.txt".into();
            p.data.as_mut().unwrap().name = "copy.txt".into();
        });
        result
    };
    let out = report(folder.path(), &[int(8), renamed(int(4))]);
    assert_eq!(column(&table(&out, "quality"), "ppl_over"), [None, None]);
    let side = |name: &str, result: &RunResult| {
        let sub = folder.path().join(name);
        std::fs::create_dir_all(&sub).unwrap();
        results::write(&sub, result);
        sub
    };
    let (base, new) = (side("a", &int(4)), side("b", &renamed(int(4))));
    let output = kvprof().arg("compare").arg(base).arg("--against").arg(new).output().unwrap();
    assert!(!stderr(&output).contains("not compared"), "{}", stderr(&output));
}

#[test]
fn windows_scored_on_other_tokens_are_no_points_of_one_curve() {
    let of = |residual: usize, name: &'static str, burn_in: usize| {
        let result = results::run("m", &Cache { residual, ..Cache::new(name, 4, 0.004) });
        rescored(result, |p| p.burn_in = Some(burn_in))
    };
    let sweep = |burn_ins: [usize; 3]| {
        let folder = tempfile::tempdir().unwrap();
        let names = [(64, "int4-hqq,residual=64"), (128, "int4-hqq"), (512, "int4-hqq,residual=512")];
        let files: Vec<_> = names.iter().zip(burn_ins).map(|((residual, name), n)| of(*residual, name, n)).collect();
        let out = report(folder.path(), &files);
        std::fs::read_to_string(out.join("figures/residual_sweep.svg")).ok()
    };
    let points = |svg: &str| svg.matches("residual 512 tokens").count();
    assert!(points(&sweep([576; 3]).unwrap()) > 0);
    let apart = sweep([256, 256, 576]).unwrap();
    assert_eq!(points(&apart), 0, "the longest window was scored on other tokens");
    assert!(sweep([64, 256, 576]).is_none(), "no two of them on the same");
}
