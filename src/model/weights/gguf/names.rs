//! GGUF models by the names of their files, as folders and repositories list them.

use std::path::{Component, Path};

use crate::schema::model_name::without_part;

/// A model among listed files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its file; of one in parts the first that is listed, which need not be the first part.
    pub listed: String,
    /// Its file; of one in parts the first part.
    pub first: String,
}

impl Listed {
    /// Its files: one, or all its parts in order, whether or not they are listed.
    pub fn files(&self) -> Vec<String> {
        match parts(&self.first) {
            Some((name, count)) => (1..=count).map(|number| part(name, number, count)).collect(),
            None => vec![self.first.clone()],
        }
    }

    /// Its quantization in capitals, `Q4_K_M` or `UD-IQ2_XXS`, by the last word of its name that is one; where none is, by its folder's.
    pub fn tag(&self) -> Option<String> {
        let words: Vec<String> = words(&self.first).map(str::to_uppercase).collect();
        let (at, tag) = words.iter().enumerate().rev().find_map(|(at, word)| Some((at, quantization_in(word)?)))?;
        // Unsloth's mixtures of types by layer, which often lie beside the plain ones.
        let dynamic = at > 0 && words[at - 1] == "UD";
        Some(if dynamic { format!("UD-{tag}") } else { tag.to_owned() })
    }

    /// Whether `wanted`, in capitals, stands in its path from one `-`, `.` or `/` to another.
    fn carries(&self, wanted: &str) -> bool {
        let path = without_ending(&self.first).to_uppercase();
        let ends = |edge: Option<char>| edge.is_none_or(|c| SEPARATORS.contains(&c));
        path.match_indices(wanted)
            .any(|(at, _)| ends(path[..at].chars().next_back()) && ends(path[at + wanted.len()..].chars().next()))
    }
}

const SEPARATORS: [char; 3] = ['-', '.', '/'];

/// Whether `name` is one of a GGUF file.
pub fn is_gguf(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|ending| ending.eq_ignore_ascii_case("gguf"))
}

/// The models among files of these `names`, in alphabetical order. What llama.cpp passes over is none: vision projectors, importance matrices
/// and draft heads.
pub fn models<'a>(names: impl IntoIterator<Item = &'a String>) -> Vec<Listed> {
    let is_model = |path: &str| {
        let file = path.rsplit('/').next().unwrap_or(path).to_lowercase();
        let companion = file.contains("mmproj") || file.contains("imatrix") || file.starts_with("mtp-");
        // A list of a repository must not lead out of its folder.
        let inside = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
        is_gguf(path) && !companion && inside
    };
    let mut names: Vec<&String> = names.into_iter().filter(|name| is_model(name)).collect();
    names.sort();
    let mut models: Vec<Listed> = Vec::new();
    for name in names {
        let first = first_of(name);
        if !models.iter().any(|model| model.first == first) {
            models.push(Listed { listed: name.clone(), first });
        }
    }
    models
}

/// Those of `models` that `wanted` names: a file, with its folder or without, any part of a model in parts; or a quantization, in capitals or not.
/// Names that are just that come before those in which it stands somewhere.
pub fn named(models: &[Listed], wanted: &str) -> Vec<Listed> {
    let of = |is: &dyn Fn(&Listed) -> bool| models.iter().filter(|model| is(model)).cloned().collect::<Vec<_>>();
    let (exact, loose) = if is_gguf(wanted) {
        let wanted = first_of(wanted);
        let file = |model: &Listed| model.first.rsplit('/').next() == Some(wanted.as_str());
        (of(&|model| model.first == wanted), of(&file))
    } else {
        let wanted = wanted.to_uppercase();
        (of(&|model| model.tag().as_ref() == Some(&wanted)), of(&|model| model.carries(&wanted)))
    };
    if exact.is_empty() { loose } else { exact }
}

/// What tells each of `models` from the others: its quantization, or its file where that has none or shares it.
pub fn choices(models: &[Listed]) -> Vec<String> {
    let tags: Vec<Option<String>> = models.iter().map(Listed::tag).collect();
    let alone = |tag: &Option<String>| tags.iter().filter(|other| *other == tag).count() == 1;
    let choice = |(model, tag): (&Listed, &Option<String>)| match tag {
        Some(name) if alone(tag) => name.clone(),
        _ => model.first.clone(),
    };
    models.iter().zip(&tags).map(choice).collect()
}

/// The first part of the model that `name` is a part of; a model in one file is its own.
fn first_of(name: &str) -> String {
    parts(name).map_or_else(|| name.to_owned(), |(stem, count)| part(stem, 1, count))
}

/// What the names of all parts begin with, and how many there are; `None` for a model in one file.
fn parts(name: &str) -> Option<(&str, u16)> {
    let stem = name.strip_suffix(".gguf")?;
    let count = stem.rsplit_once("-of-")?.1.parse().ok()?;
    let beginning = without_part(stem);
    let number = stem.strip_prefix(beginning)?.get(1..6)?.parse().ok()?;
    // Numbers are written in just one way, and begin with 1.
    ((1..=count).contains(&number) && name == part(beginning, number, count)).then_some((beginning, count))
}

fn part(beginning: &str, number: u16, count: u16) -> String {
    format!("{beginning}-{number:05}-of-{count:05}.gguf")
}

/// `name` without `.gguf`, and without what numbers a part.
fn without_ending(name: &str) -> &str {
    without_part(name.get(..name.len().saturating_sub(".gguf".len())).unwrap_or(name))
}

