//! Numbers as people write them, on the command line and in configuration files.

use std::fmt;
use std::num::{IntErrorKind, ParseIntError};
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};

/// Reads a number of runs, sequences or the like.
///
/// # Errors
/// What is expected, to be put behind the flag or key and its value.
pub fn whole<T: FromStr<Err = ParseIntError>>(text: &str) -> Result<T, String> {
    whole_such_as(text, "4096")
}

const TOO_LARGE: &str = "the number is too large";

fn whole_such_as<T: FromStr<Err = ParseIntError>>(text: &str, examples: &str) -> Result<T, String> {
    text.parse().map_err(|error: ParseIntError| match error.kind() {
        IntErrorKind::PosOverflow => TOO_LARGE.into(),
        _ => format!("give a whole number, such as {examples}"),
    })
}

/// Reads a number that need not be whole.
///
/// # Errors
/// As [`whole`].
pub fn real(text: &str) -> Result<f64, String> {
    text.parse().map_err(|_| "give a number, such as 0.5".into())
}

/// Reads a number of tokens: `4096`, or `4k` as tables have it.
///
/// # Errors
/// As [`whole`].
pub fn tokens(text: &str) -> Result<usize, String> {
    tokens_such_as(text, "4096 or 4k")
}

fn tokens_such_as(text: &str, examples: &str) -> Result<usize, String> {
    let (number, unit) = match text.strip_suffix(['k', 'K']) {
        Some(number) => (number, 1024),
        None => (text, 1),
    };
    whole_such_as::<usize>(number, examples)?.checked_mul(unit).ok_or_else(|| TOO_LARGE.into())
}

/// A number of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tokens(pub usize);

impl Tokens {
    /// What errors of serde call it.
    pub const NAME: &str = "a number of tokens";
}

/// Numbers of tokens that stand as one in a list of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lengths(pub Vec<usize>);

impl Lengths {
    /// What errors of serde call it.
    pub const NAME: &str = "a number of tokens or a range";

    /// All of them, in order.
    pub fn of(list: &[Self]) -> Vec<usize> {
        list.iter().flat_map(|lengths| lengths.0.iter().copied()).collect()
    }
}

/// Reads what stands as one in a list: a number of [`tokens`], or `1k..32k`, which doubles from the one to the other.
///
/// # Errors
/// As [`whole`].
pub fn lengths(text: &str) -> Result<Lengths, String> {
    let Some((first, last)) = text.split_once("..") else {
        let one = tokens_such_as(text, "4096 or 4k, or 1k..32k for 1k 2k 4k 8k 16k 32k")?;
        return Ok(Lengths(vec![one]));
    };
    let end = |text: &str| tokens(text).map_err(|why| format!("'{text}' is no end of a range such as 1k..32k: {why}"));
    let (from, to) = (end(first)?, end(last)?);
    if from == 0 {
        return Err("a range doubles its first number, which must be at least 1".into());
    }
    let doubled: Vec<usize> =
        std::iter::successors(Some(from), |n| n.checked_mul(2)).take_while(|n| *n <= to).collect();
    match doubled.last() {
        Some(end) if *end == to => Ok(Lengths(doubled)),
        _ => {
            Err(format!("doubling {first} does not come to {last}; a range doubles, as 1k..32k is 1k 2k 4k 8k 16k 32k"))
        }
    }
}

/// As in a configuration file: a number, or a string that [`tokens`] reads.
impl<'de> Deserialize<'de> for Tokens {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let read = |text: &str| tokens(text).map(Tokens);
        deserializer.deserialize_any(NumberOrText { name: Tokens::NAME, number: Tokens, read })
    }
}

/// As in a configuration file: a number, or a string that [`lengths`] reads.
impl<'de> Deserialize<'de> for Lengths {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = |number| Lengths(vec![number]);
        deserializer.deserialize_any(NumberOrText { name: Lengths::NAME, number, read: lengths })
    }
}

/// Makes a value of a number, or of a string that says it.
struct NumberOrText<T> {
    /// What errors call the value.
    name: &'static str,
    number: fn(usize) -> T,
    read: fn(&str) -> Result<T, String>,
}

impl<T> Visitor<'_> for NumberOrText<T> {
    type Value = T;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        let number = usize::try_from(number).map_err(|_| E::invalid_value(Unexpected::Unsigned(number), &self))?;
        Ok((self.number)(number))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        let positive = u64::try_from(number).map_err(|_| E::invalid_value(Unexpected::Signed(number), &self))?;
        self.visit_u64(positive)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.read)(text).map_err(|_| E::invalid_value(Unexpected::Str(text), &self))
    }
}

/// One number of [`Tokens`] in a configuration file, for `#[serde(deserialize_with)]`.
///
/// # Errors
/// Names the value that is none.
pub fn token_count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    Ok(Tokens::deserialize(deserializer)?.0)
}

/// The same where there need not be one.
///
/// # Errors
/// As [`token_count`].
pub fn some_token_count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<usize>, D::Error> {
    Ok(Option::<Tokens>::deserialize(deserializer)?.map(|tokens| tokens.0))
}

/// A list of [`Lengths`] in a configuration file, for `#[serde(deserialize_with)]`.
///
/// # Errors
/// Names the value that is none.
pub fn length_list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<usize>, D::Error> {
    Ok(Lengths::of(&Vec::deserialize(deserializer)?))
}

/// The same where there need not be one.
///
/// # Errors
/// As [`length_list`].
pub fn some_length_list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<usize>>, D::Error> {
    length_list(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read_as_tables_write_them() {
        for (text, count) in [("4096", 4096), ("4k", 4096), ("32K", 32768), ("0", 0)] {
            assert_eq!(tokens(text), Ok(count), "{text}");
            assert_eq!(lengths(text), Ok(Lengths(vec![count])), "{text}");
        }
        for text in ["", "k", "4 k", "1.5k", "-4k", "4kk", "4m", "four"] {
            assert_eq!(tokens(text).unwrap_err(), "give a whole number, such as 4096 or 4k", "{text}");
        }
        for text in ["99999999999999999999", "18014398509481984k"] {
            assert_eq!(tokens(text).unwrap_err(), "the number is too large", "{text}");
        }
    }

    #[test]
    fn a_range_doubles_from_its_first_number_to_its_last() {
        let read = |text: &str| lengths(text).map(|lengths| lengths.0);
        assert_eq!(read("1k..8k"), Ok(vec![1024, 2048, 4096, 8192]));
        assert_eq!((read("96..384"), read("4k..4096")), (Ok(vec![96, 192, 384]), Ok(vec![4096])));
        assert!(read("1k..24k").unwrap_err().starts_with("doubling 1k does not come to 24k"));
        assert!(read("8k..1k").unwrap_err().starts_with("doubling 8k does not come to 1k"));
        assert!(read("0..4k").unwrap_err().contains("at least 1"));
        for (text, end) in [("1k..", ""), ("..4k", ""), ("1k...4k", ".4k"), ("a..4k", "a")] {
            let told = format!("'{end}' is no end of a range such as 1k..32k: give a whole number, such as 4096 or 4k");
            assert_eq!(read(text).unwrap_err(), told);
        }
        assert!(read("1k-8k").unwrap_err().contains("or 1k..32k for"));
    }
}
