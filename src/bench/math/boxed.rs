//! Finding the answer in what a model wrote.

/// The content of the last `\boxed{…}` (or `\fbox{…}`) whose braces balance, trimmed; `None` when there is none.
///
/// Braces nest; `\{` and `\}` are characters of the answer, not braces. An unfinished last box, as a generation that ran
/// out of tokens leaves, does not hide a finished one before it. An empty box is no answer.
pub fn last_boxed(text: &str) -> Option<&str> {
    let mut starts: Vec<usize> = ["\\boxed", "\\fbox"]
        .iter()
        .flat_map(|command| text.match_indices(command).map(|(at, _)| at + command.len()))
        .collect();
    starts.sort_unstable();
    starts.iter().rev().filter_map(|&at| boxed_at(&text[at..])).find(|answer| !answer.is_empty())
}

/// The argument at the start of `rest`: `{…}`, or after a space one token as TeX takes it (`\boxed 5`).
fn boxed_at(rest: &str) -> Option<&str> {
    let argument = rest.trim_start();
    if let Some(inside) = argument.strip_prefix('{') {
        return balanced(inside).map(str::trim);
    }
    if argument.len() == rest.len() {
        return None;
    }
    let word = argument.split(|c: char| c.is_whitespace() || c == '$').next()?;
    Some(word.trim_end_matches(['.', ',']))
}

/// What precedes the brace that closes the one before `inside`.
fn balanced(inside: &str) -> Option<&str> {
    let mut depth = 1usize;
    let mut escaped = false;
    for (at, c) in inside.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '{' => depth += 1,
            '}' => {
                depth -= 1;
                if depth == 0 {
                    return Some(&inside[..at]);
                }
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_balanced_box_wins() {
        let cases = [
            (r"so $\boxed{5}$", Some("5")),
            (r"first \boxed{1}, then \boxed{2}.", Some("2")),
            (r"\boxed{\frac{1}{\sqrt{2}}}", Some(r"\frac{1}{\sqrt{2}}")),
            (r"\boxed{ \left\{ x \mid x > 0 \right. } done", Some(r"\left\{ x \mid x > 0 \right.")),
            (r"\boxed{\boxed{7}}", Some("7")),
            (r"\boxed{3} and then \boxed{\frac{1}{2", Some("3")),
            (r"\boxed 12 is it", Some("12")),
            (r"$\boxed 9$.", Some("9")),
            (r"\fbox{x^{2}}", Some("x^{2}")),
            (r"\boxed {4}", Some("4")),
            (r"\boxed{}", None),
            (r"\boxed{4} \boxed{}", Some("4")),
            (r"\boxed{unfinished", None),
            (r"\boxedanswer", None),
            (r"ends with \boxed", None),
            (r"the answer is 5", None),
            ("größer \\boxed{é{ü}}", Some("é{ü}")),
        ];
        for (text, expected) in cases {
            assert_eq!(last_boxed(text), expected, "{text}");
        }
    }
}
