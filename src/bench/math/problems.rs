//! Problems whose answer is written in free text. A data set of another shape needs one more function here.

use serde_json::Value;

use crate::base::rng::SplitMix64;
use crate::bench::data::{Files, Row, rows};
use crate::{Error, Result};

/// A problem and its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Name in its data set, or the row.
    pub id: String,
    /// What is asked.
    pub text: String,
    /// The right answer, as TeX or a plain number.
    pub answer: String,
    /// Subject, where there is one.
    pub subject: Option<String>,
}

/// Reads one row, if it has this shape.
type Adapter = fn(usize, &Row) -> Option<Problem>;

/// The shapes that are known, in the order in which they are tried.
const ADAPTERS: [Adapter; 2] = [math, gsm8k];

/// All problems of a data set.
///
/// # Errors
/// Names the file and row that is no problem.
pub fn read(files: &Files) -> Result<Vec<Problem>> {
    let mut problems = Vec::new();
    for path in &files.paths {
        for (at, row) in rows(path)?.iter().enumerate() {
            let problem = ADAPTERS.iter().find_map(|adapter| adapter(at, row)).ok_or_else(|| {
                let known = "`problem` and `answer` (MATH), or `question` and `answer` with `####` (GSM8K)";
                Error::file(path, format!("row {} is no problem: it needs {known}", at + 1))
            })?;
            problems.push(problem);
        }
    }
    match files.paths.first() {
        Some(path) if problems.is_empty() => Err(Error::file(path, "holds no problem")),
        _ => Ok(problems),
    }
}

fn text(row: &Row, key: &str) -> Option<String> {
    row.get(key)?.as_str().map(str::to_string)
}

/// MATH: `problem`, `answer`, and perhaps `subject` and `unique_id`.
fn math(at: usize, row: &Row) -> Option<Problem> {
    let answer = match row.get("answer")? {
        Value::String(answer) => answer.clone(),
        Value::Number(answer) => answer.to_string(),
        _ => return None,
    };
    Some(Problem {
        id: text(row, "unique_id").unwrap_or_else(|| at.to_string()),
        text: text(row, "problem")?,
        answer,
        subject: text(row, "subject"),
    })
}

/// GSM8K: `question`, and an `answer` whose last line is `#### number`.
fn gsm8k(at: usize, row: &Row) -> Option<Problem> {
    let (_, answer) =
        text(row, "answer").as_deref()?.rsplit_once("####").map(|(a, b)| (a.to_string(), b.trim().to_string()))?;
    Some(Problem { id: at.to_string(), text: text(row, "question")?, answer, subject: None })
}

/// `wanted` problems (0: all), drawn with `seed`, in the order of the data.
pub fn draw(problems: &[Problem], wanted: usize, seed: u64) -> Vec<&Problem> {
    let mut indices: Vec<usize> = (0..problems.len()).collect();
    SplitMix64::new(seed).shuffle(&mut indices);
    if wanted > 0 {
        indices.truncate(wanted);
    }
    indices.sort_unstable();
    indices.into_iter().map(|index| &problems[index]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(content: &str) -> (tempfile::TempDir, Files) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("set.jsonl");
        std::fs::write(&path, content).unwrap();
        (folder, Files { paths: vec![path], name: "set".into(), revision: None })
    }

    #[test]
    fn both_shapes_are_read() {
        let (_keep, files) = written(concat!(
            "{\"problem\": \"1+1?\", \"answer\": \"2\", \"subject\": \"Algebra\", \"unique_id\": \"test/1\"}\n",
            "{\"question\": \"Eggs?\", \"answer\": \"She has 3.\\n#### 1,080\"}\n",
            "{\"problem\": \"2+2?\", \"answer\": 4}\n",
        ));
        let problems = read(&files).unwrap();
        assert_eq!((problems[0].id.as_str(), problems[0].subject.as_deref()), ("test/1", Some("Algebra")));
        assert_eq!((problems[1].text.as_str(), problems[1].answer.as_str()), ("Eggs?", "1,080"));
        assert_eq!((problems[2].id.as_str(), problems[2].answer.as_str()), ("2", "4"));
    }

    #[test]
    fn a_row_of_another_shape_is_named() {
        let (_keep, files) = written("{\"problem\": \"1+1?\", \"answer\": \"2\"}\n{\"text\": \"no\"}\n");
        let error = read(&files).unwrap_err().to_string();
        assert!(error.contains("set.jsonl") && error.contains("row 2"), "{error}");
    }

    #[test]
    fn a_set_without_problems_is_no_success() {
        let (_keep, files) = written("\n");
        let error = read(&files).unwrap_err().to_string();
        assert!(error.contains("set.jsonl") && error.contains("no problem"), "{error}");
    }

    #[test]
    fn a_draw_is_seeded_and_without_repetition() {
        let problem =
            |i: usize| Problem { id: i.to_string(), text: String::new(), answer: String::new(), subject: None };
        let all: Vec<Problem> = (0..100).map(problem).collect();
        let mut drawn: Vec<&Problem> = draw(&all, 30, 7);
        assert_eq!(drawn, draw(&all, 30, 7));
        assert_ne!(drawn, draw(&all, 30, 8));
        drawn.dedup();
        assert_eq!((drawn.len(), draw(&all, 0, 7).len(), draw(&all, 500, 7).len()), (30, 100, 100));
    }
}
