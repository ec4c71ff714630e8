//! Append, quantize and dequantize on the GPU equal the CPU: codes bit for bit, values to the last bit of their type.

use candle_core::{DType, Device, Tensor};
use kvprof::cache::{self, CacheShape, KvCache, ops};
use kvprof::quant::codec::Side;
use kvprof::quant::presets::PRESETS;
use kvprof::quant::{QuantSpec, Scheme, TileGeometry};

use crate::inputs::{self, Kind};
use crate::tile::to_host_order;

/// Every geometry that presets and overrides can ask of the kernels.
fn specs(head_dim: usize) -> Vec<QuantSpec> {
    let mut names: Vec<String> =
        PRESETS.iter().filter(|p| p.scheme != Scheme::None).map(|p| p.name.to_string()).collect();
    for base in ["int2-hqq", "int4-kivi"] {
        for group in [16, 32, 64, 128] {
            for (k, v) in [("channel", "channel"), ("token", "token"), ("channel", "token"), ("token", "channel")] {
                if group <= head_dim || (k, v) == ("channel", "channel") {
                    names.push(format!("{base},group={group},k={k},v={v},k-bits=4,v-bits=2"));
                }
            }
        }
    }
    names.push("int8-hqq,k-bits=8,v-bits=2,k-group=128,v-group=16,v=token".into());
    names.iter().map(|name| name.parse::<QuantSpec>().unwrap_or_else(|e| panic!("{name}: {e}"))).collect()
}

fn shape(head_dim: usize, dtype: DType, device: &Device) -> CacheShape {
    CacheShape {
        windows: vec![None],
        batch: 2,
        kv_heads: 2,
        head_dim,
        capacity: 700,
        max_chunk: 230,
        dtype,
        device: device.clone(),
    }
}

/// Feeds k and v in chunks of ragged lengths.
fn feed(cache: &mut dyn KvCache, k: &Tensor, v: &Tensor) {
    let device = cache.shape().device.clone();
    let (k, v) = (k.to_device(&device).unwrap(), v.to_device(&device).unwrap());
    let mut chunks = [230, 1, 63, 129, 64, 7].into_iter().cycle();
    while cache.len() < k.dim(2).unwrap() {
        let (start, left) = (cache.len(), k.dim(2).unwrap() - cache.len());
        let tokens = chunks.next().unwrap().min(left);
        cache.append(0, &k.narrow(2, start, tokens).unwrap(), &v.narrow(2, start, tokens).unwrap()).unwrap();
        cache.settle(0).unwrap();
        cache.advance(tokens);
    }
}

fn tile_bytes(cache: &dyn KvCache) -> Vec<u8> {
    let view = cache.view(0);
    view.packed.map_or(Vec::new(), |packed| packed.tiles.flatten_all().unwrap().to_vec1().unwrap())
}

/// A tile of the cache under test: block `block` of head `head`, counted over the batch.
struct Tile<'a> {
    geometry: &'a TileGeometry,
    dtype: DType,
    head: usize,
    block: usize,
}

