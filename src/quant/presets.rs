//! The names that `--kv-quant` knows, as one table: parsed from, validated against and printed by `--help`.

use super::{Direction, Fit, Groups, Scheme};

/// A named quantization.
#[derive(Debug, Clone, Copy)]
pub struct Preset {
    /// `int4-hqq`.
    pub name: &'static str,
    /// What is stored.
    pub scheme: Scheme,
    /// Where the method comes from, for people.
    pub source: &'static str,
}

const CHANNEL: Direction = Direction::Channel;
const TOKEN: Direction = Direction::Token;

const fn grouped(
    name: &'static str,
    bits: u8,
    group: usize,
    key: Direction,
    value: Direction,
    fit: Fit,
    source: &'static str,
) -> Preset {
    let key = Groups { bits, group, direction: key };
    let value = Groups { bits, group, direction: value };
    Preset { name, scheme: Scheme::Grouped { key, value, fit }, source }
}

const HQQ_TABLE: &str = "HQQ; thesis, one axis";
const HQQ_KIVI: &str = "HQQ; thesis, KIVI's axes";
const HQQ_TOKEN: &str = "HQQ; the thesis' files";
const QUANTO: &str = "min-max; optimum-quanto";
const KIVI: &str = "min-max; the KIVI paper";

/// Every preset, in the order in which help and errors list them.
pub const PRESETS: [Preset; 15] = [
    Preset { name: "none", scheme: Scheme::None, source: "the model's float type" },
    grouped("int8-hqq", 8, 64, CHANNEL, CHANNEL, Fit::Hqq, HQQ_TABLE),
    grouped("int4-hqq", 4, 64, CHANNEL, CHANNEL, Fit::Hqq, HQQ_TABLE),
    grouped("int2-hqq", 2, 16, CHANNEL, CHANNEL, Fit::Hqq, HQQ_TABLE),
    grouped("int8-hqq-kivi", 8, 64, CHANNEL, TOKEN, Fit::Hqq, HQQ_KIVI),
    grouped("int4-hqq-kivi", 4, 64, CHANNEL, TOKEN, Fit::Hqq, HQQ_KIVI),
    grouped("int2-hqq-kivi", 2, 16, CHANNEL, TOKEN, Fit::Hqq, HQQ_KIVI),
    grouped("int8-hqq-token", 8, 64, TOKEN, TOKEN, Fit::Hqq, HQQ_TOKEN),
    grouped("int4-hqq-token", 4, 64, TOKEN, TOKEN, Fit::Hqq, HQQ_TOKEN),
    grouped("int2-hqq-token", 2, 64, TOKEN, TOKEN, Fit::Hqq, HQQ_TOKEN),
    grouped("int4-quanto", 4, 64, TOKEN, TOKEN, Fit::MinMax, QUANTO),
    grouped("int2-quanto", 2, 64, TOKEN, TOKEN, Fit::MinMax, QUANTO),
    grouped("int4-kivi", 4, 32, CHANNEL, TOKEN, Fit::MinMax, KIVI),
    grouped("int2-kivi", 2, 32, CHANNEL, TOKEN, Fit::MinMax, KIVI),
    Preset { name: "fp8", scheme: Scheme::Fp8, source: "E4M3; scale per 64 tokens" },
];

/// The preset called `name`.
pub fn find(name: &str) -> Option<&'static Preset> {
    PRESETS.iter().find(|preset| preset.name == name)
}

/// The names most like `name`, best first: what to suggest when it is unknown.
pub fn nearest(name: &str) -> Vec<&'static str> {
    let mut scored: Vec<(f64, &str)> =
        PRESETS.iter().map(|preset| (strsim::jaro_winkler(name, preset.name), preset.name)).collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    scored.into_iter().filter(|(score, _)| *score > 0.75).take(3).map(|(_, name)| name).collect()
}

/// The table of presets as `kvprof run --help` prints it, one line a preset, and the overrides a name may carry.
pub fn help_table() -> String {
    let width = PRESETS.iter().map(|preset| preset.name.len()).max().unwrap_or(0);
    let mut text = format!("  {:width$}  bits  group  K        V        from\n", "name");
    for preset in &PRESETS {
        let (bits, group, key, value) = match preset.scheme {
            Scheme::None => ("16".into(), "-".into(), "-", "-"),
            Scheme::Grouped { key, value, .. } => {
                (key.bits.to_string(), key.group.to_string(), key.direction.name(), value.direction.name())
            }
            Scheme::Fp8 => ("8".into(), "-".into(), "head", "head"),
        };
        text += &format!("  {:width$}  {bits:>4}  {group:>5}  {key:7}  {value:7}  {}\n", preset.name, preset.source);
    }
    text += "Overrides follow a comma, as in int4-quanto,k-bits=8,keep-layers=0+27:\n\
        \x20 group, k-group, v-group = 16 | 32 | 64 | 128\n\
        \x20 bits, k-bits, v-bits = 2 | 4 | 8\n\
        \x20 k, v = channel | token\n\
        \x20 hadamard = k | v | kv: kept transformed, outliers spread over channels\n\
        \x20 residual = tokens kept in full precision\n\
        \x20 keep-layers = layers kept in full precision\n\
        \x20 policy = streaming\n";
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_help_lists_each_on_its_own_line() {
        let help = help_table();
        for (index, preset) in PRESETS.iter().enumerate() {
            assert!(PRESETS[..index].iter().all(|other| other.name != preset.name), "{} twice", preset.name);
            assert!(help.lines().all(|line| line.len() <= 80), "a terminal of 80 columns would break a line");
            let lines = help.lines().filter(|line| line.split_whitespace().next() == Some(preset.name));
            assert_eq!(lines.count(), 1, "{}", preset.name);
        }
    }

    #[test]
    fn a_misspelt_name_is_met_with_the_one_that_was_meant() {
        assert_eq!(nearest("int4-hq").first(), Some(&"int4-hqq"));
        assert_eq!(nearest("int2-kvi").first(), Some(&"int2-kivi"));
        assert!(nearest("xyz").is_empty());
    }
}
