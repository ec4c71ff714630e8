//! A file that was resumed on another machine tells its rows by the machine that measured them.

use serde_json::{Value, json};

use crate::results::{self, Cache};
use crate::{kvprof, stderr};

#[test]
fn rows_are_of_the_machine_that_measured_them() {
    let folder = tempfile::tempdir().unwrap();
    let mut result = results::run("m", &Cache::new("int4-hqq", 4, 0.004));
    result.completed = results::CONTEXTS.map(|context| format!("profile@{context}x1")).to_vec();
    let note = json!({"time": "2026-11-02T12:00:00", "after": result.completed[..2], "environment": {},
        "hardware": {"gpu_name": "NVIDIA A100", "device": "cuda:0", "vram_total_mb": 100.0}});
    result.extra.insert("resumed".into(), json!([note]));
    let file = results::write(folder.path(), &result);
    let output = kvprof().arg("aggregate").arg(&file).args(["--format", "json"]).output().unwrap();
    let rows: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let cell =
        |context: usize, column: &str| rows.iter().find(|row| row["context_len"] == context).unwrap()[column].clone();
    assert_eq!([1024, 2048, 4096].map(|c| cell(c, "device")), ["NVIDIA H200", "NVIDIA H200", "NVIDIA A100"]);
    // By the memory of its own card, which held less than was reserved.
    assert_eq!([2048, 4096].map(|c| cell(c, "memory_spilled")), [false, true]);
    let out = folder.path().join("out");
    assert!(kvprof().arg("report").arg(&file).arg("-o").arg(&out).output().unwrap().status.success());
    let page = std::fs::read_to_string(out.join("report.html")).unwrap();
    for words in ["m · NVIDIA A100", "<td>NVIDIA A100, NVIDIA H200</td>", "measured on several machines: "] {
        assert!(page.contains(words), "{words}");
    }
    let output = kvprof().arg("validate").arg(&file).output().unwrap();
    let said = stderr(&output);
    assert!(
        output.status.success() && said.contains("note: ") && said.contains("profile@4096x1 on NVIDIA A100; "),
        "{said}"
    );
}