impl Tile<'_> {
    /// What the first group is, in words and numbers, whose codes or parameters differ between two tiles in the order of the host;
    /// `kv` are the keys and values `[B, H, T, D]` they were made of. Zeros of either sign are equal.
    fn first_difference(&self, expected: &[u8], found: &[u8], kv: [&Tensor; 2]) -> Option<String> {
        if expected == found {
            return None;
        }
        Side::BOTH.into_iter().zip(kv).find_map(|(side, numbers)| {
            let members = self.members(side);
            let members = members.iter().find(|members| {
                self.group(side, members, expected) != self.group(side, members, found)
            })?;
            let group = self.geometry.side(side).group_index(members[0].0, members[0].1);
            let rows: Vec<f32> = numbers.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap();
            let tokens = numbers.dim(2).unwrap();
            let row = |token: usize| (self.head * tokens + self.block * self.geometry.tokens + token) * self.geometry.channels;
            let numbers: Vec<f32> =
                members.iter().filter_map(|(token, channel)| rows.get(row(*token) + channel).copied()).collect();
            Some(format!(
                "{side:?} group {group} of block {} of head {}, from (token, channel) {:?}\nnumbers {numbers:?}\n(codes, scale, minimum) of the CPU {:?}\nof the GPU {:?}",
                self.block,
                self.head,
                members[0],
                self.group(side, members, expected),
                self.group(side, members, found)
            ))
        })
    }

    /// (token, channel) of the elements of each group.
    fn members(&self, side: Side) -> Vec<Vec<(usize, usize)>> {
        let geometry = self.geometry.side(side);
        let mut groups = vec![Vec::new(); geometry.group_count()];
        for token in 0..self.geometry.tokens {
            for channel in 0..self.geometry.channels {
                groups[geometry.group_index(token, channel)].push((token, channel));
            }
        }
        groups
    }

    /// Codes, scale and minimum of a group (FP8: its scale twice).
    fn group(&self, side: Side, members: &[(usize, usize)], tile: &[u8]) -> (Vec<u8>, f32, f32) {
        let side_geometry = self.geometry.side(side);
        let bits = side_geometry.bits;
        let code = |&(token, channel): &(usize, usize)| {
            let bit = (token * self.geometry.channels + channel) * bits;
            tile[side_geometry.codes_at + bit / 8] >> (bit % 8) & (u8::MAX >> (8 - bits))
        };
        let number = |at: usize| {
            let half = u16::from_le_bytes([tile[at], tile[at + 1]]);
            match self.dtype {
                DType::F16 => half::f16::from_bits(half).to_f32(),
                _ => half::bf16::from_bits(half).to_f32(),
            }
        };
        let scale = side_geometry.parameters_at + 2 * side_geometry.group_index(members[0].0, members[0].1);
        let minimum = if side_geometry.groups.is_some() { scale + side_geometry.scale_bytes } else { scale };
        (members.iter().map(code).collect(), number(scale), number(minimum))
    }
}

/// Numbers as their bits, with one zero: which zero is the least of a group is nobody's business.
fn bits(x: &Tensor) -> Vec<u32> {
    let wide: Vec<f32> = x.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    wide.into_iter().map(|x| (x + 0.0).to_bits()).collect()
}

fn compare(gpu: &Device, spec: &QuantSpec, head_dim: usize, dtype: DType, kind: Kind, sliding_window: Option<usize>) {
    let what = format!("{} D {head_dim} {dtype:?} {kind:?} {sliding_window:?}", spec.name);
    let dims = [2, 2, 611, head_dim];
    let (k, v) = (inputs::tensor(kind, dims, dtype, 1), inputs::tensor(kind, dims, dtype, 2));
    let spec = spec.clone().with_residual(33);
    let mut caches = [&Device::Cpu, gpu].map(|device| {
        let shape = CacheShape { windows: vec![sliding_window], ..shape(head_dim, dtype, device) };
        cache::new(spec.clone(), shape).unwrap()
    });
    caches.iter_mut().for_each(|cache| feed(cache.as_mut(), &k, &v));
    let [on_cpu, on_gpu] = &caches;
    on_gpu.check_finite().unwrap();

    let geometry = on_cpu.view(0).packed.expect("a quantized cache").geometry;
    let (expected, found) = (tile_bytes(on_cpu.as_ref()), tile_bytes(on_gpu.as_ref()));
    assert_eq!(expected.len(), found.len(), "{what}");
    let packed = on_cpu.view(0).packed.expect("a quantized cache").positions.end / geometry.tokens;
    let ring = expected.len() / geometry.bytes() / (dims[0] * dims[1]);
    // The last block whose place is that tile; where none has come yet, one past the end of the numbers.
    let block_at = |slot: usize| (0..packed).rev().find(|block| block % ring == slot).unwrap_or(packed);
    for (index, (expected, found)) in
        expected.chunks_exact(geometry.bytes()).zip(found.chunks_exact(geometry.bytes())).enumerate()
    {
        let found = to_host_order(&geometry, found);
        let tile = Tile { geometry: &geometry, dtype, head: index / ring, block: block_at(index % ring) };
        if let Some(difference) = tile.first_difference(expected, &found, [&k, &v]) {
            panic!("{what}: {difference}");
        }
    }

    let held = on_cpu.view(0).positions();
    for positions in [held.clone(), held.start + 5..held.end - 3, held.start + 64..held.start + 65] {
        let dense = [on_cpu, on_gpu].map(|cache| ops::dense(&cache.view(0), positions.clone()).unwrap());
        assert!(bits(&dense[0]) == bits(&dense[1]), "{what}: dense values of {positions:?} differ");
    }
}

