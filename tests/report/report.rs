//! `kvprof report`.

use std::path::{Path, PathBuf};

use kvprof::base::stats::Summary;

use crate::results::{self, Cache};
use crate::{kvprof, stderr};

/// A report on the sweep of `results`, in `folder/out`.
pub fn make(folder: &Path) -> PathBuf {
    let (raw, out) = (folder.join("raw"), folder.join("out"));
    std::fs::create_dir_all(&raw).unwrap();
    results::write_sweep(&raw, "org/Small-1B");
    let output = kvprof().arg("report").arg(&raw).arg("-o").arg(&out).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    out
}

#[test]
fn a_full_sweep_has_every_figure_in_every_format() {
    let folder = tempfile::tempdir().unwrap();
    let out = make(folder.path());
    for figure in [
        "memory_vs_context",
        "peak_memory_vs_context",
        "decode_vs_context",
        "prefill_vs_context",
        "delta_ppl",
        "needle_grid",
        "kernel_categories",
        "energy_vs_context",
        "residual_sweep",
        "residual_decode",
        "residual_energy",
        "kld_by_position",
        "pareto_memory",
        "pareto_speed",
    ] {
        let read = |extension: &str| std::fs::read(out.join(format!("figures/{figure}.{extension}"))).unwrap();
        assert!(read("svg").starts_with(b"<svg"), "{figure}");
        assert!(read("pdf").starts_with(b"%PDF"), "{figure}");
        assert!(read("png").starts_with(b"\x89PNG"), "{figure}");
    }
    for table in ["delta_ppl", "quality", "memory", "latency", "needle", "energy"] {
        let text = std::fs::read_to_string(out.join(format!("tables/{table}.tex"))).unwrap();
        assert!(text.contains("\\toprule") && text.contains(&format!("\\label{{tab:{table}}}")), "{table}");
        let text = std::fs::read_to_string(out.join(format!("tables/{table}.md"))).unwrap();
        assert!(text.lines().any(|line| line.starts_with("| ---")) && text.contains("int4-hqq"), "{table}");
    }
}

#[test]
fn the_smallest_cache_within_the_bound_is_recommended() {
    let folder = tempfile::tempdir().unwrap();
    let raw = folder.path().join("raw");
    std::fs::create_dir_all(&raw).unwrap();
    results::write_sweep(&raw, "org/Small-1B");
    let page = |bound: &[&str]| {
        let out = folder.path().join("out");
        let output = kvprof().arg("report").arg(&raw).arg("-o").arg(&out).args(bound).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        std::fs::read_to_string(out.join("report.html")).unwrap()
    };
    // Of the 4-bit caches the one with 32 tokens in full precision is smallest, but its interval reaches past 1 %.
    assert!(page(&[]).contains("For Small-1B, use int4-hqq,residual=64."));
    assert!(page(&["--max-ppl-rise", "2%"]).contains("For Small-1B, use int4-hqq,residual=32."));
    assert!(page(&["--max-ppl-rise", "0.1"]).contains("For Small-1B, use int8-hqq."));
    assert!(page(&["--max-ppl-rise", "0"]).contains("For Small-1B, keep the unquantized cache."));
    // The 2-bit cache loses needles as well as perplexity.
    assert!(page(&["--max-ppl-rise", "50"]).contains("For Small-1B, use int4-hqq,residual=32."));
    assert!(page(&["--max-ppl-rise", "50", "--max-score-fall", "40"]).contains("For Small-1B, use int2-hqq-kivi."));
}

