//! `kvprof models`.

use std::process::ExitCode;

use super::output::{self, say};
use crate::base::message::tell;
use crate::base::number::{Lengths, lengths};
use crate::bench::feed::longer_than_model;
use crate::bench::limits::MOST;
use crate::model::families::FAMILIES;
use crate::model::weights::gguf;
use crate::quant::QuantSpec;
use crate::report::terminal::{self, TerminalTable};
use crate::session::estimate::fit::{CacheFit, ContextFit, MOST_SEQUENCES, cache_fit};
use crate::session::estimate::{Place, Shape, available_bytes};
use crate::session::plan::ModelRequest;
use crate::session::sweep::DEFAULT_QUANTIZATIONS;
use crate::{Error, Result};

/// Caches that are compared when none are named: those that `kvprof run` compares, and fp8.
fn caches() -> Vec<String> {
    let mut names = DEFAULT_QUANTIZATIONS.map(String::from).to_vec();
    names.insert(1, "fp8".into());
    names
}

// --kv-quant and --context-lengths take all that follows them, so that MODEL must stand before it; the line that clap would write has it the other way
// round.
const USAGE: &str = "kvprof models [MODEL]... [OPTIONS]";

/// Arguments of `kvprof models`.
#[derive(clap::Args)]
#[command(override_usage = USAGE)]
pub struct Args {
    /// Hub ids (of GGUF models owner/name:Q4_K_M, whose files are downloaded), folders, .gguf files or config.json files; without any, the
    /// families that can be loaded.
    #[arg(value_name = "MODEL")]
    models: Vec<String>,
    /// Say what fits into this memory of a GPU, such as 24GiB, instead of what is free on this machine.
    #[arg(long, value_name = "SIZE", value_parser = super::size::parse, allow_hyphen_values = true)]
    memory: Option<u64>,
    /// Contexts to say it for, in tokens: 4096 or 4k; 1k..32k is 1k 2k 4k 8k 16k 32k [default: the model's longest].
    #[arg(long, num_args = 1.., value_delimiter = ',', value_name = "TOKENS", value_parser = lengths)]
    context_lengths: Option<Vec<Lengths>>,
    /// KV-cache quantizations to compare.
    #[arg(long, num_args = 1.., value_name = "QUANT", default_values_t = caches())]
    kv_quant: Vec<String>,
    /// Branch, tag or commit on the hub.
    #[arg(long, value_name = "REV")]
    revision: Option<String>,
    /// Float type of weights and cache: f16, bf16, f32, or auto (f32 on a CPU; on a GPU, and with --memory, bf16 where the model was
    /// published in it, else f16).
    #[arg(long, value_name = "TYPE", default_value = "auto")]
    dtype: String,
    /// auto, cpu, cuda or cuda:N.
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: String,
    /// `off` ignores the model's sliding window.
    #[arg(long, value_name = "on|off", default_value = "on", value_parser = ["on", "off"])]
    sliding_window: String,
}

/// Lists the families, or says of each model what its configuration says and what fits.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let caches = args.kv_quant.iter().map(|name| name.parse()).collect::<Result<Vec<QuantSpec>>>();
    if args.models.is_empty() {
        caches.map_err(|error| Error::usage(format!("{error}. A MODEL stands before --kv-quant")))?;
        output::write(families().as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    let caches = caches?;
    let contexts = args.context_lengths.as_deref().map(Lengths::of);
    if let Some(length) = contexts.iter().flatten().find(|length| !(1..=MOST).contains(*length)) {
        return Err(Error::usage(format!("--context-lengths {length} is not between 1 and {MOST}")).into());
    }
    let mut failed = 0;
    for (at, model) in args.models.iter().enumerate() {
        if at > 0 {
            say!("");
        }
        match describe(args, model, &caches, contexts.as_deref()) {
            Ok(text) => output::write(text.as_bytes())?,
            Err(error) if args.models.len() == 1 => return Err(error.into()),
            Err(error) => {
                tell!("error: {error}");
                failed += 1;
            }
        }
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(super::SOME_FAILED) })
}

fn families() -> String {
    let mut text = String::from("model_type  models\n");
    for family in FAMILIES {
        text += &format!("{:<11} {} ({})\n", family.name, family.title, family.examples);
    }
    text += &format!(
        "{:<11} a small trained model inside kvprof\n\n\
         Weights come as safetensors, or as GGUF of {}.\n\
         `kvprof models MODEL` says what a model's configuration says, and what of it fits into memory.\n",
        "builtin",
        gguf::ARCHITECTURES.join(", ")
    );
    text
}

