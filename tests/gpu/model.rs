//! The whole model: on the GPU it must say what it says on the CPU.

use candle_core::{D, DType, Device, Tensor};
use kvprof::cache;
use kvprof::model::{LoadOptions, LogitsOf, Subject, attention, hadamard};
use kvprof::quant::QuantSpec;

use crate::inputs::{self, Kind};

const TEXT: &str = "The special magic number for this experiment is 7492. Mary walked to the mill before noon. ";

fn load(device: &str, dtype: &str) -> Subject {
    let (device, dtype) = (device.parse().unwrap(), dtype.parse().unwrap());
    Subject::load(&LoadOptions { device, dtype, ..LoadOptions::new("builtin") }).unwrap()
}

/// Logits `[T, V]` of all `tokens`, fed `chunk` at a time, on the CPU.
fn logits(subject: &Subject, backend: &str, tokens: &[u32], chunk: usize) -> Tensor {
    let shape = subject.config().cache_shape(1, tokens.len(), chunk, subject.dtype, &subject.device);
    let mut cache = cache::new(QuantSpec::none(), shape).unwrap();
    let attention = attention::new(backend).unwrap();
    let parts: Vec<Tensor> = tokens
        .chunks(chunk)
        .map(|part| {
            let part = Tensor::new(part, &subject.device).unwrap().unsqueeze(0).unwrap();
            subject.decoder.forward(&part, cache.as_mut(), attention.as_ref(), LogitsOf::All).unwrap()
        })
        .collect();
    Tensor::cat(&parts, 1).unwrap().squeeze(0).unwrap().to_device(&Device::Cpu).unwrap()
}

#[test]
fn the_built_in_model_computes_on_the_gpu_what_it_computes_on_the_cpu() {
    if crate::gpu("the_built_in_model_computes_on_the_gpu_what_it_computes_on_the_cpu").is_none() {
        return;
    }
    let reference = load("cpu", "f32");
    let tokens = reference.tokenizer().unwrap().encode(&TEXT.repeat(20), true).unwrap();
    let tokens = &tokens[..300];
    let wanted = logits(&reference, "eager", tokens, tokens.len());
    // Three times what the rounding of each dtype does on the CPU: 0.07 and 0.76, and 99 % and 96 % of the
    // likeliest tokens the same.
    for (dtype, tolerance, likeliest) in [("f16", 0.2, 0.97), ("bf16", 2.3, 0.88)] {
        let subject = load("cuda", dtype);
        for backend in attention::NAMES {
            for chunk in [tokens.len(), 64, 1] {
                let got = logits(&subject, backend, tokens, chunk);
                let difference = (&got - &wanted).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
                let difference = difference.to_scalar::<f32>().unwrap();
                assert!(difference < tolerance, "{dtype} {backend} by {chunk}: logits differ by {difference}");
                let same = got.argmax(D::Minus1).unwrap().eq(&wanted.argmax(D::Minus1).unwrap()).unwrap();
                let same = same.to_dtype(DType::F32).unwrap().mean_all().unwrap().to_scalar::<f32>().unwrap();
                assert!(
                    same > likeliest,
                    "{dtype} {backend} by {chunk}: only {same} of the likeliest tokens are the same"
                );
            }
        }
    }
}

#[test]
fn single_precision_on_the_gpu_is_refused_at_once() {
    if crate::gpu("single_precision_on_the_gpu_is_refused_at_once").is_none() {
        return;
    }
    let options =
        LoadOptions { device: "cuda".parse().unwrap(), dtype: "f32".parse().unwrap(), ..LoadOptions::new("builtin") };
    let error = Subject::load(&options).unwrap_err();
    assert!(error.is_usage() && error.to_string().contains("bf16"), "{error}");
}

#[test]
fn the_hadamard_transform_gives_the_bits_of_the_cpu() {
    let Some(gpu) = crate::gpu("the_hadamard_transform_gives_the_bits_of_the_cpu") else { return };
    for dtype in [DType::F16, DType::BF16] {
        for head_dim in [64, 128] {
            let fused = inputs::tensor(Kind::Outlier, [2, 37, 7, head_dim], dtype, 41);
            // As a fused projection leaves queries, keys and values, and as attention leaves its output.
            for view in [fused.transpose(1, 2).unwrap().narrow(1, 2, 4).unwrap(), fused.clone()] {
                let wanted = hadamard::rows(&view).unwrap();
                let got = hadamard::rows(&view.to_device(&gpu).unwrap()).unwrap().to_device(&Device::Cpu).unwrap();
                let bits =
                    |x: &Tensor| x.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
                assert_eq!(bits(&got), bits(&wanted), "D {head_dim} {dtype:?} {:?}", view.layout());
            }
        }
    }
}
