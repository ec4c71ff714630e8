//! Combinations that a matrix leaves out.

use serde::Deserialize;

use crate::base::number::length_list;
use crate::{Error, Result};

/// Leaves out the combinations that agree with every list given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Exclude {
    /// `--model`.
    pub models: Vec<String>,
    /// `--kv-quant`, as written in the matrix.
    pub kv_quants: Vec<String>,
    /// `--attn-backend`.
    pub attn_backends: Vec<String>,
    /// `--output-tokens`.
    #[serde(deserialize_with = "length_list")]
    pub output_tokens: Vec<usize>,
    /// `--residual-length`.
    #[serde(deserialize_with = "length_list")]
    pub residual_lengths: Vec<usize>,
}

impl Exclude {
    /// Whether a combination is left out. `residual` is that of a quantized cache.
    pub(super) fn covers(
        &self,
        model: &str,
        quant: &str,
        backend: &str,
        output: usize,
        residual: Option<usize>,
    ) -> bool {
        fn agrees<T: PartialEq>(list: &[T], value: &T) -> bool {
            list.is_empty() || list.contains(value)
        }
        agrees(&self.models, &model.to_string())
            && agrees(&self.kv_quants, &quant.to_string())
            && agrees(&self.attn_backends, &backend.to_string())
            && agrees(&self.output_tokens, &output)
            && residual.map_or(self.residual_lengths.is_empty(), |residual| agrees(&self.residual_lengths, &residual))
    }

    /// Refuses to leave out what `matrix`, all values of a matrix in the same lists, does not have: a misspelt name would leave out nothing.
    ///
    /// # Errors
    /// Names the list and the value; an entry that names nothing, which would leave out everything.
    pub(super) fn require_known(&self, matrix: &Self) -> Result<()> {
        if *self == Self::default() {
            return Err(Error::usage("exclude: an entry names nothing, and would leave out all runs of its matrix"));
        }
        fn known<T: PartialEq + std::fmt::Debug>(key: &str, excluded: &[T], there: &[T]) -> Result<()> {
            match excluded.iter().find(|value| !there.contains(value)) {
                Some(value) => {
                    Err(Error::usage(format!("exclude: {key} {value:?} is not in the matrix, which has {there:?}")))
                }
                None => Ok(()),
            }
        }
        known("models", &self.models, &matrix.models)?;
        known("kv-quants", &self.kv_quants, &matrix.kv_quants)?;
        known("attn-backends", &self.attn_backends, &matrix.attn_backends)?;
        known("output-tokens", &self.output_tokens, &matrix.output_tokens)?;
        known("residual-lengths", &self.residual_lengths, &matrix.residual_lengths)
    }
}