#[test]
fn the_recommendation_is_printed_with_the_bound_it_keeps_to() {
    let folder = tempfile::tempdir().unwrap();
    let (raw, out) = (folder.path().join("raw"), folder.path().join("out"));
    std::fs::create_dir_all(&raw).unwrap();
    results::write_sweep(&raw, "org/Small-1B");
    let output = kvprof().arg("report").arg(&raw).arg("-o").arg(&out).args(["--max-ppl-rise", "2"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    // Windows of 32 of 4096 tokens, and the rest in 4 bits and an eighth for parameters, of 16.
    let share = (32.0 + 4064.0 * 4.5 / 16.0) / 4096.0;
    assert_eq!(lines[2], "For Small-1B, use int4-hqq,residual=32.", "{text}");
    assert!(lines[3].contains("perplexity +0.94 %"), "{text}");
    assert!(lines[4].starts_with("Saves: ") && lines[4].contains(&format!("{:.1}× smaller", 1.0 / share)), "{text}");
    assert!(lines[5].starts_with("Costs: decoding at ") && lines[5].contains("(+8 %)"), "a step takes 0.93: {text}");
    assert!(lines.last().unwrap().starts_with("The bound: perplexity rises by at most 2 %"), "{text}");
    // A file without scores has no answer.
    let mut result = results::run("m", &Cache::new("int4-hqq", 4, 0.004));
    result.benchmarks = Default::default();
    let file = results::write(folder.path(), &result);
    let output = kvprof().arg("report").arg(file).arg("-o").arg(&out).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), 1);
}

#[test]
fn a_cache_that_decodes_too_slowly_is_not_recommended_and_that_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let (raw, out) = (folder.path().join("raw"), folder.path().join("out"));
    std::fs::create_dir_all(&raw).unwrap();
    let slow = Cache { slowdown: 1.25, ..Cache::new("int4-hqq", 4, 0.004) };
    for cache in
        [Cache::new("none", 16, 0.0), Cache { slowdown: 1.02, ..Cache::new("int8-hqq", 8, 0.0002) }, slow.clone()]
    {
        results::write(&raw, &results::run("m", &cache));
    }
    let said = |more: &[&str]| {
        let output = kvprof().arg("report").arg(&raw).arg("-o").arg(&out).args(more).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    // A step takes 1.25 times as long, so that there are 20 % fewer tokens a second.
    assert!(said(&[]).contains("use int4-hqq."));
    assert!(said(&["--max-slowdown", "21"]).contains("use int4-hqq."));
    let text = said(&["--max-slowdown", "19%"]);
    assert!(text.contains("use int8-hqq.") && text.contains("and decoding is at most 19 % slower."), "{text}");
    assert!(
        text.contains("int4-hqq keeps to the bound on quality, but decodes at") && text.contains("(−20 %)"),
        "{text}"
    );
    // Of these five repeats, resampled, the median is one of the two fast ones about every third time.
    let mut noisy = results::run("m", &slow);
    for m in &mut noisy.measurements {
        let ms = m.decode_ms.unwrap();
        m.decode_runs_ms = Summary::of(&[0.4, 0.5, 1.0, 2.0, 2.5].map(|share| share * ms));
    }
    results::write(&raw, &noisy);
    assert!(said(&["--max-slowdown", "19"]).contains("use int4-hqq."));
    let asterisk = || std::fs::read_to_string(out.join("report.html")).unwrap().contains("An asterisk: device memory");
    assert!(!asterisk(), "no number has one");
    noisy.measurements.iter_mut().for_each(|m| m.vram_overflow = Some(true));
    results::write(&raw, &noisy);
    let text = said(&["--max-slowdown", "19"]);
    assert!(text.contains("use int4-hqq.") && text.contains("Its speed could not be held against"), "{text}");
    assert!(asterisk());
}

#[test]
fn savings_are_known_by_the_ledger_where_no_unquantized_cache_was_measured() {
    let folder = tempfile::tempdir().unwrap();
    let file = results::write(folder.path(), &results::run("m", &Cache::new("int4-hqq", 4, 0.002)));
    let out = folder.path().join("out");
    let output = kvprof().arg("report").arg(&file).arg("-o").arg(&out).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let table = std::fs::read_to_string(out.join("tables/memory.tex")).unwrap();
    // 4096 tokens of 16 bits, against 128 of 16 and the rest of 4 bits and an eighth for parameters.
    let smaller = 4096.0 * 16.0 / (128.0 * 16.0 + 3968.0 * 4.5);
    assert!(table.contains(&format!("{smaller:.2}")), "{smaller} {table}");
    let page = std::fs::read_to_string(out.join("report.html")).unwrap();
    assert!(page.contains("× smaller.") && !page.contains("savings and costs are not known"), "{page}");
    assert!(page.contains("so costs are not known, and what is saved is by the cache"), "{page}");
}

