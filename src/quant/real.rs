//! The float types a cache can be made of ("P" in the numerics of QUANTIZATION.md).

use candle_core::{CpuStorage, DType, WithDType};
use half::{bf16, f16};

use crate::{Error, Result};

/// A model's float type: f32, f16 or bf16. Fits compute in f32 and round to it only what they store.
pub trait Real: WithDType {
    /// Bytes of one number.
    const BYTES: usize;

    /// The largest finite number.
    const LARGEST: f32;

    /// The same number in f32; exact.
    fn widen(self) -> f32;

    /// The nearest number, ties to even.
    fn narrow(value: f32) -> Self;

    /// Reads a number from the first [`BYTES`](Real::BYTES) of `bytes`, low byte first.
    fn read(bytes: &[u8]) -> Self;

    /// Writes the number into the first [`BYTES`](Real::BYTES) of `bytes`, low byte first.
    fn write(self, bytes: &mut [u8]);

    /// The numbers of a host buffer, for writing.
    ///
    /// # Errors
    /// When the buffer is of another type.
    fn slice_mut(storage: &mut CpuStorage) -> candle_core::Result<&mut [Self]>;

    /// The numbers of a host buffer.
    ///
    /// # Errors
    /// When the buffer is of another type.
    fn slice(storage: &CpuStorage) -> candle_core::Result<&[Self]> {
        Self::cpu_storage_as_slice(storage)
    }
}

macro_rules! real {
    ($float:ty, $variant:ident, $bytes:literal, $largest:expr, $widen:expr, $narrow:expr) => {
        impl Real for $float {
            const BYTES: usize = $bytes;
            const LARGEST: f32 = $largest;

            #[inline(always)]
            fn widen(self) -> f32 {
                $widen(self)
            }

            #[inline(always)]
            fn narrow(value: f32) -> Self {
                $narrow(value)
            }

            #[inline(always)]
            fn read(bytes: &[u8]) -> Self {
                let mut own = [0; $bytes];
                own.copy_from_slice(&bytes[..$bytes]);
                <$float>::from_le_bytes(own)
            }

            #[inline(always)]
            fn write(self, bytes: &mut [u8]) {
                bytes[..$bytes].copy_from_slice(&self.to_le_bytes());
            }

            fn slice_mut(storage: &mut CpuStorage) -> candle_core::Result<&mut [Self]> {
                match storage {
                    CpuStorage::$variant(data) => Ok(data),
                    other => candle_core::bail!(
                        "expected a buffer of {:?}, found {:?}",
                        <$float>::DTYPE,
                        candle_core::backend::BackendStorage::dtype(other)
                    ),
                }
            }
        }
    };
}

real!(f32, F32, 4, f32::MAX, |x: f32| x, |x: f32| x);
real!(f16, F16, 2, 65504.0, f16::to_f32, f16::from_f32);
real!(bf16, BF16, 2, f32::from_bits(0x7f7f_0000), bf16::to_f32, bf16::from_f32);

/// Fails unless `dtype` is one of the types of [`Real`].
///
/// # Errors
/// A usage error that lists the types a cache can be made of.
pub fn check_real(dtype: DType) -> Result<()> {
    match dtype {
        DType::F32 | DType::F16 | DType::BF16 => Ok(()),
        other => Err(Error::usage(format!("a KV cache is made of f32, f16 or bf16, not {}", other.as_str()))),
    }
}

/// Runs an expression with the type parameter `$P` standing for the [`Real`](crate::quant::Real) type of a `DType`; any other dtype is a
/// candle error, so the surrounding function returns `candle_core::Result`.
macro_rules! with_real {
    ($dtype:expr, $P:ident => $body:expr) => {
        match $dtype {
            candle_core::DType::F32 => {
                type $P = f32;
                $body
            }
            candle_core::DType::F16 => {
                type $P = half::f16;
                $body
            }
            candle_core::DType::BF16 => {
                type $P = half::bf16;
                $body
            }
            other => candle_core::bail!("a KV cache is made of f32, f16 or bf16, not {other:?}"),
        }
    };
}
pub(crate) use with_real;

#[cfg(test)]
mod tests {
    use super::*;

    fn survives_bytes<P: Real + std::fmt::Debug>() {
        for value in [0.0f32, -1.5, 3.0e4, 6.0e-5] {
            let number = P::narrow(value);
            let mut bytes = [0u8; 4];
            number.write(&mut bytes);
            assert_eq!(P::read(&bytes), number);
        }
    }

    #[test]
    fn numbers_survive_the_trip_through_bytes() {
        survives_bytes::<f32>();
        survives_bytes::<f16>();
        survives_bytes::<bf16>();
    }

    #[test]
    fn the_largest_numbers_are_those_of_the_types() {
        assert_eq!([f16::LARGEST, bf16::LARGEST], [f16::MAX.to_f32(), bf16::MAX.to_f32()]);
    }

    #[test]
    fn narrowing_rounds_half_to_even() {
        assert_eq!(f16::narrow(2049.0).widen(), 2048.0);
        assert_eq!(f16::narrow(2051.0).widen(), 2052.0);
        assert_eq!(bf16::narrow(257.0).widen(), 256.0);
        assert_eq!(bf16::narrow(259.0).widen(), 260.0);
    }
}
