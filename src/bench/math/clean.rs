//! Writing an answer in one way: what a person would call the same answer becomes the same string.

use super::expression::DEEPEST;

/// Commands that only space or size things. Longer names stand before those they begin with.
const SPACING: [&str; 16] = [
    "\\displaystyle",
    "\\textstyle",
    "\\limits",
    "\\qquad",
    "\\quad",
    "\\Bigl",
    "\\Bigr",
    "\\bigl",
    "\\bigr",
    "\\Big",
    "\\big",
    "\\;",
    "\\:",
    "\\ ",
    "~",
    "\\,",
];

/// Units in words and letters that may follow a value; a plural's `s` is taken off first.
const UNITS: [&str; 46] = [
    "degree", "radian", "inche", "inch", "in", "feet", "foot", "ft", "yard", "yd", "mile", "mi", "mph", "meter",
    "metre", "cm", "mm", "km", "kg", "gram", "pound", "lb", "ounce", "oz", "liter", "litre", "ml", "hour", "hr",
    "minute", "min", "second", "sec", "day", "week", "month", "year", "cent", "dollar", "unit", "square", "cubic",
    "sq", "point", "percent", "way",
];

/// `answer` in its canonical spelling: no `$`, spaces, sizes, units or degrees; braces around every argument; plain fractions
/// as `\frac`; no thousands separators or needless zeros.
pub fn clean(answer: &str) -> String {
    // A matrix's row break is no escaped space.
    let mut text = answer.trim().replace(['\n', '\t', '\u{a0}'], " ").replace("\\\\", "\u{2}");
    for (from, to) in [
        ("\\$", ""),
        ("$", ""),
        ("\\(", ""),
        ("\\)", ""),
        ("\\[", ""),
        ("\\]", ""),
        ("\\left", ""),
        ("\\right", ""),
        ("\\dfrac", "\\frac"),
        ("\\tfrac", "\\frac"),
        ("\\cfrac", "\\frac"),
        ("\\dbinom", "\\binom"),
        ("\\lbrace", "\\{"),
        ("\\rbrace", "\\}"),
        ("\\lbrack", "["),
        ("\\rbrack", "]"),
        ("\\mathrm", "\\text"),
        ("\\mathbf", "\\text"),
        ("\\textbf", "\\text"),
        ("\\textit", "\\text"),
        ("\\mbox", "\\text"),
        ("\\operatorname", "\\text"),
        ("\u{2212}", "-"),
        ("\u{00b0}", ""),
        ("\u{03c0}", "\\pi "),
        ("\u{221e}", "\\infty "),
        ("\u{222a}", "\\cup "),
        ("\\geqslant", "\\ge "),
        ("\\leqslant", "\\le "),
        ("\\geq", "\\ge "),
        ("\\leq", "\\le "),
        ("\\%", ""),
        ("%", ""),
    ] {
        text = text.replace(from, to);
    }
    text = text.replace(",\\!", "\u{1}").replace("\\!", "");
    text = join_thousands(&braced_commas(&text)).replace('\u{1}', "");
    for command in SPACING {
        text = text.replace(command, " ");
    }
    for degree in ["^{\\circ}", "^\\circ", "^ \\circ", "^{ \\circ }", "\\circ", "\\degree"] {
        text = text.replace(degree, "");
    }
    let text = text_arguments(&text);
    let text = drop_units(text.trim().trim_end_matches('.').trim());
    let text = brace_arguments(&text, 0);
    let text = drop_spaces(&text);
    numbers(&slashes(&subscripts(&text))).replace('\u{2}', "\\\\")
}

/// `{,}`, a comma without the space of a list, becomes `\u{1}` before a group of three digits (`1{,}234`) and a plain comma elsewhere (`3{,}14`).
fn braced_commas(text: &str) -> String {
    let mut parts = text.split("{,}");
    let mut out = parts.next().unwrap_or_default().to_string();
    for part in parts {
        let thousands =
            out.ends_with(|c: char| c.is_ascii_digit()) && part.chars().take_while(char::is_ascii_digit).count() == 3;
        out.push(if thousands { '\u{1}' } else { ',' });
        out.push_str(part);
    }
    out
}

