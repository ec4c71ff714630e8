//! `kvprof aggregate`.

use std::fs;

use crate::results::{self, Cache};
use crate::{kvprof, stderr};

#[test]
fn the_thesis_columns_come_first_and_ours_are_not_rounded() {
    let folder = tempfile::tempdir().unwrap();
    results::write_sweep(folder.path(), "org/Small-1B");
    let output = kvprof().arg("aggregate").arg(folder.path()).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let mut reader = csv::Reader::from_reader(&output.stdout[..]);
    let heads = reader.headers().unwrap().clone();
    let thesis = "model,kv_quant,context_len,prefill_ms,prefill_tok_s,decode_tok_s,kv_cache_mb,vram_peak_mb,vram_reserved_mb,\
                  vram_overflow,ppl_ref,ppl_quant,delta_ppl,needle_score";
    assert_eq!(heads.iter().take(14).collect::<Vec<_>>().join(","), thesis);
    let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    assert_eq!(rows.len(), results::sweep().len() * results::CONTEXTS.len());
    let column = |name: &str| heads.iter().position(|h| h == name).unwrap();
    let row = rows.iter().find(|r| &r[1] == "int8-hqq" && &r[2] == "4096").unwrap();
    let full = results::unquantized_bytes(4096) as f64;
    let window = full * 128.0 / 4096.0;
    let codes = (full - window) / 2.0;
    assert_eq!(row[column("kv_cache_bytes")].parse::<f64>().unwrap(), codes + (codes / 8.0).floor() + window);
    assert_eq!(row[column("ln_ppl_ratio")].parse::<f64>().unwrap(), 0.0002);
    assert_eq!(&row[column("batch_size")], "1");
    assert_eq!(&row[column("ppl_ref")], "16.0");
}

#[test]
fn the_later_of_two_equal_experiments_counts() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::new("int4-hqq", 4, 0.004);
    let first = results::run("m", &cache);
    let mut second = first.clone();
    second.timestamp = "2026-11-02T12:00:00".into();
    second.experiment_id = "again".into();
    second.measurements[0].prefill_ms = Some(777.0);
    results::write(folder.path(), &second);
    results::write(folder.path(), &first);
    let output = kvprof().arg("aggregate").arg(folder.path()).output().unwrap();
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert_eq!(text.lines().count(), 1 + results::CONTEXTS.len());
    assert!(text.contains("777.0"));
    assert!(stderr(&output).contains("3 measurements are left out"), "{}", stderr(&output));
}

#[cfg(unix)]
#[test]
fn a_file_is_read_once_however_often_it_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = results::write(folder.path(), &results::run("m", &Cache::new("none", 16, 0.0)));
    std::os::unix::fs::symlink(&file, folder.path().join("latest.json")).unwrap();
    let respelt = folder.path().join(".").join(file.file_name().unwrap());
    let output = kvprof().arg("aggregate").arg(&file).arg(respelt).arg(folder.path()).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(String::from_utf8(output.stdout.clone()).unwrap().lines().count(), 1 + results::CONTEXTS.len());
    assert!(!stderr(&output).contains("left out"), "{}", stderr(&output));
}

#[test]
fn damaged_foreign_and_empty_files_are_named_and_the_rest_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let good = results::write(folder.path(), &results::run("m", &Cache::new("none", 16, 0.0)));
    let bytes = fs::read(&good).unwrap();
    fs::write(folder.path().join("cut.json"), &bytes[..bytes.len() / 2]).unwrap();
    fs::write(folder.path().join("empty.json"), "").unwrap();
    fs::write(folder.path().join("package.json"), "{\"name\": \"x\"}").unwrap();
    fs::write(folder.path().join("noise.json"), [0xff, 0x00, 0x80]).unwrap();
    fs::write(folder.path().join("notes.txt"), "not asked for").unwrap();
    let output = kvprof().arg("aggregate").arg(folder.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let errors = stderr(&output);
    for name in ["cut.json", "empty.json", "package.json", "noise.json"] {
        assert_eq!(errors.lines().filter(|l| l.contains(name)).count(), 1, "{name}: {errors}");
    }
    assert!(!errors.contains("notes.txt"));
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), 1 + results::CONTEXTS.len());
}

