//! What CUPTI recorded, as events: each kernel with the part of the model that launched it.

use std::collections::HashMap;

use super::{Event, Trace};
use crate::device::cupti::Recording;
use crate::device::cupti::records::Activity;
use crate::device::ranges::Part;

/// Makes events of a recording. `replay` is what a graph that was replayed was captured from: part and name of each of its
/// kernels, in order. Kernels of one graph launch run in the order in which they were captured, so the first is the
/// first of `replay`; names are compared, and a launch that does not agree keeps its kernels without a part.
///
/// # Errors
/// When CUPTI could not stamp kernels with times.
pub(super) fn trace(recording: Recording, replay: &[(Part, String)]) -> Result<Trace, String> {
    let parts: HashMap<u32, Part> = recording.launches.into_iter().collect();
    let mut trace = Trace { source: "cupti", ..Default::default() };
    let mut graphs: HashMap<u32, Vec<(u64, Event)>> = HashMap::new();
    let mut unstamped = 0;
    for activity in recording.activities {
        match activity {
            Activity::Kernel { start: 0, .. } => unstamped += 1,
            Activity::Kernel { name, start, end, correlation, graph, graph_node } => {
                let part = parts.get(&correlation).copied();
                let event = Event { name, part, copy: false, start_ns: start, end_ns: end, count: 1 };
                if graph == 0 {
                    trace.events.push(event);
                } else {
                    graphs.entry(correlation).or_default().push((graph_node, event));
                }
            }
            Activity::Memory { copy, start, end, correlation, .. } => {
                let name = if copy { "memcpy" } else { "memset" }.to_string();
                let part = parts.get(&correlation).copied();
                trace.events.push(Event { name, part, copy: true, start_ns: start, end_ns: end, count: 1 });
            }
            Activity::Other(_) => {}
        }
    }
    let mut strange = 0;
    for mut launch in graphs.into_values() {
        launch.sort_by_key(|(node, event)| (event.start_ns, *node));
        let agrees = launch.len() == replay.len()
            && launch.iter().zip(replay).all(|((_, event), (_, name))| event.name == *name);
        strange += usize::from(!agrees);
        for (index, (_, mut event)) in launch.into_iter().enumerate() {
            event.part = if agrees { Some(replay[index].0) } else { None };
            trace.events.push(event);
        }
    }
    if unstamped > 0 {
        trace.notes.push(format!("{unstamped} kernels have no times: CUPTI ran out of room for them"));
    }
    if recording.dropped > 0 {
        trace.notes.push(format!("CUPTI dropped {} records", recording.dropped));
    }
    if strange > 0 {
        trace.notes.push(format!("{strange} graph launches do not show the kernels that were captured"));
    }
    if trace.events.is_empty() {
        return Err(format!("CUPTI recorded no kernel with times ({unstamped} without)"));
    }
    Ok(trace)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel(name: &str, start: u64, correlation: u32, graph: u32) -> Activity {
        Activity::Kernel { name: name.into(), start, end: start + 5, correlation, graph, graph_node: start }
    }

    fn replay() -> Vec<(Part, String)> {
        vec![
            (Part::Attention, "qkv".into()),
            (Part::Attention, "linear_add".into()),
            (Part::Ffn, "gate_up".into()),
            (Part::Ffn, "linear_add".into()),
        ]
    }

    fn parts(trace: &Trace) -> Vec<Option<Part>> {
        let mut events = trace.events.clone();
        events.sort_by_key(|e| e.start_ns);
        events.iter().map(|e| e.part).collect()
    }

    #[test]
    fn a_launched_kernel_belongs_to_the_range_its_call_was_made_in() {
        let activities = vec![kernel("gemm", 20, 2, 0), kernel("gemm", 10, 1, 0), kernel("gemm", 30, 3, 0)];
        let launches = vec![(1, Part::Attention), (2, Part::Ffn)];
        let trace = trace(Recording { activities, launches, dropped: 0 }, &replay()).unwrap();
        assert_eq!(parts(&trace), [Some(Part::Attention), Some(Part::Ffn), None]);
    }

    #[test]
    fn kernels_of_a_replayed_graph_belong_to_what_was_captured_at_their_place() {
        let names = ["qkv", "linear_add", "gate_up", "linear_add"];
        let launch = |correlation: u32| {
            let at = u64::from(correlation) * 100;
            names.iter().enumerate().map(move |(i, n)| kernel(n, at + i as u64, correlation, 7)).rev()
        };
        let activities = launch(1).chain(launch(2)).collect();
        let trace = trace(Recording { activities, dropped: 0, ..Default::default() }, &replay()).unwrap();
        let step = [Part::Attention, Part::Attention, Part::Ffn, Part::Ffn].map(Some);
        assert_eq!(parts(&trace), [step, step].concat());
        assert!(trace.notes.is_empty());
    }

    #[test]
    fn kernels_of_a_replayed_graph_are_placed_by_time_whatever_its_nodes_are_numbered() {
        let names = ["qkv", "linear_add", "gate_up", "linear_add"];
        let numbered = |(name, start): (&&str, u64)| Activity::Kernel {
            name: name.to_string(),
            start,
            end: start + 5,
            correlation: 1,
            graph: 7,
            graph_node: 100 - start,
        };
        let activities = names.iter().zip(1..).map(numbered).collect();
        let trace = trace(Recording { activities, ..Default::default() }, &replay()).unwrap();
        assert_eq!(parts(&trace), [Part::Attention, Part::Attention, Part::Ffn, Part::Ffn].map(Some));
    }

    #[test]
    fn a_graph_that_shows_other_kernels_is_not_guessed_at() {
        let activities = vec![kernel("qkv", 1, 1, 7), kernel("gate_up", 2, 1, 7)];
        let trace = trace(Recording { activities, dropped: 3, ..Default::default() }, &replay()).unwrap();
        assert_eq!(parts(&trace), [None, None]);
        assert_eq!(trace.notes.len(), 2, "{:?}", trace.notes);
        // As many, but not the same.
        let names = ["qkv", "gate_up", "linear_add", "linear_add"];
        let activities = names.iter().zip(1..).map(|(name, at)| kernel(name, at, 1, 7)).collect();
        let trace = super::trace(Recording { activities, ..Default::default() }, &replay()).unwrap();
        assert_eq!((parts(&trace), trace.notes.len()), (vec![None; 4], 1));
    }

    #[test]
    fn kernels_without_times_are_told_of_and_not_counted() {
        let unstamped = vec![kernel("qkv", 0, 1, 0)];
        assert!(
            trace(Recording { activities: unstamped, ..Default::default() }, &replay())
                .unwrap_err()
                .contains("1 without")
        );
        let both = vec![kernel("qkv", 0, 1, 0), kernel("qkv", 9, 2, 0)];
        let trace = trace(Recording { activities: both, ..Default::default() }, &replay()).unwrap();
        assert_eq!((trace.events.len(), trace.notes.len()), (1, 1));
    }
}