/// `58,500` → `58500`, `1,234,567.5` → `1234567.5`; lists (`1,2`, `3, 5, 7`) and what stands inside brackets stay.
/// `\u{1}` stands for the `,\!` or `{,}` that only a thousands separator is.
fn join_thousands(text: &str) -> String {
    let spaced = text.replace("\u{1} ", "\u{1}");
    if spaced.contains(['(', '[', '{']) && !spaced.contains('\u{1}') && !spaced.contains("\\text") {
        return spaced;
    }
    let chars: Vec<char> = spaced.chars().collect();
    let digits_from = |at: usize| chars[at.min(chars.len())..].iter().take_while(|c| c.is_ascii_digit()).count();
    let mut out = String::with_capacity(spaced.len());
    let mut at = 0;
    while at < chars.len() {
        let starts = chars[at].is_ascii_digit() && !out.ends_with(|c: char| c.is_ascii_digit() || c == '.');
        let first = if starts { digits_from(at) } else { 0 };
        let mut end = at + first;
        let mut groups = 0;
        while (1..=3).contains(&first) && chars.get(end) == Some(&',') && digits_from(end + 1) == 3 {
            end += 4;
            groups += 1;
        }
        if groups > 0 && !out.trim_end().ends_with(',') && chars.get(end) != Some(&',') {
            out.extend(chars[at..end].iter().filter(|c| **c != ','));
            at = end;
        } else {
            out.push(chars[at]);
            at += 1;
        }
    }
    out
}

/// `\text{…}` after a value is a unit and goes, with its power; alone it is the answer and its words stay.
fn text_arguments(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("\\text") {
        out.push_str(&rest[..at]);
        let after = rest[at + 5..].trim_start();
        let Some((words, tail)) = after.strip_prefix('{').and_then(|inside| inside.split_once('}')) else {
            rest = after;
            continue;
        };
        rest = tail;
        let words = words.trim();
        let joins = matches!(words, "and" | "or");
        if joins {
            out.push(',');
        } else if out.trim_end().ends_with(|c: char| c.is_ascii_digit() || matches!(c, '}' | ')' | '.'))
            && !words.starts_with('(')
        {
            rest = drop_power(rest);
        } else {
            // Words are none of the letters or the command before them.
            out.push(' ');
            out.push_str(words);
        }
    }
    out.push_str(rest);
    out
}

/// Takes a leading `^2`, `^{3}` off: the power of a unit.
fn drop_power(text: &str) -> &str {
    let Some(power) = text.trim_start().strip_prefix('^') else { return text };
    for form in ["{2}", "{3}", "2", "3"] {
        if let Some(rest) = power.strip_prefix(form) {
            return rest;
        }
    }
    text
}

/// Takes unit words off the end while a value stands before them.
fn drop_units(text: &str) -> String {
    let mut text = text.trim().to_string();
    loop {
        let without_power =
            ["^{2}", "^{3}", "^2", "^3"].iter().find_map(|p| text.strip_suffix(p)).unwrap_or(&text).trim_end();
        let head = without_power.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == '.');
        let word = without_power[head.len()..].trim_matches('.');
        let single = word.to_lowercase();
        let single = single.strip_suffix('s').unwrap_or(&single);
        let value_before =
            head.trim_end().ends_with(|c: char| c.is_ascii_digit() || c == '}' || c.is_ascii_alphabetic());
        if word.len() < 2 || head.ends_with('\\') || !value_before || !UNITS.contains(&single) {
            return text;
        }
        text = head.trim_end().trim_end_matches("per").trim_end().to_string();
    }
}

/// Braces around the arguments of `\frac`, `\sqrt`, `\binom` that TeX takes without: `\frac12`, `\frac 3x`, `\sqrt2`, `\frac1{3}`. `depth`
/// is that of `text` within arguments; what lies deeper than an answer does stays as it is.
fn brace_arguments(text: &str, depth: usize) -> String {
    if depth > DEEPEST {
        return text.to_string();
    }
    let mut out = String::new();
    let mut rest = text;
    loop {
        let next = [("\\frac", 2), ("\\binom", 2), ("\\sqrt", 1)]
            .iter()
            .filter_map(|(command, arguments)| rest.find(command).map(|at| (at, *command, *arguments)))
            .min();
        let Some((at, command, arguments)) = next else {
            out.push_str(rest);
            return out;
        };
        out.push_str(&rest[..at + command.len()]);
        rest = &rest[at + command.len()..];
        if command == "\\sqrt"
            && let Some(inside) = rest.trim_start().strip_prefix('[')
            && let Some((index, tail)) = inside.split_once(']')
        {
            out.push_str(&format!("[{index}]"));
            rest = tail;
        }
        for _ in 0..arguments {
            rest = rest.trim_start();
            let length = argument_length(rest);
            if rest.starts_with('{') {
                // The argument may hold commands of its own.
                out.push_str(&format!("{{{}}}", brace_arguments(&rest[1..length.max(2) - 1], depth + 1)));
            } else if length > 0 {
                out.push_str(&format!("{{{}}}", &rest[..length]));
            }
            rest = &rest[length..];
        }
    }
}

