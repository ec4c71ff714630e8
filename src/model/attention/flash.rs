//! Flash attention over dense keys and values on a CUDA device (kernels/prefill.cu): prefill, and chunks over a history.

use std::ops::Range;

use candle_core::backend::BackendStorage;
use candle_core::{CudaStorage, DType, Device, Layout, Result, Shape, Tensor, bail};

use crate::cache::GPU_HEAD_DIMS;
use crate::device::DeviceLimits;
use crate::device::kernels::{Address, Code, DeviceRepr, Launch, Strides, address, float_name, uninitialized};
use crate::device::tensor_map::TensorMap;

/// Mirrors `PrefillParams` of kernels/include/kvprof/prefill.cuh.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct PrefillParams {
    q: Address,
    k: Address,
    v: Address,
    out: Address,
    split_out: Address,
    split_log_sum: Address,
    q_strides: Strides,
    kv_strides: Strides,
    out_strides: Strides,
    new_tokens: i32,
    cached_tokens: i32,
    kv_heads: i32,
    gqa: i32,
    window: i32,
    first_slot: i32,
    capacity: i32,
    splits: i32,
    scale_log2: f32,
    reserved: i32,
}

const _: () = assert!(size_of::<PrefillParams>() == 160);

// SAFETY: plain numbers in the layout of the C++ struct of the same name (size asserted on both sides).
unsafe impl DeviceRepr for PrefillParams {}

/// Mirrors `HopperParams` of kernels/include/kvprof/prefill_hopper.cuh.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct HopperParams {
    prefill: PrefillParams,
    kv: TensorMap,
}

const _: () = assert!(size_of::<HopperParams>() == 384);

// SAFETY: as above.
unsafe impl DeviceRepr for HopperParams {}

/// Threads a block of the portable kernel and of the merge (`kPrefillThreads`), and of Hopper's (`kHopperThreads`).
const THREADS: u32 = 128;
const HOPPER_THREADS: u32 = 384;

/// Rows of queries a block (`kPrefillRows`), and keys a step of the portable kernel (`kPrefillKeys`).
const ROWS: usize = 128;
const KEYS: usize = 64;

/// Shared memory of Hopper's kernel (`kHopperSharedBytes`), and keys that it copies at once (`kHopperBoxRows`).
const HOPPER_SHARED_BYTES: usize = 5 * 128 * 128 * 2 + 1024;
const HOPPER_BOX_ROWS: usize = 128;

/// Fewest keys worth a block of their own when the keys are split.
const LEAST_KEYS_A_SPLIT: usize = 256;

/// Which keys are attended to, and how.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    /// Positions held; position p is in slot p mod W of the ring.
    pub positions: Range<usize>,
    /// Keys this much older than a query, or more, are hidden from it.
    pub sliding_window: Option<usize>,
    /// Factor of the scores.
    pub scale: f32,
}

