//! The CUDA forms of the operations of this folder: checks, parameters and one launch each (kernels/*.cu).

use std::ops::Range;

use candle_core::backend::BackendStorage;
use candle_core::{CudaStorage, Layout, Result, Shape, bail};

use crate::cache::GPU_HEAD_DIMS;
use crate::device::kernels::{self, Address, DeviceRepr, Launch, Ring, Strides, address};
use crate::quant::tile::SideGeometry;
use crate::quant::{Direction, Fit, TileGeometry};

/// Threads a block, as the kernels are compiled for (`kTileThreads`, `kAppendThreads`).
const THREADS: u32 = 256;

/// The same of quantization (`kQuantizeThreads`).
const QUANTIZE_THREADS: u32 = 128;

/// Mirrors `TileLayout` of kernels/include/kvprof/tile.cuh.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct TileLayout {
    tokens: i32,
    channels: i32,
    key: Format,
    value: Format,
}

/// Mirrors `Format` of kernels/include/kvprof/tile.cuh.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct Format {
    bits: i32,
    group: i32,
    direction: i32,
}

impl Format {
    fn of(side: &SideGeometry) -> Self {
        let (group, direction) = match side.groups {
            Some(groups) => (groups.group, groups.direction as i32),
            None => (0, 2),
        };
        Format { bits: side.bits as i32, group: group as i32, direction }
    }
}

impl TileLayout {
    fn of(geometry: &TileGeometry) -> Result<Self> {
        check_channels(geometry.channels)?;
        Ok(TileLayout {
            tokens: geometry.tokens as i32,
            channels: geometry.channels as i32,
            key: Format::of(&geometry.key),
            value: Format::of(&geometry.value),
        })
    }
}

// The direction of a group as the kernels number it.
const _: () = assert!(Direction::Channel as i32 == 0 && Direction::Token as i32 == 1);

/// Bytes of a tile in shared memory: its rows are padded by 16.
fn staged_bytes(tokens: usize, channels: usize) -> usize {
    tokens * (channels + 8) * 2
}

/// Of the groups for which there is a kernel with keys by channel and values by token (kernels/include/kvprof/quantize_instances.cuh).
const LARGEST_KIVI_GROUP: usize = 64;

/// Mirrors `AppendParams` of kernels/include/kvprof/append.cuh.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct AppendParams {
    k: Address,
    v: Address,
    not_finite: Address,
    k_strides: Strides,
    v_strides: Strides,
    window: Ring,
    first_position: i32,
    new_tokens: i32,
    layer: i32,
    reserved: i32,
}

/// Mirrors `QuantizeParams` of kernels/include/kvprof/quantize.cuh.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct QuantizeParams {
    window: Ring,
    tiles: Address,
    layout: TileLayout,
    tile_bytes: i32,
    tile_capacity: i32,
    first_tile: i32,
    first_slot: i32,
    first_side: i32,
    reserved: i32,
}

/// Mirrors `DequantizeParams` of kernels/include/kvprof/dequantize.cuh.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct DequantizeParams {
    window: Ring,
    tiles: Address,
    out_keys: Address,
    out_values: Address,
    layout: TileLayout,
    first_position: i32,
    packed_end: i32,
    end: i32,
    tile_capacity: i32,
    out_rows: i32,
    reserved: i32,
}

const _: () = assert!(size_of::<AppendParams>() == 112);
const _: () = assert!(size_of::<QuantizeParams>() == 88);
const _: () = assert!(size_of::<DequantizeParams>() == 104);

// SAFETY: plain numbers in the layout of the C++ struct of the same name (sizes asserted on both sides).
unsafe impl DeviceRepr for AppendParams {}
// SAFETY: as above.
unsafe impl DeviceRepr for QuantizeParams {}
// SAFETY: as above.
unsafe impl DeviceRepr for DequantizeParams {}

/// A buffer on the device and how it is laid out.
pub(super) type Operand<'a> = (&'a CudaStorage, &'a Layout);

