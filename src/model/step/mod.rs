//! A decode step (one new token for each of B sequences) at the speed of the device's memory.
//!
//! [`Decoder::forward`] serves every model, any number of tokens and every backend; on a GPU each of its steps is some
//! hundreds of launches through candle. [`StepEngine`](engine::StepEngine) serves the common decoders (RMSNorm, RoPE, SwiGLU;
//! FP16 or BF16; up to 16 sequences) with kernels of its own over the same weights and the same cache: seven launches a layer, buffers
//! allocated once, tokens and lengths in device memory. So a step is the same launches each time, recorded once as a CUDA
//! graph and replayed; without the graph the same launches are made one by one. A block that is due is quantized between
//! two steps, on the same stream. A step never waits for the device: its token is the one the step before chose, greedily.
//!
//! Values are rounded where the plain decoder stores them, so results differ by the order of summation only.
//!
//! [`Stepper`] takes the engine where it serves and the plain decoder where not, and says which, and why.

#[cfg(feature = "cuda")]
mod attention;
#[cfg(feature = "cuda")]
mod buffers;
#[cfg(feature = "cuda")]
pub mod engine;
#[cfg(feature = "cuda")]
mod gemv;
#[cfg(feature = "cuda")]
mod params;
#[cfg(feature = "cuda")]
mod plan;
#[cfg(feature = "cuda")]
pub(super) mod rms_norm;
#[cfg(feature = "cuda")]
mod weights;

use candle_core::{D, Tensor};
use serde::{Deserialize, Serialize};

use super::attention::{Attention, kernels_of};
use super::decoder::{Decoder, LogitsOf};
use crate::cache::KvCache;
use crate::device::ranges::{self, Part};
use crate::{Error, Result};

/// How steps are made, where there is a choice (`--step-mode`): on a GPU, with `fused` attention, of a model that the engine serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepMode {
    /// The step engine, replaying a CUDA graph.
    #[default]
    Graph,
    /// The step engine, launch by launch (`--no-cuda-graph` says so too).
    Launches,
    /// [`Decoder::forward`], as `eager` and `sdpa` have it: beside them it shows what attention alone changes.
    Plain,
}

impl StepMode {
    const ALL: [StepMode; 3] = [StepMode::Graph, StepMode::Launches, StepMode::Plain];

    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            StepMode::Graph => "graph",
            StepMode::Launches => "launches",
            StepMode::Plain => "plain",
        }
    }
}

impl std::str::FromStr for StepMode {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        StepMode::ALL
            .into_iter()
            .find(|mode| mode.name() == name)
            .ok_or_else(|| Error::usage("there are graph, launches and plain"))
    }
}

/// Greedy decoding, one token a step for each sequence of a cache.
pub struct Stepper<'a> {
    decoder: &'a Decoder,
    attention: &'a dyn Attention,
    path: Path,
}

enum Path {
    #[cfg(feature = "cuda")]
    Engine(Box<engine::StepEngine>),
    Plain {
        /// Why not the engine.
        reason: String,
        /// `[B, 1]`, the tokens to feed next.
        next: Option<Tensor>,
    },
}

impl<'a> Stepper<'a> {
    /// Prepares steps of `decoder` over `cache`, which every later call must be given again.
    ///
    /// # Errors
    /// Out of memory, or a driver that refuses.
    pub fn new(
        decoder: &'a Decoder,
        attention: &'a dyn Attention,
        cache: &dyn KvCache,
        mode: StepMode,
    ) -> Result<Self> {
        Ok(Stepper { decoder, attention, path: path(decoder, attention, cache, mode)? })
    }

    /// Starts from what `cache` holds: the next step reads each sequence's likeliest token of `logits` `[B, V]`.
    ///
    /// # Errors
    /// A failing device.
    pub fn begin(&mut self, logits: &Tensor, cache: &dyn KvCache) -> Result<()> {
        let _range = ranges::enter(Part::Sampling);
        match &mut self.path {
            #[cfg(feature = "cuda")]
            Path::Engine(engine) => engine.begin(logits, cache),
            Path::Plain { next, .. } => {
                let _ = cache;
                *next = Some(logits.argmax(D::Minus1)?.unsqueeze(1)?);
                Ok(())
            }
        }
    }