fn words(name: &str) -> impl Iterator<Item = &str> {
    without_ending(name).split(SEPARATORS)
}

/// The quantization that `word`, in capitals, is or ends in, as `MISTRAL_Q4_K_M` does.
fn quantization_in(word: &str) -> Option<&str> {
    let is_type = |name: &str| {
        let digits = ["TQ", "IQ", "Q"].iter().find_map(|kind| name.strip_prefix(kind));
        let float = matches!(name, "F16" | "FP16" | "BF16" | "F32" | "FP32" | "MXFP4" | "NVFP4");
        float || digits.is_some_and(|bits| bits.len() == 1 && bits.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let starts = std::iter::once(0).chain(word.match_indices('_').map(|(at, _)| at + 1));
    starts.map(|at| &word[at..]).find(|rest| is_type(rest.split('_').next().unwrap_or(rest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(names: &[&str]) -> Vec<Listed> {
        models(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
    }

    fn firsts(models: &[Listed]) -> Vec<&str> {
        models.iter().map(|model| model.first.as_str()).collect()
    }

    #[test]
    fn parts_are_one_model_and_companions_are_none() {
        let models = listed(&[
            "m-00003-of-00003.gguf",
            "m-00002-of-00003.gguf",
            "m.gguf",
            "m-00001-of-00002.gguf",
            "sub/m.GGUF",
            "mmproj-F16.gguf",
            "m.imatrix.gguf",
            "sub/mtp-m-Q8_0.gguf",
            "../m.gguf",
            "/m.gguf",
            "README.md",
        ]);
        assert_eq!(firsts(&models), ["m-00001-of-00002.gguf", "m-00001-of-00003.gguf", "m.gguf", "sub/m.GGUF"]);
        assert_eq!(models[1].listed, "m-00002-of-00003.gguf");
        assert_eq!(models[1].files(), ["m-00001-of-00003.gguf", "m-00002-of-00003.gguf", "m-00003-of-00003.gguf"]);
        // Numbers that no splitting writes are a part of the name.
        for odd in
            ["m-00000-of-00002.gguf", "m-00003-of-00002.gguf", "m-000001-of-000002.gguf", "m-00001-of-99999.gguf"]
        {
            assert_eq!(listed(&[odd])[0].files(), [odd]);
        }
    }

    #[test]
    fn a_quantization_is_the_last_word_of_a_name_that_is_one() {
        for (name, tag) in [
            ("Qwen2.5-7B-Instruct-Q4_K_M.gguf", Some("Q4_K_M")),
            ("mistral-7b-v0.1.Q5_0.gguf", Some("Q5_0")),
            ("qwen2.5-0.5b-instruct-q4_k_m-00001-of-00002.gguf", Some("Q4_K_M")),
            ("M-UD-IQ2_XXS.gguf", Some("UD-IQ2_XXS")),
            ("mistral_7b_q8_0.gguf", Some("Q8_0")),
            ("BF16/M-BF16-00001-of-00002.gguf", Some("BF16")),
            ("Q6_K/M.gguf", Some("Q6_K")),
            ("M-F16-to-Q8_0.gguf", Some("Q8_0")),
            ("M-MXFP4_MOE.gguf", Some("MXFP4_MOE")),
            ("Qwen3-8B.gguf", None),
            ("Q-Star-Q10.gguf", None),
        ] {
            assert_eq!(listed(&[name])[0].tag().as_deref(), tag, "{name}");
        }
    }

    #[test]
    fn a_model_is_named_by_its_quantization_or_by_a_file() {
        let models = listed(&[
            "M-Q4_K_M.gguf",
            "M-Q4_K_S.gguf",
            "M-UD-Q4_K_M.gguf",
            "M-UD-Q5_K_M.gguf",
            "M-Q8_0-00001-of-00002.gguf",
            "M-Q8_0-00002-of-00002.gguf",
            "8B/other-F16.gguf",
            "8B/other-Q8_0.gguf",
        ]);
        let of = |wanted: &str| named(&models, wanted).into_iter().map(|model| model.first).collect::<Vec<_>>();
        for wanted in ["Q4_K_M", "q4_k_m", "M-Q4_K_M.gguf"] {
            assert_eq!(of(wanted), ["M-Q4_K_M.gguf"], "{wanted}");
        }
        assert_eq!(of("ud-q4_k_m"), ["M-UD-Q4_K_M.gguf"]);
        assert_eq!(of("Q5_K_M"), ["M-UD-Q5_K_M.gguf"], "where there is no plain one");
        assert_eq!(of("Q8_0"), ["8B/other-Q8_0.gguf", "M-Q8_0-00001-of-00002.gguf"]);
        assert_eq!(of("M-Q8_0"), ["M-Q8_0-00001-of-00002.gguf"]);
        assert_eq!(of("M-Q8_0-00002-of-00002.gguf"), ["M-Q8_0-00001-of-00002.gguf"]);
        assert_eq!(of("other-F16.gguf"), ["8B/other-F16.gguf"]);
        assert_eq!(of("8B/other-F16.gguf"), ["8B/other-F16.gguf"]);
        for nothing in ["Q4_K", "4_K_M", "Q3_K_M", "latest", "Q4_K_M.gguf", "m-Q4_K_M.gguf"] {
            assert!(of(nothing).is_empty(), "{nothing}");
        }
        assert_eq!(
            choices(&models),
            ["F16", "8B/other-Q8_0.gguf", "Q4_K_M", "Q4_K_S", "M-Q8_0-00001-of-00002.gguf", "UD-Q4_K_M", "UD-Q5_K_M",]
        );
    }
}
