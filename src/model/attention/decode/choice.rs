//! Which decode attention kernel serves a cache, and how it is launched.

use candle_core::DType;

use crate::cache::GPU_HEAD_DIMS;
use crate::device::DeviceLimits;
use crate::device::kernels::{Launch, find_image, float_name};
use crate::quant::tile::SideGeometry;
use crate::quant::{Direction, Groups, TileGeometry};

/// Most new tokens that are attended at once to a cache without tiles: more are served better by flash attention.
const MOST_TOKENS: usize = 4;

/// Most new tokens over tiles, and most rows of a KV head (passes over its tiles, eight rows each): flash attention has to dequantize them first,
/// which takes as long as eight passes or longer (benches/NOTES.md).
const MOST_TOKENS_OVER_TILES: usize = 16;
const MOST_ROWS_OVER_TILES: usize = 64;

/// Rows (query heads times new tokens of a KV head) that one pass over the cache serves: the columns of an mma, or half as many where
/// there are no more, for which half of the work outside the mma's is left out.
const ROWS_A_PASS: [usize; 2] = [4, 8];

/// Positions of the window that a warp takes at once (`kUnitTokens`).
pub(super) const UNIT_TOKENS: usize = 16;

/// As in kernels/include/kvprof/decode_attention.cuh: slots of a warp's ring, and most warps of a block, with 2-bit codes and
/// otherwise.
const SLOTS: usize = 2;
const MOST_WARPS_2_BIT: usize = 12;
const MOST_WARPS: usize = 8;

/// What shares out the warps of a multiprocessor: beyond one for each, their number is a multiple of it.
const SCHEDULERS: usize = 4;

/// Blocks without tiles that a multiprocessor holds where it has the shared memory (`decode_blocks`); with tiles, one.
const MOST_BLOCKS: usize = 2;

/// The file of kernels/ for tiles of `geometry`, or for a cache without tiles: FP16 and BF16, D 64 and 128, four and eight rows each. `None` where
/// there is none.
fn image(geometry: Option<&TileGeometry>) -> Option<&'static str> {
    let Some(geometry) = geometry else { return Some("decode_dense") };
    let (Some(key), Some(value)) = (geometry.key.groups, geometry.value.groups) else { return Some("decode_fp8") };
    let name = |side: Groups| {
        let direction = match side.direction {
            Direction::Channel => 'c',
            Direction::Token => 't',
        };
        format!("{direction}{}", side.group)
    };
    let of_values = if key.bits == value.bits { String::new() } else { format!("int{}_", value.bits) };
    find_image(&format!("decode_int{}_{}_{of_values}{}", key.bits, name(key), name(value)))
}

/// Most new tokens that fused decode takes at once.
fn most_tokens(geometry: Option<&TileGeometry>, shape: &DecodeShape) -> usize {
    match geometry {
        None => MOST_TOKENS,
        Some(_) => (MOST_ROWS_OVER_TILES / (shape.heads / shape.kv_heads)).clamp(MOST_TOKENS, MOST_TOKENS_OVER_TILES),
    }
}

/// What attention of one layer looks like to the kernel.
#[derive(Debug, Clone, Copy)]
pub struct DecodeShape {
    /// Sequences (B).
    pub batch: usize,
    /// Query heads (Hq).
    pub heads: usize,
    /// KV heads (Hkv).
    pub kv_heads: usize,
    /// New tokens (T).
    pub tokens: usize,
    /// Channels of a head (D).
    pub head_dim: usize,
    /// Float type of queries, window and parameters.
    pub dtype: DType,
    /// Most positions that the launch is to serve: decides in how many splits they are read.
    pub capacity: usize,
}

impl DecodeShape {
    /// Rows of one KV head.
    pub(super) fn rows(&self) -> usize {
        self.tokens * (self.heads / self.kv_heads)
    }
}

/// A kernel and its launch configuration for one shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeKernel {
    /// The file under `kernels/`.
    pub image: &'static str,
    /// Name of the kernel in it.
    pub kernel: String,
    /// Threads a block.
    pub threads: u32,
    /// Dynamic shared memory a block.
    pub shared_bytes: usize,
    /// Blocks: (splits, Hkv times passes, B).
    pub grid: [usize; 3],
}