#[test]
fn wrong_requests_exit_with_code_2_and_say_why() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let code = |arguments: &[&std::ffi::OsStr]| {
        let output = kvprof().arg("aggregate").args(arguments).output().unwrap();
        (output.status.code(), stderr(&output))
    };
    let (status, message) = code(&[path("absent").as_os_str()]);
    assert!(status == Some(2) && message.contains("absent"), "{message}");
    let (status, message) = code(&[folder.path().as_os_str()]);
    assert!(status == Some(2) && message.contains("no result file"), "{message}");
    results::write(folder.path(), &results::run("m", &Cache::new("none", 16, 0.0)));
    let (status, message) = code(&[folder.path().as_os_str(), "-o".as_ref(), path("x.xyz").as_os_str()]);
    assert!(status == Some(2) && message.contains(".xyz"), "{message}");
    let (status, message) = code(&[folder.path().as_os_str(), "--format".as_ref(), "parquet".as_ref()]);
    assert!(status == Some(2) && message.contains("--output"), "{message}");
}

#[test]
fn parquet_gives_back_what_csv_holds() {
    use parquet::file::reader::{FileReader, SerializedFileReader};

    let folder = tempfile::tempdir().unwrap();
    results::write_sweep(folder.path(), "m");
    let target = folder.path().join("new/folder/rows.parquet");
    let output = kvprof().arg("aggregate").arg(folder.path()).arg("-o").arg(&target).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let reader = SerializedFileReader::new(fs::File::open(&target).unwrap()).unwrap();
    let rows: Vec<_> = reader.get_row_iter(None).unwrap().map(Result::unwrap).collect();
    assert_eq!(rows.len(), results::sweep().len() * results::CONTEXTS.len());
    let csv = kvprof().arg("aggregate").arg(folder.path()).output().unwrap().stdout;
    let mut csv = csv::Reader::from_reader(&csv[..]);
    let heads = csv.headers().unwrap().clone();
    for (record, row) in csv.records().map(Result::unwrap).zip(&rows) {
        for ((name, field), (head, text)) in row.get_column_iter().zip(heads.iter().zip(record.iter())) {
            use parquet::record::Field;
            assert_eq!(name, head);
            match field {
                Field::Null => assert_eq!(text, "", "{head}"),
                Field::Str(value) => assert_eq!(text, value, "{head}"),
                Field::Long(value) => assert_eq!(text.parse::<i64>().unwrap(), *value, "{head}"),
                Field::Double(value) => assert_eq!(text.parse::<f64>().unwrap(), *value, "{head}"),
                Field::Bool(value) => assert_eq!(text, if *value { "True" } else { "False" }, "{head}"),
                other => panic!("{head}: {other:?}"),
            }
        }
    }
}

#[cfg(unix)]
#[test]
fn a_new_file_is_as_readable_as_the_umask_says() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let raw = folder.path().join("raw");
    fs::create_dir(&raw).unwrap();
    results::write(&raw, &results::run("m", &Cache::new("none", 16, 0.0)));
    let program = kvprof().get_program().to_owned();
    for (umask, mode) in [("077", 0o600), ("002", 0o664)] {
        let out = folder.path().join(umask);
        let line = format!("umask {umask}; exec \"$0\" aggregate \"$1\" -o \"$2\"");
        let status = std::process::Command::new("sh")
            .args(["-c", &line])
            .args([&program, raw.as_os_str(), out.as_os_str()])
            .status();
        assert!(status.unwrap().success());
        assert_eq!(fs::metadata(&out).unwrap().permissions().mode() & 0o777, mode, "umask {umask}");
    }
}

#[test]
fn a_file_in_which_nothing_was_measured_is_named_and_is_no_data() {
    let folder = tempfile::tempdir().unwrap();
    let whole = results::run("m", &Cache::new("none", 16, 0.0));
    results::write(folder.path(), &whole);
    let begun = kvprof::schema::RunResult {
        experiment_id: "begun".into(),
        measurements: Vec::new(),
        benchmarks: Default::default(),
        ..results::run("m", &Cache::new("int4-hqq", 4, 0.0))
    };
    results::write(folder.path(), &begun);
    let output = kvprof().arg("aggregate").arg(folder.path()).output().unwrap();
    assert!(
        output.status.success() && stderr(&output).contains("begun.json: nothing in it was measured"),
        "{output:?}"
    );
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), 1 + results::CONTEXTS.len());
}

