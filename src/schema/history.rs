//! Which machine measured a block of a file, and when: `patched` and `resumed` note what came after the file was begun. Both are
//! fields of the file that have no type of their own.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{AnsweredOn, Environment, Hardware, Measurement, RunResult};

/// A machine, as far as its file tells.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Machine {
    /// Name of the card.
    pub gpu_name: Option<String>,
    /// Name of the processor.
    pub cpu: Option<String>,
    /// Device that was used: `cpu`, `cuda:0`.
    pub device: Option<String>,
    /// Memory of the card, MiB.
    pub vram_total_mb: Option<f64>,
}

impl Machine {
    /// Of a run.
    pub fn new(environment: &Environment, hardware: &Hardware) -> Self {
        Machine {
            gpu_name: hardware.gpu_name.clone(),
            cpu: environment.cpu.clone(),
            device: hardware.device.clone(),
            vram_total_mb: hardware.vram_total_mb,
        }
    }

    fn of_note(note: &Value) -> Self {
        let text = |value: &Value| value.as_str().map(str::to_string);
        let hardware = &note["hardware"];
        Machine {
            gpu_name: text(&hardware["gpu_name"]),
            cpu: text(&note["environment"]["cpu"]),
            device: text(&hardware["device"]),
            vram_total_mb: hardware["vram_total_mb"].as_f64(),
        }
    }

    /// Its card, else its processor.
    pub fn name(&self) -> Option<&str> {
        self.gpu_name.as_deref().or(self.cpu.as_deref()).or(self.device.as_deref())
    }
}

impl RunResult {
    fn notes(&self, field: &str) -> impl Iterator<Item = &Value> {
        self.extra.get(field).and_then(Value::as_array).into_iter().flatten()
    }

    /// Notes of the patches that measured `block`. A patch that failed left the block as it was, and not complete; one of the profile may
    /// have been of other rows.
    fn patches(&self, block: &str) -> Vec<&Value> {
        let complete = self.completed.iter().any(|name| name == block);
        let (patch, place) = block.split_once('@').unwrap_or((block, ""));
        let of_row = |note: &Value| match place.split_once('x') {
            Some((context, batch)) => {
                [("context-lengths", context), ("batch-sizes", batch)].iter().all(|(list, size)| {
                    // A note that names no sizes is of all rows.
                    let named = note["settings"][list].as_array().filter(|sizes| !sizes.is_empty());
                    named.is_none_or(|sizes| sizes.iter().any(|named| named.as_u64() == size.parse().ok()))
                })
            }
            None => true,
        };
        let of_block = |note: &&Value| {
            note["blocks"].as_array().is_some_and(|blocks| blocks.iter().any(|b| b == patch)) && of_row(note)
        };
        self.notes("patched").filter(|note| complete && of_block(note)).collect()
    }

    /// When the block that `completed` calls `block` was measured: when the file was last patched with it, else when it was begun.
    pub fn measured_at(&self, block: &str) -> &str {
        self.patches(block).into_iter().filter_map(|note| note["time"].as_str()).max().unwrap_or(&self.timestamp)
    }

    /// The machine that measured the block that `completed` calls `block`: that of the last patch of it, or of the last resumption that
    /// found it lacking, else that of the file.
    pub fn machine(&self, block: &str) -> Machine {
        let lacking =
            |note: &&Value| note["after"].as_array().is_some_and(|complete| !complete.iter().any(|name| name == block));
        let notes = self.patches(block).into_iter().chain(self.notes("resumed").filter(lacking));
        let last = notes.filter(|note| note["hardware"].is_object()).max_by_key(|note| note["time"].as_str());
        last.map_or_else(|| Machine::new(&self.environment, &self.hardware), Machine::of_note)
    }

    /// Which machines answered the questions of `block`; nothing for what is no question set, or does not say.
    fn answered_on(&self, block: &str) -> &[AnsweredOn] {
        let score = self.benchmarks.question_sets().find(|(name, _)| *name == block);
        score.map_or(&[], |(_, score)| &score.answered_on)
    }

