//! The decode step as a fixed list of launches over preallocated buffers.

use std::ops::Range;
use std::sync::Arc;

use candle_core::{D, Device, Tensor};
use cudarc::driver::CudaStream;

use super::StepMode;
use super::attention::FusedAttention;
use super::buffers::Buffers;
use super::gemv::{GemvShape, MAX_BATCH};
use super::plan::{LayerPlace, Planner, StepKernels, place};
use super::weights::{self, StepWeights};
use crate::cache::KvCache;
use crate::device::DeviceLimits;
use crate::device::kernels::{Address, float_name};
use crate::device::ranges::{self, Part};
use crate::device::sequence::{Graph, Kernels, Sequence};
use crate::model::decoder::Decoder;
use crate::{Error, Result};

/// Serves decode steps of one decoder and one cache. Their buffers' addresses are part of the recorded launches, so both are held.
pub struct StepEngine {
    /// Goes before the kernels of `sequence`.
    graph: Option<Graph>,
    sequence: Sequence,
    stream: Arc<CudaStream>,
    buffers: Buffers,
    /// For each row of `buffers.lengths`, a layer that keeps its tokens that way.
    ways: Vec<usize>,
    /// Tokens that fit the cache and the model's positions.
    capacity: usize,
    /// The next token's position, if the device knows it.
    position: Option<usize>,
    attention: FusedAttention,
    /// Where the attention of each layer is in `sequence`.
    attention_at: Vec<usize>,
    /// What `quantized` said when attention was recorded.
    recorded_for: Vec<usize>,
    kernel: String,
    /// Keeps the addresses in `sequence` valid.
    _weights: StepWeights,
    _cache: Vec<Tensor>,
}

/// Why the engine does not serve `decoder` with `cache`; `None` if it does. What runs instead is [`Decoder::forward`].
///
/// # Errors
/// When the device cannot be asked what it has.
pub fn unserved(decoder: &Decoder, cache: &dyn KvCache) -> Result<Option<String>> {
    if let Some(reason) = weights::unserved(decoder, cache.shape().batch) {
        return Ok(Some(reason));
    }
    let Device::Cuda(device) = decoder.device() else {
        return Ok(Some("the step kernels do not serve the CPU".into()));
    };
    FusedAttention::unserved(decoder.config(), cache, DeviceLimits::of(device)?)
}

