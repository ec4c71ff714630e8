//! Layer 4: one decoder for all families, and everything it takes to load and run one.

mod answer;
mod arena;
pub mod attention;
mod builtin;
pub mod config;
pub mod decoder;
mod download;
mod elementwise;
#[cfg(feature = "cuda")]
mod elementwise_cuda;
pub mod families;
pub mod generate;
mod gguf_source;
pub mod hadamard;
#[cfg(feature = "cuda")]
mod hadamard_cuda;
pub mod hub;
mod layers;
pub mod load_options;
mod loader;
mod norm;
pub mod placement;
mod rope;
#[cfg(feature = "cuda")]
mod rope_cuda;
pub mod source;
pub mod step;
pub mod subject;
pub mod tokenizer;
pub mod weights;

pub use config::DecoderConfig;
pub use decoder::{Decoder, LogitsOf, MOST_LOGITS};
pub use load_options::{LoadOptions, WeightsKind};
pub use subject::{Identity, Subject};
pub use tokenizer::Tokenizer;
