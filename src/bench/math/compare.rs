//! Whether two answers to a MATH problem are the same answer.

use super::clean::clean;
use super::expression::{close, values};

/// Whether `given` says the same as `expected`, both as TeX after normalization.
///
/// Equal after cleaning; or equal in value; or of the same kind of brackets, intervals, sets, lists or matrices with equal
/// members; or equations that differ by a factor. A list without brackets and a set may be in any order. Number bases,
/// which are part of an answer, must agree.
pub fn equivalent(given: &str, expected: &str) -> bool {
    same(&clean(given), &clean(expected))
}

fn same(a: &str, b: &str) -> bool {
    if a.is_empty() || b.is_empty() {
        return false;
    }
    a == b || words_match(a, b) || same_value(a, b) || same_parts(a, b) || same_equation(a, b)
}

/// Words do not mind their case, and `(C)` is the choice C.
fn words_match(a: &str, b: &str) -> bool {
    let word = |text: &str| {
        let text = text.strip_prefix('(').and_then(|t| t.strip_suffix(')')).unwrap_or(text);
        let letters = !text.is_empty() && text.chars().all(|c| c.is_alphabetic() || matches!(c, '-' | '\''));
        letters.then(|| text.to_lowercase())
    };
    match (word(a), word(b)) {
        // One letter is a variable unless both were a choice: x is not X.
        (Some(left), Some(right)) if left.chars().count() == 1 => {
            left == right && a.to_uppercase() == a && b.to_uppercase() == b
        }
        (Some(left), Some(right)) => left == right,
        _ => false,
    }
}

fn same_value(a: &str, b: &str) -> bool {
    if is_prose(a) || is_prose(b) {
        return false;
    }
    match (values(a), values(b)) {
        (Some(left), Some(right)) => left.iter().zip(&right).all(|(x, y)| close(*x, *y)),
        _ => false,
    }
}

/// Whether letters stand together as a word: `east` is not the product of its letters.
fn is_prose(text: &str) -> bool {
    let mut run = 0;
    let mut in_command = false;
    for c in text.chars() {
        in_command = c == '\\' || (in_command && c.is_ascii_alphabetic());
        run = if c.is_alphabetic() && !in_command { run + 1 } else { 0 };
        if run >= 4 {
            return true;
        }
    }
    false
}

/// Compares answers made of several: brackets, lists, unions, matrices, `\pm`.
fn same_parts(a: &str, b: &str) -> bool {
    if let (Some(left), Some(right)) = (matrix(a), matrix(b)) {
        return left.len() == right.len() && left.iter().zip(&right).all(|(x, y)| all_same(x, y));
    }
    let (unions_a, unions_b) = (split(a, "\\cup"), split(b, "\\cup"));
    if unions_a.len() > 1 || unions_b.len() > 1 {
        return any_order(&unions_a, &unions_b);
    }
    if let (Some((open_a, inside_a, close_a)), Some((open_b, inside_b, close_b))) = (bracketed(a), bracketed(b)) {
        if (open_a, close_a) != (open_b, close_b) {
            return false;
        }
        let (left, right) = (split(inside_a, ","), split(inside_b, ","));
        return if open_a == "\\{" {
            any_order(&expand(&left), &expand(&right))
        } else {
            left.len() > 1 && all_same(&left, &right)
        };
    }
    // Solutions written with and without the braces of a set.
    let bare = |text: &str| match bracketed(text) {
        Some(("\\{", inside, _)) => expand(&split(inside, ",")),
        _ => expand(&split(text, ",")),
    };
    let (left, right) = (bare(a), bare(b));
    (left.len() > 1 || right.len() > 1) && any_order(&left, &right)
}

fn all_same(a: &[String], b: &[String]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(x, y)| same(x, y))
}

fn any_order(a: &[String], b: &[String]) -> bool {
    let mut left: Vec<&String> = b.iter().collect();
    a.len() == b.len()
        && a.iter().all(|x| match left.iter().position(|y| same(x, y)) {
            Some(at) => {
                left.swap_remove(at);
                true
            }
            None => false,
        })
}

