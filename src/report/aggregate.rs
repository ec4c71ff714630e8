//! One row for each model × backend × cache × context × batch: the thesis tool's columns first, with its names and
//! rounding, then what 3.0 files add, unrounded but in the formats for people (Markdown, LaTeX).

use super::number::{Digits, round};
use super::run::Run;
use super::scoring;
use super::setting;
use super::study::{MIB, Row, Study};
use super::table::{Cell, Column, Table};
use crate::base::stats::Summary;
use crate::schema::{Accuracy, DataSource, FollowUp, Needle, Perplexity};

type Get = fn(&Row<'_>) -> Cell;

/// Which run a number of a row was read from.
type Source = fn(&Row<'_>) -> Option<usize>;

/// Decimals to which the thesis' scripts round.
fn rounded(value: Option<f64>, decimals: usize) -> Cell {
    value.map(|v| round(v, decimals)).into()
}

fn follow_up<'a>(row: &Row<'a>) -> Option<&'a FollowUp> {
    row.follow_up.map(|(_, follow_up)| follow_up)
}

fn ppl<'a>(row: &Row<'a>) -> Option<&'a Perplexity> {
    row.run.result.own_perplexity()
}

fn needle<'a>(row: &Row<'a>) -> Option<&'a Needle> {
    row.run.result.benchmarks.needle_in_haystack.as_ref()
}

fn mmlu<'a>(row: &Row<'a>) -> Option<&'a Accuracy> {
    row.run.result.benchmarks.mmlu.as_ref()
}

fn math<'a>(row: &Row<'a>) -> Option<&'a Accuracy> {
    row.run.result.benchmarks.math.as_ref()
}

fn sha256(data: Option<&DataSource>) -> Cell {
    data.map(|data| data.sha256.as_str()).into()
}

/// The files that follow-up prompts and scores were read from, which need not be that of the row's other costs.
const OTHER_FILES: [(&str, Source); 6] = [
    ("follow_up_file", |row| row.follow_up.map(|(run, _)| run)),
    ("ppl_file", |row| row.run.sources.ppl),
    // That of an unquantized cache, from itself, is no score.
    ("kld_file", |row| row.run.quality.kld.as_ref().and(row.run.sources.kld)),
    ("needle_file", |row| row.run.sources.needle),
    ("mmlu_file", |row| row.run.sources.mmlu),
    ("math_file", |row| row.run.sources.math),
];

fn file_name(run: &Run) -> Cell {
    run.file.file_name().map(|name| name.to_string_lossy().into_owned()).into()
}

/// The table that `kvprof aggregate` writes.
pub fn table(study: &Study) -> Table {
    let columns = columns();
    let cells = |row: &Row<'_>| {
        let own = columns.iter().map(|(_, get)| get(row).from_run(row.index));
        let others = OTHER_FILES
            .iter()
            .map(|(_, source)| source(row).map_or_else(Cell::missing, |at| file_name(&study.runs[at]).from_run(at)));
        own.chain(others).collect::<Vec<_>>()
    };
    let rows = study.rows().map(|row| cells(&row)).collect();
    let others = OTHER_FILES.iter().map(|(name, _)| Column::text(name, name));
    Table {
        id: "aggregate".into(),
        title: String::new(),
        note: String::new(),
        columns: columns.iter().map(|(column, _)| column.clone()).chain(others).collect(),
        rows,
    }
}