/// Attention of q `[B, Hq, T, D]`, whose tokens are at the last T of `keys.positions`, over a ring `[2 (K, V), B, Hkv, W, D]`. FP16 or
/// BF16, D 64 or 128. The result is `[B, T, Hq, D]`.
///
/// # Errors
/// When shapes or dtypes do not fit; out of memory.
pub(super) fn flash_attention(
    (q, q_layout): (&CudaStorage, &Layout),
    (kv, kv_layout): (&CudaStorage, &Layout),
    keys: &Keys,
) -> Result<(CudaStorage, Shape)> {
    let (batch, q_heads, tokens, channels) = q_layout.shape().dims4()?;
    let &[2, kv_batch, kv_heads, capacity, kv_channels] = kv_layout.dims() else {
        bail!("dense keys and values have the shape [2, B, Hkv, W, D], not {:?}", kv_layout.shape());
    };
    let cached = keys.positions.len();
    if (batch, channels) != (kv_batch, kv_channels)
        || q_heads % kv_heads != 0
        || !(tokens..=capacity).contains(&cached)
        || !kv_layout.is_contiguous()
    {
        bail!("queries {:?} do not fit {cached} positions in a ring {:?}", q_layout.shape(), kv_layout.shape());
    }
    if !GPU_HEAD_DIMS.contains(&channels) {
        let [few, many] = GPU_HEAD_DIMS;
        bail!("the CUDA attention kernels serve heads of {few} or {many} channels, not {channels}");
    }
    if q.dtype() != kv.dtype() {
        bail!("queries of {:?} over a cache of {:?}", q.dtype(), kv.dtype());
    }
    let dtype = float_name(q.dtype())?;
    let device = &q.device;
    let rows = tokens * (q_heads / kv_heads);
    let row_tiles = rows.div_ceil(ROWS);
    let limits = DeviceLimits::of(device)?;
    let hopper = on_hopper(limits, channels);
    // A block of Hopper's kernel has a multiprocessor to itself, two of the portable one share it.
    let blocks_at_once = limits.multiprocessors * if hopper { 1 } else { 2 };
    let splits = choose_splits(blocks_at_once, row_tiles * batch * kv_heads, cached);

    let shape = Shape::from((batch, tokens, q_heads, channels));
    let out = uninitialized(device, q.dtype(), shape.elem_count())?;
    let parts = if splits > 1 { splits * batch * kv_heads * rows } else { 0 };
    let (split_out, split_log_sum) =
        (uninitialized(device, DType::F32, parts * channels)?, uninitialized(device, DType::F32, parts)?);
    let address_of = |x: &CudaStorage, count: usize| address(x, &Layout::contiguous(count));
    let k = address(kv, kv_layout)?;
    let params = PrefillParams {
        q: address(q, q_layout)?,
        k,
        v: k + (kv_layout.shape().elem_count() / 2 * 2) as Address,
        out: address(&out, &Layout::contiguous(&shape))?,
        split_out: address_of(&split_out, parts * channels)?,
        split_log_sum: address_of(&split_log_sum, parts)?,
        q_strides: Strides::of(q_layout)?,
        kv_strides: Strides {
            batch: (kv_heads * capacity * channels) as i64,
            head: (capacity * channels) as i64,
            token: channels as i64,
        },
        out_strides: Strides {
            batch: (tokens * q_heads * channels) as i64,
            head: channels as i64,
            token: (q_heads * channels) as i64,
        },
        new_tokens: tokens as i32,
        cached_tokens: cached as i32,
        kv_heads: kv_heads as i32,
        gqa: (q_heads / kv_heads) as i32,
        window: keys.sliding_window.unwrap_or(0) as i32,
        first_slot: (keys.positions.start % capacity) as i32,
        capacity: capacity as i32,
        splits: splits as i32,
        scale_log2: keys.scale * std::f32::consts::LOG2_E,
        reserved: 0,
    };
    let grid = [row_tiles, batch * kv_heads, splits];
    let kernel = kernel_name(hopper, dtype, channels);
    // SAFETY: shapes were checked above; the kernels read `cached` slots of each head, all below the capacity (Hopper's also through a
    // map of the whole ring), and write the rows of `out`, or of the parts, that the shapes imply. `out` and the parts are used
    // on the device's only stream.
    unsafe {
        if hopper {
            let ring = [2 * batch * kv_heads, capacity, channels];
            let params =
                HopperParams { prefill: params, kv: TensorMap::of_rows(k, kv.dtype(), ring, HOPPER_BOX_ROWS)? };
            let (threads, shared_bytes) = (HOPPER_THREADS, HOPPER_SHARED_BYTES);
            Launch { image: "prefill_sm90a", kernel: &kernel, grid, threads, shared_bytes }.enqueue(device, &params)?;
        } else {
            let shared_bytes = (ROWS + 2 * KEYS) * channels * 2;
            Launch { image: "prefill", kernel: &kernel, grid, threads: THREADS, shared_bytes }
                .enqueue(device, &params)?;
        }
    }
    if splits > 1 {
        let merge = Launch {
            image: "prefill",
            kernel: &format!("prefill_merge_{dtype}_d{channels}"),
            grid: [rows.div_ceil(THREADS as usize / 32), batch * kv_heads, 1],
            threads: THREADS,
            shared_bytes: 0,
        };
        // SAFETY: as above; it reads the parts that the first kernel wrote.
        unsafe { merge.enqueue(device, &params) }?;
    }
    Ok((out, shape))
}

/// Name of the kernel that attends over a ring `[2, B, Hkv, W, D]` on a CUDA device, for the record of what ran.
///
/// # Errors
/// When there is none for its device, type or head dimension.
pub(super) fn kernel_for(ring: &Tensor) -> Result<String> {
    let (Device::Cuda(device), &[_, _, _, _, channels]) = (ring.device(), ring.dims()) else {
        bail!("flash attention reads a ring on a CUDA device, not {:?} on {:?}", ring.shape(), ring.device());
    };
    Ok(kernel_name(on_hopper(DeviceLimits::of(device)?, channels), float_name(ring.dtype())?, channels))
}

fn kernel_name(hopper: bool, dtype: &str, channels: usize) -> String {
    format!("prefill_{}{dtype}_d{channels}", if hopper { "hopper_" } else { "" })
}

/// Whether the kernel for Hopper's warpgroup products serves this head dimension on this device.
fn on_hopper(device: DeviceLimits, channels: usize) -> bool {
    channels == 128 && device.code == Code::Hopper
}

/// In how many pieces the keys are cut: in one if the blocks fill the device as they are, else in as many as do, each at least
/// a few hundred keys long.
fn choose_splits(blocks_at_once: usize, blocks: usize, keys: usize) -> usize {
    (blocks_at_once / blocks.max(1)).min(keys / LEAST_KEYS_A_SPLIT).max(1)
}

#[cfg(test)]
mod tests {
    use super::choose_splits;

    #[test]
    fn few_row_tiles_are_spread_over_the_device_and_many_are_not_split() {
        assert_eq!(choose_splits(264, 8192, 32768), 1);
        assert_eq!(choose_splits(264, 8, 32768), 33);
        assert_eq!(choose_splits(264, 8, 1024), 4);
        assert_eq!(choose_splits(264, 8, 64), 1);
    }
}
