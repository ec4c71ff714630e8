//! One decoder for all families: embedding, layers of attention and MLP, final norm, output layer.

use std::sync::{Mutex, MutexGuard, PoisonError};

use candle_core::{DType, Device, Tensor};
use candle_nn::{Linear, Module};

use super::attention::Attention;
use super::config::DecoderConfig;
use super::families::Names;
use super::layers::Layer;
use super::loader::Loader;
use super::norm::NormLayer;
use super::rope::RopeTable;
use super::weights::Weights;
use crate::cache::KvCache;
use crate::device::ranges::{self, Part};
use crate::{Error, Result, device};

/// Most logits of one forward pass: candle's kernels count elements in 32 bits, and with more never end.
pub const MOST_LOGITS: usize = u32::MAX as usize;

/// Which positions' logits a forward pass computes; the output layer is a large share of a short pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogitsOf {
    /// Those of the last token: `[B, V]`.
    Last,
    /// Those of every token: `[B, T, V]`.
    All,
}

/// A loaded model. It holds no state between passes but how far its rotary table reaches: what it remembers is in the [`KvCache`] it is
/// given.
#[derive(Debug)]
pub struct Decoder {
    config: DecoderConfig,
    pub(super) embedding: Tensor,
    positions: Option<Tensor>,
    /// As long as the newest cache needs it, or an older one that was read since; `None` until there is one, and where positions are learned.
    rope: Mutex<Option<RopeTable>>,
    pub(super) layers: Vec<Layer>,
    pub(super) final_norm: NormLayer,
    pub(super) head: Linear,
    parameters: u64,
}

impl Decoder {
    /// Reads all weights as `dtype` onto `device`; `on_layer(done, of)` is told of progress.
    ///
    /// # Errors
    /// A missing tensor, a wrong shape, a value that is not finite (the tensor is named), or no memory left.
    pub fn load(
        config: DecoderConfig,
        names: &Names,
        weights: &dyn Weights,
        dtype: DType,
        device: &Device,
        on_layer: &mut dyn FnMut(usize, usize),
    ) -> Result<Self> {
        let mut loader = Loader::new(&config, names, weights, dtype, device)?;
        // What loading needs besides (conversions, matrices before they are joined) goes back to the device before anything is put
        // where it was.
        let settle = || device::release_unused_memory(device);
        let embedding = loader.embedding()?;
        let positions = loader.positions()?;
        settle()?;
        loader.reserve_layers()?;
        let mut layers = Vec::with_capacity(config.layers);
        for index in 0..config.layers {
            on_layer(index, config.layers);
            layers.push(Layer::load(&mut loader, index)?);
        }
        loader.refuse_more_layers()?;
        let final_norm = loader.final_norm()?;
        settle()?;
        let head = loader.head(&embedding)?;
        settle()?;
        on_layer(config.layers, config.layers);
        let parameters = loader.parameters();
        Ok(Decoder { config, embedding, positions, rope: Mutex::default(), layers, final_norm, head, parameters })
    }

    /// What was built.
    pub fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// Number of weights; a tied output layer counts once.
    pub fn parameters(&self) -> u64 {
        self.parameters
    }

    /// Bytes of weights that a decode step reads: all but the tables of which it reads a row for each sequence.
    pub fn step_weight_bytes(&self) -> u64 {
        let positions = self.positions.as_ref().map_or(0, Tensor::elem_count);
        let embedding = if self.config.tied_embeddings { 0 } else { self.embedding.elem_count() };
        (self.parameters - (positions + embedding) as u64) * self.dtype().size_in_bytes() as u64
    }

    /// Dtype of weights and activations.
    pub fn dtype(&self) -> DType {
        self.embedding.dtype()
    }

    /// Where the weights are.
    pub fn device(&self) -> &Device {
        self.embedding.device()
    }

    /// Makes what a cache of `capacity` tokens needs beside the weights, so that no timed pass has to: [`forward`](Self::forward) does it
    /// where nobody did.
    ///
    /// # Errors
    /// When the device has no room for it.
    pub fn prepare(&self, capacity: usize) -> Result<()> {
        let positions = self.config.rotary_positions(capacity);
        // What an earlier, larger cache needed must not count in the memory of this one.
        self.rotary().take_if(|table| table.positions() > positions);
        self.rope_table(capacity).map(drop)
    }

    fn rotary(&self) -> MutexGuard<'_, Option<RopeTable>> {
        self.rope.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The rotary table for a cache of `capacity` tokens, `None` where positions are learned. A longer one takes the place of a shorter one,
    /// which lives on with those who hold it, with the same values: a recorded decode step reads it by its address.
    pub(super) fn rope_table(&self, capacity: usize) -> Result<Option<RopeTable>> {
        let Some(rope) = self.config.rope() else { return Ok(None) };
        let positions = self.config.rotary_positions(capacity);
        let mut table = self.rotary();
        if table.as_ref().is_none_or(|table| table.positions() < positions) {
            // The shorter one goes before the longer one comes.
            *table = None;
            *table = Some(RopeTable::new(rope, self.config.head_dim, positions, self.device())?);
        }
        Ok(table.clone())
    }

