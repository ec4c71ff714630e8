//! Damage to good files, the same in every run.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Number, Value, json};

/// Texts that readers have stumbled over elsewhere.
const SPLINTERS: [&str; 24] = [
    "null",
    "true",
    "[]",
    "{}",
    "\"\"",
    "-1",
    "0",
    "1e999",
    "-0.0",
    "1e-320",
    "NaN",
    "18446744073709551616",
    "99999999999999999999",
    "9223372036854775807",
    "\\ud800",
    "\u{0}",
    "\u{feff}",
    "é",
    "[[[[[[[[",
    "{\"a\":{\"a\":{",
    "'''",
    "\n[settings]\n",
    "=",
    ",",
];

/// What the good files are.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    Json,
    Text,
    Binary,
}

/// A source of damaged files.
pub struct Mutator {
    rng: StdRng,
    form: Form,
}

impl Mutator {
    /// For JSON: half of the inputs stay JSON, with values of the wrong kind in random places.
    pub fn json(seed: u64) -> Self {
        Mutator { rng: StdRng::seed_from_u64(seed), form: Form::Json }
    }

    /// For other text.
    pub fn text(seed: u64) -> Self {
        Mutator { rng: StdRng::seed_from_u64(seed), form: Form::Text }
    }

    /// For numbers and texts in binary: half of the inputs keep their length, with other numbers in random places.
    pub fn binary(seed: u64) -> Self {
        Mutator { rng: StdRng::seed_from_u64(seed), form: Form::Binary }
    }

    /// A damaged version of `good`.
    pub fn damage(&mut self, good: &[u8]) -> Vec<u8> {
        if self.form == Form::Json
            && self.rng.random_bool(0.5)
            && let Ok(mut value) = serde_json::from_slice::<Value>(good)
        {
            for _ in 0..self.rng.random_range(1..4) {
                self.swap_value(&mut value);
            }
            return serde_json::to_vec(&value).unwrap();
        }
        let mut bytes = good.to_vec();
        if self.form == Form::Binary && self.rng.random_bool(0.5) {
            for _ in 0..self.rng.random_range(1..3) {
                self.overwrite_number(&mut bytes);
            }
            return bytes;
        }
        for _ in 0..self.rng.random_range(1..4) {
            self.hurt(&mut bytes);
        }
        bytes
    }

    /// Replaces, removes or renames one value, each depth as likely as the next.
    fn swap_value(&mut self, value: &mut Value) {
        let inner = match value {
            Value::Object(map) if !map.is_empty() => {
                let key = map.keys().nth(self.rng.random_range(0..map.len())).cloned().unwrap();
                match self.rng.random_range(0..12) {
                    0 => {
                        map.shift_remove(&key);
                        return;
                    }
                    1 => {
                        let moved = map.shift_remove(&key).unwrap();
                        map.insert(format!("{key}_"), moved);
                        return;
                    }
                    _ => map.get_mut(&key).unwrap(),
                }
            }
            Value::Array(list) if !list.is_empty() => {
                let at = self.rng.random_range(0..list.len());
                if self.rng.random_bool(0.1) {
                    let copy = list[at].clone();
                    list.push(copy);
                    return;
                }
                &mut list[at]
            }
            leaf => {
                *leaf = self.any_value(leaf);
                return;
            }
        };
        if self.rng.random_bool(0.15) { *inner = self.any_value(inner) } else { self.swap_value(inner) }
    }

    fn any_value(&mut self, old: &Value) -> Value {
        let number = |value: f64| Number::from_f64(value).map_or(Value::Null, Value::Number);
        match self.rng.random_range(0..16) {
            0 => Value::Null,
            1 => json!(self.rng.random::<bool>()),
            2 => json!([]),
            3 => json!({}),
            4 => json!([old]),
            5 => json!({ "a": old }),
            6 => json!(u64::MAX),
            7 => json!(i64::MIN),
            8 => json!(0),
            9 => json!(self.rng.random::<u32>()),
            10 => number(1e300),
            11 => number(-1e-300),
            12 => number(self.rng.random_range(-2.0..2.0)),
            13 => json!(old.to_string()),
            14 => json!("é\u{0}\u{202e}".repeat(self.rng.random_range(0..4))),
            _ => json!(1u64 << self.rng.random_range(0..64)),
        }
    }

    /// One wound to the bytes.
    fn hurt(&mut self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            bytes.push(self.rng.random());
            return;
        }
        let at = self.rng.random_range(0..bytes.len());
        let end = (at + self.rng.random_range(1..40)).min(bytes.len());
        match self.rng.random_range(0..8) {
            0 => bytes[at] = self.rng.random(),
            1 => bytes[at] ^= 1 << self.rng.random_range(0..8),
            2 => drop(bytes.drain(at..end)),
            3 => {
                let piece = bytes[at..end].to_vec();
                let to = self.rng.random_range(0..bytes.len());
                bytes.splice(to..to, piece);
            }
            4 if self.rng.random_bool(0.2) => bytes.truncate(at),
            // A number for a number keeps the file whole and makes it mean something else.
            4 | 5 => self.swap_number(bytes, at),
            6 => bytes[at] = b"0123456789\"'[]{}=,.-\n "[self.rng.random_range(0..22)],
            _ => {
                let splinter = SPLINTERS[self.rng.random_range(0..SPLINTERS.len())];
                bytes.splice(at..at, splinter.bytes());
            }
        }
    }

    /// Puts a number of one to eight bytes, lowest byte first, in a random place.
    fn overwrite_number(&mut self, bytes: &mut [u8]) {
        let number: u64 = match self.rng.random_range(0..6) {
            0 => 0,
            1 => u64::MAX,
            2 => i64::MAX as u64,
            3 => 1 << self.rng.random_range(0..64),
            4 => self.rng.random_range(0..16),
            _ => self.rng.random(),
        };
        let width = 1 << self.rng.random_range(0..4);
        let at = self.rng.random_range(0..bytes.len());
        for (byte, new) in bytes[at..].iter_mut().zip(&number.to_le_bytes()[..width]) {
            *byte = *new;
        }
    }

    /// Replaces the next run of digits after `at`.
    fn swap_number(&mut self, bytes: &mut Vec<u8>, at: usize) {
        let Some(start) = (at..bytes.len()).find(|&i| bytes[i].is_ascii_digit()) else { return };
        let end = (start..bytes.len()).find(|&i| !bytes[i].is_ascii_digit()).unwrap_or(bytes.len());
        let new = match self.rng.random_range(0..6) {
            0 => "0".into(),
            1 => u64::MAX.to_string(),
            2 => i64::MAX.to_string(),
            3 => "18446744073709551616".into(),
            4 => (1u64 << self.rng.random_range(0..64)).to_string(),
            _ => self.rng.random_range(0..5000u32).to_string(),
        };
        bytes.splice(start..end, new.into_bytes());
    }
}
