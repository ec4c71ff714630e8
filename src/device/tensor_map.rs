//! Tensors as Hopper's copy engine sees them.

use candle_core::cuda_backend::WrapErr;
use candle_core::{DType, Result, bail};
use cudarc::driver::sys;

use super::kernels::{Address, DeviceRepr};

/// Where a tensor lies, and in which boxes it is copied to shared memory. Mirrors `TensorMap` of kernels/include/kvprof/wgmma.cuh.
#[repr(C, align(128))]
#[derive(Debug, Clone, Copy)]
pub struct TensorMap {
    map: sys::CUtensorMap,
}

const _: () = assert!(size_of::<TensorMap>() == 128);

// SAFETY: plain bytes that the driver wrote, in the layout of the C++ struct of the same name (size asserted on both sides).
unsafe impl DeviceRepr for TensorMap {}

impl TensorMap {
    /// A contiguous `[planes, rows, columns]` of a 16-bit float type at `base`, copied as boxes of `box_rows` rows and 64 columns of one
    /// plane. A row of a box is 128 bytes, whose 16-byte pieces are permuted (piece ^ row % 8), as wgmma reads them.
    ///
    /// # Errors
    /// When the type has another width, or the driver refuses the shape (`columns` a multiple of 8, at most 256 rows a box).
    pub fn of_rows(base: Address, dtype: DType, [planes, rows, columns]: [usize; 3], box_rows: usize) -> Result<Self> {
        let element = match dtype {
            DType::F16 => sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
            DType::BF16 => sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
            other => bail!("tensor copies are of f16 and bf16, not {other:?}"),
        };
        let row_bytes = columns * dtype.size_in_bytes();
        let sizes = [columns as u64, rows as u64, planes as u64];
        let strides = [row_bytes as u64, (rows * row_bytes) as u64];
        let (box_sizes, steps) = ([64, box_rows as u32, 1], [1; 3]);
        let mut map = sys::CUtensorMap { opaque: [0; 16] };
        // SAFETY: the arrays are as long as the rank says and outlive the call, which only writes `map`; it does not read the tensor.
        unsafe {
            sys::cuTensorMapEncodeTiled(
                &mut map,
                element,
                sizes.len() as u32,
                base as *mut std::ffi::c_void,
                sizes.as_ptr(),
                strides.as_ptr(),
                box_sizes.as_ptr(),
                steps.as_ptr(),
                sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
                sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
                sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
        }
        .result()
        .w()?;
        Ok(TensorMap { map })
    }
}
