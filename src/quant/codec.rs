//! Whole tiles on the host: 64 or 128 tokens of one KV head into bytes and back. The reference of the CUDA kernels.

use std::ops::Range;

use super::fit::GroupFit;
use super::pack::{pack, unpack};
use super::real::Real;
use super::tile::{SideGeometry, TileGeometry};
use super::{Direction, Fit, Groups, fp8, hqq, minmax};

/// Fits one group by the method `fit` and writes its codes (see [`minmax::fit`] and [`hqq::fit`]).
pub fn fit_group<P: Real>(fit: Fit, values: &[f32], bits: u8, codes: &mut [u8]) -> GroupFit<P> {
    match fit {
        Fit::MinMax => minmax::fit(values, bits, codes),
        Fit::Hqq => hqq::fit(values, bits, codes),
    }
}

/// Turns tiles of one geometry and type into bytes and back; holds the working space for it.
#[derive(Debug)]
pub struct TileCodec<P> {
    geometry: TileGeometry,
    fit: Fit,
    values: Vec<f32>,
    group_values: Vec<f32>,
    group_codes: Vec<u8>,
    codes: Vec<u8>,
    scales: Vec<f32>,
    minima: Vec<f32>,
    real: std::marker::PhantomData<P>,
}

/// The keys or the values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// K.
    Key,
    /// V.
    Value,
}

impl Side {
    /// Both, in the order in which windows and tiles hold them.
    pub const BOTH: [Side; 2] = [Side::Key, Side::Value];
}

impl TileGeometry {
    /// The geometry of one side.
    #[inline]
    pub fn side(&self, side: Side) -> &SideGeometry {
        match side {
            Side::Key => &self.key,
            Side::Value => &self.value,
        }
    }
}

impl<P: Real> TileCodec<P> {
    /// A codec for `geometry`. `fit` is not used for FP8.
    pub fn new(geometry: TileGeometry, fit: Fit) -> Self {
        let elements = geometry.tokens * geometry.channels;
        let groups = geometry.key.group_count().max(geometry.value.group_count());
        TileCodec {
            geometry,
            fit,
            values: vec![0.0; elements],
            group_values: Vec::new(),
            group_codes: Vec::new(),
            codes: vec![0; elements],
            scales: vec![0.0; groups],
            minima: vec![0.0; groups],
            real: std::marker::PhantomData,
        }
    }

    /// Quantizes the tokens' rows (each D numbers, oldest first) of one side into its part of `tile`.
    pub fn encode<'a>(&mut self, side: Side, rows: impl Iterator<Item = &'a [P]>, tile: &mut [u8]) {
        let geometry = *self.geometry.side(side);
        for (values, row) in self.values.chunks_exact_mut(self.geometry.channels).zip(rows) {
            for (value, x) in values.iter_mut().zip(row) {
                *value = x.widen();
            }
        }
        match geometry.groups {
            Some(groups) => self.encode_groups(&geometry, groups, tile),
            None => {
                let scale: P = fp8::fit(&self.values, &mut self.codes);
                let parameters = &mut tile[geometry.parameters_at..][..geometry.parameter_bytes];
                parameters.fill(0);
                scale.write(parameters);
            }
        }
        pack(&self.codes, geometry.bits, &mut tile[geometry.codes_at..][..geometry.code_bytes]);
    }

    fn encode_groups(&mut self, geometry: &SideGeometry, groups: Groups, tile: &mut [u8]) {
        let channels = self.geometry.channels;
        self.group_values.resize(groups.group, 0.0);
        self.group_codes.resize(groups.group, 0);
        for group in 0..geometry.group_count() {
            // First element of the group and the distance to its next, in a row-major [tokens, D].
            let (first, step) = match groups.direction {
                Direction::Channel => (group / channels * groups.group * channels + group % channels, channels),
                Direction::Token => (group * groups.group, 1),
            };
            for (i, value) in self.group_values.iter_mut().enumerate() {
                *value = self.values[first + i * step];
            }
            let pair: GroupFit<P> = fit_group(self.fit, &self.group_values, groups.bits, &mut self.group_codes);
            for (i, code) in self.group_codes.iter().enumerate() {
                self.codes[first + i * step] = *code;
            }
            let at = geometry.parameters_at + group * P::BYTES;
            pair.scale.write(&mut tile[at..]);
            pair.minimum.write(&mut tile[at + geometry.scale_bytes..]);
        }
    }

    /// Reads back the given tokens of one side of `tile` as rows of D numbers, each rounded to `P` and widened again.
    pub fn decode(&mut self, side: Side, tile: &[u8], tokens: Range<usize>, out: &mut [f32]) {
        let geometry = *self.geometry.side(side);
        let channels = self.geometry.channels;
        let row_bytes = channels * geometry.bits / 8;
        let Some(groups) = geometry.groups else {
            let scale = P::read(&tile[geometry.parameters_at..]);
            let codes = &tile[geometry.codes_at..][tokens.start * row_bytes..tokens.end * row_bytes];
            for (out, code) in out.iter_mut().zip(codes) {
                *out = fp8::value(*code, scale).widen();
            }
            return;
        };
        self.read_parameters(&geometry, tile);
        let codes = &mut self.codes[..channels];
        for (token, out) in tokens.zip(out.chunks_exact_mut(channels)) {
            unpack(&tile[geometry.codes_at + token * row_bytes..][..row_bytes], geometry.bits, codes);
            match groups.direction {
                Direction::Channel => {
                    let first = geometry.group_index(token, 0);
                    let (scales, minima) = (&self.scales[first..][..channels], &self.minima[first..][..channels]);
                    for (((out, code), scale), minimum) in out.iter_mut().zip(&*codes).zip(scales).zip(minima) {
                        *out = P::narrow(scale * f32::from(*code) + minimum).widen();
                    }
                }
                Direction::Token => {
                    let first = geometry.group_index(token, 0);
                    let groups = out.chunks_exact_mut(groups.group).zip(codes.chunks_exact(groups.group));
                    for (group, (out, codes)) in groups.enumerate() {
                        let (scale, minimum) = (self.scales[first + group], self.minima[first + group]);
                        for (out, code) in out.iter_mut().zip(codes) {
                            *out = P::narrow(scale * f32::from(*code) + minimum).widen();
                        }
                    }
                }
            }
        }
    }

    fn read_parameters(&mut self, geometry: &SideGeometry, tile: &[u8]) {
        let scales = &tile[geometry.parameters_at..][..geometry.scale_bytes];
        let minima = &tile[geometry.parameters_at + geometry.scale_bytes..][..geometry.scale_bytes];
        for (numbers, bytes) in [(&mut self.scales, scales), (&mut self.minima, minima)] {
            for (number, bytes) in numbers.iter_mut().zip(bytes.chunks_exact(P::BYTES)) {
                *number = P::read(bytes).widen();
            }
        }
    }
}