impl StepEngine {
    /// Prepares steps over `cache`; with `graph` they are recorded and replayed, otherwise launched one by one.
    ///
    /// # Errors
    /// A usage error with the reason of [`unserved`]; out of memory; a driver that refuses.
    pub fn new(decoder: &Decoder, cache: &dyn KvCache, graph: bool) -> Result<Self> {
        if let Some(reason) = unserved(decoder, cache)? {
            return Err(Error::usage(reason));
        }
        let shape = cache.shape();
        let rope = decoder.rope_table(shape.capacity)?;
        let rope = rope.ok_or_else(|| Error::usage("learned positions have no step kernel"))?;
        let weights = StepWeights::of(decoder, &rope).map_err(Error::usage)?;
        let Device::Cuda(device) = decoder.device() else {
            return Err(Error::usage("the step kernels run on CUDA devices only"));
        };
        let stream = device.cuda_stream();
        let (ways, way_of) = ways(cache);
        let buffers = Buffers::new(&weights, shape.batch, shape.capacity + 1, ways.len())?;
        let mut held = Vec::new();
        let float = float_name(decoder.dtype())?;
        let limits = DeviceLimits::of(device)?;
        let gemv = GemvShape::for_batch(shape.batch, limits.code)
            .ok_or_else(|| Error::usage(format!("the step kernels serve at most {MAX_BATCH} sequences")))?;
        let [step, hadamard] = ["step", "hadamard"].map(|image| Kernels::load(stream.context(), image));
        let kernels = StepKernels::new(step?, hadamard?, float, gemv, limits.multiprocessors);
        let mut attention = FusedAttention::new(decoder.config(), cache, &buffers, limits)?;
        let mut plan = Planner {
            kernels: &kernels,
            weights: &weights,
            buffers: &buffers,
            batch: shape.batch,
            sequence: Sequence::default(),
        };
        let lengths = place(&buffers.lengths)?;
        let mut attention_at = Vec::with_capacity(weights.layers.len());
        for (index, layer) in weights.layers.iter().enumerate() {
            let view = cache.view(index);
            let kept = LayerPlace {
                window: place(view.window)?,
                slots: view.window.dim(3)?,
                length: length_place(lengths, way_of[index]),
                not_finite: place(cache.not_finite())?,
            };
            if index == 0 {
                plan.embed(&layer.attention_norm)?;
            } else {
                plan.norm(&layer.attention_norm)?;
            }
            plan.qkv(index, layer, &kept)?;
            let sides = cache.hadamard(index);
            if !sides.is_none() {
                plan.hadamard_kept(sides, index, &kept)?;
            }
            attention_at.push(plan.sequence.len());
            plan.sequence.push(Part::Attention, attention.launch(&stream, &view, kept.length)?);
            if sides.values {
                plan.hadamard_attended(index, &kept)?;
            }
            plan.linear_add(Part::Attention, &layer.output, &buffers.attended)?;
            plan.norm(&layer.mlp_norm)?;
            plan.gate_up(&layer.gate_up)?;
            plan.linear_add(Part::Ffn, &layer.down, &buffers.inner)?;
            held.push(view.window.clone());
            held.extend(view.packed.map(|packed| packed.tiles.clone()));
        }
        plan.norm(&weights.final_norm)?;
        plan.choose(shape.capacity + 1)?;
        let sequence = plan.sequence;
        held.push(cache.not_finite().clone());
        let kernel = attention.names().join(" and ");
        let graph = if graph { Some(sequence.capture(&stream)?) } else { None };
        let recorded_for = quantized(&ways, cache);
        Ok(StepEngine {
            graph,
            attention,
            attention_at,
            recorded_for,
            sequence,
            stream,
            buffers,
            ways,
            capacity: shape.capacity.min(decoder.config().usable_positions()),
            position: None,
            kernel,
            _weights: weights,
            _cache: held,
        })
    }

    /// Starts from what `cache` holds: the next step reads the likeliest token of each sequence's `logits` `[B, V]`, chosen on the device:
    /// whatever it is, it is one of the vocabulary.
    ///
    /// To be called whenever the cache has changed by other hands (a prompt was read, or it was reset).
    ///
    /// # Errors
    /// Logits of another shape, or a failing device.
    pub fn begin(&mut self, logits: &Tensor, cache: &dyn KvCache) -> Result<()> {
        if logits.dims() != self.buffers.logits.dims() {
            return Err(Error::Invalid(format!(
                "a step begins from logits {:?}, not {:?}",
                self.buffers.logits.dims(),
                logits.dims()
            )));
        }
        self.buffers.tokens.slice_set(&logits.argmax(D::Minus1)?, 0, 0)?;
        self.position = Some(cache.len());
        self.expect(cache)?;
        self.write_lengths(cache)?;
        Ok(self.buffers.best.slice_set(&self.buffers.best.zeros_like()?, 0, 0)?)
    }

    /// Enqueues one step: the tokens' keys and values go to `cache`, blocks that are due are quantized, and the next tokens are
    /// chosen. Returns without waiting for the device.
    ///
    /// # Errors
    /// When the cache is full or was changed since [`begin`](Self::begin), or the driver refuses.
    pub fn step(&mut self, cache: &mut dyn KvCache) -> Result<()> {
        let position = cache.len();
        if self.position != Some(position) {
            return Err(Error::Invalid("the cache has changed since the step engine last saw it".into()));
        }
        if position >= self.capacity {
            return Err(Error::usage(format!(
                "token {} does not fit: there is room for {}",
                position + 1,
                self.capacity
            )));
        }
        let layers = cache.shape().layers();
        for layer in 0..layers {
            cache.reserve(layer, 1)?;
        }
        match &self.graph {
            Some(graph) => graph.replay()?,
            None => self.sequence.enqueue(&self.stream)?,
        }
        let before = quantized(&self.ways, cache);
        for layer in 0..layers {
            cache.settle(layer)?;
        }
        cache.advance(1);
        self.position = Some(position + 1);
        if quantized(&self.ways, cache) != before {
            self.write_lengths(cache)?;
        }
        Ok(())
    }

