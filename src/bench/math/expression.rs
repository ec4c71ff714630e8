//! Values of TeX expressions, so that `\frac{\sqrt{3}}{3}` and `\frac{1}{\sqrt3}` compare equal.
//!
//! An expression is evaluated with fixed values for its letters. Two that agree at several points are taken to be equal;
//! this accepts unsimplified answers, as graders of MATH commonly do.

use std::iter::Peekable;
use std::str::Chars;

/// A name and what it computes.
type Function = (&'static str, fn(f64) -> f64);

/// Functions of one argument, longest name first where one begins another.
const FUNCTIONS: [Function; 14] = [
    ("arcsin", f64::asin),
    ("arccos", f64::acos),
    ("arctan", f64::atan),
    ("sinh", f64::sinh),
    ("cosh", f64::cosh),
    ("tanh", f64::tanh),
    ("sin", f64::sin),
    ("cos", f64::cos),
    ("tan", f64::tan),
    ("cot", |x| 1.0 / x.tan()),
    ("sec", |x| 1.0 / x.cos()),
    ("csc", |x| 1.0 / x.sin()),
    ("ln", f64::ln),
    ("log", f64::log10),
];

/// Values of `expression` at three points; `None` when it is not an expression in numbers and single letters.
pub fn values(expression: &str) -> Option<[f64; 3]> {
    let tokens = tokenize(expression)?;
    let mut results = [0.0; 3];
    for (point, result) in results.iter_mut().enumerate() {
        let mut parser = Parser { tokens: &tokens, at: 0, point, depth: 0 };
        *result = parser.sum()?;
        if parser.at != tokens.len() || !result.is_finite() {
            return None;
        }
    }
    Some(results)
}

/// Whether two values are the same up to rounding.
pub fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1e-3)
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Number(f64),
    Letter(char),
    /// A command, without its backslash.
    Command(String),
    Symbol(char),
}

fn tokenize(text: &str) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(&c) = chars.peek() {
        match c {
            '0'..='9' | '.' => tokens.push(number(&mut chars)?),
            'a'..='z' | 'A'..='Z' => {
                chars.next();
                tokens.push(Token::Letter(c));
            }
            '\\' => {
                chars.next();
                let mut name = String::new();
                while let Some(&letter) = chars.peek().filter(|l| l.is_ascii_alphabetic()) {
                    chars.next();
                    name.push(letter);
                }
                tokens.push(match name.as_str() {
                    "" => return None,
                    "cdot" | "times" => Token::Symbol('*'),
                    "div" => Token::Symbol('/'),
                    _ => Token::Command(name),
                });
            }
            '+' | '-' | '*' | '/' | '^' | '{' | '}' | '(' | ')' | '[' | ']' | '|' | '!' => {
                chars.next();
                tokens.push(Token::Symbol(c));
            }
            ' ' => {
                chars.next();
            }
            _ => return None,
        }
    }
    (!tokens.is_empty()).then_some(tokens)
}

fn number(chars: &mut Peekable<Chars<'_>>) -> Option<Token> {
    let mut digits = String::new();
    while let Some(&c) = chars.peek().filter(|c| c.is_ascii_digit() || **c == '.') {
        chars.next();
        digits.push(c);
    }
    digits.parse().ok().map(Token::Number)
}

/// Nesting at which an answer is no longer an answer but debris.
pub(super) const DEEPEST: usize = 64;

