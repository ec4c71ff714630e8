//! Energy windows and kernel times.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Energy of one phase.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EnergyWindow {
    /// Window length, seconds.
    pub seconds: f64,
    /// Energy in the window, joules.
    pub gross_j: f64,
    /// The same less idle power × time; `null` without an idle baseline.
    pub net_j: Option<f64>,
    /// Mean power, watts.
    pub mean_w: f64,
    /// Tokens processed or generated in the window.
    pub tokens: u64,
    /// `gross_j / tokens`.
    pub j_per_token: f64,
    /// `net_j / tokens`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub net_j_per_token: Option<f64>,
    /// Energy in the window by sampled power, joules, where `gross_j` is a counter's: two instruments, side by side.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampled_j: Option<f64>,
    /// Times the phase was repeated to fill the window.
    #[serde(default)]
    pub repeats: u64,
    /// Shorter than 0.5 s.
    pub short: bool,
}

/// Energy of a measurement.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Energy {
    /// `counter`, `samples` or `rapl`; `null` where nothing could be measured.
    pub source: Option<String>,
    /// Why nothing was measured.
    pub reason: Option<String>,
    /// Idle power before the measurement, the model loaded, watts.
    pub idle_w: Option<f64>,
    /// Idle power before the model was loaded, watts.
    #[serde(default)]
    pub idle_before_load_w: Option<f64>,
    /// Prefill window.
    pub prefill: Option<EnergyWindow>,
    /// Decode window.
    pub decode: Option<EnergyWindow>,
    /// Clocks, temperature and throttle reasons, `before` and `after`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub state: BTreeMap<String, DeviceState>,
}

/// A device at a moment. `null` where it does not tell.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DeviceState {
    /// Clock of the multiprocessors, MHz.
    pub sm_clock_mhz: Option<u32>,
    /// Clock of the memory, MHz.
    pub memory_clock_mhz: Option<u32>,
    /// Temperature of the chip, degrees Celsius.
    pub temperature_c: Option<u32>,
    /// Power limit in force, watts.
    pub power_limit_w: Option<f64>,
    /// What holds the clocks down; empty for nothing.
    pub throttling: Option<Vec<String>>,
}

/// One of the eight categories.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CategoryTime {
    /// Time in kernels of the category, ms.
    pub ms: f64,
    /// Launches.
    pub count: u64,
    /// Share of all kernel time, 0…1.
    pub share: f64,
}

/// Kernel time of one phase.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PhaseKernels {
    /// By category: attention, ffn, dequantization, elementwise, normalization, memory, sampling, other.
    pub categories: BTreeMap<String, CategoryTime>,
    /// Quantize kernels, a part of `dequantization`.
    pub quantize: CategoryTime,
    /// Share of kernel time that no rule classified, 0…1.
    pub unclassified_share: f64,
    /// Kernel time over wall time, 0…1.
    pub busy_share: f64,
    /// Wall time of the phase in the traced pass, ms.
    #[serde(default)]
    pub wall_ms: f64,
    /// Time in which a kernel or a copy ran, ms: what the categories sum to. A moment with several counts once, for the one that
    /// began first.
    #[serde(default)]
    pub busy_ms: f64,
    /// The kernels that took longest: name, ms, launches.
    pub top: Vec<(String, f64, u64)>,
}

/// Kernel time of a traced pass.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct KernelTimes {
    /// `cupti` (kernels of a GPU) or `timers` (ranges of the model's code on a CPU); `none` with a reason.
    pub source: String,
    /// Why nothing was traced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Prefill.
    pub prefill: Option<PhaseKernels>,
    /// Decode.
    pub decode: Option<PhaseKernels>,
    /// Traced over untraced decode time.
    pub traced_slowdown: Option<f64>,
    /// Traced over untraced prefill time.
    #[serde(default)]
    pub traced_prefill_slowdown: Option<f64>,
    /// What a reader should know (records lost, graphs not recognized).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}
