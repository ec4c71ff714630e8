//! MMLU's questions, and a fair choice among them.

use std::collections::BTreeMap;
use std::path::Path;

use crate::base::rng::SplitMix64;
use crate::bench::data::{Files, Row, rows};
use crate::{Error, Result};

/// A multiple-choice question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// `subject/row`, rows counted from 0 within the subject.
    pub id: String,
    /// As files name it: `abstract_algebra`.
    pub subject: String,
    /// The question.
    pub text: String,
    /// The four choices.
    pub choices: [String; 4],
    /// The right one, 0 to 3.
    pub answer: usize,
}

/// All questions of a split, in the order of its files.
///
/// # Errors
/// Names the file and row that is not a question.
pub fn questions(files: &Files) -> Result<Vec<Question>> {
    let mut all = Vec::new();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for path in &files.paths {
        let csv = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("csv"));
        let parsed = if csv { from_csv(path)? } else { from_rows(path)? };
        for mut question in parsed {
            let count = counts.entry(question.subject.clone()).or_default();
            question.id = format!("{}/{count}", question.subject);
            *count += 1;
            all.push(question);
        }
    }
    Ok(all)
}

/// The original files: no header; question, A, B, C, D, letter. The subject is in the file's name.
fn from_csv(path: &Path) -> Result<Vec<Question>> {
    let stem = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    let split = ["_test", "_dev", "_val"].iter().find_map(|suffix| stem.strip_suffix(suffix));
    let subject = split.unwrap_or(&stem);
    let failed = |e: csv::Error| Error::file(path, format!("is not CSV that can be read ({e}); fetch it again"));
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_path(path).map_err(failed)?;
    let mut questions = Vec::new();
    for (row, record) in reader.records().enumerate() {
        let record = record.map_err(failed)?;
        let fields: Vec<&str> = record.iter().collect();
        let [text, a, b, c, d, letter] = fields[..] else {
            return Err(wrong(path, row, "has not six fields (question, A, B, C, D, letter)"));
        };
        let answer = letter_index(letter).ok_or_else(|| wrong(path, row, "does not end with A, B, C or D"))?;
        questions.push(Question {
            id: String::new(),
            subject: subject.into(),
            text: text.trim().into(),
            choices: [a, b, c, d].map(|choice| choice.trim().into()),
            answer,
        });
    }
    Ok(questions)
}

/// The hub's rows: `question`, `subject`, `choices`, `answer` (a number, or a letter).
fn from_rows(path: &Path) -> Result<Vec<Question>> {
    let parse = |(at, row): (usize, Row)| -> Result<Question> {
        let text = |key: &str| row.get(key).and_then(|v| v.as_str()).map(|s| s.trim().to_string());
        let question = || {
            let choices: Vec<String> = row
                .get("choices")?
                .as_array()?
                .iter()
                .map(|c| c.as_str().map(|s| s.trim().to_string()))
                .collect::<Option<_>>()?;
            let answer = row.get("answer")?;
            let answer = answer.as_u64().map(|n| n as usize).or_else(|| letter_index(answer.as_str()?))?;
            Some(Question {
                id: String::new(),
                subject: text("subject")?,
                text: text("question")?,
                choices: choices.try_into().ok()?,
                answer,
            })
            .filter(|q| q.answer < 4)
        };
        question()
            .ok_or_else(|| wrong(path, at, "is not a question with subject, four choices and an answer from 0 to 3"))
    };
    rows(path)?.into_iter().enumerate().map(parse).collect()
}

fn wrong(path: &Path, row: usize, what: &str) -> Error {
    Error::file(path, format!("row {} {what}; fetch the file again", row + 1))
}

fn letter_index(letter: &str) -> Option<usize> {
    super::LETTERS.iter().position(|known| *known == letter.trim())
}

/// `wanted` questions (0: all), as evenly over the subjects as their sizes allow, drawn with `seed`; in the order of the data.
/// Which subjects give one more, where the number does not divide evenly, is drawn too.
pub fn spread(questions: &[Question], wanted: usize, seed: u64) -> Vec<&Question> {
    let mut by_subject: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, question) in questions.iter().enumerate() {
        by_subject.entry(&question.subject).or_default().push(index);
    }
    let wanted = if wanted == 0 { questions.len() } else { wanted.min(questions.len()) };
    let mut rng = SplitMix64::new(seed);
    let mut subjects: Vec<Vec<usize>> = by_subject.into_values().collect();
    subjects.iter_mut().for_each(|indices| rng.shuffle(indices));
    rng.shuffle(&mut subjects);
    // One question of each subject in turn until there are enough.
    let mut chosen = Vec::with_capacity(wanted);
    while chosen.len() < wanted {
        for indices in &mut subjects {
            if chosen.len() < wanted {
                chosen.extend(indices.pop());
            }
        }
    }
    chosen.sort_unstable();
    chosen.into_iter().map(|index| &questions[index]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(sizes: &[(&str, usize)]) -> Vec<Question> {
        let question = |subject: &str, at: usize| Question {
            id: format!("{subject}/{at}"),
            subject: subject.into(),
            text: String::new(),
            choices: Default::default(),
            answer: 0,
        };
        sizes.iter().flat_map(|(subject, n)| (0..*n).map(move |at| question(subject, at))).collect()
    }

    #[test]
    fn a_sample_is_spread_seeded_and_without_repetition() {
        let all = set(&[("a", 50), ("b", 2), ("c", 50)]);
        let sample = spread(&all, 20, 1);
        let of = |subject: &str| sample.iter().filter(|q| q.subject == subject).count();
        assert_eq!((sample.len(), of("a"), of("b"), of("c")), (20, 9, 2, 9));
        let mut ids: Vec<_> = sample.iter().map(|q| &q.id).collect();
        ids.dedup();
        assert_eq!(ids.len(), 20);
        assert_eq!(spread(&all, 20, 1), sample);
        assert_ne!(spread(&all, 20, 2), sample);
        assert_eq!(spread(&all, 0, 1).len(), 102);
        assert_eq!(spread(&all, 1000, 1).len(), 102);
    }

    #[test]
    fn csv_and_rows_give_the_same_questions() {
        let folder = tempfile::tempdir().unwrap();
        let csv = folder.path().join("anatomy_test.csv");
        std::fs::write(&csv, "\"Which, if any?\",one,two,three,four,C\n").unwrap();
        let jsonl = folder.path().join("test.jsonl");
        let row = r#"{"question": "Which, if any?", "subject": "anatomy", "choices": ["one","two","three","four"], "answer": 2}"#;
        std::fs::write(&jsonl, row).unwrap();
        let files = |path: &Path| Files { paths: vec![path.into()], name: "mmlu".into(), revision: None };
        let from_csv = questions(&files(&csv)).unwrap();
        assert_eq!(from_csv, questions(&files(&jsonl)).unwrap());
        assert_eq!((from_csv[0].id.as_str(), from_csv[0].answer), ("anatomy/0", 2));
    }

    #[test]
    fn a_row_that_is_no_question_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x_test.csv");
        let files = Files { paths: vec![path.clone()], name: "mmlu".into(), revision: None };
        for content in ["q,a,b,c,d,A\nq,a,b,c,d,E\n", "q,a,b,c,d,A\nq,a,b\n"] {
            std::fs::write(&path, content).unwrap();
            let error = questions(&files).unwrap_err().to_string();
            assert!(error.contains("x_test.csv") && error.contains("row 2"), "{error}");
        }
    }
}