#[test]
fn needles_are_held_against_the_unquantized_cache_in_points_and_that_cache_against_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let out = make(folder.path());
    let table = std::fs::read_to_string(out.join("tables/needle.tex")).unwrap();
    let row = |cache: &str| table.lines().find(|line| line.contains(cache)).unwrap().to_string();
    assert!(row("int2-hqq-kivi").contains("pt") && !row("FP16").contains("pt"), "{table}");
}

#[test]
fn the_page_needs_nothing_else_and_links_numbers_to_files() {
    let folder = tempfile::tempdir().unwrap();
    let out = make(folder.path());
    let page = std::fs::read_to_string(out.join("report.html")).unwrap();
    for reference in ["http://", "https://", "src=\"", "@import", "url("] {
        let rest = page.replace("http://www.w3.org/2000/svg", "").replace("url(data:", "");
        assert!(!rest.contains(reference), "the page refers to {reference}");
    }
    // The numbers of a table are links, and each leads to a file.
    let mut links = 0;
    for piece in page.split("<td class=\"n\"").skip(1) {
        let cell = piece.split("</td>").next().unwrap();
        if let Some(link) = cell.split("<a href=\"").nth(1) {
            let target = out.join(link.split('"').next().unwrap());
            assert!(target.is_file(), "{}", target.display());
            links += 1;
        }
    }
    assert!(links > 100, "{links} linked numbers");
}

#[test]
fn cost_and_benchmarks_measured_apart_make_one_row() {
    let folder = tempfile::tempdir().unwrap();
    let raw = folder.path().join("raw");
    std::fs::create_dir_all(&raw).unwrap();
    for cache in results::sweep() {
        let whole = results::run("org/Small-1B", &cache);
        let part = |name: &str, second: usize, keep: &dyn Fn(&mut kvprof::schema::RunResult)| {
            let mut part = whole.clone();
            part.experiment_id = format!("{}_{name}", whole.experiment_id);
            part.timestamp = format!("2026-11-01T12:00:{second:02}");
            keep(&mut part);
            results::write(&raw, &part);
        };
        part("profile", 1, &|r| r.benchmarks = Default::default());
        part("ppl", 2, &|r| {
            r.measurements.clear();
            (r.benchmarks.needle_in_haystack, r.benchmarks.needle_in_haystack_trials) = (None, None);
        });
        part("needle", 3, &|r| {
            r.measurements.clear();
            (r.benchmarks.perplexity, r.benchmarks.perplexity_quantized, r.benchmarks.kld) = (None, None, None);
        });
    }
    let out = folder.path().join("out");
    let output = kvprof().arg("report").arg(&raw).arg("-o").arg(&out).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let page = std::fs::read_to_string(out.join("report.html")).unwrap();
    assert!(page.contains("For Small-1B, use int4-hqq,residual=64."), "perplexity, needle and size are held together");
    assert!(out.join("figures/pareto_memory.svg").exists() && out.join("figures/needle_grid.svg").exists());
    // Every number leads to the file that it was read from.
    let row =
        page.split("<table id=\"t-quality\"").nth(1).unwrap().split("<tr>").find(|r| r.contains("int8-hqq")).unwrap();
    assert!(
        row.contains("int8_hqq_20261101_120000_ppl.json") && row.contains("int8_hqq_20261101_120000_needle.json"),
        "{row}"
    );
}

#[test]
fn names_from_files_cannot_break_the_page_or_the_tables() {
    let folder = tempfile::tempdir().unwrap();
    let mut result = results::run("m", &Cache::new("none", 16, 0.0));
    result.model = "</script><img src=x onerror=alert(1)> & 50% {x}_$\\".into();
    result.experiment_id = "odd".into();
    results::write(folder.path(), &result);
    let out = folder.path().join("out");
    let output = kvprof().arg("report").arg(folder.path()).arg("-o").arg(&out).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let page = std::fs::read_to_string(out.join("report.html")).unwrap();
    assert!(!page.contains("<img"), "markup of a model's name must not reach the page");
    let table = std::fs::read_to_string(out.join("tables/memory.tex")).unwrap();
    assert!(table.contains("50\\% \\{x\\}\\_\\$"), "{table}");
}