/// Each member with `\pm` becomes two, and a repeated variable (`x=2,x=3`) goes.
fn expand(members: &[String]) -> Vec<String> {
    let both = |member: &String| -> Vec<String> {
        let value = strip_variable(member).unwrap_or(member);
        match value.contains("\\pm") {
            true => vec![value.replace("\\pm", "+"), value.replace("\\pm", "-")],
            false => vec![value.to_string()],
        }
    };
    members.iter().flat_map(both).collect()
}

/// An answer wholly inside one pair of brackets: opening, inside, closing.
fn bracketed(text: &str) -> Option<(&str, &str, &str)> {
    for (open, closings) in [("\\{", &["\\}"][..]), ("(", &[")", "]"]), ("[", &["]", ")"])] {
        let Some(rest) = text.strip_prefix(open) else { continue };
        for close in closings {
            // "(1,2)(3,4)" begins and ends with brackets but is not inside one pair.
            if let Some(inside) = rest.strip_suffix(close).filter(|inside| never_below_zero(inside)) {
                return Some((open, inside, close));
            }
        }
    }
    None
}

fn never_below_zero(inside: &str) -> bool {
    let mut depth = 0i32;
    inside.chars().all(|c| {
        depth += level(c);
        depth >= 0
    }) && depth == 0
}

fn level(c: char) -> i32 {
    match c {
        '(' | '[' | '{' => 1,
        ')' | ']' | '}' => -1,
        _ => 0,
    }
}

/// Parts of `text` between `separator`s that stand outside all brackets.
fn split(text: &str, separator: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut depth = 0;
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if depth == 0 && rest.starts_with(separator) {
            parts.push(String::new());
            rest = rest[separator.len()..].trim_start();
            continue;
        }
        depth += level(c);
        if let Some(part) = parts.last_mut() {
            part.push(c);
        }
        rest = &rest[c.len_utf8()..];
    }
    parts
}

/// Rows of a matrix of any bracket style.
fn matrix(text: &str) -> Option<Vec<Vec<String>>> {
    let rest = text.strip_prefix("\\begin{")?;
    let (name, rest) = rest.split_once('}')?;
    let inside = rest.strip_suffix(&format!("\\end{{{name}}}"))?;
    if !name.ends_with("matrix") {
        return None;
    }
    let inside = inside.strip_suffix("\\\\").unwrap_or(inside);
    Some(inside.split("\\\\").map(|row| row.split('&').map(clean).collect()).collect())
}

/// What is equal to, or in which lies, a single variable: `x=5` → `5`, `x\in[-2,7]` → `[-2,7]`, `f(x)=2x` → `2x`.
fn strip_variable(text: &str) -> Option<&str> {
    let (left, right) =
        text.split_once("\\in").filter(|(_, r)| !r.starts_with("fty")).or_else(|| text.split_once('='))?;
    let name: Vec<char> = left.chars().collect();
    let variable = match name.as_slice() {
        [letter] => letter.is_alphabetic(),
        [letter, '(', argument, ')'] => letter.is_alphabetic() && argument.is_alphabetic(),
        _ => false,
    };
    (variable && !right.is_empty() && !right.contains('=')).then_some(right)
}

/// Equations: with a named left side against the bare right side, or both up to a common factor.
fn same_equation(a: &str, b: &str) -> bool {
    match (strip_variable(a), strip_variable(b)) {
        (Some(right), None) if !b.contains('=') => return same(right, b),
        (None, Some(right)) if !a.contains('=') => return same(a, right),
        (Some(left), Some(right)) if a.chars().next() == b.chars().next() && same(left, right) => return true,
        _ => {}
    }
    let difference = |text: &str| {
        let (left, right) = text.split_once('=')?;
        let (left, right) = (values(left)?, values(right)?);
        Some([0, 1, 2].map(|i| left[i] - right[i]))
    };
    let (Some(left), Some(right)) = (difference(a), difference(b)) else { return false };
    if is_prose(a) || is_prose(b) || left.iter().chain(&right).any(|v| v.abs() < 1e-9) {
        return false;
    }
    let factor = left[0] / right[0];
    left.iter().zip(&right).all(|(x, y)| close(x / y, factor))
}

#[cfg(test)]
#[path = "compare_tests.rs"]
mod tests;
