//! `kvprof` answers one question for a person who runs a language model: what does quantizing its KV cache
//! save, what does it cost, and what does it break?
//!
//! The modules are layers; an import points down this list, never up or sideways (a test walks every import):
//!
//! | layer | module | holds |
//! |---|---|---|
//! | 7 | [`cli`] | one file for each command: arguments in, exit code out |
//! | 6 | [`session`] | plan, runner, progress |
//! | 6 | [`report`] | aggregate, compare, tables and charts |
//! | 5 | [`bench`] | the benchmarks and their data |
//! | 4 | [`model`] | one decoder for all families, attention backends, weights, tokenizer |
//! | 3 | [`cache`] | the KV cache: full precision, quantized, recent window, byte ledger |
//! | 2 | [`quant`] | specs, fits, packing, each as CPU reference and CUDA kernel |
//! | 2 | [`measure`] | instruments that know nothing of models |
//! | 1 | [`device`] | CUDA context, kernels, NVML, CUPTI; all `unsafe` but launches |
//! | 1 | [`schema`] | the result file |
//! | 0 | [`base`] | errors, units, statistics, atomic files |
//!
//! Shape letters used in every doc comment: B batch, T new tokens, S cached tokens, Hq query heads, Hkv KV heads,
//! D head dim, G group, L layers, V vocabulary, W window slots.

#![deny(clippy::print_stdout, reason = "it panics where it cannot write; `cli::output` does not")]
#![deny(clippy::print_stderr, reason = "it panics where it cannot write; `base::message` does not")]

pub mod base;
pub mod bench;
pub mod cache;
pub mod cli;
pub mod device;
pub mod measure;
pub mod model;
pub mod quant;
pub mod report;
pub mod schema;
pub mod session;

pub use base::error::{Error, Result};