fn columns() -> Vec<(Column, Get)> {
    let text = |name: &str| Column::text(name, name);
    let whole = |name: &str| Column::integer(name, name);
    let real = |name: &str| Column::real(name, name, Digits::Significant(4));
    // As the thesis rounds it.
    let published = |name: &str| Column::real(name, name, Digits::Exact);
    let flag = |name: &str| Column::flag(name, name);
    vec![
        // The thesis' columns. Its CSV writes `0.0` for a decode rate below 0.05: that is its rounding, and
        // `decode_tokens_per_sec` below has the full number.
        (text("model"), |r| r.run.model.as_str().into()),
        (text("kv_quant"), |r| r.run.cache.as_str().into()),
        (whole("context_len"), |r| r.context().into()),
        (published("prefill_ms"), |r| rounded(r.measured.and_then(|m| m.prefill_ms), 1)),
        (published("prefill_tok_s"), |r| rounded(r.measured.and_then(|m| m.prefill_tokens_per_sec), 0)),
        (published("decode_tok_s"), |r| rounded(r.measured.and_then(|m| m.decode_tokens_per_sec), 1)),
        (published("kv_cache_mb"), |r| rounded(r.measured.and_then(|m| m.kv_cache_mb), 1)),
        (published("vram_peak_mb"), |r| rounded(r.measured.and_then(|m| m.vram_peak_mb), 0)),
        (published("vram_reserved_mb"), |r| rounded(r.measured.and_then(|m| m.vram_reserved_mb), 0)),
        (flag("vram_overflow"), |r| r.measured.and_then(|m| m.vram_overflow).into()),
        (published("ppl_ref"), |r| rounded(r.run.quality.ppl_reference, 4)),
        (published("ppl_quant"), |r| rounded(r.run.quality.ppl_quantized, 4)),
        (published("delta_ppl"), |r| rounded(r.run.quality.delta_ppl(), 4)),
        (real("needle_score"), |r| r.run.quality.needle.as_ref().map(|s| s.rate).into()),
        // What ran.
        (text("model_id"), |r| r.run.result.model.as_str().into()),
        (text("attn_backend"), |r| r.run.result.attn_backend.as_str().into()),
        (text("kv_quant_name"), |r| r.run.result.kv_quant.name.as_deref().into()),
        (whole("sliding_window"), |r| r.run.result.model_config.sliding_window.into()),
        (whole("batch_size"), |r| r.batch().into()),
        (whole("prefill_chunk"), |r| r.measured.and_then(|m| setting::prefill_chunk(&r.run.result, m)).into()),
        (text("step_mode"), |r| r.measured.and_then(setting::step_mode).into()),
        (whole("nbits_key"), |r| r.run.result.kv_quant.nbits.map(usize::from).into()),
        (whole("nbits_value"), |r| {
            let quant = &r.run.result.kv_quant;
            quant.nbits_value.or(quant.nbits).map(usize::from).into()
        }),
        (whole("residual_length"), |r| r.run.result.kv_quant.residual_length.into()),
        (flag("skipped"), |r| r.measured.and_then(|m| m.skipped).into()),
        (text("skip_reason"), |r| r.measured.and_then(|m| m.skip_reason.as_deref()).into()),
        // Memory.
        (real("kv_cache_bytes"), |r| r.cache_bytes().into()),
        (real("kv_compression"), |r| {
            let ledger = r.measured.and_then(|m| m.kv_bytes).filter(|b| b.total_bytes > 0);
            ledger.map(|b| b.unquantized_bytes as f64 / b.total_bytes as f64).into()
        }),
        (real("kv_codes_bytes"), |r| r.measured.and_then(|m| m.kv_bytes).map(|b| b.codes_bytes as f64).into()),
        (real("kv_parameters_bytes"), |r| {
            r.measured.and_then(|m| m.kv_bytes).map(|b| b.parameters_bytes as f64).into()
        }),
        (real("kv_window_bytes"), |r| r.measured.and_then(|m| m.kv_bytes).map(|b| b.window_bytes as f64).into()),
        (real("kv_scratch_bytes"), |r| r.measured.and_then(|m| m.kv_bytes).map(|b| b.scratch_bytes as f64).into()),
        (real("peak_bytes"), |r| r.measured.and_then(|m| m.vram_peak_mb).map(|mb| mb * MIB).into()),
        (flag("memory_spilled"), |r| r.measured.map(|_| r.spilled()).into()),
        // Time.
        (real("prefill_ms_sd"), |r| {
            r.measured.and_then(|m| m.prefill_runs_ms.as_ref()).and_then(Summary::spread).into()
        }),
        (whole("follow_up_tokens"), |r| follow_up(r).map(|f| f.tokens).into()),
        (real("follow_up_ms"), |r| follow_up(r).map(|f| f.ms).into()),
        (real("follow_up_ms_sd"), |r| follow_up(r).and_then(|f| f.runs_ms.spread()).into()),
        (real("follow_up_tokens_per_sec"), |r| follow_up(r).map(|f| f.tokens_per_sec).into()),
        (real("decode_ms"), |r| r.measured.and_then(|m| m.decode_ms).into()),
        (real("decode_ms_sd"), |r| r.measured.and_then(|m| m.decode_runs_ms.as_ref()).and_then(Summary::spread).into()),
        (whole("output_tokens"), |r| r.measured.and_then(|m| m.decode_tokens).into()),
        (real("decode_tokens_per_sec"), |r| r.decode_rate().into()),
        (real("step_median_ms"), |r| r.measured.and_then(|m| m.steps.as_ref()).map(|s| s.median_ms).into()),
        (real("step_p99_ms"), |r| r.measured.and_then(|m| m.steps.as_ref()).map(|s| s.p99_ms).into()),
        (real("flush_mean_ms"), |r| r.measured.and_then(|m| m.steps.as_ref()).and_then(|s| s.flush_mean_ms).into()),
        (whole("flushes"), |r| r.measured.and_then(|m| m.steps.as_ref()).map(|s| s.flushes).into()),
        (real("step_bandwidth_gb_s"), |r| r.measured.and_then(|m| m.step_bandwidth_gb_s).into()),
        (real("step_bandwidth_share"), |r| r.measured.and_then(|m| m.step_bandwidth_share).into()),
        (real("attention_bandwidth_gb_s"), |r| r.measured.and_then(|m| m.attention_bandwidth_gb_s).into()),
        (text("attention_kernel"), |r| r.measured.and_then(|m| m.attention_kernel.as_deref()).into()),
        // Energy.
        (real("decode_j_per_token"), |r| r.energy_j().into()),
        (real("decode_net_j_per_token"), |r| {
            let window = r.measured.and_then(|m| m.energy.as_ref()).and_then(|e| e.decode.as_ref());
            window.filter(|w| w.tokens > 0).and_then(|w| Some(w.net_j? / w.tokens as f64)).into()
        }),
        // Quality.
        (real("ppl_se"), |r| r.run.quality.ppl_error.into()),
        (real("ln_ppl_ratio"), |r| r.run.quality.ln_ratio.into()),
        (real("ln_ppl_ratio_se"), |r| r.run.quality.ln_ratio_estimate.map(|log| log.error).into()),
        (real("kld_mean"), |r| r.run.quality.kld.as_ref().map(|k| k.mean).into()),
        (real("kld_p99"), |r| r.run.quality.kld.as_ref().and_then(|k| k.p99).into()),
        (real("top1_agreement"), |r| r.run.quality.kld.as_ref().and_then(|k| k.top1_agreement).into()),
        (real("needle_low"), |r| r.run.quality.needle.as_ref().map(|s| s.interval.0).into()),
        (real("needle_high"), |r| r.run.quality.needle.as_ref().map(|s| s.interval.1).into()),
        (real("needle_delta"), |r| r.run.quality.needle.as_ref().and_then(|s| s.delta).into()),
        (real("mmlu_accuracy"), |r| r.run.quality.mmlu.as_ref().map(|s| s.rate).into()),
        (real("mmlu_delta"), |r| r.run.quality.mmlu.as_ref().and_then(|s| s.delta).into()),
        (real("math_accuracy"), |r| r.run.quality.math.as_ref().map(|s| s.rate).into()),
        (real("math_delta"), |r| r.run.quality.math.as_ref().and_then(|s| s.delta).into()),
        // What that was measured on.
        (text("ppl_data"), |r| ppl(r).map(|p| p.dataset.as_str()).into()),
        (text("ppl_data_sha256"), |r| sha256(ppl(r).and_then(|p| p.data.as_ref()))),
        (whole("ppl_tokens"), |r| ppl(r).map(|p| p.tokens).into()),
        (whole("ppl_window"), |r| ppl(r).and_then(|p| p.window).into()),
        (whole("ppl_burn_in"), |r| ppl(r).and_then(|p| p.burn_in).into()),
        (text("ppl_protocol"), |r| ppl(r).and_then(|p| p.protocol.as_deref()).into()),
        (text("kld_data_sha256"), |r| sha256(r.run.quality.kld.as_ref().and_then(|k| k.data.as_ref()))),
        (whole("kld_tokens"), |r| r.run.quality.kld.as_ref().map(|k| k.tokens).into()),
        (whole("kld_window"), |r| r.run.quality.kld.as_ref().and_then(|k| k.window).into()),
        (whole("kld_burn_in"), |r| r.run.quality.kld.as_ref().and_then(|k| k.burn_in).into()),
        (text("kld_protocol"), |r| r.run.quality.kld.as_ref().and_then(|k| k.protocol.as_deref()).into()),
        (whole("needle_trials"), |r| r.run.quality.needle.as_ref().map(|s| s.trials).into()),
        (text("needle_kind"), |r| needle(r).and_then(|n| n.kind.as_deref()).into()),
        (text("needle_haystack"), |r| needle(r).and_then(|n| n.haystack.as_deref()).into()),
        (text("needle_data_sha256"), |r| sha256(needle(r).and_then(|n| n.data.as_ref()))),
        // Tokens, and 0…1, as --context-lengths and --needle-depths take them.
        (text("needle_contexts"), |r| needle(r).map(|n| scoring::needle_contexts(n).join(" ")).into()),
        (text("needle_depths"), |r| {
            let trials = r.run.result.benchmarks.needle_in_haystack_trials.as_deref();
            let depths = trials.map(scoring::needle_depths);
            depths.map(|depths| depths.iter().map(f64::to_string).collect::<Vec<_>>().join(" ")).into()
        }),
        (whole("mmlu_questions"), |r| mmlu(r).map(|a| a.questions).into()),
        (whole("mmlu_planned"), |r| mmlu(r).and_then(|a| a.planned).into()),
        (flag("mmlu_stopped"), |r| mmlu(r).map(|a| a.stopped_before().is_some()).into()),
        (whole("mmlu_seed"), |r| mmlu(r).and_then(|a| a.seed).map(|seed| seed as usize).into()),
        (whole("mmlu_shots"), |r| mmlu(r).and_then(|a| a.shots).into()),
        (text("mmlu_data_sha256"), |r| sha256(mmlu(r).and_then(|a| a.data.as_ref()))),
        (whole("math_questions"), |r| math(r).map(|a| a.questions).into()),
        (whole("math_planned"), |r| math(r).and_then(|a| a.planned).into()),
        (flag("math_stopped"), |r| math(r).map(|a| a.stopped_before().is_some()).into()),
        (whole("math_seed"), |r| math(r).and_then(|a| a.seed).map(|seed| seed as usize).into()),
        (whole("math_max_new_tokens"), |r| math(r).and_then(|a| a.max_new_tokens).into()),
        (text("math_data_sha256"), |r| sha256(math(r).and_then(|a| a.data.as_ref()))),
        (real("quantized_read_fraction"), |r| {
            r.measured.and_then(|m| m.quantized_read_fraction).or(r.run.quality.quantized_read_fraction).into()
        }),
        // Where the row comes from; its follow-up prompt and scores: OTHER_FILES.
        (text("device"), |r| r.machine().name().into()),
        (text("timestamp"), |r| r.run.result.timestamp.as_str().into()),
        (text("schema_version"), |r| r.run.result.schema_version.as_str().into()),
        (text("experiment_id"), |r| r.run.result.experiment_id.as_str().into()),
        (text("file"), |r| file_name(r.run)),
    ]
}
