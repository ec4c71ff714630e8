//! `kvprof env`.

use std::process::ExitCode;

use super::output::say;
use crate::device::{self, GpuIdentity, GpuInfo, cupti::Cupti, nvml::NvmlGpu};
use crate::measure::process;
use crate::model::hub::Hub;

/// The least compute capability that the kernels are compiled for.
const LEAST_CAPABILITY: (u32, u32) = (8, 0);

const GIB: f64 = (1u64 << 30) as f64;

/// Arguments of `kvprof env`.
#[derive(clap::Args)]
pub struct Args {}

/// Prints which build this is, what devices there are, and what is missing.
pub fn run(_args: &Args) -> anyhow::Result<ExitCode> {
    say!("kvprof    {} ({})", env!("CARGO_PKG_VERSION"), option_env!("KVPROF_GIT_REVISION").unwrap_or("no revision"));
    say!(
        "build     {}",
        if cfg!(feature = "cuda") { "CUDA and CPU" } else { "CPU only (build with --features cuda for a GPU)" }
    );
    say!("cpu       {}", process::cpu_description().unwrap_or_else(|| "unknown".into()));
    if let Some(bytes) = process::available_bytes() {
        say!("memory    {:.1} GiB available", bytes as f64 / GIB);
    }
    match device::gpu_count() {
        Err(error) => say!("gpu       none: {error}"),
        Ok(0) if cfg!(feature = "cuda") => say!("gpu       none: the driver lists no device"),
        Ok(0) => {}
        Ok(count) => (0..count).try_for_each(print_gpu)?,
    }
    match Hub::from_env(false) {
        Ok(hub) => {
            let state = if hub.is_online() { "online, not tried now" } else { "offline: HF_HUB_OFFLINE is set" };
            say!("hub       {state}, cache in {}", hub.cache_folder().display());
        }
        Err(error) => say!("hub       {error}"),
    }
    Ok(ExitCode::SUCCESS)
}

/// One GPU, and what is missing to measure all there is on it.
fn print_gpu(ordinal: usize) -> anyhow::Result<()> {
    let described = device::open(Some(ordinal)).and_then(|gpu| Ok((GpuInfo::of(&gpu)?, device::memory(&gpu)?)));
    let (info, memory) = match described {
        Ok((Some(info), Some(memory))) => (info, memory),
        Ok(_) => return Ok(()),
        Err(error) => {
            say!("gpu {ordinal}     cannot be opened: {error}");
            return Ok(());
        }
    };
    let (major, minor) = info.compute_capability;
    say!(
        "gpu {ordinal}     {}: compute capability {major}.{minor}, {} multiprocessors, {:.1} GiB of which {:.1} free",
        info.name,
        info.multiprocessors,
        memory.device_total_bytes as f64 / GIB,
        (memory.device_total_bytes - memory.device_used_bytes) as f64 / GIB
    );
    say!("          driver for CUDA {}.{}", info.driver_cuda_version.0, info.driver_cuda_version.1);
    let (least_major, least_minor) = LEAST_CAPABILITY;
    if info.compute_capability < LEAST_CAPABILITY {
        say!("          missing: kernels need compute capability {least_major}.{least_minor} or newer");
    }
    let energy = match GpuIdentity::of(ordinal) {
        Ok(Some(identity)) => NvmlGpu::open(&identity).and_then(|gpu| gpu.power_mw().map(|_| gpu.driver_version())),
        Ok(None) => return Ok(()),
        Err(error) => Err(error.to_string()),
    };
    match energy {
        Ok(Some(version)) => say!("          energy and power by NVML, driver {version}"),
        Ok(None) => say!("          energy and power by NVML"),
        Err(reason) => say!("          missing: no energy or power: {reason}"),
    }
    match Cupti::load() {
        Ok(cupti) => say!("          kernel traces by CUPTI {}", cupti.version()),
        Err(reason) => say!("          missing: no kernel traces: {reason}"),
    }
    Ok(())
}
