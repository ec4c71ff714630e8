//! What a phase's events add up to.

use std::collections::{BTreeMap, HashMap};

use super::categories::{Category, classify};
use super::{Event, Span};
use crate::schema::{CategoryTime, PhaseKernels};

const MS: f64 = 1e-6;

/// Adds up the events that begin in `span`, all kernels named. `events` are in order of their start.
///
/// Kernels may overlap: one that was allowed to start early waits for the one before it. Time in which several are there is the
/// earlier one's, so categories add up to the time in which the device was busy, and no moment counts twice.
pub(super) fn phase(events: &[Event], span: &Span) -> PhaseKernels {
    let mut categories: BTreeMap<Category, CategoryTime> = BTreeMap::new();
    let mut quantize = CategoryTime::default();
    let mut names: HashMap<&str, (f64, u64)> = HashMap::new();
    let (mut unknown_ms, mut busy_ms) = (0.0, 0.0);
    let mut free_from = span.start_ns;
    for event in events.iter().filter(|e| (span.start_ns..span.end_ns).contains(&e.start_ns)) {
        let start = event.start_ns.max(free_from);
        let ms = event.end_ns.saturating_sub(start) as f64 * MS;
        free_from = free_from.max(event.end_ns);
        let class = classify(event);
        let add = |time: &mut CategoryTime| {
            time.ms += ms;
            time.count += event.count;
        };
        add(categories.entry(class.category).or_default());
        if class.quantizes {
            add(&mut quantize);
        }
        if !class.known {
            unknown_ms += ms;
        }
        busy_ms += ms;
        let name = names.entry(&event.name).or_default();
        *name = (name.0 + ms, name.1 + event.count);
    }
    let share = |ms: f64| if busy_ms > 0.0 { ms / busy_ms } else { 0.0 };
    for time in categories.values_mut().chain([&mut quantize]) {
        time.share = share(time.ms);
    }
    let mut top: Vec<(String, f64, u64)> =
        names.into_iter().map(|(n, (ms, count))| (n.to_string(), ms, count)).collect();
    top.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let wall_ms = span.end_ns.saturating_sub(span.start_ns) as f64 * MS;
    PhaseKernels {
        categories: Category::ALL
            .map(|category| (category.name().to_string(), categories.remove(&category).unwrap_or_default()))
            .into(),
        quantize,
        unclassified_share: share(unknown_ms),
        busy_share: if wall_ms > 0.0 { busy_ms / wall_ms } else { 0.0 },
        wall_ms,
        busy_ms,
        top,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::ranges::Part;
    use crate::measure::phase::Phase;

    fn event(name: &str, part: Option<Part>, start_ms: u64, end_ms: u64) -> Event {
        let (start_ns, end_ns) = (start_ms * 1_000_000, end_ms * 1_000_000);
        Event { name: name.into(), part, copy: false, start_ns, end_ns, count: 1 }
    }

    fn span(start_ms: u64, end_ms: u64) -> Span {
        Span { phase: Phase::Decode, start_ns: start_ms * 1_000_000, end_ns: end_ms * 1_000_000 }
    }

    #[test]
    fn categories_add_up_to_the_time_the_device_was_busy_though_kernels_overlap() {
        let events = [
            event("badd_f16", None, 0, 5),
            event("kvprof_qkv_f16_b1", None, 10, 20),
            event("decode_fp8_f16_d128", None, 12, 26),
            event("kvprof_linear_add_f16_b1", Some(Part::Attention), 20, 24),
            event("kvprof_gate_up_f16_b1", None, 30, 40),
            event("mystery", None, 40, 42),
            event("quantize_fp8_f16_d128", None, 42, 44),
            event("badd_f16", None, 100, 110),
        ];
        let phase = phase(&events, &span(8, 60));
        let ms = |name: &str| phase.categories[name].ms;
        assert_eq!((ms("attention"), ms("ffn"), ms("other"), ms("dequantization")), (16.0, 10.0, 2.0, 2.0));
        assert_eq!((phase.categories["attention"].count, phase.quantize.ms, ms("elementwise")), (3, 2.0, 0.0));
        let sum: f64 = phase.categories.values().map(|c| c.ms).sum();
        assert!((sum - phase.busy_ms).abs() < 1e-9 && (phase.busy_ms - 30.0).abs() < 1e-9, "{phase:?}");
        assert!((phase.busy_share - 30.0 / 52.0).abs() < 1e-9);
        assert!((phase.unclassified_share - 2.0 / 30.0).abs() < 1e-9);
        assert!((phase.categories.values().map(|c| c.share).sum::<f64>() - 1.0).abs() < 1e-9);
        assert_eq!(phase.categories.len(), 8);
        assert_eq!((phase.top[0].0.as_str(), phase.top[0].2), ("kvprof_gate_up_f16_b1", 1));
    }
}