/// Bytes of the first TeX argument of `text`: a balanced group, a command or one character.
fn argument_length(text: &str) -> usize {
    let mut chars = text.char_indices();
    match chars.next() {
        None | Some((_, '}')) => 0,
        Some((_, '{')) => {
            let mut depth = 0usize;
            for (at, c) in text.char_indices() {
                match c {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    _ => {}
                }
                if depth == 0 {
                    return at + 1;
                }
            }
            0
        }
        Some((_, '\\')) => 1 + text[1..].chars().take_while(char::is_ascii_alphabetic).count(),
        Some((_, c)) => c.len_utf8(),
    }
}

/// Spaces go, except the one that ends a command before a letter.
fn drop_spaces(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut in_command = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c == ' ' {
            let letter_follows = chars.clone().find(|n| *n != ' ').is_some_and(|n| n.is_ascii_alphabetic());
            if in_command && letter_follows {
                out.push(' ');
            }
            in_command = false;
            continue;
        }
        in_command = c == '\\' || (in_command && c.is_ascii_alphabetic());
        out.push(c);
    }
    out
}

/// `x^{2}` → `x^2`, `12_{5}` → `12_5`: braces around one character say nothing.
fn subscripts(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        if matches!(chars[at], '^' | '_') && chars.get(at + 1) == Some(&'{') && chars.get(at + 3) == Some(&'}') {
            out.push(chars[at]);
            out.push(chars[at + 2]);
            at += 4;
        } else {
            out.push(chars[at]);
            at += 1;
        }
    }
    out
}

/// A whole answer `a/b` in plain numbers becomes `\frac{a}{b}`.
fn slashes(text: &str) -> String {
    let (sign, body) = text.strip_prefix('-').map_or(("", text), |rest| ("-", rest));
    match body.split_once('/') {
        Some((a, b)) if !a.is_empty() && !b.is_empty() && (a.to_string() + b).chars().all(|c| c.is_ascii_digit()) => {
            format!("{sign}\\frac{{{a}}}{{{b}}}")
        }
        _ => text.to_string(),
    }
}

/// `.5` → `0.5`, `2.50` → `2.5`, `3.0` → `3`, `007` → `7` wherever a number stands.
fn numbers(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut digits = String::new();
    for c in text.chars().chain(['\0']) {
        if c.is_ascii_digit() || c == '.' {
            digits.push(c);
            continue;
        }
        out.push_str(&number(&digits));
        digits.clear();
        if c != '\0' {
            out.push(c);
        }
    }
    out
}

fn number(digits: &str) -> String {
    if !digits.contains(|c: char| c.is_ascii_digit()) || digits.matches('.').count() > 1 {
        return digits.to_string();
    }
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let whole = whole.trim_start_matches('0');
    let fraction = fraction.trim_end_matches('0');
    let whole = if whole.is_empty() { "0" } else { whole };
    if fraction.is_empty() { whole.to_string() } else { format!("{whole}.{fraction}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_become_one() {
        let cases = [
            (r"\dfrac12", r"\frac{1}{2}"),
            (r"\frac 59", r"\frac{5}{9}"),
            (r"\frac{\sqrt3}3", r"\frac{\sqrt{3}}{3}"),
            (r"$\$32,\!348$", "32348"),
            (r"90^\circ", "90"),
            (r"5.40 \text{ cents}", "5.4"),
            (r"15\mbox{ cm}^2", "15"),
            (r"\text{Evelyn}", "Evelyn"),
            (r"-3/4", r"-\frac{3}{4}"),
            (r"11,\! 111,\! 111,\! 100", "11111111100"),
            ("3, 5, 7", "3,5,7"),
            (r"x^{2}", "x^2"),
            (r"2 \pi r", r"2\pi r"),
            (r".0500", "0.05"),
        ];
        for (from, to) in cases {
            assert_eq!(clean(from), to, "{from}");
        }
    }

    #[test]
    fn cleaning_never_panics_on_debris() {
        for text in [
            r"\frac",
            r"\frac{",
            r"\sqrt[",
            r"\text",
            r"\text{a",
            "}",
            "{{{",
            r"\",
            "^{",
            "é{ü}",
            ",,,",
            "1,,234",
            r"\frac{1}",
        ] {
            clean(text);
        }
    }
}
