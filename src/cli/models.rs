//! `kvprof models`.

use std::process::ExitCode;

use super::output::{self, say};
use crate::base::message::tell;
use crate::model::families::FAMILIES;
use crate::model::weights::gguf;
use crate::quant::QuantSpec;
use crate::report::terminal::{self, TerminalTable};
use crate::session::estimate::fit::{CacheFit, MOST_SEQUENCES, cache_fit};
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

// --kv-quant takes all names that follow it, so that MODEL must stand before it; the line that clap would write has it the other way
// round.
const USAGE: &str = "kvprof models [MODEL]... [OPTIONS]";

/// Arguments of `kvprof models`.
#[derive(clap::Args)]
#[command(override_usage = USAGE)]
pub struct Args {
    /// Hub ids, folders, .gguf files or config.json files; without any, the families that can be loaded.
    #[arg(value_name = "MODEL")]
    models: Vec<String>,
    /// Say what fits into this memory of a GPU, such as 24GiB, instead of what is free on this machine.
    #[arg(long, value_name = "SIZE", value_parser = super::size::parse, allow_hyphen_values = true)]
    memory: Option<u64>,
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
    let mut failed = 0;
    for (at, model) in args.models.iter().enumerate() {
        if at > 0 {
            say!("");
        }
        match describe(args, model, &caches) {
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

fn describe(args: &Args, model: &str, caches: &[QuantSpec]) -> Result<String> {
    let request = ModelRequest {
        model: model.to_string(),
        revision: args.revision.clone(),
        dummy: false,
        dtype: args.dtype.clone(),
        device: args.device.clone(),
        sliding_window: args.sliding_window == "on",
    };
    let place = if args.memory.is_some() { Place::OtherGpu } else { Place::Here };
    let shape = Shape::of(&request, place)?;
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
    let heads = [
        "KV cache".to_string(),
        "bytes/token".into(),
        format!("at {} tokens", c.max_positions),
        "longest that fits".into(),
        format!("sequences of {}", c.max_positions),
    ];
    let mut table = TerminalTable::new(heads, 1);
    for quant in caches {
        table.add_row(match cache_fit(&shape, quant, free.unwrap_or(0)) {
            Ok(fit) => row(quant, &fit, c.max_positions, free.is_some()),
            Err(error) => [quant.name.clone(), error.to_string(), String::new(), String::new(), String::new()],
        });
    }
    Ok(format!("{text}{}\n", table.within(terminal::width())))
}

fn row(quant: &QuantSpec, fit: &CacheFit, context: usize, known: bool) -> [String; 5] {
    let longest = match fit.longest {
        _ if !known => "unknown".into(),
        all if all == context => format!("{all} (all)"),
        some => some.to_string(),
    };
    let sequences = match fit.sequences {
        _ if !known => "unknown".into(),
        MOST_SEQUENCES => format!("{MOST_SEQUENCES} or more"),
        some => some.to_string(),
    };
    [quant.name.clone(), format!("{:.0}", fit.bytes_per_token), size(fit.full_bytes), longest, sequences]
}

fn whose(args: &Args) -> &'static str {
    if args.memory.is_some() { "given" } else { "free here" }
}

fn size(bytes: u64) -> String {
    let mib = bytes as f64 / f64::from(1u32 << 20);
    if mib < 1024.0 { format!("{mib:.1} MiB") } else { format!("{:.1} GiB", mib / 1024.0) }
}
