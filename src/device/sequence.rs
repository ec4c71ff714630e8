//! A fixed list of kernel launches, enqueued one by one or replayed as one CUDA graph.
//!
//! Unlike candle's own launches these may carry leave to start before the previous one has ended
//! (kernels/include/kvprof/overlap.cuh), and their arguments are fixed when the list is made: whatever changes between two
//! runs is read from device memory.

use std::ffi::{CString, c_void};
use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaGraph, CudaStream, DeviceRepr, DriverError, result, sys};

use super::ranges::{self, Part};
use crate::{Error, Result};

/// A loaded image of kernels, unloaded with the last of its kernels.
struct Module {
    raw: sys::CUmodule,
    context: Arc<CudaContext>,
}

// SAFETY: a module handle is only an identifier; the driver may be called with it from any thread.
unsafe impl Send for Module {}
// SAFETY: as above, and nothing here changes after loading.
unsafe impl Sync for Module {}

impl Drop for Module {
    fn drop(&mut self) {
        if self.context.bind_to_thread().is_ok() {
            // SAFETY: the handle came from load_data and is not used after this; kernels hold the module alive.
            let _ = unsafe { result::module::unload(self.raw) };
        }
    }
}

/// Kernels of one image.
#[derive(Clone)]
pub struct Kernels(Arc<Module>);

impl Kernels {
    /// Loads the image of `kernels/{name}.cu`.
    ///
    /// # Errors
    /// When this build has none, or the driver rejects it.
    pub fn load(context: &Arc<CudaContext>, name: &str) -> Result<Self> {
        context.bind_to_thread().map_err(driver("binding the CUDA context"))?;
        let image = super::kernels::image(name)?;
        // SAFETY: the image is one of nvcc's and static; the driver copies it.
        let raw = unsafe { result::module::load_data(image.as_ptr().cast::<c_void>()) }
            .map_err(driver(format!("loading the kernels of {name}")))?;
        Ok(Kernels(Arc::new(Module { raw, context: context.clone() })))
    }

    /// The kernel `name`, allowed `shared_bytes` of dynamic shared memory.
    ///
    /// # Errors
    /// When there is none, or the device has less shared memory.
    pub fn get(&self, name: &str, shared_bytes: u32) -> Result<Kernel> {
        use sys::CUfunction_attribute_enum as Attribute;
        let symbol = CString::new(name).map_err(|_| Error::usage(format!("no kernel can be called {name:?}")))?;
        let fail = || driver(format!("kernel {name}"));
        // SAFETY: the module is loaded and held by the kernel below.
        let raw = unsafe { result::module::get_function(self.0.raw, symbol) }.map_err(fail())?;
        let attribute = |which| {
            // SAFETY: `raw` is a function of the loaded module.
            unsafe { result::function::get_function_attribute(raw, which) }.map_err(fail())
        };
        let set = |which, value| {
            // SAFETY: as above.
            unsafe { result::function::set_function_attribute(raw, which, value) }.map_err(fail())
        };
        set(Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, shared_bytes as i32)?;
        // As much of the first-level memory as can be is shared memory, so that blocks of two kernels fit side by side.
        set(Attribute::CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT, 100)?;
        let waits = attribute(Attribute::CU_FUNC_ATTRIBUTE_PTX_VERSION)? >= 90;
        Ok(Kernel { raw, waits, shared_bytes, name: name.into(), module: self.0.clone() })
    }
}

/// One kernel of an image.
#[derive(Clone)]
pub struct Kernel {
    raw: sys::CUfunction,
    /// Whether its code waits for the previous kernel itself: only then may it start early.
    waits: bool,
    shared_bytes: u32,
    name: Arc<str>,
    /// Keeps `raw` valid.
    #[allow(dead_code)]
    module: Arc<Module>,
}

// SAFETY: a function handle is only an identifier, valid as long as the module it holds.
unsafe impl Send for Kernel {}
// SAFETY: as above.
unsafe impl Sync for Kernel {}

impl Kernel {
    /// Its name in the image.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A launch with `params`. With `overlap` it may start before the previous kernel of the stream has ended, if it was compiled
    /// for a device that can (Hopper and newer).
    ///
    /// # Safety
    /// `P` must be this kernel's parameter, its addresses must be valid for what the kernel does with them whenever the
    /// launch runs, and with `overlap` the kernel must wait for the previous one before it touches what a kernel that may still run
    /// writes, or writes itself.
    pub unsafe fn launch<P: DeviceRepr + Copy>(
        &self,
        grid: [u32; 3],
        threads: u32,
        params: P,
        overlap: bool,
    ) -> Launch {
        const { assert!(align_of::<P>() <= align_of::<u64>(), "parameters are kept in words of 8 bytes") };
        let mut words = vec![0u64; size_of::<P>().div_ceil(8)].into_boxed_slice();
        // SAFETY: `words` has room for a P and its alignment, asserted above.
        unsafe { words.as_mut_ptr().cast::<P>().write(params) };
        Launch { kernel: self.clone(), grid, threads, params: words, overlap: overlap && self.waits }
    }
}

