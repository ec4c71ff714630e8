//! The launches of one decode step, in order.

use candle_core::Tensor;

use super::buffers::Buffers;
use super::gemv::GemvShape;
use super::params::{
    GateUpParams, GemvInput, HEAD_NORM_THREADS, HeadNormParams, LinearAddParams, LogitsParams, NORM_THREADS,
    NextTokenParams, QkvParams, RmsNormParams, StepHadamardParams,
};
use super::weights::{LayerWeights, StepWeights};
use crate::device::kernels::{Address, DeviceRepr, tensor_address};
use crate::device::ranges::Part;
use crate::device::sequence::{Kernel, Kernels, Sequence};
use crate::model::hadamard_cuda;
use crate::quant::Hadamard;
use crate::{Error, Result};

/// Threads of the block that notes the chosen tokens: at least the batch.
const NEXT_TOKEN_THREADS: u32 = 32;

/// The kernels of one float type, and the shape of the linear layers among them.
pub(super) struct StepKernels {
    image: Kernels,
    hadamard: Kernels,
    /// `f16` or `bf16`.
    float: &'static str,
    shape: GemvShape,
    multiprocessors: usize,
}

impl StepKernels {
    /// Kernels that compute with `float`, for a device of so many multiprocessors; `image` is that of kernels/step.cu.
    pub fn new(
        image: Kernels,
        hadamard: Kernels,
        float: &'static str,
        shape: GemvShape,
        multiprocessors: usize,
    ) -> Self {
        StepKernels { image, hadamard, float, shape, multiprocessors }
    }

    /// The linear layer `part`.
    fn linear(&self, part: &str) -> Result<Kernel> {
        let name = format!("kvprof_{part}_{}_b{}", self.float, self.shape.batch);
        self.image.get(&name, self.shape.shared_bytes())
    }
}

/// Where a layer keeps the new token.
pub(super) struct LayerPlace {
    /// Address of `[2, B, Hkv, W, D]`.
    pub window: Address,
    /// W.
    pub slots: usize,
    /// Address of the layer's `CacheLength`.
    pub length: Address,
    /// Address of the cache's flag for numbers that are not finite.
    pub not_finite: Address,
}

/// Builds the sequence.
pub(super) struct Planner<'a> {
    pub kernels: &'a StepKernels,
    pub weights: &'a StepWeights,
    pub buffers: &'a Buffers,
    pub batch: usize,
    pub sequence: Sequence,
}