struct Parser<'a> {
    tokens: &'a [Token],
    at: usize,
    point: usize,
    depth: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn take(&mut self, symbol: char) -> bool {
        let found = self.peek() == Some(&Token::Symbol(symbol));
        self.at += usize::from(found);
        found
    }

    fn sum(&mut self) -> Option<f64> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return None;
        }
        let mut total = self.product()?;
        loop {
            if self.take('+') {
                total += self.product()?;
            } else if self.take('-') {
                total -= self.product()?;
            } else {
                self.depth -= 1;
                return Some(total);
            }
        }
    }

    /// Factors with or without a sign of multiplication between them.
    fn product(&mut self) -> Option<f64> {
        // Signs are counted and not descended into: a broken model writes thousands.
        let mut sign = 1.0;
        loop {
            if self.take('-') {
                sign = -sign;
            } else if !self.take('+') {
                break;
            }
        }
        let mut value = sign * self.mixed_number().or_else(|| self.power())?;
        loop {
            if self.take('*') {
                value *= self.signed_power()?;
            } else if self.take('/') {
                value /= self.signed_power()?;
            } else if self.starts_factor() {
                value *= self.power()?;
            } else {
                return Some(value);
            }
        }
    }

    fn signed_power(&mut self) -> Option<f64> {
        let sign = self.minuses();
        Some(sign * self.power()?)
    }

    /// 1 or -1, after any number of them.
    fn minuses(&mut self) -> f64 {
        let mut sign = 1.0;
        while self.take('-') {
            sign = -sign;
        }
        sign
    }

    /// An integer right before a fraction of two integers is added to it: `1\frac{4}{5}` is 9/5.
    fn mixed_number(&mut self) -> Option<f64> {
        use Token::{Command, Number, Symbol};
        let rest = &self.tokens[self.at..];
        let [
            Number(whole),
            Command(name),
            Symbol('{'),
            Number(n),
            Symbol('}'),
            Symbol('{'),
            Number(d),
            Symbol('}'),
            after @ ..,
        ] = rest
        else {
            return None;
        };
        if name != "frac" || whole.fract() != 0.0 || matches!(after.first(), Some(Symbol('^'))) {
            return None;
        }
        self.at += 8;
        Some(whole + n / d)
    }

    fn starts_factor(&self) -> bool {
        match self.peek() {
            Some(Token::Number(_) | Token::Letter(_)) => true,
            Some(Token::Command(name)) => name != "pm",
            Some(Token::Symbol(c)) => matches!(c, '{' | '('),
            None => false,
        }
    }

    fn power(&mut self) -> Option<f64> {
        let mut base = self.atom()?;
        while self.take('!') {
            if base < 0.0 || base.fract() != 0.0 || base > 170.0 {
                return None;
            }
            base = (1..=base as u64).map(|i| i as f64).product();
        }
        if self.take('^') {
            let exponent = self.exponent()?;
            return Some(base.powf(exponent));
        }
        Some(base)
    }

    fn exponent(&mut self) -> Option<f64> {
        let sign = self.minuses();
        // TeX raises one digit only: x^10 is x^1 followed by 0, but a person who writes it means ten.
        let value = self.atom()?;
        if !self.take('^') {
            return Some(sign * value);
        }
        self.depth += 1;
        if self.depth > DEEPEST {
            return None;
        }
        let power = value.powf(self.exponent()?);
        self.depth -= 1;
        Some(sign * power)
    }

    fn atom(&mut self) -> Option<f64> {
        let token = self.peek()?.clone();
        self.at += 1;
        match token {
            Token::Number(value) => Some(value),
            Token::Letter('e') => Some(std::f64::consts::E),
            Token::Letter(letter) => Some(self.variable(letter as usize)),
            Token::Symbol('{') => self.until('}'),
            Token::Symbol('(') => self.until(')'),
            Token::Symbol('[') => self.until(']'),
            Token::Symbol('|') => self.until('|').map(f64::abs),
            Token::Symbol(_) => None,
            Token::Command(name) => self.command(&name),
        }
    }

    fn until(&mut self, close: char) -> Option<f64> {
        let value = self.sum()?;
        self.take(close).then_some(value)
    }

    fn group(&mut self) -> Option<f64> {
        self.take('{').then(|| self.until('}')).flatten()
    }

    fn command(&mut self, name: &str) -> Option<f64> {
        match name {
            "pi" => return Some(std::f64::consts::PI),
            "frac" => {
                let numerator = self.group()?;
                return Some(numerator / self.group()?);
            }
            "binom" => {
                let n = self.group()?;
                let k = self.group()?;
                let possible = n.fract() == 0.0 && k.fract() == 0.0 && (0.0..=n).contains(&k) && n < 1000.0;
                return possible.then(|| (0..k as u64).map(|i| (n - i as f64) / (i as f64 + 1.0)).product());
            }
            "sqrt" => {
                let index = if self.take('[') { self.until(']')? } else { 2.0 };
                let radicand = self.group()?;
                // Odd roots of negative numbers are real.
                let root = radicand.abs().powf(1.0 / index);
                return if radicand >= 0.0 {
                    Some(root)
                } else if index.fract() == 0.0 && index % 2.0 != 0.0 {
                    Some(-root)
                } else {
                    None
                };
            }
            "alpha" | "beta" | "gamma" | "delta" | "theta" | "phi" | "lambda" | "mu" | "omega" | "rho" | "sigma"
            | "tau" => {
                return Some(self.variable(name.bytes().map(usize::from).sum()));
            }
            _ => {}
        }
        let (_, function) = FUNCTIONS.iter().find(|(known, _)| *known == name)?;
        // The argument of a function, and its exponent, may be another function.
        self.depth += 1;
        if self.depth > DEEPEST {
            return None;
        }
        let exponent = if self.take('^') { Some(self.exponent()?) } else { None };
        let argument = self.argument()?;
        self.depth -= 1;
        let value = function(argument);
        Some(exponent.map_or(value, |exponent| value.powf(exponent)))
    }

    /// What a function without parentheses applies to: the factors up to the next sign (`\cos 2x`).
    fn argument(&mut self) -> Option<f64> {
        let bracketed = matches!(self.peek(), Some(Token::Symbol('(' | '{')));
        let mut value = self.power()?;
        while !bracketed
            && self.starts_factor()
            && !matches!(self.peek(), Some(Token::Command(n)) if n != "pi" && n != "theta")
        {
            value *= self.power()?;
        }
        Some(value)
    }

    /// A value for a letter at this point: irrational, positive, of moderate size.
    fn variable(&self, letter: usize) -> f64 {
        let golden = 0.618_033_988_749_894_9;
        0.3 + 2.0 * (letter as f64 * golden + (self.point as f64 + 1.0) * 0.414_213_562_373_095).fract()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_known_expressions() {
        let cases = [
            ("2+3*4", 14.0),
            ("-2^2", -4.0),
            (r"\frac{1}{2}", 0.5),
            (r"1\frac{4}{5}", 1.8),
            (r"2\sqrt{9}", 6.0),
            (r"\sqrt[3]{-27}", -3.0),
            (r"\frac{\sqrt{3}}{3}\cdot\sqrt{3}", 1.0),
            ("3(4-1)", 9.0),
            ("2^{-1}", 0.5),
            ("2^3^2", 512.0),
            ("5!", 120.0),
            (r"\binom{5}{2}", 10.0),
            (r"\sin^{2}(1)+\cos^{2}(1)", 1.0),
            ("|3-5|", 2.0),
        ];
        for (text, expected) in cases {
            let value = values(text).unwrap_or_else(|| panic!("{text} has no value"));
            assert!(value.iter().all(|v| close(*v, expected)), "{text}: {value:?}");
        }
    }

    #[test]
    fn what_is_no_expression_has_no_value() {
        for text in
            ["", "east_5", "1+", r"\frac{1}", "(1", "1)", r"\sqrt{-4}", "1.2.3", r"\unknown{3}", "1/0", "a=b", "180!!!"]
        {
            assert_eq!(values(text), None, "{text}");
        }
        for endless in ["(", r"\sin", r"\sin^", r"\sin(", r"\sqrt{", "2^", "|"] {
            assert_eq!(values(&format!("{}1", endless.repeat(100_000))), None, "{endless}");
        }
    }
}
