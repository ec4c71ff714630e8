//! GGUF models in several files, as `llama-gguf-split` writes them, must be the models that they were in one.

use std::fs::File;
use std::path::Path;

use candle_core::quantized::gguf_file::{self, Value};
use kvprof::model::weights::gguf::GgufFile;
use kvprof::model::{LoadOptions, Subject};

use super::gguf::{assert_gives, load};
use crate::support::fixture;
use crate::support::gguf::{Told, llama, split, write_part};

fn refusal(path: &Path) -> String {
    let error = load(path).unwrap_err();
    assert!(error.is_usage(), "{error}");
    error.to_string()
}

#[test]
fn a_model_in_parts_is_the_model_that_it_was_in_one_file_whichever_part_is_given() {
    let folder = tempfile::tempdir().unwrap();
    let whole = llama(folder.path(), "m.gguf");
    let single = load(&whole).unwrap();
    // The first part without any tensors is what `--no-tensor-first-split` writes.
    for ends in [&[5][..], &[7, 8], &[0, 6]] {
        let parts = split(&whole, ends);
        let mut digests = Vec::new();
        for given in &parts {
            let subject = load(given).unwrap();
            assert_gives(&subject, "llama/expected.linear.safetensors");
            assert_eq!(subject.config(), single.config());
            assert_eq!(
                subject.tokenizer().unwrap().encode("piece7", true).unwrap(),
                single.tokenizer().unwrap().encode("piece7", true).unwrap()
            );
            let named = Subject::identity_of(&LoadOptions::new(given.to_str().unwrap())).unwrap().weights;
            assert_eq!(named, subject.weights_sha256);
            digests.push(named.unwrap());
        }
        digests.dedup();
        assert_eq!(digests.len(), 1, "every part names the same weights");
        assert_eq!(GgufFile::open(&parts[1]).unwrap().paths(), parts);
    }
}

#[test]
fn the_digest_of_a_model_in_parts_changes_with_each_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let parts = split(&llama(folder.path(), "m.gguf"), &[4, 8]);
    let digest = || load(&parts[0]).unwrap().weights_sha256.unwrap();
    let mut digests = vec![digest()];
    for part in &parts {
        let mut bytes = std::fs::read(part).unwrap();
        // The lowest bit of a value: sizes of the fixture's tensors need no padding.
        let at = bytes.len() - 32;
        bytes[at] ^= 1;
        std::fs::write(part, bytes).unwrap();
        digests.push(digest());
    }
    digests.sort();
    digests.dedup();
    assert_eq!(digests.len(), 4);
}

#[test]
fn parts_that_are_missing_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let parts = split(&llama(folder.path(), "m.gguf"), &[3, 6, 9]);
    for gone in [0, 2] {
        std::fs::remove_file(&parts[gone]).unwrap();
    }
    let message = refusal(&parts[1]);
    assert!(message.contains("m-00002-of-00004.gguf: is part 2 of 4"), "{message}");
    assert!(message.contains("missing beside it: m-00001-of-00004.gguf, m-00003-of-00004.gguf; fetch"), "{message}");
    assert!(!message.contains("m-00004"), "{message}");
}

#[test]
fn a_part_under_another_name_is_told_which_name_it_needs() {
    let folder = tempfile::tempdir().unwrap();
    let parts = split(&llama(folder.path(), "m.gguf"), &[6]);
    let renamed = folder.path().join("renamed.gguf");
    std::fs::copy(&parts[0], &renamed).unwrap();
    let message = refusal(&renamed);
    assert!(message.contains("part 1 of 2") && message.contains("-00001-of-00002.gguf"), "{message}");
    // The second part under the first one's name, and the other way round.
    std::fs::rename(&parts[1], &renamed).unwrap();
    std::fs::copy(&parts[0], &parts[1]).unwrap();
    let message = refusal(&parts[0]);
    assert!(
        message.contains("m-00002-of-00002.gguf: is not part 2 of 2") && message.contains("`split.no` 0"),
        "{message}"
    );
    std::fs::rename(&renamed, &parts[0]).unwrap();
    let message = refusal(&parts[0]);
    assert!(message.contains("part 2 of 2") && message.contains("-00002-of-00002.gguf"), "{message}");
}