    /// Reads `tokens` `[B, T]` (u32, on the model's device), which continue what `cache` holds, and leaves their keys and
    /// values in it. Logits are f32: `[B, V]` or `[B, T, V]`.
    ///
    /// After an error the cache's content is undefined; reset it before further use.
    ///
    /// # Errors
    /// When the sequence outgrows the model's positions, the cache refuses (see [`KvCache::append`]), or the device fails.
    pub fn forward(
        &self,
        tokens: &Tensor,
        cache: &mut dyn KvCache,
        attention: &dyn Attention,
        logits: LogitsOf,
    ) -> Result<Tensor> {
        let count = tokens.dim(1)?;
        let position = cache.len();
        if position + count > self.config.usable_positions() {
            return Err(Error::usage(format!(
                "{} tokens were asked of a model that can place at most {}",
                position + count,
                self.config.usable_positions()
            )));
        }
        let rope = self.rope_table(cache.shape().capacity.max(position + count))?;
        let mut x = self.embed(tokens, position)?;
        for (index, layer) in self.layers.iter().enumerate() {
            x = layer.forward(&x, index, rope.as_ref(), cache, attention)?;
        }
        cache.advance(count);
        let wanted = match logits {
            LogitsOf::Last => x.narrow(1, count - 1, 1)?.squeeze(1)?.contiguous()?,
            LogitsOf::All => x,
        };
        let count = wanted.elem_count() / self.config.hidden * self.head.weight().dim(0)?;
        if count > MOST_LOGITS {
            return Err(Error::usage(format!(
                "{count} logits cannot be computed at once, but {MOST_LOGITS}: read fewer or shorter windows side by side (--ppl-batch, \
                 --ppl-window)"
            )));
        }
        let normed = self.final_norm.forward(&wanted)?;
        let _range = ranges::enter(Part::Sampling);
        Ok(self.head.forward(&normed)?.to_dtype(DType::F32)?)
    }

    /// Rows of the embedding for `tokens` `[B, T]`, the first at `position`: `[B, T, hidden]`.
    fn embed(&self, tokens: &Tensor, position: usize) -> Result<Tensor> {
        let _range = ranges::enter(Part::Embedding);
        let (batch, count) = tokens.dims2()?;
        let x = self.embedding.index_select(&tokens.flatten_all()?, 0)?.reshape((batch, count, self.config.hidden))?;
        Ok(match &self.positions {
            Some(positions) => x.broadcast_add(&positions.narrow(0, position, count)?)?,
            None => x,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache;
    use crate::model::{attention, builtin};
    use crate::quant::QuantSpec;

    fn decoder(max_positions: usize) -> Decoder {
        let (config, names) = builtin::config().unwrap();
        let config = DecoderConfig { max_positions, ..config };
        Decoder::load(config, &names, &builtin::weights().unwrap(), DType::F32, &Device::Cpu, &mut |_, _| {}).unwrap()
    }

    fn positions(decoder: &Decoder) -> usize {
        decoder.rotary().as_ref().map_or(0, RopeTable::positions)
    }

    #[test]
    fn the_rotary_table_is_as_long_as_the_cache_needs_however_far_the_model_could_count() {
        let decoder = decoder(1 << 30);
        assert_eq!(positions(&decoder), 0);
        let sizes = [100, 64, 129].map(|capacity| {
            decoder.prepare(capacity).unwrap();
            positions(&decoder)
        });
        assert_eq!(sizes, [128, 64, 256]);
        assert_eq!(decoder.config().rotary_bytes(129), 256 * decoder.config().head_dim as u64 * 4);
        let short = self::decoder(2048);
        let most = short.config().usable_positions();
        short.prepare(most + 1).unwrap();
        assert_eq!(positions(&short), most);
    }

    #[test]
    fn a_cache_that_is_kept_transformed_gives_the_logits_of_one_that_is_not() {
        let decoder = decoder(2048);
        let logits = |spec: &str, backend: &str| {
            let shape = decoder.config().cache_shape(1, 300, 50, DType::F32, &Device::Cpu);
            let mut cache = cache::new(spec.parse().unwrap(), shape).unwrap();
            let attention = attention::new(backend).unwrap();
            let mut last = Vec::new();
            for chunk in 0..6u32 {
                let tokens = Tensor::arange(chunk * 50, (chunk + 1) * 50, &Device::Cpu).unwrap().unsqueeze(0).unwrap();
                let all = decoder.forward(&tokens, cache.as_mut(), attention.as_ref(), LogitsOf::All).unwrap();
                last = all.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            }
            last
        };
        let distance = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        let exact = logits("none", "eager");
        for sides in ["k", "v", "kv"] {
            for backend in attention::NAMES {
                // 8 bits move the logits by hundredths; what was transformed and not back would move them by whole numbers.
                let kept = logits(&format!("int8-hqq-token,residual=16,hadamard={sides}"), backend);
                let moved = distance(&kept, &exact);
                assert!(moved > 0.0 && moved < 0.1, "{sides} {backend}: {moved}");
            }
        }
        let plain = logits("int8-hqq-token,residual=16", "eager");
        assert!(distance(&plain, &logits("int8-hqq-token,residual=16,hadamard=kv", "eager")) > 0.0);
        // Without codes there is nothing to transform for.
        let layers = (0..decoder.config().layers).map(|layer| layer.to_string()).collect::<Vec<_>>().join("+");
        assert_eq!(logits(&format!("int8-hqq-token,residual=16,keep-layers={layers},hadamard=kv"), "eager"), exact);
    }

    #[test]
    fn a_longer_rotary_table_changes_no_logit() {
        let decoder = decoder(2048);
        let attention = attention::new("sdpa").unwrap();
        let logits = |capacity: usize| {
            let shape = decoder.config().cache_shape(1, capacity, 16, DType::F32, &Device::Cpu);
            let mut cache = cache::new(QuantSpec::none(), shape).unwrap();
            let prompt = Tensor::arange(0u32, 16, &Device::Cpu).unwrap().unsqueeze(0).unwrap();
            let all = decoder.forward(&prompt, cache.as_mut(), attention.as_ref(), LogitsOf::All).unwrap();
            all.flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        let short = logits(16);
        assert_eq!(positions(&decoder), 16);
        assert_eq!(logits(512), short);
        assert_eq!(positions(&decoder), 512);
    }
}