impl DecodeKernel {
    /// The kernel for tiles of `geometry` (`None`: a cache without tiles) on a device, or why there is none.
    ///
    /// # Errors
    /// The reason, for people: what runs instead is recorded with it.
    pub fn choose(
        geometry: Option<&TileGeometry>,
        shape: &DecodeShape,
        device: DeviceLimits,
    ) -> std::result::Result<Self, String> {
        let most = most_tokens(geometry, shape);
        if shape.tokens > most {
            return Err(format!("{} new tokens, fused decode takes at most {most}", shape.tokens));
        }
        if !GPU_HEAD_DIMS.contains(&shape.head_dim) {
            return Err(format!("no fused kernel for heads of {} channels", shape.head_dim));
        }
        let float = float_name(shape.dtype).map_err(|e| e.to_string())?;
        let Some(image) = image(geometry) else {
            return Err("no fused kernel for this mixture of bits, groups and directions".into());
        };
        // A slot holds one side of a tile or of a unit of the window, and the other side.
        let unit = 2 * UNIT_TOKENS * shape.head_dim;
        let side = |side: &SideGeometry| unit.max(side.code_bytes + side.parameter_bytes);
        let slot = geometry.map_or(2 * unit, |g| side(&g.key) + side(&g.value));
        let most_warps = if geometry.is_some_and(|g| g.key.bits == 2) { MOST_WARPS_2_BIT } else { MOST_WARPS };
        let room = device.code.shared_bytes();
        let fit = (room / (SLOTS * slot)).min(most_warps);
        let warps = if fit > SCHEDULERS { fit / SCHEDULERS * SCHEDULERS } else { fit };
        // After the loop the rings hold each warp's part: rows of D + 4 floats, and two sums a row.
        let rows = ROWS_A_PASS[usize::from(shape.rows() > ROWS_A_PASS[0])];
        let merge = warps * rows * ((shape.head_dim + 4) * 4 + 8);
        let shared_bytes = (warps * SLOTS * slot).max(merge);
        let passes = shape.rows().div_ceil(rows);
        let blocks = shape.batch * shape.kv_heads * passes;
        let tile_tokens = geometry.map_or(UNIT_TOKENS, |g| g.tokens);
        let resident = if geometry.is_some() { 1 } else { (room / (shared_bytes + 1024)).clamp(1, MOST_BLOCKS) };
        let slots = device.multiprocessors * resident;
        // A few heads of an unquantized cache keep the memory busy from half of the device, and half as many parts are merged
        // sooner (2 to 7 % in all).
        let few = geometry.is_none() && blocks * 8 <= slots;
        let items = shape.capacity.div_ceil(tile_tokens);
        let splits = choose_splits(if few { slots / 2 } else { slots }, blocks, items, least_items(geometry));
        Ok(DecodeKernel {
            image,
            kernel: format!("{image}_{float}_d{}_r{rows}", shape.head_dim),
            threads: 32 * warps as u32,
            shared_bytes,
            grid: [splits, shape.kv_heads * passes, shape.batch],
        })
    }

    /// Parts of the sequence that are read side by side and merged.
    pub fn splits(&self) -> usize {
        self.grid[0]
    }

    /// The launch on candle's stream.
    pub fn launch(&self) -> Launch<'_> {
        Launch {
            image: self.image,
            kernel: &self.kernel,
            grid: self.grid,
            threads: self.threads,
            shared_bytes: self.shared_bytes,
        }
    }
}

/// Items (tiles, or units of an unquantized cache) that a split is worth having for: fewer are read sooner than another part is
/// merged. Measured with 1024 to 32768 tokens (benches/NOTES.md); warps of a block without an item of their own cost nothing.
fn least_items(geometry: Option<&TileGeometry>) -> usize {
    if geometry.is_some() { 4 } else { 8 }
}

