//! The packed tile of kernels/include/kvprof/tile.cuh, said again: from the order of the GPU to the row-major order of the
//! host.

use kvprof::quant::tile::{SideGeometry, TileGeometry};
use kvprof::quant::{Direction, Groups};

/// A tile as the host would store it, out of `gpu`, a tile as the GPU stores it.
pub fn to_host_order(geometry: &TileGeometry, gpu: &[u8]) -> Vec<u8> {
    let mut host = vec![0u8; geometry.bytes()];
    let (tokens, channels) = (geometry.tokens, geometry.channels);
    for (side, is_key) in [(&geometry.key, true), (&geometry.value, false)] {
        let columns = if is_key { channels } else { tokens };
        let rows = if is_key { tokens } else { channels };
        for token in 0..tokens {
            for channel in 0..channels {
                let (row, column) = if is_key { (token, channel) } else { (channel, token) };
                let (byte, shift) = code_place(side.bits, columns, row, column);
                let mask = u8::MAX >> (8 - side.bits);
                let code = gpu[side.codes_at + byte] >> shift & mask;
                let bit = (token * channels + channel) * side.bits;
                host[side.codes_at + bit / 8] |= code << (bit % 8);
                let (scale, minimum) = parameter_place(side, is_key, [rows, columns], row, column);
                let at = side.parameters_at + 2 * side.group_index(token, channel);
                host[at..at + 2].copy_from_slice(&gpu[side.parameters_at + scale..][..2]);
                if let Some(minimum) = minimum {
                    let from = side.parameters_at + side.scale_bytes + minimum;
                    host[at + side.scale_bytes..][..2].copy_from_slice(&gpu[from..][..2]);
                }
            }
        }
    }
    host
}

/// Byte and lowest bit of a code.
fn code_place(bits: usize, columns: usize, row: usize, column: usize) -> (usize, usize) {
    let (g, hi, r) = (row % 8, row / 8 % 2, row / 16);
    let (odd, t, half, k) = (column % 2, column / 2 % 4, column / 8 % 2, column / 16);
    let steps = columns / 16;
    let (word, bit) = match bits {
        8 => (2 * (r * steps + k) + hi, 0),
        4 => (r * steps + k, 4 * hi),
        _ => (r / 2 * steps + k, 4 * (r % 2) + 2 * hi),
    };
    (512 * (word / 4) + 16 * (4 * g + t) + 4 * (word % 4) + 2 * odd + half, bit)
}

/// Bytes of a scale and of its minimum, each from the start of its block.
fn parameter_place(
    side: &SideGeometry,
    is_key: bool,
    [rows, columns]: [usize; 2],
    row: usize,
    column: usize,
) -> (usize, Option<usize>) {
    let Some(Groups { group, direction, .. }) = side.groups else { return (0, None) };
    if (direction == Direction::Channel) == is_key {
        let (k, half, t, odd) = (column / 16, column / 8 % 2, column / 2 % 4, column % 2);
        let at = 64 * (k / 2 * (rows / group) + row / group) + 16 * t + 8 * half + 4 * (k % 2) + 2 * odd;
        return (at, Some(at));
    }
    let (r, hi, g, j, groups) = (row / 16, row / 8 % 2, row % 8, column / group, columns / group);
    let scale = 128 * (j * (rows / 64) + r / 4) + 16 * g + 4 * (r % 4) + 2 * hi;
    let minimum = 16 * ((r / 2 * 8 + g) * (groups / 2) + j / 2) + 8 * (r % 2) + 4 * hi + 2 * (j % 2);
    (scale, Some(if groups == 1 { scale } else { minimum }))
}
