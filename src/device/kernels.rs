//! The crate's own kernels: images are loaded when a kernel of theirs is first used, kernels are looked up once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use candle_core::backend::BackendDevice;
use candle_core::cuda_backend::{CudaDevice, CudaStorage, WrapErr};
use candle_core::{DType, Layout, Result, Shape, Storage, Tensor, bail};
use cudarc::driver::sys::CUfunction_attribute_enum as Attribute;
use cudarc::driver::{CudaContext, CudaFunction, CudaModule, DevicePtr, LaunchConfig, PushKernelArg};
use cudarc::nvrtc::Ptx;

pub use cudarc::driver::DeviceRepr;

include!(concat!(env!("OUT_DIR"), "/kernel_images.rs"));

/// Device memory address of an element. Mirrors a pointer in a kernel's parameters.
pub type Address = u64;

/// Element strides of a `[batch, head, token, D]` tensor. Mirrors `Strides` of kernels/include/kvprof/rows.cuh.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct Strides {
    /// Between batch entries.
    pub batch: i64,
    /// Between heads.
    pub head: i64,
    /// Between tokens.
    pub token: i64,
}

impl Strides {
    /// Strides of a layout of four axes whose last is contiguous and whose rows can be read 16 bytes at a time.
    ///
    /// # Errors
    /// When it is not such a layout.
    pub fn of(layout: &Layout) -> Result<Self> {
        match *layout.stride() {
            [batch, head, token, 1] if [batch, head, token, layout.start_offset()].iter().all(|s| s % 8 == 0) => {
                Ok(Strides { batch: batch as i64, head: head as i64, token: token as i64 })
            }
            ref strides => {
                bail!("a kernel cannot read rows at strides {strides:?} from element {}", layout.start_offset())
            }
        }
    }
}

/// The recent window `[2 (K, V), B, Hkv, W, D]`. Mirrors `Ring` of kernels/include/kvprof/rows.cuh.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Ring {
    base: Address,
    batch: i32,
    kv_heads: i32,
    capacity: i32,
    channels: i32,
}

const _: () = assert!(size_of::<Strides>() == 24 && size_of::<Ring>() == 24);

impl Ring {
    /// The window in `storage`.
    ///
    /// # Errors
    /// When it is not a whole, contiguous buffer of that shape.
    pub fn of(storage: &CudaStorage, layout: &Layout) -> Result<Self> {
        let base = address(storage, layout)?;
        match *layout.shape().dims() {
            [2, batch, kv_heads, capacity, channels] if layout.is_contiguous() && channels % 8 == 0 => Ok(Ring {
                base,
                batch: batch as i32,
                kv_heads: kv_heads as i32,
                capacity: capacity as i32,
                channels: channels as i32,
            }),
            ref dims => bail!("a window is a contiguous [2, B, Hkv, W, D], not {dims:?}"),
        }
    }
}

/// Address of the first element of a tensor's storage under `layout`. It is good for kernels launched on the device's stream
/// while the tensor lives: its memory is given back in the order of that stream.
///
/// # Errors
/// When elements are of a type that no kernel here reads.
pub fn address(storage: &CudaStorage, layout: &Layout) -> Result<Address> {
    let stream = storage.device.cuda_stream();
    let dtype = candle_core::backend::BackendStorage::dtype(storage);
    macro_rules! start {
        ($($variant:ident => $element:ty),*) => {
            match dtype {
                $(DType::$variant => storage.as_cuda_slice::<$element>()?.device_ptr(&stream).0,)*
                other => bail!("no kernel here reads {other:?}"),
            }
        };
    }
    let start = start!(U8 => u8, U32 => u32, I64 => i64, F16 => half::f16, BF16 => half::bf16, F32 => f32);
    Ok(start + (layout.start_offset() * dtype.size_in_bytes()) as Address)
}

/// [`address`] of a tensor on a CUDA device.
///
/// # Errors
/// Also when the tensor is elsewhere.
pub fn tensor_address(tensor: &Tensor) -> Result<Address> {
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cuda(cuda) => address(cuda, layout),
        _ => bail!("a kernel needs a tensor on a CUDA device"),
    }
}

/// Memory for the result of a kernel, which must write all of it before anything reads it on the device's only stream.
pub fn uninitialized(device: &CudaDevice, dtype: DType, count: usize) -> Result<CudaStorage> {
    // The driver makes no empty allocations.
    let shape = Shape::from(count.max(1));
    // SAFETY: any bits are a number of each of these types; what they are is the caller's to write.
    unsafe { device.alloc_uninit(&shape, dtype) }
}

/// The name of a 16-bit float type in kernel names.
///
/// # Errors
/// When there are no kernels for the type.
pub fn float_name(dtype: DType) -> Result<&'static str> {
    match dtype {
        DType::F16 => Ok("f16"),
        DType::BF16 => Ok("bf16"),
        other => bail!("the CUDA kernels compute with f16 and bf16, not {other:?}: choose one with --dtype"),
    }
}