#[test]
fn a_result_file_is_no_output_however_it_is_spelt() {
    let folder = tempfile::tempdir().unwrap();
    let file = results::write(folder.path(), &results::run("m", &Cache::new("none", 16, 0.0)));
    let newer = folder.path().join("newer.json");
    fs::write(&newer, r#"{"schema_version": "9.0"}"#).unwrap();
    fs::create_dir(folder.path().join("below")).unwrap();
    let other = folder.path().join("below/other.json");
    fs::copy(&file, &other).unwrap();
    let name = |path: &std::path::Path| path.file_name().unwrap().to_str().unwrap().to_string();
    let bytes = || [&file, &newer, &other].map(|path| fs::read(path).unwrap());
    let before = bytes();
    let refused = |paths: &[&str], output: &str, command: &str| {
        let mut line = kvprof();
        line.current_dir(folder.path()).arg(command).args(paths).args(["-f", "csv", "-o", output]);
        let output = line.output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        assert!(stderr(&output).contains("is one of the result files"), "{}", stderr(&output));
        assert!(bytes() == before, "{command} {paths:?}");
    };
    let file_name = name(&file);
    refused(&[&file_name], &format!("./{file_name}"), "aggregate");
    refused(&["."], &format!("below/../{file_name}"), "aggregate");
    refused(&[&file_name, "newer.json"], "./newer.json", "aggregate");
    for output in [format!("./{file_name}"), "below/./other.json".into()] {
        refused(&[&file_name, "--against", "below"], &output, "compare");
    }
    // Anything else that is there is written over, as asked.
    let again =
        || kvprof().current_dir(folder.path()).args(["aggregate", &file_name, "-o", "t.json"]).output().unwrap();
    assert!(again().status.success() && again().status.success());
}

#[test]
fn a_later_row_that_was_skipped_displaces_no_measurement() {
    let folder = tempfile::tempdir().unwrap();
    let measured = results::run("m", &Cache::new("int4-hqq", 4, 0.004));
    let mut skipped = measured.clone();
    skipped.timestamp = "2026-11-02T12:00:00".into();
    skipped.experiment_id = "again".into();
    for row in &mut skipped.measurements[1..] {
        *row = kvprof::schema::Measurement {
            context_len: row.context_len,
            batch_size: row.batch_size,
            skipped: Some(true),
            skip_reason: Some("not tried for lack of memory".into()),
            ..Default::default()
        };
    }
    results::write(folder.path(), &measured);
    results::write(folder.path(), &skipped);
    let output = kvprof().arg("aggregate").arg(folder.path()).output().unwrap();
    let mut reader = csv::Reader::from_reader(&output.stdout[..]);
    let place = reader.headers().unwrap().iter().position(|head| head == "prefill_ms").unwrap();
    let times: Vec<String> = reader.records().map(|row| row.unwrap()[place].to_string()).collect();
    assert!(times.len() == results::CONTEXTS.len() && times.iter().all(|ms| !ms.is_empty()), "{times:?}");
    // What was skipped is no measurement that a later one replaces.
    assert!(stderr(&output).contains("1 measurement is left out"), "{}", stderr(&output));
}

#[test]
fn markdown_is_rounded_for_people_and_csv_is_exact() {
    let folder = tempfile::tempdir().unwrap();
    // A log-ratio of many digits.
    results::write(folder.path(), &results::run("m", &Cache::new("int4-hqq", 4, 0.0123456789)));
    let text = |format: &str| {
        let output = kvprof().arg("aggregate").arg(folder.path()).args(["-f", format]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let (markdown, csv) = (text("md"), text("csv"));
    assert!(csv.contains(",0.0123456789,"), "{csv}");
    assert!(markdown.contains(" 0.01235 ") && !markdown.contains("0.0123456789"), "{markdown}");
}

#[test]
fn a_name_that_tells_no_format_is_refused_and_nothing_written() {
    let folder = tempfile::tempdir().unwrap();
    let file = results::write(folder.path(), &results::run("m", &Cache::new("none", 16, 0.0)));
    let out = folder.path().join("table.xlsx");
    for command in ["aggregate", "compare"] {
        let mut line = kvprof();
        line.arg(command).arg(&file);
        if command == "compare" {
            line.arg("--against").arg(&file);
        }
        let output = line.arg("-o").arg(&out).output().unwrap();
        assert!(output.status.code() == Some(2) && !out.exists(), "{command}");
        assert!(stderr(&output).contains("cannot tell the format from .xlsx"), "{}", stderr(&output));
    }
}