    /// Logits of the last step, `[B, V]` f32. The next step overwrites them.
    pub fn logits(&self) -> &Tensor {
        &self.buffers.logits
    }

    /// Waits for the device and returns the tokens chosen for `positions`, one row a position.
    ///
    /// # Errors
    /// Positions not chosen yet, or a failing device.
    pub fn chosen(&self, positions: Range<usize>) -> Result<Vec<Vec<u32>>> {
        if self.position.is_none_or(|next| positions.end > next + 1) || positions.is_empty() {
            return Err(Error::usage(format!("no tokens were chosen for positions {positions:?}")));
        }
        Ok(self.buffers.history.narrow(0, positions.start, positions.len())?.to_vec2()?)
    }

    /// Whether steps are replayed or launched.
    pub fn mode(&self) -> StepMode {
        if self.graph.is_some() { StepMode::Graph } else { StepMode::Launches }
    }

    /// What runs, for the result file; `report::setting` knows the mode of older files by these words.
    pub fn describe(&self) -> String {
        let how = if self.graph.is_some() { "one CUDA graph" } else { "launched one by one" };
        format!("{}; step: {} kernels, {how}", self.kernel, self.sequence.len())
    }

    /// What a replayed step is made of, part and kernel of each launch in order; empty where nothing is replayed.
    pub fn replayed(&self) -> Vec<(Part, String)> {
        if self.graph.is_some() { self.sequence.kernels() } else { Vec::new() }
    }

    /// Records attention anew if the cache holds other tiles than when it was recorded, so that it asks for them early.
    fn expect(&mut self, cache: &dyn KvCache) -> Result<()> {
        let now = quantized(&self.ways, cache);
        if now == self.recorded_for {
            return Ok(());
        }
        let lengths = place(&self.buffers.lengths)?;
        let (_, way_of) = ways(cache);
        for (index, &at) in self.attention_at.iter().enumerate() {
            let launch =
                self.attention.launch(&self.stream, &cache.view(index), length_place(lengths, way_of[index]))?;
            self.sequence.replace(at, launch);
        }
        if self.graph.is_some() {
            // Nothing may still run of the graph that is dropped.
            self.buffers.lengths.device().synchronize()?;
            self.graph = Some(self.sequence.capture(&self.stream)?);
        }
        self.recorded_for = now;
        Ok(())
    }

    /// Tells the device how long the cache will be once the next step's token is in it.
    fn write_lengths(&self, cache: &dyn KvCache) -> Result<()> {
        let _range = ranges::enter(Part::Cache);
        let total = cache.len() as u32 + 1;
        let rows: Vec<u32> =
            quantized(&self.ways, cache).into_iter().flat_map(|quantized| [quantized as u32, total]).collect();
        let rows = Tensor::from_vec(rows, (self.ways.len(), 2), self.buffers.lengths.device())?;
        Ok(self.buffers.lengths.slice_set(&rows, 0, 0)?)
    }
}

/// Steps may be on their way still when an error, or Ctrl-C, ends a run.
impl Drop for StepEngine {
    fn drop(&mut self) {
        // A device that fails has told of it by the call before.
        let _ = self.buffers.lengths.device().synchronize();
    }
}

/// Positions quantized, by each of `layers`.
fn quantized(layers: &[usize], cache: &dyn KvCache) -> Vec<usize> {
    layers.iter().map(|&layer| cache.view(layer).packed.map_or(0, |packed| packed.positions.end)).collect()
}

/// The address of a way's `CacheLength`, given that of the first.
fn length_place(lengths: Address, way: usize) -> Address {
    lengths + (way * 2 * size_of::<u32>()) as u64
}

/// One layer for each way of keeping tokens (packed, or all in full precision), and each layer's way.
fn ways(cache: &dyn KvCache) -> (Vec<usize>, Vec<usize>) {
    let packed: Vec<bool> = (0..cache.shape().layers()).map(|layer| cache.view(layer).packed.is_some()).collect();
    let mut representatives: Vec<usize> = Vec::new();
    let way_of = packed
        .iter()
        .enumerate()
        .map(|(layer, is_packed)| {
            representatives.iter().position(|&other| packed[other] == *is_packed).unwrap_or_else(|| {
                representatives.push(layer);
                representatives.len() - 1
            })
        })
        .collect();
    (representatives, way_of)
}