/// Writes k and v `[B, Hkv, T, D]` into the window, from `position` on. `not_finite` is the cache's flag word.
pub(super) fn append(
    window: Operand<'_>,
    [k, v]: [Operand<'_>; 2],
    not_finite: Address,
    layer: usize,
    position: usize,
) -> Result<()> {
    let (batch, kv_heads, tokens, channels) = k.1.shape().dims4()?;
    let dtype = float_of(&[window.0, k.0, v.0])?;
    let params = AppendParams {
        k: address(k.0, k.1)?,
        v: address(v.0, v.1)?,
        not_finite,
        k_strides: Strides::of(k.1)?,
        v_strides: Strides::of(v.1)?,
        window: Ring::of(window.0, window.1)?,
        first_position: position as i32,
        new_tokens: tokens as i32,
        layer: layer as i32,
        reserved: 0,
    };
    let launch = Launch {
        image: "append",
        kernel: &format!("append_{dtype}"),
        grid: [(tokens * channels / 8).div_ceil(THREADS as usize), batch * kv_heads, 2],
        threads: THREADS,
        shared_bytes: 0,
    };
    // SAFETY: the caller has checked that k and v are [B, Hkv, T, D] of the window's B, Hkv and D; the kernel reads T rows of
    // each head through their strides and writes slots below W.
    unsafe { launch.enqueue(&window.0.device, &params) }
}

/// Quantizes `blocks` (numbers of tiles' worth of positions) of the window into the ring of tiles.
pub(super) fn quantize(
    tiles: Operand<'_>,
    window: Operand<'_>,
    geometry: &TileGeometry,
    fit: Fit,
    blocks: Range<usize>,
) -> Result<()> {
    let dtype = float_of(&[window.0])?;
    let layout = TileLayout::of(geometry)?;
    let (batch, kv_heads, tile_capacity, tile_bytes) = tiles.1.shape().dims4()?;
    let window_capacity = window.1.dim(3)?;
    let params = QuantizeParams {
        window: Ring::of(window.0, window.1)?,
        tiles: address(tiles.0, tiles.1)?,
        layout,
        tile_bytes: tile_bytes as i32,
        tile_capacity: tile_capacity as i32,
        first_tile: (blocks.start % tile_capacity) as i32,
        first_slot: (blocks.start * geometry.tokens % window_capacity) as i32,
        first_side: 0,
        reserved: 0,
    };
    let enqueue = |side: &SideGeometry, arrangement: &str, first_side: i32, sides: usize| {
        let mut shared_bytes = staged_bytes(geometry.tokens, geometry.channels);
        let (image, kernel) = match side.groups {
            None => ("quantize_fp8", format!("quantize_fp8_{dtype}_d{}", geometry.channels)),
            Some(groups) => {
                let (image, fit_bytes) = match (fit, dtype) {
                    (Fit::MinMax, "f16") => ("quantize_min_max_f16", 16),
                    (Fit::MinMax, _) => ("quantize_min_max_bf16", 16),
                    (Fit::Hqq, "f16") => ("quantize_hqq_f16", 20),
                    (Fit::Hqq, _) => ("quantize_hqq_bf16", 20),
                };
                shared_bytes += side.group_count() * fit_bytes;
                (image, format!("{image}_d{}_{arrangement}_g{}", geometry.channels, groups.group))
            }
        };
        let launch = Launch {
            image,
            kernel: &kernel,
            grid: [blocks.len(), batch * kv_heads, sides],
            threads: QUANTIZE_THREADS,
            shared_bytes,
        };
        // SAFETY: the caller has checked that tiles and window agree in B, Hkv and the bytes of a tile, and that the blocks are
        // in the window; the kernel writes `blocks.len()` tiles, each at its number modulo the capacity.
        unsafe { launch.enqueue(&tiles.0.device, &QuantizeParams { first_side, ..params }) }
    };
    let (key, value) = (&geometry.key, &geometry.value);
    let kind = |side: &SideGeometry| side.groups.map(|groups| (groups.direction, groups.group));
    let by = |side: &SideGeometry| match kind(side) {
        Some((Direction::Token, _)) => "token",
        _ => "channel",
    };
    match (kind(key), kind(value)) {
        (keys, values) if keys == values => enqueue(key, by(key), 0, 2),
        // Two launches would leave the device half empty between them.
        (Some((Direction::Channel, g)), Some((Direction::Token, same))) if g == same && g <= LARGEST_KIVI_GROUP => {
            enqueue(key, "kivi", 0, 2)
        }
        _ => {
            enqueue(key, by(key), 0, 1)?;
            enqueue(value, by(value), 1, 1)
        }
    }
}

/// Positions as dense rows `[2, B, Hkv, S, D]`: those before `packed_end` out of tiles, the others out of the window.
pub(super) fn dense(
    window: Operand<'_>,
    packed: Option<(Operand<'_>, &TileGeometry, usize)>,
    positions: Range<usize>,
) -> Result<(CudaStorage, Shape)> {
    let dtype = float_of(&[window.0])?;
    let &[_, batch, kv_heads, _, channels] = window.1.dims() else {
        bail!("a window has the shape [2, B, Hkv, W, D], not {:?}", window.1.shape());
    };
    check_channels(channels)?;
    let shape = Shape::from((2, batch, kv_heads, positions.len(), channels));
    let out = kernels::uninitialized(&window.0.device, window.0.dtype(), shape.elem_count())?;
    let out_keys = address(&out, &Layout::contiguous(&shape))?;
    let mut params = DequantizeParams {
        window: Ring::of(window.0, window.1)?,
        tiles: 0,
        out_keys,
        out_values: out_keys + (shape.elem_count() / 2 * 2) as Address,
        // Without tiles only the span of 64 positions matters.
        layout: TileLayout {
            tokens: 64,
            channels: channels as i32,
            key: Format { bits: 8, group: 0, direction: 2 },
            value: Format { bits: 8, group: 0, direction: 2 },
        },
        first_position: positions.start as i32,
        packed_end: 0,
        end: positions.end as i32,
        tile_capacity: 1,
        out_rows: positions.len() as i32,
        reserved: 0,
    };
    let mut groups = 0;
    if let Some(((tiles, tiles_layout), geometry, packed_end)) = packed {
        params.tiles = address(tiles, tiles_layout)?;
        params.layout = TileLayout::of(geometry)?;
        params.packed_end = packed_end as i32;
        params.tile_capacity = tiles_layout.shape().dims4()?.2 as i32;
        groups = geometry.key.group_count().max(geometry.value.group_count());
    }
    let span = params.layout.tokens as usize;
    let launch = Launch {
        image: "dequantize",
        kernel: &format!("dequantize_{dtype}_d{channels}"),
        grid: [positions.end.div_ceil(span) - positions.start / span, batch * kv_heads, 2],
        threads: THREADS,
        shared_bytes: staged_bytes(span, channels) + groups * 8,
    };
    // SAFETY: the caller has checked that the view holds the positions; the kernel writes each row of `out` once and reads
    // slots below W and tiles below the capacity.
    unsafe { launch.enqueue(&window.0.device, &params) }?;
    Ok((out, shape))
}

fn check_channels(channels: usize) -> Result<()> {
    if !GPU_HEAD_DIMS.contains(&channels) {
        let [few, many] = GPU_HEAD_DIMS;
        bail!("the CUDA kernels of a cache serve heads of {few} or {many} channels, not {channels}: use --device cpu");
    }
    Ok(())
}

/// The name of the one 16-bit float type of all operands.
fn float_of(operands: &[&CudaStorage]) -> Result<&'static str> {
    let dtype = operands[0].dtype();
    if let Some(other) = operands.iter().find(|x| x.dtype() != dtype) {
        bail!("a cache of {dtype:?} was given {:?}", other.dtype());
    }
    kernels::float_name(dtype)
}
