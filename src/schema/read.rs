//! Reading result files: this version's, and the thesis tool's "2.0".
//!
//! A folder of results holds other things too: half-copied files, sweep summaries, other tools' JSON. Each gets an error
//! that names the file, says what it is, and says what to do. No input makes the reader panic.

use std::path::Path;

use serde_json::Value;

use super::{RunResult, SCHEMA_VERSION};
use crate::base::error::{Error, Result};

/// The oldest major version that can be read.
const OLDEST_MAJOR: u64 = 2;

/// Reads the result file at `path`.
///
/// # Errors
/// Everything that [`parse`] refuses, and what the system says about the file.
pub fn read(path: &Path) -> Result<RunResult> {
    let metadata = std::fs::metadata(path).map_err(|e| Error::io(path, e))?;
    // A pipe or a device would block or never end.
    if !metadata.is_file() {
        return Err(Error::file(path, "not a regular file; give a result file or a folder of them"));
    }
    parse(path, &std::fs::read(path).map_err(|e| Error::io(path, e))?)
}

/// Parses `bytes` as the content of the result file at `path` (used in messages only).
///
/// # Errors
/// An empty, damaged or foreign file, a version that this binary does not know, and a field of the wrong type.
pub fn parse(path: &Path, bytes: &[u8]) -> Result<RunResult> {
    let refuse = |message: String| Err(Error::file(path, message));
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return refuse("the file is empty; run the measurement again (or delete the file)".into());
    }
    let value: Value = match serde_json::from_slice(bytes) {
        Ok(value) => value,
        Err(e) if e.is_eof() => {
            return refuse(format!(
                "the JSON ends in the middle (line {}): the file was copied or written incompletely; copy it again or run \
                 `kvprof run` again",
                e.line()
            ));
        }
        Err(e) => return refuse(format!("not JSON ({e}); restore the file or delete it")),
    };
    if let Some(what) = foreign(&value) {
        return refuse(what);
    }
    check_version(path, &value)?;
    let result: RunResult = match serde_json::from_value(value) {
        Ok(result) => result,
        Err(e) => {
            return refuse(format!("a result file with a damaged field: {e}; restore it or run the measurement again"));
        }
    };
    Ok(result)
}

/// Says what `value` is when it is not a result file.
fn foreign(value: &Value) -> Option<String> {
    let Some(object) = value.as_object() else {
        return Some("JSON, but not a kvprof result (a result is an object); leave it out".into());
    };
    if object.contains_key("schema_version") {
        return None;
    }
    if object.get("combinations").is_some_and(Value::is_array) {
        return Some(
            "a sweep summary of the thesis tool, not a result: the results are the files it lists under `json_file`; leave it out".into(),
        );
    }
    Some("JSON, but not a kvprof result (no `schema_version`); leave it out".into())
}

fn check_version(path: &Path, value: &Value) -> Result<()> {
    let Some(version) = value.get("schema_version").and_then(Value::as_str) else {
        return Err(Error::file(
            path,
            "`schema_version` is not a string: not a kvprof result, or a damaged one; leave it out",
        ));
    };
    let major = version.split('.').next().and_then(|m| m.parse::<u64>().ok());
    let newest = SCHEMA_VERSION.split('.').next().and_then(|m| m.parse::<u64>().ok()).unwrap_or(u64::MAX);
    match major {
        Some(major) if major > newest => Err(Error::file(
            path,
            format!(
                "schema version {version:?} is newer than this kvprof's ({SCHEMA_VERSION}); update kvprof to read it"
            ),
        )),
        Some(major) if major >= OLDEST_MAJOR => Ok(()),
        _ => Err(Error::file(
            path,
            format!(
                "schema version {version:?} is not one that kvprof reads (2.x and 3.x); measure again with `kvprof run`"
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SMALL: &str = r#"{"schema_version":"3.0","experiment_id":"m_fused_fp16_20260101_000000","timestamp":"2026-01-01T00:00:00",
        "model":"org/m","model_config":{"num_params_b":0.1,"num_layers":1,"num_q_heads":1,"num_kv_heads":1,"gqa_ratio":"1:1",
        "head_dim":8,"max_position_embeddings":64},"attn_backend":"fused","kv_quant":{"enabled":false,"nbits":null,
        "backend":null,"axis_key":null,"axis_value":null,"asymmetric":false},"environment":{},"hardware":{},"config":{"seed":1,
        "warmup_runs":0,"measure_runs":1,"decode_tokens":4,"ppl_dataset":"builtin","ppl_tokens":16},
        "measurements":[{"context_len":16,"prefill_ms":1.5,"mystery":7}],"benchmarks":{"perplexity":{"dataset":"builtin",
        "tokens":16,"value":9.5}},"combo_elapsed_s":1.0,"later_field":{"a":1}}"#;

    fn message(bytes: &[u8]) -> String {
        parse(Path::new("folder/a.json"), bytes).unwrap_err().to_string()
    }

    #[test]
    fn unknown_fields_survive_reading_and_writing() {
        let result = parse(Path::new("a.json"), SMALL.as_bytes()).unwrap();
        assert_eq!(result.measurements[0].prefill_ms, Some(1.5));
        let again: Value = serde_json::to_value(&result).unwrap();
        assert_eq!(again["later_field"]["a"], 1);
        assert_eq!(again["measurements"][0]["mystery"], 7);
    }

    #[test]
    fn every_refusal_names_the_file_the_fault_and_the_remedy() {
        let newer = SMALL.replace("\"3.0\"", "\"4.1\"");
        let older = SMALL.replace("\"3.0\"", "\"1.3\"");
        let wrong = SMALL.replace("\"context_len\":16", "\"context_len\":-16");
        let missing = SMALL.replace("\"attn_backend\":\"fused\",", "");
        for (bytes, fault, remedy) in [
            (&b""[..], "empty", "run"),
            (b" \n", "empty", "run"),
            (&SMALL.as_bytes()[..300], "ends in the middle", "copy it again"),
            (b"model,kv_quant\n", "not JSON", "delete"),
            (b"\xff\xfe\x00{", "not JSON", "delete"),
            (b"[1, 2]", "not a kvprof result", "leave it out"),
            (b"{\"name\": \"package\"}", "not a kvprof result", "leave it out"),
            (b"{\"schema_version\": 3}", "not a string", "leave it out"),
            (b"{\"model\": \"m\", \"combinations\": []}", "sweep summary", "leave it out"),
            (newer.as_bytes(), "newer", "update kvprof"),
            (older.as_bytes(), "1.3", "measure again"),
            (wrong.as_bytes(), "-16", "restore"),
            (missing.as_bytes(), "attn_backend", "restore"),
        ] {
            let message = message(bytes);
            assert!(message.starts_with("folder/a.json: "), "{message}");
            assert!(message.contains(fault) && message.contains(remedy), "{message}");
        }
    }

    #[test]
    fn a_folder_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let message = read(folder.path()).unwrap_err().to_string();
        assert!(message.contains("not a regular file"), "{message}");
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(Path::new("a.json"), &bytes);
        }

        #[test]
        fn no_damage_to_a_good_file_makes_the_reader_panic(at in 0usize..1000, byte in any::<u8>(), cut in 0usize..1200) {
            let mut bytes = SMALL.as_bytes().to_vec();
            let length = bytes.len();
            bytes[at % length] = byte;
            bytes.truncate(cut.min(length));
            let _ = parse(Path::new("a.json"), &bytes);
        }
    }
}