#[test]
fn skipped_files_and_skipped_measurements_are_told_on_the_page() {
    let folder = tempfile::tempdir().unwrap();
    let raw = folder.path().join("raw");
    std::fs::create_dir_all(&raw).unwrap();
    let mut result = results::run("m", &Cache::new("none", 16, 0.0));
    result.measurements[2] = kvprof::schema::Measurement {
        context_len: 4096,
        skipped: Some(true),
        skip_reason: Some("out of memory".into()),
        ..Default::default()
    };
    results::write(&raw, &result);
    std::fs::write(raw.join("broken.json"), "{").unwrap();
    let out = folder.path().join("out");
    let output = kvprof().arg("report").arg(&raw).arg("-o").arg(&out).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let page = std::fs::read_to_string(out.join("report.html")).unwrap();
    assert!(page.contains("broken.json") && page.contains("1 file was skipped"));
    assert!(page.contains("4k tokens skipped: out of memory"));
}

#[test]
fn kernel_times_are_per_token_of_all_sequences_as_rates_and_energy_are() {
    let folder = tempfile::tempdir().unwrap();
    let mut result = results::run("m", &Cache::new("int4-hqq", 4, 0.004));
    result.measurements.truncate(1);
    let us = |batch: usize| {
        let mut result = result.clone();
        result.measurements[0].batch_size = Some(batch);
        let file = results::write(folder.path(), &result);
        let out = folder.path().join("out");
        let output = kvprof().arg("report").arg(&file).arg("-o").arg(&out).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        let mut reader = csv::Reader::from_path(out.join("tables/kernels.csv")).unwrap();
        let place = reader.headers().unwrap().iter().position(|head| head == "us_per_token").unwrap();
        let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
        let all = rows.iter().find(|row| row.iter().any(|cell| cell == "all")).unwrap();
        all[place].parse::<f64>().unwrap()
    };
    // The same step makes a token of one sequence, or of four.
    let (one, four) = (us(1), us(4));
    assert!((one / four - 4.0).abs() < 1e-9, "{one} {four}");
}

#[test]
fn what_an_earlier_report_wrote_and_this_one_does_not_is_removed_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let out = make(folder.path());
    let named = |folder: &str| {
        let entries = std::fs::read_dir(out.join(folder)).unwrap();
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert!(named("figures").contains(&"residual_sweep.svg".to_string()));
    let kept = [
        "figures/mine.svg",
        "figures/delta_ppl_old.svg",
        "figures/delta_ppl.txt",
        "tables/quality_2.csv",
        "tables/notes.md",
    ];
    kept.iter().for_each(|name| std::fs::write(out.join(name), "mine").unwrap());
    // A part of a figure that had more panels.
    std::fs::write(out.join("figures/delta_ppl_2.svg"), "<svg/>").unwrap();
    let mut result = results::run("m", &Cache::new("none", 16, 0.0));
    result.benchmarks = Default::default();
    result.measurements.iter_mut().for_each(|m| (m.energy, m.kernels) = (None, None));
    let file = results::write(folder.path(), &result);
    let report = |to: &Path| {
        let output = kvprof().arg("report").arg(&file).arg("-o").arg(to).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        stderr(&output)
    };
    let said = report(&out);
    assert!(said.contains("of an earlier report are removed"), "{said}");
    for name in kept {
        assert_eq!(std::fs::read_to_string(out.join(name)).unwrap(), "mine", "{name}");
    }
    let fresh = folder.path().join("fresh");
    assert!(!report(&fresh).contains("removed"));
    for part in ["figures", "tables"] {
        let own = |name: &String| !kept.contains(&format!("{part}/{name}").as_str());
        let left: Vec<String> = named(part).into_iter().filter(own).collect();
        let mut new: Vec<String> = std::fs::read_dir(fresh.join(part))
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        new.sort();
        assert_eq!(left, new);
    }
}