/// How many splits of `items` keep `slots` resident blocks busy when a split is `blocks` blocks: as few as possible of those that
/// waste the least of the last wave, and whose longest split is the shortest, each with `least` items or more.
fn choose_splits(slots: usize, blocks: usize, items: usize, least: usize) -> usize {
    let most = items.div_ceil(least).clamp(1, slots.div_ceil(blocks).max(8));
    // Time of the launch in units of reading everything on one block; a block costs some of its own.
    let share = |splits: usize| items.div_ceil(splits) as f64 / items.max(1) as f64;
    let time = |splits: usize| (blocks * splits).div_ceil(slots) as f64 * (share(splits) + 0.004);
    (1..=most).min_by(|&a, &b| time(a).total_cmp(&time(b))).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::kernels::Code;
    use crate::quant::QuantSpec;
    use crate::quant::presets::PRESETS;

    const SHAPE: DecodeShape =
        DecodeShape { batch: 8, heads: 32, kv_heads: 8, tokens: 1, head_dim: 128, dtype: DType::F16, capacity: 32768 };

    const H200: DeviceLimits = DeviceLimits { multiprocessors: 132, code: Code::Hopper };
    const RTX_5090: DeviceLimits = DeviceLimits { multiprocessors: 170, code: Code::Portable };

    fn geometry(spec: &str) -> Option<TileGeometry> {
        TileGeometry::new(&spec.parse::<QuantSpec>().unwrap(), SHAPE.head_dim, SHAPE.dtype)
    }

    #[test]
    fn every_preset_has_a_kernel() {
        for preset in &PRESETS {
            for device in [H200, RTX_5090] {
                let kernel = DecodeKernel::choose(geometry(preset.name).as_ref(), &SHAPE, device).unwrap();
                assert!(kernel.shared_bytes <= device.code.shared_bytes(), "{}: {kernel:?}", preset.name);
            }
        }
    }

    #[test]
    fn mixtures_that_are_often_asked_for_have_a_kernel() {
        let image = |spec: &str| DecodeKernel::choose(geometry(spec).as_ref(), &SHAPE, H200).map(|kernel| kernel.image);
        assert_eq!(image("int4-hqq,k-bits=8").unwrap(), "decode_int8_c64_int4_c64");
        assert_eq!(image("int4-hqq-kivi,v-bits=2").unwrap(), "decode_int4_c64_int2_t64");
        for spec in ["int4-hqq,group=32", "int4-quanto,group=32", "int8-hqq-token,group=32"] {
            image(spec).unwrap();
        }
        for spec in ["int4-hqq-kivi,k-bits=8", "int4-quanto,k-bits=8", "int4-hqq,v-bits=2"] {
            assert!(image(spec).unwrap().matches("int").count() == 2, "{spec}");
        }
    }

    #[test]
    fn four_rows_have_a_kernel_of_their_own() {
        let kernel = |heads, tokens| {
            let kernel = DecodeKernel::choose(None, &DecodeShape { heads, tokens, ..SHAPE }, H200).unwrap();
            (kernel.kernel, kernel.grid[1])
        };
        assert_eq!(kernel(32, 1), ("decode_dense_f16_d128_r4".into(), 8));
        assert_eq!(kernel(16, 2), ("decode_dense_f16_d128_r4".into(), 8));
        assert_eq!(kernel(40, 1), ("decode_dense_f16_d128_r8".into(), 8));
        assert_eq!(kernel(32, 4), ("decode_dense_f16_d128_r8".into(), 16));
    }

    #[test]
    fn a_mixture_without_a_kernel_is_refused_with_a_reason() {
        let mixed = geometry("int4-hqq,v-bits=8");
        assert!(DecodeKernel::choose(mixed.as_ref(), &SHAPE, H200).unwrap_err().contains("mixture"));
        let many = DecodeShape { tokens: 64, ..SHAPE };
        assert!(DecodeKernel::choose(None, &many, H200).unwrap_err().contains("64 new tokens"));
    }

    #[test]
    fn more_tokens_are_attended_at_once_over_tiles_as_long_as_passes_are_few() {
        let most = |spec: &str, heads| {
            let geometry = geometry(spec);
            let serves = |tokens: &usize| {
                DecodeKernel::choose(geometry.as_ref(), &DecodeShape { heads, tokens: *tokens, ..SHAPE }, H200).is_ok()
            };
            (1..100).take_while(serves).count()
        };
        // Eight KV heads: one, four, seven and thirty query heads for each.
        assert_eq!([8, 32, 56, 240].map(|heads| most("int4-hqq", heads)), [16, 16, 9, 4]);
        assert_eq!([8, 32, 56, 240].map(|heads| most("none", heads)), [4; 4]);
    }

    #[test]
    fn blocks_have_as_many_warps_as_have_room_for_their_rings() {
        let warps = |spec: Option<&str>, device| {
            let geometry = spec.and_then(geometry);
            DecodeKernel::choose(geometry.as_ref(), &SHAPE, device).unwrap().threads / 32
        };
        // A warp's two slots: 16 KiB without tiles, 34 with 8-bit codes, 18 with 4-bit codes, 16 with 2-bit codes in groups of 16.
        for (spec, hopper, portable) in
            [(None, 8, 4), (Some("int8-hqq"), 4, 2), (Some("int4-hqq"), 8, 4), (Some("int2-hqq"), 12, 4)]
        {
            assert_eq!((warps(spec, H200), warps(spec, RTX_5090)), (hopper, portable), "{spec:?}");
        }
    }

    #[test]
    fn splits_fill_the_device_and_no_more() {
        let splits = |blocks, tiles| choose_splits(132, blocks, tiles, 4);
        assert_eq!(splits(64, 512), 2);
        assert_eq!(splits(32, 512), 4);
        assert_eq!(splits(8, 512), 16);
        assert_eq!(splits(8, 64), 16);
        assert_eq!(splits(8, 10), 3);
        assert_eq!(splits(256, 512), 1);
        assert_eq!(splits(1, 1), 1);
        assert_eq!(splits(1, 0), 1);
        // 33 would fit, and the longest would be as long.
        assert_eq!(splits(4, 512), 32);
    }
}