    /// Where its blocks were measured, in words, if not all on one machine.
    pub fn machines(&self) -> Option<String> {
        let rows = self.measurements.iter().filter(|m| !m.is_skipped()).map(Measurement::block);
        let mut blocks = self.completed.clone();
        blocks.extend(rows.filter(|row| !self.completed.contains(row)));
        // One that was stopped is not complete, and says the more who answered what.
        let several = self.benchmarks.question_sets().filter(|(_, score)| score.answered_on.len() > 1);
        blocks.extend(several.map(|(set, _)| set.to_string()).filter(|set| !self.completed.contains(set)));
        let mut by_machine: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut say = |machine: Option<&str>, what: String| {
            by_machine.entry(machine.unwrap_or("an unknown machine").to_string()).or_default().push(what);
        };
        for block in blocks {
            match self.answered_on(&block) {
                several @ [_, _, ..] => {
                    let all: usize = several.iter().map(|part| part.questions).sum();
                    for AnsweredOn { machine, questions } in several {
                        say(machine.as_deref(), format!("{block} ({questions} of {all} questions)"));
                    }
                }
                _ => say(self.machine(&block).name(), block),
            }
        }
        let told: Vec<String> =
            by_machine.iter().map(|(name, blocks)| format!("{} on {name}", blocks.join(", "))).collect();
        (told.len() > 1).then(|| format!("measured on several machines: {}", told.join("; ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::bare_result;
    use serde_json::json;

    fn result(notes: Value) -> RunResult {
        let mut result = bare_result();
        result.timestamp = "2026-11-01T12:00:00".into();
        result.environment.cpu = Some("A".into());
        result.hardware.device = Some("cpu".into());
        let row = |context_len| Measurement { context_len, ..Default::default() };
        result.measurements = vec![row(256), row(512)];
        result.completed = ["profile@256x1", "profile@512x1", "ppl"].map(String::from).to_vec();
        let mut file = serde_json::to_value(result).unwrap();
        for (field, notes) in notes.as_object().unwrap() {
            file[field] = notes.clone();
        }
        serde_json::from_value(file).unwrap()
    }

    fn note(time: &str, gpu: &str, what: Value) -> Value {
        let mut note =
            json!({"time": time, "environment": {"cpu": "B"}, "hardware": {"gpu_name": gpu, "vram_total_mb": 8.0}});
        note.as_object_mut().unwrap().extend(what.as_object().unwrap().clone());
        note
    }

    #[test]
    fn a_block_is_of_the_machine_that_measured_it_last() {
        let resumed = note("2026-11-02T12:00:00", "G", json!({"after": ["profile@256x1"]}));
        let patched = note("2026-11-03T12:00:00", "H", json!({"blocks": ["ppl"]}));
        let result = result(json!({"resumed": [resumed], "patched": [patched]}));
        let names =
            ["profile@256x1", "profile@512x1", "ppl"].map(|block| result.machine(block).name().unwrap().to_string());
        assert_eq!(names, ["A", "G", "H"]);
        assert_eq!(result.machine("profile@512x1").vram_total_mb, Some(8.0));
        let told = "measured on several machines: profile@256x1 on A; profile@512x1 on G; ppl on H";
        assert_eq!(result.machines().unwrap(), told);
        assert_eq!(
            (result.measured_at("ppl"), result.measured_at("kld")),
            ("2026-11-03T12:00:00", "2026-11-01T12:00:00")
        );
    }

    #[test]
    fn of_several_patches_the_latest_counts_in_whatever_order_they_are_noted() {
        let patched = |time, gpu| note(time, gpu, json!({"blocks": ["ppl"]}));
        let (early, late) = (patched("2026-11-03T12:00:00", "G"), patched("2026-11-04T12:00:00", "H"));
        for notes in [json!([early, late]), json!([late, early])] {
            let result = result(json!({"patched": notes}));
            assert_eq!((result.measured_at("ppl"), result.machine("ppl").name()), ("2026-11-04T12:00:00", Some("H")));
        }
    }

    #[test]
    fn a_question_set_that_two_machines_answered_says_how_much_each_did() {
        let mut result = result(json!({"measurements": []}));
        let part = |machine: &str, questions| AnsweredOn { machine: Some(machine.into()), questions };
        let math = |parts: Vec<AnsweredOn>| Some(crate::schema::Accuracy { answered_on: parts, ..Default::default() });
        result.completed = vec!["math".into()];
        result.benchmarks.math = math(vec![part("A", 5)]);
        assert_eq!(result.machines(), None);
        result.benchmarks.math = math(vec![part("A", 2), part("G", 3)]);
        let told = "measured on several machines: math (2 of 5 questions) on A; math (3 of 5 questions) on G";
        assert_eq!(result.machines().unwrap(), told);
        result.completed.clear();
        assert_eq!(result.machines().unwrap(), told, "whether or not it was finished");
    }

    #[test]
    fn a_file_of_one_machine_names_none() {
        assert_eq!(result(json!({})).machines(), None);
        // A resumption that changed anything else, the command line say, is noted too.
        let again = json!({"time": "2026-11-02T12:00:00", "after": ["ppl"], "environment": {"cpu": "A"}, "hardware": {"device": "cpu"}});
        assert_eq!(result(json!({"resumed": [again]})).machines(), None);
    }
}
