//! Data sets through the hub's protocol, online and from the cache it leaves: parquet and JSONL files made here. The
//! environment decides where the hub is, so each look-up runs in a process of its own.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use kvprof::bench::data::{MATH500, MMLU_DEV, MMLU_TEST, PG19, WIKITEXT2, rows};
use kvprof::bench::settings::Settings;
use kvprof::bench::text::Text;
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use crate::support::hub::{COMMIT, LoopbackHub, assert_passed, run_child};

enum Column {
    Texts(Vec<&'static str>),
    /// All lists, flat, of `per_row` each.
    Lists(Vec<&'static str>, usize),
    Numbers(Vec<i64>),
}

fn write_parquet(path: &Path, schema: &str, columns: &[Column]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut writer = SerializedFileWriter::new(File::create(path).unwrap(), schema, Default::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let bytes = |texts: &[&'static str]| -> Vec<ByteArray> { texts.iter().map(|t| ByteArray::from(*t)).collect() };
    for column in columns {
        let mut out = group.next_column().unwrap().unwrap();
        match column {
            Column::Texts(texts) => {
                out.typed::<ByteArrayType>().write_batch(&bytes(texts), None, None).unwrap();
            }
            Column::Lists(texts, per_row) => {
                let starts: Vec<i16> = (0..texts.len()).map(|i| i16::from(i % per_row != 0)).collect();
                let present = vec![1i16; texts.len()];
                out.typed::<ByteArrayType>().write_batch(&bytes(texts), Some(&present), Some(&starts)).unwrap();
            }
            Column::Numbers(numbers) => {
                out.typed::<Int64Type>().write_batch(numbers, None, None).unwrap();
            }
        }
        out.close().unwrap();
    }
    group.close().unwrap();
    writer.close().unwrap();
}

const TEXT: &str = "message rows { required binary text (UTF8); }";
const QUESTION: &str = "message rows {
    required binary question (UTF8);
    required binary subject (UTF8);
    required group choices (LIST) { repeated group list { required binary element (UTF8); } }
    required int64 answer;
}";

fn write_repositories(folder: &Path) {
    write_parquet(
        &folder.join("wikitext/wikitext-2-raw-v1/test-00000-of-00001.parquet"),
        TEXT,
        &[Column::Texts(vec!["", " = Title = \n", "", " A line . \n"])],
    );
    write_parquet(
        &folder.join("pg19/data/test-00000-of-00001-29a571947c0b5ccc.parquet"),
        TEXT,
        &[Column::Texts(vec!["First book.", "Second book."])],
    );
    for split in ["dev", "test"] {
        write_parquet(
            &folder.join(format!("mmlu/all/{split}-00000-of-00001.parquet")),
            QUESTION,
            &[
                Column::Texts(vec!["One?", "Two?"]),
                Column::Texts(vec!["anatomy", "virology"]),
                Column::Lists(vec!["a", "b", "c", "d", "e", "f", "g", "h"], 4),
                Column::Numbers(vec![0, 3]),
            ],
        );
    }
    std::fs::create_dir_all(folder.join("math")).unwrap();
    std::fs::write(folder.join("math/test.jsonl"), "{\"problem\": \"1+1?\", \"answer\": \"2\"}\n").unwrap();
}

#[test]
fn data_sets_come_from_the_hub_and_then_from_its_cache_without_a_network() {
    let folder = tempfile::tempdir().unwrap();
    write_repositories(folder.path());
    let hub = LoopbackHub::serving(&[
        ("datasets/Salesforce/wikitext", folder.path().join("wikitext")),
        ("datasets/emozilla/pg19-test", folder.path().join("pg19")),
        ("datasets/cais/mmlu", folder.path().join("mmlu")),
        ("datasets/HuggingFaceH4/MATH-500", folder.path().join("math")),
    ]);
    let home = tempfile::tempdir().unwrap();
    let endpoint = hub.endpoint();
    assert_passed(&run_child("hub_data::child_reads_all", home.path(), &[("HF_ENDPOINT", &endpoint)]));
    drop(hub);
    // Neither a hub that is away nor the word to stay offline matters any more.
    assert_passed(&run_child("hub_data::child_reads_all", home.path(), &[("HF_ENDPOINT", &endpoint)]));
    assert_passed(&run_child("hub_data::child_reads_all", home.path(), &[("HF_HUB_OFFLINE", "1")]));
    let nowhere = tempfile::tempdir().unwrap();
    assert_passed(&run_child("hub_data::child_is_told_what_is_missing", nowhere.path(), &[("HF_HUB_OFFLINE", "1")]));
    assert_passed(&run_child(
        "hub_data::child_is_told_that_the_hub_is_away",
        nowhere.path(),
        &[("HF_ENDPOINT", &endpoint)],
    ));
}

#[test]
#[ignore = "runs in a process that another test starts"]
fn child_reads_all() {
    let text = Text::named("wikitext2", &Settings::default(), 10).unwrap();
    assert_eq!(text.documents(), ["\n\n = Title = \n\n\n\n\n A line . \n"]);
    assert_eq!((text.source.name.as_str(), text.source.revision.as_deref()), ("wikitext2", Some(COMMIT)));
    assert_eq!(text.source.sha256.len(), 64);
    assert_eq!(Text::named("pg19", &Settings::default(), 10).unwrap().documents(), ["First book.", "Second book."]);
    for set in [&MMLU_TEST, &MMLU_DEV] {
        let rows = rows(&set.find(None).unwrap().paths[0]).unwrap();
        assert_eq!(rows[1]["choices"], serde_json::json!(["e", "f", "g", "h"]));
        assert_eq!((rows[1]["answer"].as_u64(), rows[1]["subject"].as_str()), (Some(3), Some("virology")));
    }
    let problems = rows(&MATH500.find(None).unwrap().paths[0]).unwrap();
    assert_eq!(problems[0]["problem"], "1+1?");
}

#[test]
#[ignore = "runs in a process that another test starts"]
fn child_is_told_what_is_missing() {
    for set in [&WIKITEXT2, &PG19, &MMLU_TEST, &MATH500] {
        let error = set.find(None).unwrap_err();
        let text = error.to_string();
        assert!(error.is_usage(), "{text}");
        for part in [set.repo, set.hub[0], "HF_HUB_OFFLINE", "--data"] {
            assert!(text.contains(part), "{part} is not in: {text}");
        }
    }
}

#[test]
#[ignore = "runs in a process that another test starts"]
fn child_is_told_that_the_hub_is_away() {
    let text = WIKITEXT2.find(None).unwrap_err().to_string();
    assert!(text.contains("HF_ENDPOINT") && text.contains("--data"), "{text}");
}
