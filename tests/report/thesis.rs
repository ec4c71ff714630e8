//! The thesis tool's published files, where they are at hand.

use crate::thesis_data::{files, folder};
use crate::{kvprof, stderr};

/// Every row of the published CSV, column for column and character for character. Its one odd value, a decode rate of `0.0` at
/// 32k without quantization, follows from the files: 0.03 and 0.05 tokens/s to one decimal.
#[test]
fn aggregate_gives_the_published_rows() {
    let Some(files) = files() else { return };
    let output = kvprof().arg("aggregate").args(&files).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let ours = String::from_utf8(output.stdout).unwrap();
    let published = std::fs::read_to_string(folder().unwrap().join("phase_b_long_context.csv")).unwrap();
    let columns = published.lines().next().unwrap().split(',').count();
    let cut = |line: &str| line.split(',').take(columns).collect::<Vec<_>>().join(",");
    let ours: Vec<String> = ours.lines().map(cut).collect();
    let published: Vec<&str> = published.lines().map(str::trim_end).collect();
    assert_eq!(ours, published);
}

#[test]
fn summaries_are_named_as_such_and_the_rest_is_aggregated() {
    let Some(folder) = folder() else { return };
    let output = kvprof().arg("aggregate").arg(&folder).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let errors = stderr(&output);
    for name in ["mistral_7b_summary.json", "qwen3_8b_summary.json"] {
        assert!(errors.lines().any(|l| l.contains(name) && l.contains("summary of the thesis tool")), "{errors}");
    }
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), 41);
}

#[test]
fn report_gives_the_thesis_table_and_figures() {
    let Some(files) = files() else { return };
    let out = tempfile::tempdir().unwrap();
    let output = kvprof().arg("report").args(&files).arg("-o").arg(out.path()).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let table = std::fs::read_to_string(out.path().join("tables/delta_ppl.tex")).unwrap();
    // The published ΔPPL: columns INT8, INT4, INT2, INT2-KIVI; and the baseline's perplexity before them.
    let row = |model: &str| table.lines().find(|l| l.contains(model) && l.contains('&')).unwrap().trim().to_string();
    assert_eq!(row("Mistral-7B"), r"Mistral-7B & 4.611 & $-$0.001 & $+$0.002 & $+$0.137 & $+$0.368 \\");
    assert_eq!(row("Qwen3-8B"), r"Qwen3-8B & 8.349 & $+$0.001 & $+$0.225 & $+$43.705 & $+$0.814 \\");
    for figure in
        ["memory_vs_context", "decode_vs_context", "delta_ppl", "needle_grid", "pareto_memory", "pareto_speed"]
    {
        for extension in ["svg", "pdf", "png"] {
            let path = out.path().join(format!("figures/{figure}.{extension}"));
            assert!(path.metadata().unwrap().len() > 1000, "{}", path.display());
        }
    }
    let page = std::fs::read_to_string(out.path().join("report.html")).unwrap();
    assert!(page.contains("For Mistral-7B, use INT4."), "the first screen says what to use");
    assert!(page.contains("576 MiB instead of 2 GiB of cache at 16k tokens of context: 72 % less, 3.6× smaller."));
    assert!(page.contains("For Qwen3-8B, use INT8."));
    // Nothing was measured of these, so nothing is shown.
    for absent in ["kernel_categories", "energy_vs_context", "kld_by_position", "residual_sweep", "residual_decode"] {
        assert!(!out.path().join(format!("figures/{absent}.svg")).exists(), "{absent}");
    }
}