fn describe(args: &Args, model: &str, caches: &[QuantSpec], contexts: Option<&[usize]>) -> Result<String> {
    let request = ModelRequest {
        model: model.to_string(),
        revision: args.revision.clone(),
        dummy: false,
        dtype: args.dtype.clone(),
        device: args.device.clone(),
        sliding_window: args.sliding_window == "on",
    };
    let place = if args.memory.is_some() { Place::OtherGpu } else { Place::Here };
    let shape = Shape::of(&request, place, true)?;
    let free = args.memory.or_else(|| available_bytes(&request));
    let c = &shape.config;
    let window = c.shared_window().map_or_else(String::new, |w| format!(", sliding window of {w}"));
    let mut text = format!(
        "{model} ({})\n\
         {:.3} billion parameters, weights {} as {}\n\
         {} layers, {} query heads, {} KV heads ({}:1), head dim {}, hidden {}, vocabulary {}\n\
         context of {} tokens{window}\n",
        c.family,
        c.parameters() as f64 / 1e9,
        size(shape.weights_bytes()),
        shape.dtype.as_str(),
        c.layers,
        c.heads,
        c.kv_heads,
        c.heads / c.kv_heads,
        c.head_dim,
        c.hidden,
        c.vocab,
        c.max_positions,
    );
    if let Some(reason) = &shape.unserved {
        text += &format!("a GPU does not serve it: {reason}\n");
    }
    text += &match free {
        None => "how much memory is free cannot be told; give it with --memory\n".to_string(),
        Some(free) if shape.weights_bytes() > free => {
            format!("the weights do not fit into the {} {}\n", size(free), whose(args))
        }
        Some(free) => {
            format!("{} {}, {} beside the weights\n", size(free), whose(args), size(free - shape.weights_bytes()))
        }
    };
    let own = [c.max_positions];
    let contexts = contexts.unwrap_or(&own);
    if let Some(length) = contexts.iter().find(|length| **length > c.max_positions) {
        let told = longer_than_model(&format!("--context-lengths {length}"), c.max_positions);
        text += &format!("{told}\n");
    }
    let heads = ["KV cache", "bytes/token", "longest that fits", "context", "cache", "sequences that fit"];
    let mut table = TerminalTable::new(heads, 1);
    for quant in caches {
        match cache_fit(&shape, quant, contexts, free.unwrap_or(0)) {
            Ok(fit) => {
                rows(quant, &fit, c.max_positions, free.is_some()).into_iter().for_each(|row| table.add_row(row))
            }
            Err(error) => {
                let nothing = std::iter::repeat_n(String::new(), heads.len() - 2);
                table.add_row([quant.name.clone(), error.to_string()].into_iter().chain(nothing));
            }
        }
    }
    Ok(format!("{text}{}\n", table.within(terminal::width())))
}

/// One for each context; what is the same in all is told in the first.
fn rows(quant: &QuantSpec, fit: &CacheFit, longest: usize, known: bool) -> Vec<[String; 6]> {
    let told = |number: String| if known { number } else { "unknown".into() };
    let longest = match fit.longest {
        all if all == longest => format!("{all} (all)"),
        some => some.to_string(),
    };
    let mut first = [quant.name.clone(), format!("{:.0}", fit.bytes_per_token), told(longest)];
    let row = |at: &ContextFit| {
        let sequences = match at.sequences {
            MOST_SEQUENCES => format!("{MOST_SEQUENCES} or more"),
            some => some.to_string(),
        };
        let [name, bytes_per_token, longest] = std::mem::take(&mut first);
        [name, bytes_per_token, longest, at.tokens.to_string(), size(at.bytes), told(sequences)]
    };
    fit.contexts.iter().map(row).collect()
}

fn whose(args: &Args) -> &'static str {
    if args.memory.is_some() { "given" } else { "free here" }
}

fn size(bytes: u64) -> String {
    let mib = bytes as f64 / f64::from(1u32 << 20);
    if mib < 1024.0 { format!("{mib:.1} MiB") } else { format!("{:.1} GiB", mib / 1024.0) }
}