    /// One step; on a GPU it returns without waiting.
    ///
    /// # Errors
    /// Before [`begin`](Self::begin), when the cache is full, or as [`Decoder::forward`].
    pub fn step(&mut self, cache: &mut dyn KvCache) -> Result<()> {
        match &mut self.path {
            #[cfg(feature = "cuda")]
            Path::Engine(engine) => engine.step(cache),
            Path::Plain { next, .. } => {
                let input =
                    next.take().ok_or_else(|| Error::Invalid("a step was asked for before the prompt".into()))?;
                let logits = self.decoder.forward(&input, cache, self.attention, LogitsOf::Last)?;
                let _range = ranges::enter(Part::Sampling);
                *next = Some(logits.argmax(D::Minus1)?.unsqueeze(1)?);
                Ok(())
            }
        }
    }

    /// What a replayed step is made of: part and kernel of each launch, in order. Empty where nothing is replayed.
    pub fn replayed(&self) -> Vec<(Part, String)> {
        match &self.path {
            #[cfg(feature = "cuda")]
            Path::Engine(engine) => engine.replayed(),
            Path::Plain { .. } => Vec::new(),
        }
    }

    /// How steps are made, which need not be what was asked for.
    pub fn mode(&self) -> StepMode {
        match &self.path {
            #[cfg(feature = "cuda")]
            Path::Engine(engine) => engine.mode(),
            Path::Plain { .. } => StepMode::Plain,
        }
    }

    /// What serves the steps of `cache`, for the result file. Of files without a mode `report::setting` knows it by these words.
    pub fn describe(&self, cache: &dyn KvCache) -> String {
        match &self.path {
            #[cfg(feature = "cuda")]
            Path::Engine(engine) => {
                let _ = cache;
                engine.describe()
            }
            Path::Plain { reason, .. } => {
                format!(
                    "{}; step: plain decoder ({reason})",
                    kernels_of(self.attention, self.decoder.config().heads, 1, cache)
                )
            }
        }
    }

    /// Why attention of a step over `cache` is not the backend's own in some layer: then its cost is another's.
    pub fn fallback(&self, cache: &dyn KvCache) -> Option<String> {
        let heads = self.decoder.config().heads;
        (0..cache.shape().layers()).find_map(|layer| self.attention.fallback(heads, 1, &cache.view(layer)))
    }
}

#[cfg(feature = "cuda")]
fn path(decoder: &Decoder, attention: &dyn Attention, cache: &dyn KvCache, mode: StepMode) -> Result<Path> {
    let plain = |reason: String| Ok(Path::Plain { reason, next: None });
    if mode == StepMode::Plain {
        return plain("asked for".into());
    }
    if attention.name() != "fused" {
        return plain(format!("the step kernels attend as `fused` does, not as `{}`", attention.name()));
    }
    match engine::unserved(decoder, cache)? {
        Some(reason) => plain(reason),
        None => Ok(Path::Engine(Box::new(engine::StepEngine::new(decoder, cache, mode == StepMode::Graph)?))),
    }
}

#[cfg(not(feature = "cuda"))]
fn path(_: &Decoder, _: &dyn Attention, _: &dyn KvCache, _: StepMode) -> Result<Path> {
    Ok(Path::Plain { reason: "this build has no CUDA".into(), next: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_have_one_name_on_the_command_line_and_in_files() {
        for mode in StepMode::ALL {
            assert_eq!(mode.name().parse::<StepMode>().unwrap(), mode);
            assert_eq!(serde_json::to_value(mode).unwrap(), mode.name());
        }
        assert!("graphs".parse::<StepMode>().unwrap_err().to_string().contains("launches"));
    }
}
