//! Fused attention as a part of the recorded step: the kernels of `model::attention::decode`, lengths read from device memory.

use std::sync::Arc;

use cudarc::driver::CudaStream;

use super::buffers::Buffers;
use super::plan::place;
use crate::cache::{KvCache, LayerView};
use crate::device::DeviceLimits;
use crate::device::kernels::Address;
use crate::device::sequence::{Kernel, Kernels, Launch};
use crate::model::attention::decode::{DecodeKernel, DecodeShape, Scratch};
use crate::model::config::DecoderConfig;
use crate::{Error, Result};

/// Attention of every layer. It holds what its launches work in. Layers of one step run one after another, so those of one kernel share its scratch.
pub(super) struct FusedAttention {
    shape: DecodeShape,
    scale: f32,
    device: DeviceLimits,
    query: Address,
    out: Address,
    loaded: Vec<Loaded>,
}

struct Loaded {
    choice: DecodeKernel,
    kernel: Kernel,
    scratch: Scratch,
}

/// One new token for each sequence of `cache`, which may grow to its capacity.
fn shape_of(config: &DecoderConfig, cache: &dyn KvCache) -> DecodeShape {
    let shape = cache.shape();
    DecodeShape {
        batch: shape.batch,
        heads: config.heads,
        kv_heads: shape.kv_heads,
        tokens: 1,
        head_dim: shape.head_dim,
        dtype: shape.dtype,
        capacity: shape.capacity,
    }
}

impl FusedAttention {
    /// Why some layer of `cache` has no kernel; `None` if all have.
    ///
    /// # Errors
    /// None today; the answer is one of several that can fail.
    pub fn unserved(config: &DecoderConfig, cache: &dyn KvCache, device: DeviceLimits) -> Result<Option<String>> {
        let shape = shape_of(config, cache);
        let reasons = (0..cache.shape().layers()).filter_map(|layer| {
            let view = cache.view(layer);
            DecodeKernel::choose(view.packed.as_ref().map(|p| &p.geometry), &shape, device).err()
        });
        Ok(reasons.into_iter().next())
    }

    /// Attention from `buffers.query` to `buffers.attended`.
    pub fn new(config: &DecoderConfig, cache: &dyn KvCache, buffers: &Buffers, device: DeviceLimits) -> Result<Self> {
        Ok(FusedAttention {
            shape: shape_of(config, cache),
            scale: config.attention_scale() as f32,
            device,
            query: place(&buffers.query)?,
            out: place(&buffers.attended)?,
            loaded: Vec::new(),
        })
    }

    /// The launch for the layer that `view` shows; `length` is the address of its `CacheLength`. It stays right as the cache
    /// changes and is fastest while that holds about what it holds now. The launch uses scratch of `self`, which must outlive it.
    pub fn launch(&mut self, stream: &Arc<CudaStream>, view: &LayerView<'_>, length: Address) -> Result<Launch> {
        let geometry = view.packed.as_ref().map(|p| &p.geometry);
        let choice = DecodeKernel::choose(geometry, &self.shape, self.device).map_err(Error::usage)?;
        let index = match self.loaded.iter().position(|loaded| loaded.choice == choice) {
            Some(index) => index,
            None => {
                let image = Kernels::load(stream.context(), choice.image)?;
                let kernel = image.get(&choice.kernel, choice.shared_bytes as u32)?;
                let scratch = Scratch::new(&choice, &self.shape, view.window.device())?;
                self.loaded.push(Loaded { choice, kernel, scratch });
                self.loaded.len() - 1
            }
        };
        let Loaded { choice, kernel, scratch } = &self.loaded[index];
        let params = choice.params(view, &self.shape, [self.query, self.out, length], scratch, self.scale)?;
        let grid = choice.grid.map(|blocks| blocks as u32);
        // SAFETY: the kernel takes DecodeParams and waits for the previous one before it reads or writes anything but tiles that an
        // earlier step left (`tiles_expected`; kernels that quantize are launched without overlap, so they have ended); query and output
        // are whole [B, Hq, D] buffers, the view's are the cache's own, and the engine holds them and the scratch.
        Ok(unsafe { kernel.launch(grid, choice.threads, params, true) })
    }

    /// Names of the kernels in use.
    pub fn names(&self) -> Vec<&str> {
        self.loaded.iter().map(|loaded| loaded.kernel.name()).collect()
    }
}
