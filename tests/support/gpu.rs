//! The GPU that tests run on.

use candle_core::Device;

/// The GPU to test on. `None`, with a line that says so, where there is none and none is required.
pub fn gpu(test: &str) -> Option<Device> {
    match kvprof::device::open(Some(0)) {
        Ok(device) => Some(device),
        Err(error) if std::env::var_os("KVPROF_REQUIRE_GPU").is_some_and(|v| v == "1") => {
            panic!("{test} needs a GPU: {error}")
        }
        Err(error) => {
            println!("skipped {test}, which needs an NVIDIA GPU: {error}");
            None
        }
    }
}