/// A kernel with its arguments.
pub struct Launch {
    kernel: Kernel,
    grid: [u32; 3],
    threads: u32,
    params: Box<[u64]>,
    overlap: bool,
}

impl Launch {
    fn enqueue(&self, stream: &CudaStream) -> Result<()> {
        let mut attribute = sys::CUlaunchAttribute {
            id: sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
            pad: [0; 4],
            value: sys::CUlaunchAttributeValue { programmaticStreamSerializationAllowed: 1 },
        };
        let config = sys::CUlaunchConfig {
            gridDimX: self.grid[0],
            gridDimY: self.grid[1],
            gridDimZ: self.grid[2],
            blockDimX: self.threads,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: self.kernel.shared_bytes,
            hStream: stream.cu_stream(),
            attrs: &raw mut attribute,
            numAttrs: u32::from(self.overlap),
        };
        let mut arguments = [self.params.as_ptr().cast_mut().cast::<c_void>()];
        // SAFETY: the kernel is loaded; its only parameter has the layout of `params` and the caller of `Kernel::launch`
        // vouched for the addresses in it; the driver copies parameters and attributes before it returns.
        unsafe {
            sys::cuLaunchKernelEx(&raw const config, self.kernel.raw, arguments.as_mut_ptr(), std::ptr::null_mut())
        }
        .result()
        .map_err(driver(format!("launching {}", self.kernel.name)))
    }
}

/// Launches in order, each with the part of the model it computes.
#[derive(Default)]
pub struct Sequence {
    launches: Vec<(Part, Launch)>,
}

impl Sequence {
    /// Appends a launch.
    pub fn push(&mut self, part: Part, launch: Launch) {
        self.launches.push((part, launch));
    }

    /// Part and kernel of each launch, in order.
    pub fn kernels(&self) -> Vec<(Part, String)> {
        self.launches.iter().map(|(part, launch)| (*part, launch.kernel.name.to_string())).collect()
    }

    /// Puts another launch of the same part in the place of the `index`th, which must exist.
    pub fn replace(&mut self, index: usize, launch: Launch) {
        self.launches[index].1 = launch;
    }

    /// Number of launches.
    pub fn len(&self) -> usize {
        self.launches.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.launches.is_empty()
    }

    /// Enqueues them one by one.
    ///
    /// # Errors
    /// When the driver refuses a launch.
    pub fn enqueue(&self, stream: &CudaStream) -> Result<()> {
        stream.context().bind_to_thread().map_err(driver("binding the CUDA context"))?;
        self.launches.iter().try_for_each(|(part, launch)| {
            let _range = ranges::enter(*part);
            launch.enqueue(stream)
        })
    }

    /// Records them as a graph, without running them.
    ///
    /// # Errors
    /// When the stream cannot be captured (the default stream cannot) or a launch is refused.
    pub fn capture(&self, stream: &Arc<CudaStream>) -> Result<Graph> {
        let fail = || driver("capturing the decode step as a CUDA graph");
        stream.begin_capture(sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED).map_err(fail())?;
        let recorded = self.enqueue(stream);
        let graph = stream.end_capture(sys::CUgraphInstantiate_flags(0)).map_err(fail());
        // A refused launch may end the capture, which then fails too: the launch says why.
        recorded?;
        let graph = graph?.ok_or_else(|| Error::Invalid("the captured decode step is empty".into()))?;
        graph.upload().map_err(fail())?;
        Ok(Graph(graph))
    }
}

/// A captured sequence. It runs on the stream it was captured on; the addresses it was made with must stay valid.
pub struct Graph(CudaGraph);

impl Graph {
    /// Enqueues one run of all launches.
    ///
    /// # Errors
    /// When the driver refuses.
    pub fn replay(&self) -> Result<()> {
        self.0.launch().map_err(driver("replaying the decode step"))
    }
}

/// Says what was being done when the driver answered with an error.
fn driver(doing: impl Into<String>) -> impl FnOnce(DriverError) -> Error {
    let doing = doing.into();
    move |error| Error::from(candle_core::Error::Msg(format!("{doing}: {error}")))
}
