//! The device layer: memory is counted, time is measured, the copy rate is a GPU's.

use candle_core::{DType, Tensor};
use kvprof::device::{self, Mark};

#[test]
fn the_pool_counts_a_tensor_while_it_lives_and_its_peak_after() {
    let Some(gpu) = crate::gpu("the_pool_counts_a_tensor_while_it_lives_and_its_peak_after") else { return };
    const BYTES: u64 = 256 << 20;
    device::release_unused_memory(&gpu).unwrap();
    device::reset_memory_peaks(&gpu).unwrap();
    let before = device::memory(&gpu).unwrap().unwrap();
    let tensor = Tensor::zeros(BYTES as usize, DType::U8, &gpu).unwrap();
    let during = device::memory(&gpu).unwrap().unwrap();
    drop(tensor);
    let after = device::memory(&gpu).unwrap().unwrap();
    assert!(during.used_bytes >= before.used_bytes + BYTES, "{before:?} {during:?}");
    assert!(after.used_bytes < during.used_bytes && after.used_peak_bytes >= during.used_bytes, "{after:?}");
    assert!(after.reserved_bytes >= BYTES, "the pool must keep what it had: {after:?}");
    device::release_unused_memory(&gpu).unwrap();
    let released = device::memory(&gpu).unwrap().unwrap();
    assert!(released.reserved_bytes < after.reserved_bytes, "{released:?}");
}

#[test]
fn copies_run_at_the_rate_of_a_gpu() {
    let Some(gpu) = crate::gpu("copies_run_at_the_rate_of_a_gpu") else { return };
    let rate = device::copy_gb_per_s(&gpu).unwrap();
    assert!((100.0..20000.0).contains(&rate), "{rate} GB/s");
}

#[test]
fn marks_measure_the_work_between_them() {
    let Some(gpu) = crate::gpu("marks_measure_the_work_between_them") else { return };
    let x = Tensor::ones((2048, 2048), DType::F32, &gpu).unwrap();
    let time = |products: usize| {
        let start = Mark::set(&gpu).unwrap();
        for _ in 0..products {
            x.matmul(&x).unwrap();
        }
        start.ms_until(&Mark::set(&gpu).unwrap()).unwrap()
    };
    // Other programs on the device may delay some of them.
    let least = |products: usize| (0..5).map(|_| time(products)).fold(f64::INFINITY, f64::min);
    time(2);
    let (few, many) = (least(4), least(40));
    assert!(many > 4.0 * few, "{few} ms for 4 products, {many} ms for 40");
}