/// One test for each head dimension and float type, so that they can run side by side.
macro_rules! every_preset_and_geometry_quantizes_to_the_codes_of_the_cpu {
    ($($name:ident: $head_dim:literal $dtype:ident),*) => {
        mod every_preset_and_geometry_quantizes_to_the_codes_of_the_cpu {
            use super::*;
            $(#[test]
            fn $name() {
                let test = concat!("every_preset_and_geometry_quantizes_to_the_codes_of_the_cpu::", stringify!($name));
                let Some(gpu) = crate::gpu(test) else { return };
                for spec in specs($head_dim) {
                    compare(&gpu, &spec, $head_dim, DType::$dtype, Kind::Normal, None);
                }
            })*
        }
    };
}

every_preset_and_geometry_quantizes_to_the_codes_of_the_cpu! {
    d64_f16: 64 F16, d64_bf16: 64 BF16, d128_f16: 128 F16, d128_bf16: 128 BF16
}

#[test]
fn adversarial_numbers_quantize_to_the_codes_of_the_cpu() {
    let Some(gpu) = crate::gpu("adversarial_numbers_quantize_to_the_codes_of_the_cpu") else { return };
    for name in ["int8-hqq", "int4-hqq", "int2-hqq-kivi", "int2-hqq-token", "int4-quanto", "int2-kivi", "fp8"] {
        for kind in Kind::ALL {
            for dtype in [DType::F16, DType::BF16] {
                compare(&gpu, &name.parse().unwrap(), 64, dtype, kind, None);
            }
        }
    }
}

#[test]
fn a_ring_of_tiles_that_wraps_holds_what_the_cpu_holds() {
    let Some(gpu) = crate::gpu("a_ring_of_tiles_that_wraps_holds_what_the_cpu_holds") else { return };
    for name in ["int4-hqq", "int2-kivi", "fp8"] {
        compare(&gpu, &name.parse().unwrap(), 128, DType::BF16, Kind::Normal, Some(200));
    }
}

#[test]
fn the_first_number_that_is_not_finite_is_named_without_stopping_the_append() {
    let Some(gpu) = crate::gpu("the_first_number_that_is_not_finite_is_named_without_stopping_the_append") else {
        return;
    };
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let shape = CacheShape { windows: vec![None; 3], ..shape(128, DType::F16, &gpu) };
        let mut cache = cache::new("int4-hqq".parse().unwrap(), shape).unwrap();
        let good = inputs::tensor(Kind::Normal, [2, 2, 100, 128], DType::F16, 3).to_device(&gpu).unwrap();
        let spoil = Tensor::full(bad, (2, 2, 1, 128), &gpu).unwrap().to_dtype(DType::F16).unwrap();
        let spoiled =
            Tensor::cat(&[&good.narrow(2, 0, 41).unwrap(), &spoil, &good.narrow(2, 42, 58).unwrap()], 2).unwrap();
        for layer in 0..3 {
            cache.append(layer, &good, if layer == 1 { &spoiled } else { &good }).unwrap();
        }
        let error = cache.check_finite().unwrap_err().to_string();
        assert!(error.contains("layer 1, position 41"), "{error}");
    }
}