impl Planner<'_> {
    /// Turns the tokens into the residual stream and its normalized form.
    pub fn embed(&mut self, gain: &Tensor) -> Result<()> {
        let tokens = place(&self.buffers.tokens)?;
        self.rms_norm(place(&self.weights.embedding)?, tokens, gain)
    }

    /// normed = stream / rms(stream) · gain.
    pub fn norm(&mut self, gain: &Tensor) -> Result<()> {
        self.rms_norm(place(&self.buffers.stream)?, 0, gain)
    }

    /// Queries, and the new key and value in their place.
    pub fn qkv(&mut self, index: usize, layer: &LayerWeights, kept: &LayerPlace) -> Result<()> {
        let w = self.weights;
        let input = self.product(&layer.qkv, &self.buffers.normed)?;
        let params = QkvParams {
            input,
            bias: layer.qkv_bias.as_ref().map_or(Ok(0), place)?,
            cosine: place(&w.cosine)?,
            sine: place(&w.sine)?,
            query: place(&self.buffers.query)?,
            window: kept.window,
            length: kept.length,
            not_finite: kept.not_finite,
            heads: w.heads as i32,
            kv_heads: w.kv_heads as i32,
            head_dim: w.head_dim as i32,
            window_capacity: kept.slots as i32,
            layer: index as i32,
            unrotated: i32::from(layer.head_gain.is_some()),
        };
        self.launch(Part::Attention, "qkv", input, params)?;
        match &layer.head_gain {
            Some(gain) => self.normalize_heads(index, gain, kept),
            None => Ok(()),
        }
    }

    /// Normalizes and rotates the queries and the new keys.
    fn normalize_heads(&mut self, layer: usize, gain: &Tensor, kept: &LayerPlace) -> Result<()> {
        let w = self.weights;
        let params = HeadNormParams {
            gain: place(gain)?,
            cosine: place(&w.cosine)?,
            sine: place(&w.sine)?,
            query: place(&self.buffers.query)?,
            window: kept.window,
            length: kept.length,
            not_finite: kept.not_finite,
            batch: self.batch as i32,
            heads: w.heads as i32,
            kv_heads: w.kv_heads as i32,
            head_dim: w.head_dim as i32,
            window_capacity: kept.slots as i32,
            layer: layer as i32,
            epsilon: w.epsilon,
            reserved: 0,
        };
        let kernel = self.kernels.image.get(&format!("kvprof_normalize_heads_{}", self.kernels.float), 0)?;
        let warps = self.batch * (w.heads + w.kv_heads);
        let grid = [warps.div_ceil(HEAD_NORM_THREADS as usize / 32) as u32, 1, 1];
        // SAFETY: the kernel takes HeadNormParams and waits before it reads; it writes the queries and the slots that the launch
        // before it wrote; the engine holds weights, buffers and cache.
        let launch = unsafe { kernel.launch(grid, HEAD_NORM_THREADS, params, true) };
        self.sequence.push(Part::Norm, launch);
        Ok(())
    }

    /// Transforms what [`qkv`](Self::qkv) left: queries and keys, values, or both.
    pub fn hadamard_kept(&mut self, sides: Hadamard, layer: usize, kept: &LayerPlace) -> Result<()> {
        self.hadamard(&self.buffers.query, self.weights.kv_heads, sides, layer, kept)
    }

    /// Transforms the output of attention over transformed values back.
    pub fn hadamard_attended(&mut self, layer: usize, kept: &LayerPlace) -> Result<()> {
        // As queries without keys.
        self.hadamard(&self.buffers.attended, 0, Hadamard { keys: true, values: false }, layer, kept)
    }

    /// Transforms `query` `[B, Hq, D]` with the new keys of so many heads, their new values, or both.
    fn hadamard(
        &mut self,
        query: &Tensor,
        kv_heads: usize,
        sides: Hadamard,
        layer: usize,
        kept: &LayerPlace,
    ) -> Result<()> {
        let w = self.weights;
        let params = StepHadamardParams {
            query: place(query)?,
            window: kept.window,
            length: kept.length,
            not_finite: kept.not_finite,
            batch: self.batch as i32,
            heads: w.heads as i32,
            kv_heads: kv_heads as i32,
            head_dim: w.head_dim as i32,
            window_capacity: kept.slots as i32,
            layer: layer as i32,
            keys: i32::from(sides.keys),
            values: i32::from(sides.values),
        };
        let keys = if sides.keys { w.heads + kv_heads } else { 0 };
        let values = if sides.values { kv_heads } else { 0 };
        let kernel = self.kernels.hadamard.get(&format!("hadamard_step_{}", self.kernels.float), 0)?;
        let grid = [(self.batch * (keys + values)).div_ceil(hadamard_cuda::ROWS) as u32, 1, 1];
        // SAFETY: the kernel takes StepHadamardParams and waits before it reads; it writes rows that launches before it wrote, of
        // heads of 64 or 128 channels, the only ones that the engine serves; the engine holds buffers and cache.
        let launch = unsafe { kernel.launch(grid, hadamard_cuda::THREADS, params, true) };
        self.sequence.push(Part::Elementwise, launch);
        Ok(())
    }

    /// stream += W·x, a layer of the part `of`.
    pub fn linear_add(&mut self, of: Part, weight: &Tensor, x: &Tensor) -> Result<()> {
        let input = self.product(weight, x)?;
        self.launch(of, "linear_add", input, LinearAddParams { input, stream: place(&self.buffers.stream)? })
    }

    /// inner = SiLU(gate)·up.
    pub fn gate_up(&mut self, weight: &Tensor) -> Result<()> {
        let input = self.product(weight, &self.buffers.normed)?;
        self.launch(Part::Ffn, "gate_up", input, GateUpParams { input, out: place(&self.buffers.inner)? })
    }

    /// Logits and the greedy choice, which becomes the next step's token.
    pub fn choose(&mut self, capacity: usize) -> Result<()> {
        let input = self.product(&self.weights.head, &self.buffers.normed)?;
        let best = place(&self.buffers.best)?;
        self.launch(
            Part::Sampling,
            "logits",
            input,
            LogitsParams { input, logits: place(&self.buffers.logits)?, best },
        )?;
        let params = NextTokenParams {
            best,
            tokens: place(&self.buffers.tokens)?,
            history: place(&self.buffers.history)?,
            lengths: place(&self.buffers.lengths)?,
            batch: self.batch as i32,
            capacity: capacity as i32,
            length_count: self.buffers.lengths.dim(0)? as i32,
            reserved: 0,
        };
        let kernel = self.kernels.image.get("kvprof_next_token", 0)?;
        // SAFETY: the kernel takes NextTokenParams and waits before it reads; its block has a thread for each sequence and each
        // length; the engine holds the buffers.
        let launch = unsafe { kernel.launch([1, 1, 1], NEXT_TOKEN_THREADS, params, true) };
        self.sequence.push(Part::Sampling, launch);
        Ok(())
    }

    /// W·x.
    fn product(&self, weight: &Tensor, x: &Tensor) -> Result<GemvInput> {
        let (rows, depth) = weight.dims2()?;
        Ok(self.kernels.shape.input(place(weight)?, place(x)?, rows, depth, self.batch))
    }

    /// normed = x / rms(x) · gain; with `tokens`, x is a table of which they choose the rows, and those become the stream.
    fn rms_norm(&mut self, x: Address, tokens: Address, gain: &Tensor) -> Result<()> {
        let params = RmsNormParams {
            x,
            gain: place(gain)?,
            out: place(&self.buffers.normed)?,
            tokens,
            stream: place(&self.buffers.stream)?,
            depth: self.weights.hidden as i32,
            epsilon: self.weights.epsilon,
        };
        let kernel = self.kernels.image.get(&format!("kvprof_rms_norm_{}", self.kernels.float), 0)?;
        // SAFETY: the kernel takes RmsNormParams and waits before it reads anything but gains; the engine holds weights and
        // buffers, and the tokens are below V because this engine chose them or its caller vouches for them.
        let launch = unsafe { kernel.launch([self.batch as u32, 1, 1], NORM_THREADS, params, true) };
        self.sequence.push(Part::Norm, launch);
        Ok(())
    }

    fn launch<P: DeviceRepr + Copy>(&mut self, of: Part, part: &str, input: GemvInput, params: P) -> Result<()> {
        let kernel = self.kernels.linear(part)?;
        // A block takes every so many-th tile.
        let grid = [self.kernels.multiprocessors.min(input.tiles as usize) as u32, 1, 1];
        // SAFETY: each caller gives the parameters of its part's kernel; it reads nothing but weights before it waits; weights,
        // buffers and cache are held by the engine, and the cache reserves the slot that the keys go to.
        let launch = unsafe { kernel.launch(grid, self.kernels.shape.threads(), params, true) };
        self.sequence.push(of, launch);
        Ok(())
    }
}

/// Address of a tensor, all of whose elements follow each other.
pub(super) fn place(tensor: &Tensor) -> Result<Address> {
    if !tensor.is_contiguous() {
        return Err(Error::Invalid(format!("a step kernel was given a tensor with gaps: {:?}", tensor.layout())));
    }
    Ok(tensor_address(tensor)?)
}