/// A launch: which kernel, on how many threads.
#[derive(Debug, Clone)]
pub struct Launch<'a> {
    /// The file under `kernels/` that the kernel is in, without `.cu`.
    pub image: &'static str,
    /// Name of the kernel.
    pub kernel: &'a str,
    /// Blocks.
    pub grid: [usize; 3],
    /// Threads a block.
    pub threads: u32,
    /// Dynamic shared memory a block.
    pub shared_bytes: usize,
}

impl Launch<'_> {
    /// Enqueues the kernel on the device's stream with `params` as its only parameter.
    ///
    /// # Safety
    /// `P` must mirror the kernel's parameter, and the kernel, so launched, must stay within the buffers whose addresses it
    /// gets.
    ///
    /// # Errors
    /// When the kernel does not exist or the driver refuses the launch.
    pub unsafe fn enqueue<P: DeviceRepr>(&self, device: &CudaDevice, params: &P) -> Result<()> {
        let [x, y, z] = self.grid;
        if x == 0 || y == 0 || z == 0 {
            return Ok(());
        }
        if x > i32::MAX as usize || y > 65535 || z > 65535 {
            bail!("{}: a grid of {x} x {y} x {z} blocks is too large", self.kernel);
        }
        let stream = device.cuda_stream();
        let function = function(stream.context(), self.image, self.kernel, self.shared_bytes)?;
        let config = LaunchConfig {
            grid_dim: (x as u32, y as u32, z as u32),
            block_dim: (self.threads, 1, 1),
            shared_mem_bytes: self.shared_bytes as u32,
        };
        let mut builder = stream.launch_builder(&function);
        builder.arg(params);
        // SAFETY: the caller vouches for the parameter and for what the kernel does with it.
        unsafe { builder.launch(config) }.w()?;
        Ok(())
    }
}

/// Which of the two forms of each image runs (build.rs): kernels of one name are sized for other devices in each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// Machine code for compute capability 9.0.
    Hopper,
    /// What the driver makes of the PTX for 8.0, on any other device since.
    Portable,
}

impl Code {
    /// Shared memory of a multiprocessor that kernels are sized for: `kSharedOfMultiprocessor` of kernels/include/kvprof/shared.cuh.
    pub const fn shared_bytes(self) -> usize {
        match self {
            Code::Hopper => 227 * 1024,
            Code::Portable => 99 * 1024,
        }
    }

    /// What the driver has loaded: that of one small kernel, since all are compiled alike.
    pub(super) fn of(context: &Arc<CudaContext>) -> Result<Self> {
        let kernel = function(context, "causal_softmax", "softmax_causal_f16_x1", 0)?;
        let made_from = kernel.get_attribute(Attribute::CU_FUNC_ATTRIBUTE_PTX_VERSION).w()?;
        Ok(if made_from >= 90 { Code::Hopper } else { Code::Portable })
    }
}

/// Machine code, by context (they are never destroyed) and name.
#[derive(Default)]
struct Loaded {
    modules: HashMap<(usize, &'static str), Arc<CudaModule>>,
    functions: HashMap<(usize, String), (CudaFunction, usize)>,
}

fn function(
    context: &Arc<CudaContext>,
    image: &'static str,
    kernel: &str,
    shared_bytes: usize,
) -> Result<CudaFunction> {
    static LOADED: OnceLock<Mutex<Loaded>> = OnceLock::new();
    let mut loaded = LOADED.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    let owner = Arc::as_ptr(context) as usize;
    let key = (owner, kernel.to_string());
    if let Some((function, allowed)) = loaded.functions.get(&key)
        && shared_bytes <= *allowed
    {
        return Ok(function.clone());
    }
    let module = match loaded.modules.get(&(owner, image)) {
        Some(module) => module.clone(),
        None => {
            let module = context.load_module(Ptx::from_binary(self::image(image)?.to_vec())).w()?;
            loaded.modules.insert((owner, image), module.clone());
            module
        }
    };
    let function = module.load_function(kernel).w()?;
    // Without this a block gets at most 48 KiB of dynamic shared memory.
    function.set_attribute(Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, shared_bytes as i32).w()?;
    loaded.functions.insert(key, (function.clone(), shared_bytes));
    Ok(function)
}

/// The compiled form of `kernels/{name}.cu`.
///
/// # Errors
/// When this build has none.
pub fn image(name: &str) -> Result<&'static [u8]> {
    match entry(name) {
        Some((_, bytes)) => Ok(bytes),
        None => bail!("this build has no kernels/{name}.cu"),
    }
}

/// The name of `kernels/{name}.cu` as launches keep it; `None` where there is no such file.
pub fn find_image(name: &str) -> Option<&'static str> {
    entry(name).map(|(known, _)| known)
}

fn entry(name: &str) -> Option<(&'static str, &'static [u8])> {
    IMAGES.iter().copied().find(|(known, _)| *known == name)
}
