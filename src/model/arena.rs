//! One buffer for the weights of all layers.
//!
//! The memory pool of a GPU takes memory from the device in pieces of tens of megabytes, and a tensor lies in one of them: matrices of
//! their own, each in a piece that is rounded up, and the temporaries of loading between them would leave a tenth of the memory that
//! a 7B model holds unusable.

use candle_core::{DType, Device, Tensor};

use crate::Result;

/// Tensors begin at multiples of this many elements: 256 bytes of a 16-bit type, what cuBLAS likes best.
const ALIGNMENT: usize = 128;

/// The buffer, and how much of it is taken.
pub(super) struct Arena {
    buffer: Tensor,
    taken: usize,
}

impl Arena {
    /// Room for `elements` in `tensors` tensors.
    ///
    /// # Errors
    /// When the device has no room.
    pub fn new(elements: usize, tensors: usize, dtype: DType, device: &Device) -> Result<Self> {
        let buffer = Tensor::zeros(elements + tensors * ALIGNMENT, dtype, device)?;
        Ok(Arena { buffer, taken: 0 })
    }

    /// `parts`, which agree in all dimensions but the first, one below the other: copied into the buffer, or a tensor with memory of
    /// its own where there is no room left.
    ///
    /// # Errors
    /// When the parts do not go together, or the device fails.
    pub fn join(&mut self, parts: &[Tensor]) -> Result<Tensor> {
        let count: usize = parts.iter().map(Tensor::elem_count).sum();
        let (Some(first), true) = (parts.first(), self.taken + count <= self.buffer.elem_count()) else {
            return Ok(Tensor::cat(parts, 0)?);
        };
        let rows = parts.iter().map(|part| part.dim(0)).sum::<candle_core::Result<usize>>()?;
        let mut shape = first.dims().to_vec();
        shape[0] = rows;
        let place = self.buffer.narrow(0, self.taken, count)?;
        let mut at = 0;
        for part in parts {
            let flat = part.contiguous()?.flatten_all()?;
            place.narrow(0, at, flat.elem_count())?.slice_set(&flat, 0, 0)?;
            at += flat.elem_count();
        }
        self.taken += count.next_multiple_of(ALIGNMENT);
        Ok(place.reshape(shape)?)
    }
}

#[cfg(test)]
mod tests {
    use candle_nn::{Linear, Module};

    use super::*;

    fn matrix(rows: usize, columns: usize, first: f32) -> Tensor {
        let count = (rows * columns) as f32;
        Tensor::arange(first, first + count, &Device::Cpu).unwrap().reshape((rows, columns)).unwrap()
    }

    fn values(x: &Tensor) -> Vec<f32> {
        x.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn what_is_joined_lies_one_below_the_other_and_keeps_its_values() {
        let mut arena = Arena::new(100, 3, DType::F32, &Device::Cpu).unwrap();
        let (a, b) = (matrix(3, 4, 0.0), matrix(2, 4, 100.0));
        let joined = arena.join(&[a.clone(), b.clone()]).unwrap();
        let turned = arena.join(&[matrix(4, 3, 50.0).t().unwrap()]).unwrap();
        let vector = arena.join(&[Tensor::ones(5, DType::F32, &Device::Cpu).unwrap()]).unwrap();
        assert_eq!(values(&joined), values(&Tensor::cat(&[&a, &b], 0).unwrap()));
        assert_eq!(turned.dims(), [3, 4]);
        assert_eq!(values(&turned)[..2], [50.0, 53.0]);
        assert_eq!(values(&vector), [1.0; 5]);
        for x in [&joined, &turned, &vector] {
            assert!(x.is_contiguous() && x.layout().start_offset() % ALIGNMENT == 0);
        }
        assert!(vector.layout().start_offset() > turned.layout().start_offset());
    }

    #[test]
    fn a_layer_over_the_arena_computes_what_one_of_its_own_does() {
        let mut arena = Arena::new(64, 4, DType::F32, &Device::Cpu).unwrap();
        arena.join(&[matrix(2, 3, 0.0)]).unwrap();
        let (weight, bias, x) = (matrix(4, 6, 1.0), matrix(1, 4, 9.0).squeeze(0).unwrap(), matrix(2, 6, 0.5));
        let own = Linear::new(weight.clone(), Some(bias.clone())).forward(&x).unwrap();
        let kept = Linear::new(arena.join(&[weight]).unwrap(), Some(arena.join(&[bias]).unwrap()));
        assert_eq!(values(&kept.forward(&x).unwrap()), values(&own));
    }

    #[test]
    fn what_finds_no_room_has_memory_of_its_own() {
        let mut arena = Arena::new(4, 0, DType::F32, &Device::Cpu).unwrap();
        let own = arena.join(&[matrix(3, 3, 0.0), matrix(1, 3, 9.0)]).unwrap();
        assert_eq!((own.dims(), own.layout().start_offset()), ([4, 3].as_slice(), 0));
        assert_eq!(values(&own)[11], 11.0);
    }
}