#[test]
fn parts_of_two_models_are_not_read_as_one() {
    let folder = tempfile::tempdir().unwrap();
    let whole = llama(folder.path(), "m.gguf");
    let parts = split(&whole, &[6]);
    let other = split(&llama(folder.path(), "other.gguf"), &[4]);
    std::fs::copy(&other[1], &parts[1]).unwrap();
    let message = refusal(&parts[0]);
    assert!(message.contains("holds tensor `") && message.contains("and so does m-00001-of-00002.gguf"), "{message}");
    // Split later than the first part ends: tensors are in neither.
    let later = split(&llama(folder.path(), "later.gguf"), &[9]);
    std::fs::copy(&later[1], &parts[1]).unwrap();
    let message = refusal(&parts[0]);
    assert!(message.contains("m-00001-of-00002.gguf") && message.contains("2 parts hold"), "{message}");
    // What is no part at all.
    std::fs::copy(&whole, &parts[1]).unwrap();
    let message = refusal(&parts[0]);
    assert!(message.contains("m-00002-of-00002.gguf: is not part 2 of 2"), "{message}");
}

#[test]
fn counts_that_lie_are_refused_and_ask_for_nothing_they_should_not() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let told = |no, count, tensors| Told { no, count, tensors };
    // A count of tensors that the parts do not have.
    let (first, second) = (at("m-00001-of-00002.gguf"), at("m-00002-of-00002.gguf"));
    write_part(&first, told(0, 2, 3), &[], &[]);
    write_part(&second, told(1, 2, 3), &[], &[]);
    assert!(refusal(&first).contains("the model has 3 tensors, and its 2 parts hold 0"), "{}", refusal(&first));
    // Another count of parts than the first one's.
    write_part(&second, told(1, 3, 3), &[], &[]);
    assert!(refusal(&first).contains("`split.count` 3"), "{}", refusal(&first));
    // More parts than a folder can hold, of which a few are named.
    let many = at("m-00001-of-65535.gguf");
    write_part(&many, told(0, 65535, 3), &[], &[]);
    let message = refusal(&many);
    assert!(message.contains("m-00005-of-65535.gguf and 65530 more; fetch"), "{message}");
    // A number past the count, and counts past 16 bits.
    let past = at("m-00004-of-00003.gguf");
    write_part(&past, told(3, 3, 3), &[], &[]);
    assert!(refusal(&past).contains("part 4 of 3"), "{}", refusal(&past));
    let huge = at(&format!("m-00001-of-{}.gguf", u64::MAX));
    let (no, count) = (Value::U64(0), Value::U64(u64::MAX));
    gguf_file::write(&mut File::create(&huge).unwrap(), &[("split.no", &no), ("split.count", &count)], &[]).unwrap();
    assert!(refusal(&huge).contains("of a model"), "{}", refusal(&huge));
}

#[test]
fn a_damaged_part_is_named_by_its_own_name() {
    let folder = tempfile::tempdir().unwrap();
    let parts = split(&llama(folder.path(), "m.gguf"), &[6]);
    let bytes = std::fs::read(&parts[1]).unwrap();
    std::fs::write(&parts[1], &bytes[..bytes.len() - 64]).unwrap();
    let message = refusal(&parts[0]);
    assert!(message.contains("m-00002-of-00002.gguf: is truncated"), "{message}");
}

#[test]
fn a_folder_without_safetensors_is_its_one_gguf_model() {
    let folder = tempfile::tempdir().unwrap();
    let whole = llama(folder.path(), "m.gguf");
    let file = load(&whole).unwrap();
    // As in many repositories, what is no model and what the GGUF file says itself.
    for (name, text) in [("mmproj-F16.gguf", "no model"), ("README.md", ""), ("config.json", "not JSON")] {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let given = load(folder.path()).unwrap();
    assert_eq!((given.config(), &given.weights_sha256), (file.config(), &file.weights_sha256));
    assert!(given.weights_sha256.is_some());
    let options = LoadOptions::new(folder.path().to_str().unwrap());
    assert_eq!(Subject::identity_of(&options).unwrap(), given.identity());
    assert_eq!(&Subject::shape(&options).unwrap(), file.config());
    // Split, with the model that it was beside it, and without.
    let parts = split(&whole, &[5]);
    let message = refusal(folder.path());
    assert!(message.contains("(m-00001-of-00002.gguf, m.gguf) give one, as"), "{message}");
    assert!(message.contains(&format!("as {}", parts[0].display())), "{message}");
    std::fs::remove_file(&whole).unwrap();
    assert_gives(&load(folder.path()).unwrap(), "llama/expected.linear.safetensors");
    std::fs::remove_file(&parts[0]).unwrap();
    let message = refusal(folder.path());
    assert!(message.contains("m-00002-of-00002.gguf: is part 2 of 2"), "{message}");
}

#[test]
fn a_folder_with_safetensors_is_loaded_from_them() {
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(fixture("models/gpt2")).unwrap().map(Result::unwrap) {
        std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    llama(folder.path(), "m.gguf");
    assert_eq!(load(folder.path()).unwrap().config().family, "gpt2");
}
