//! `--dtype` and `--device`: what the words mean.

use std::str::FromStr;

use candle_core::{DType, Device};

use crate::{Error, Result, device};

/// `--dtype`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DtypeChoice {
    /// f32 on the CPU; on a GPU bf16 where the checkpoint was published in it, else f16.
    #[default]
    Auto,
    /// This one.
    Exactly(DType),
}

impl DtypeChoice {
    /// The dtype for a checkpoint stored in `stored` on `device`.
    pub fn resolve(self, stored: Option<DType>, device: &Device) -> DType {
        self.resolve_for(stored, !device.is_cpu())
    }

    /// The dtype for a checkpoint stored in `stored` on a GPU, or on a CPU.
    pub fn resolve_for(self, stored: Option<DType>, gpu: bool) -> DType {
        match self {
            DtypeChoice::Exactly(dtype) => dtype,
            DtypeChoice::Auto if !gpu => DType::F32,
            // A checkpoint kept in f32 is run in f16, as people run it: the kernels have no f32.
            DtypeChoice::Auto => stored.filter(|&d| d == DType::BF16).unwrap_or(DType::F16),
        }
    }
}

impl FromStr for DtypeChoice {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            "auto" => DtypeChoice::Auto,
            "f16" => DtypeChoice::Exactly(DType::F16),
            "bf16" => DtypeChoice::Exactly(DType::BF16),
            "f32" => DtypeChoice::Exactly(DType::F32),
            other => return Err(Error::usage(format!("--dtype {other}: there are auto, f16, bf16 and f32"))),
        })
    }
}

/// `--device`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    /// The first GPU if this build and this machine have one, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// GPU number N.
    Cuda(usize),
}

impl FromStr for DeviceChoice {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let ordinal = text.strip_prefix("cuda:").and_then(|n| n.parse().ok());
        match (text, ordinal) {
            ("auto", _) => Ok(DeviceChoice::Auto),
            ("cpu", _) => Ok(DeviceChoice::Cpu),
            ("cuda", _) => Ok(DeviceChoice::Cuda(0)),
            (_, Some(ordinal)) => Ok(DeviceChoice::Cuda(ordinal)),
            _ => Err(Error::usage(format!("--device {text}: there are auto, cpu, cuda and cuda:N"))),
        }
    }
}

impl DeviceChoice {
    /// Makes the device ready.
    ///
    /// # Errors
    /// [`Error::Usage`] when a GPU was asked for and this build or machine has none.
    pub fn open(self) -> Result<Device> {
        device::open(self.gpu())
    }

    /// The number of the GPU that this chooses; `None` for the CPU.
    pub fn gpu(self) -> Option<usize> {
        match self {
            DeviceChoice::Cpu => None,
            DeviceChoice::Auto => (device::gpu_count().unwrap_or(0) > 0).then_some(0),
            DeviceChoice::Cuda(ordinal) => Some(ordinal),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_the_command_line_parse_and_others_are_answered_with_the_choices() {
        assert_eq!("cuda:3".parse::<DeviceChoice>().unwrap(), DeviceChoice::Cuda(3));
        assert_eq!("cuda".parse::<DeviceChoice>().unwrap(), DeviceChoice::Cuda(0));
        assert_eq!("bf16".parse::<DtypeChoice>().unwrap(), DtypeChoice::Exactly(DType::BF16));
        assert!("cuda:x".parse::<DeviceChoice>().unwrap_err().to_string().contains("cuda:N"));
        assert!("fp16".parse::<DtypeChoice>().unwrap_err().to_string().contains("bf16"));
    }

    #[test]
    fn auto_is_f32_on_the_cpu_whatever_was_published() {
        assert_eq!(DtypeChoice::Auto.resolve(Some(DType::BF16), &Device::Cpu), DType::F32);
        assert_eq!(DtypeChoice::Exactly(DType::F16).resolve(None, &Device::Cpu), DType::F16);
    }
}
